//! The encoder on the CUDA device against the CPU in f64: equal up to rounding, in f32 and in bf16.

use crate::support;
use showtell::DType;
use showtell::device::Precision;
use showtell::nn::params::{Declarations, Params};
use showtell::nn::resnet::{Folded, Mode, ResNet, ResNetConfig};
use showtell::ops::batch_norm::Momentum;
use showtell::ops::copy;
use showtell::tensor::{Context, Tensor};
use support::typed::{fill, to_f64, unwritten};
use support::{Numbers, cpu, cuda_with};

/// An encoder with random parameters, statistics as after some training: the same numbers on every device.
fn encoder(ctx: &Context, fine_tune_from: Option<usize>, dtype: DType) -> (ResNet, Params) {
    let mut declarations = Declarations::default();
    let config = ResNetConfig::small(8, &[2, 1]);
    let encoder = ResNet::declare(&mut declarations, "encoder.", &config, fine_tune_from);
    let params = declarations.build(ctx.device(), dtype).unwrap();
    params.initialise(1).unwrap();
    let mut numbers = Numbers::new(2);
    for id in params.ids().filter(|&id| params.shape(id).len() == 1) {
        let centre = match params.name(id).rsplit('.').next() {
            Some("running_var" | "weight") => 1.0,
            _ => 0.0,
        };
        let len = params.value(id).len();
        let values = numbers.vec(len).into_iter().map(|v| centre + 0.4 * v);
        let values: Vec<f32> = values.map(|v| v as f32).collect();
        params.import(id, &values).unwrap();
    }
    (encoder, params)
}

/// Numbers that bf16 holds exactly, so that inputs are the same in every type.
fn numbers(shape: [usize; 4], seed: u64, ctx: &Context, dtype: DType) -> Tensor {
    let len = shape.iter().product();
    let values = Numbers::new(seed).vec(len);
    let values: Vec<f64> = values.iter().map(|v| (v * 128.0).round() / 128.0).collect();
    let mut tensor = unwritten(ctx, shape, 0, dtype);
    fill(&mut tensor, &values);
    tensor
}

/// Features, and the gradient of every trained parameter with its name.
type Results = (Vec<f64>, Vec<(String, Vec<f64>)>);

const IMAGES: [usize; 4] = [3, 22, 25, 3];

fn run(ctx: &Context, fine_tune_from: usize, batch: bool, dtype: DType) -> Results {
    let (encoder, params) = encoder(ctx, Some(fine_tune_from), dtype);
    let activations = dtype.of_activations(ctx.device().precision());
    let images = numbers(IMAGES, 3, ctx, activations);
    let folded = match fine_tune_from {
        0 => None,
        parts => Some(Folded::new(ctx, &encoder, &params, parts).unwrap()),
    };
    let mode = if batch {
        Mode::Batch(Momentum::Fixed(0.1))
    } else {
        Mode::Running(folded.as_ref())
    };
    let [h, w] = encoder.config().feature_size([IMAGES[1], IMAGES[2]]);
    let shape = [IMAGES[0], h, w, encoder.config().channels()];
    let mut features = unwritten(ctx, shape, 0, activations);
    let mut d_features = numbers(shape, 4, ctx, activations);
    let saved = encoder
        .forward(ctx, &params, mode, &images, &mut features)
        .unwrap();
    encoder
        .backward(ctx, &params, &saved, &mut d_features)
        .unwrap();
    let trained = params.ids().filter(|&id| params.is_trained(id));
    let gradient = |id| (params.name(id).to_string(), to_f64(&params.gradient(id)));
    (to_f64(&features), trained.map(gradient).collect())
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// The encoder on the CUDA device against the CPU in f64, all parts trained and with the first two frozen. `within` gives
/// the bound of features, and that of gradients with so many kinks between them and the features.
fn compare(precision: Precision, within: impl Fn(bool) -> (f64, Box<dyn Fn(usize) -> f64>)) {
    let Some(ctx) = cuda_with(precision) else {
        return;
    };
    for (fine_tune_from, batch) in [(0, false), (0, true), (2, false), (2, true)] {
        let got = run(&ctx, fine_tune_from, batch, DType::F32);
        let expected = run(&cpu(), fine_tune_from, batch, DType::F64);
        let case = format!("{precision}, trained from {fine_tune_from}, batch statistics: {batch}");
        let (features_within, gradients_within) = within(batch);
        let far = distance(&got.0, &expected.0);
        assert!(far < features_within, "{case}: features are off by {far:e}");
        for ((name, got), (_, expected)) in got.1.iter().zip(&expected.1) {
            let (far, within) = (distance(got, expected), gradients_within(kinks(name)));
            assert!(
                far < within,
                "{case}: {name} is off by {far:e}, more than {within:e}"
            );
        }
    }
}

/// How many ReLUs and poolings a parameter's output goes through.
fn kinks(name: &str) -> usize {
    let name = name.strip_prefix("encoder.").unwrap();
    let blocks = ["layer2.0.", "layer1.1.", "layer1.0."];
    let behind = blocks.iter().position(|block| name.starts_with(block));
    let Some(behind) = behind else {
        return 3 * blocks.len() + 2;
    };
    let layer = &name["layer1.0.".len()..];
    3 * behind
        + match layer.split('.').next().unwrap() {
            "conv1" | "bn1" => 3,
            "conv2" | "bn2" => 2,
            _ => 1,
        }
}

/// Eleven layers of sums of at most 288 products: 11 √288 u = 1e-5, times ten.
#[test]
fn f32_agrees_with_the_cpu() {
    compare(Precision::F32, |_| (1e-4, Box::new(|_| 1e-4)));
}

/// What eleven layers make of their roundings in bf16: each rounds its input, filter, output and normalised output to
/// u = 2^-9, so that the features are off by about √44 u = 1.3%.
const BF16: f64 = 6.63 / 512.0;

/// Batch statistics divide by deviations that are about half the size of the numbers here, so that errors are twice as
/// large. At every kink about as large a part of the numbers is on its other side, and takes all of its gradient
/// with it: behind m kinks gradients are off by the root of m times that part. All with some room.
#[test]
fn bf16_agrees_within_its_rounding() {
    compare(Precision::Bf16, |batch| {
        let part = if batch { 2.0 * BF16 } else { BF16 };
        let gradients = move |kinks: usize| 1.25 * (kinks as f64 * part).sqrt();
        (1.5 * part, Box::new(gradients))
    });
}

/// Folded, more images than go through a stage together, and features that become f32 for a decoder.
#[test]
fn folded_on_the_device() {
    let features = |ctx: &Context, dtype: DType| {
        let (encoder, params) = encoder(ctx, None, dtype);
        let activations = dtype.of_activations(ctx.device().precision());
        let images = numbers([9, 21, 30, 3], 5, ctx, activations);
        let folded = Folded::new(ctx, &encoder, &params, encoder.parts()).unwrap();
        let [h, w] = encoder.config().feature_size([21, 30]);
        let shape = [9, h, w, encoder.config().channels()];
        let mut map = unwritten(ctx, shape, 0, activations);
        folded.forward(ctx, &encoder, &images, &mut map).unwrap();
        let mut features = unwritten(ctx, shape, 0, dtype);
        copy::forward(ctx, &map, &mut features).unwrap();
        to_f64(&features)
    };
    let expected = features(&cpu(), DType::F64);
    for (precision, within) in [(Precision::F32, 1e-4), (Precision::Bf16, 1.5 * BF16)] {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let far = distance(&features(&ctx, DType::F32), &expected);
        assert!(far < within, "{precision}: off by {far:e}");
    }
}

/// The planning device counts exactly what the device then takes from its arena, and bf16 takes half of it.
#[test]
fn a_plan_is_what_the_device_takes_and_bf16_takes_half() {
    let peak = |ctx: &Context| {
        let (encoder, params) = encoder(ctx, None, DType::F32);
        let activations = DType::F32.of_activations(ctx.device().precision());
        let folded = Folded::new(ctx, &encoder, &params, encoder.parts()).unwrap();
        let mut images = ctx.empty([70, 32, 32, 3], activations).unwrap();
        showtell::ops::fill::zero(ctx, &mut images).unwrap();
        let mut map = ctx.empty([70, 4, 4, 64], activations).unwrap();
        folded.forward(ctx, &encoder, &images, &mut map).unwrap();
        ctx.peak_bytes()
    };
    let taken = |precision| {
        let ctx = cuda_with(precision)?;
        let planned = peak(&Context::new(&ctx.device().planning()));
        assert_eq!(peak(&ctx), planned, "{precision}: bytes of the arena");
        Some(planned)
    };
    let (Some(f32s), Some(bf16s)) = (taken(Precision::F32), taken(Precision::Bf16)) else {
        return;
    };
    assert_eq!(f32s, 2 * bf16s);
}
