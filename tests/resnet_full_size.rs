//! ResNet-50 in full size, folded, on one image of 256x256: the CUDA device against the CPU. On the emulator the 5.4
//! billion multiply-adds take a minute, so the test runs with `./scripts/test --slow`.

use crate::support;
use showtell::device::Precision;
use showtell::nn::params::{Declarations, Params};
use showtell::nn::resnet::{Folded, Mode, ResNet, ResNetConfig};
use showtell::ops::batch_norm::Momentum;
use showtell::ops::preprocess::{self, Normalisation};
use showtell::ops::{copy, pool};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device};
use support::{Numbers, cpu, cuda_with, relative_error, zeros};

const SIDE: usize = 256;

/// Pixels with structure at all sizes: waves in every channel, and noise.
fn image() -> Vec<u8> {
    let mut numbers = Numbers::new(4);
    let pixel = |i: usize, noise: f64| {
        let (c, x, y) = (i % 3, i / 3 % SIDE, i / 3 / SIDE);
        let wave = ((x * (c + 1)) as f64 / 17.0).sin() + ((y * (3 - c)) as f64 / 31.0).cos();
        (128.0 + 40.0 * wave + 30.0 * noise) as u8
    };
    (0..SIDE * SIDE * 3)
        .map(|i| pixel(i, numbers.uniform()))
        .collect()
}

/// What the last batch-norm of each block multiplies by. Where blocks add little to what they are given, as in trained
/// networks, differences stay as they are from block to block; with 1, in a random network, each block makes them larger,
/// and no two ways of rounding end up alike.
const BRANCH: f32 = 0.2;

/// The encoder, random but for that.
fn encoder(device: &Device) -> (ResNet, Params) {
    let mut declarations = Declarations::default();
    let encoder = ResNet::declare(&mut declarations, "", &ResNetConfig::resnet50(), None);
    let params = declarations.build(device, DType::F32).unwrap();
    params.initialise(1).unwrap();
    for id in params
        .ids()
        .filter(|&id| params.name(id).ends_with("bn3.weight"))
    {
        params
            .import(id, &vec![BRANCH; params.value(id).len()])
            .unwrap();
    }
    (encoder, params)
}

/// Makes batch-norm subtract nothing and divide by the root of the mean square instead. The features of a random network are
/// nearly the same in every pixel: to subtract their mean would leave mostly rounding.
fn centre_nothing(params: &Params) {
    for id in params
        .ids()
        .filter(|&id| params.name(id).ends_with("running_mean"))
    {
        let name = params.name(id).replace("running_mean", "running_var");
        let var = params.find(&name).unwrap();
        let (means, vars) = (params.export(id).unwrap(), params.export(var).unwrap());
        let moments: Vec<f32> = means.iter().zip(vars).map(|(m, v)| m * m + v).collect();
        params.import(var, &moments).unwrap();
        params.import(id, &vec![0.0; means.len()]).unwrap();
    }
}

fn normalised(ctx: &Context) -> Tensor {
    let pixels = Tensor::from_slice(ctx.device(), [1, SIDE, SIDE, 3], &image()).unwrap();
    let dtype = DType::F32.of_activations(ctx.device().precision());
    let mut images = zeros(ctx, [1, SIDE, SIDE, 3], dtype);
    preprocess::forward(ctx, &pixels, Normalisation::IMAGENET, &mut images).unwrap();
    images
}

/// The map (8x8, 2048), and its mean over the pixels: what attend and show-tell read.
fn features(ctx: &Context, encoder: &ResNet, params: &Params) -> [Vec<f32>; 2] {
    let folded = Folded::new(ctx, encoder, params, encoder.parts()).unwrap();
    let images = normalised(ctx);
    let mut map = zeros(ctx, [1, 8, 8, 2048], images.dtype());
    folded.forward(ctx, encoder, &images, &mut map).unwrap();
    let mut wide = zeros(ctx, [1, 8, 8, 2048], DType::F32);
    copy::forward(ctx, &map, &mut wide).unwrap();
    let mut pooled = zeros(ctx, [1, 2048], DType::F32);
    pool::average_forward(ctx, &map, &mut pooled).unwrap();
    [wide, pooled].map(|t| t.to_vec().unwrap())
}

#[test]
#[ignore = "a minute in the emulator"]
fn the_cuda_device_agrees_with_the_cpu() {
    let ctx = cpu();
    let (on_cpu, reference) = encoder(ctx.device());
    let mut map = zeros(&ctx, [1, 8, 8, 2048], DType::F32);
    // Statistics of the image itself: activations stay of a size through 53 layers.
    let mode = Mode::Batch(Momentum::Cumulative { count: 0 });
    on_cpu
        .forward(&ctx, &reference, mode, &normalised(&ctx), &mut map)
        .unwrap();
    centre_nothing(&reference);
    let expected = features(&ctx, &on_cpu, &reference);
    // Each of 53 layers rounds its input and its filters to 2^-9 (bf16) or 2^-11 (tf32), bf16 its output too: √(53 · 3)
    // 2^-9 / √3 = 1.4e-2 if nothing is averaged out; a mean over 64 pixels averages.
    let bounds = [
        (Precision::F32, [1e-4, 1e-4]),
        (Precision::Tf32, [4e-3, 4e-3]),
        (Precision::Bf16, [1.4e-2, 1e-2]),
    ];
    for (precision, bounds) in bounds {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let (on_cuda, params) = encoder(ctx.device());
        for id in params.ids() {
            params.import(id, &reference.export(id).unwrap()).unwrap();
        }
        let started = std::time::Instant::now();
        let got = features(&ctx, &on_cuda, &params);
        let [map, pooled] = [0, 1].map(|i| relative_error(&got[i], &expected[i]));
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{precision}: the map is off by {map:.1e}, its mean by {pooled:.1e}; {seconds:.1} s"
        );
        assert!(map <= bounds[0] && pooled <= bounds[1], "{precision}");
    }
}
