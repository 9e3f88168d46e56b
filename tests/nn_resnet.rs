//! Residual encoders: sizes, folding, batch-norm modes, and backward against finite differences.

use crate::support;
use showtell::nn::params::{Declarations, Params, Role};
use showtell::nn::resnet::{Folded, Mode, ResNet, ResNetConfig};
use showtell::ops::batch_norm::Momentum;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device};
use support::{Numbers, cpu, inner, nan};

fn declare(
    device: &Device,
    config: &ResNetConfig,
    fine_tune_from: Option<usize>,
    dtype: DType,
) -> (ResNet, Params) {
    let mut declarations = Declarations::default();
    let encoder = ResNet::declare(&mut declarations, "encoder.", config, fine_tune_from);
    (encoder, declarations.build(device, dtype).unwrap())
}

/// A small encoder in f64 with random parameters, and statistics as after some training.
fn small(ctx: &Context, blocks: &[usize], fine_tune_from: Option<usize>) -> (ResNet, Params) {
    let config = ResNetConfig::small(4, blocks);
    let (encoder, params) = declare(ctx.device(), &config, fine_tune_from, DType::F64);
    params.initialise(1).unwrap();
    let mut numbers = Numbers::new(2);
    for id in params.ids().filter(|&id| params.shape(id).len() == 1) {
        let centre = match params.name(id).rsplit('.').next() {
            Some("running_var" | "weight") => 1.0,
            _ => 0.0,
        };
        let values = numbers.vec(params.value(id).len());
        let values: Vec<f64> = values.iter().map(|v| centre + 0.4 * v).collect();
        params.value(id).handle().copy_from_slice(&values).unwrap();
    }
    (encoder, params)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().unwrap()
}

fn features(ctx: &Context, encoder: &ResNet, images: &Tensor) -> Tensor {
    let dims = images.shape();
    let [h, w] = encoder
        .config()
        .feature_size([dims.dims()[1], dims.dims()[2]]);
    nan(ctx, [dims.dims()[0], h, w, encoder.config().channels()])
}

#[test]
fn parameters_are_as_many_as_torchvisions() {
    let count = |config: &ResNetConfig, fine_tune_from| {
        let (_, params) = declare(
            &Device::cpu().planning(),
            config,
            fine_tune_from,
            DType::F32,
        );
        let is_statistic = |name: &str| name.contains("running_");
        let all = params.ids().filter(|&id| !is_statistic(params.name(id)));
        let all: usize = all.map(|id| params.value(id).len()).sum();
        (all, params.trained_count())
    };
    assert_eq!(count(&ResNetConfig::resnet50(), None), (23_508_032, 0));
    assert_eq!(count(&ResNetConfig::resnet101(), None), (42_500_160, 0));
    // Fine-tuned as published: 61,513,172 trainables less the decoder's 19,238,356.
    let trained = 61_513_172 - 19_238_356;
    assert_eq!(
        count(&ResNetConfig::resnet101(), Some(2)),
        (42_500_160, trained)
    );
    assert_eq!(
        count(&ResNetConfig::resnet50(), Some(0)),
        (23_508_032, 23_508_032)
    );
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let (_, params) = declare(
        &Device::cpu().planning(),
        &ResNetConfig::resnet50(),
        Some(4),
        DType::F32,
    );
    for (name, shape, role) in [
        ("encoder.conv1.weight", vec![64, 3, 7, 7], Role::Frozen),
        ("encoder.bn1.running_var", vec![64], Role::Frozen),
        (
            "encoder.layer1.0.downsample.0.weight",
            vec![256, 64, 1, 1],
            Role::Frozen,
        ),
        (
            "encoder.layer2.0.conv2.weight",
            vec![128, 128, 3, 3],
            Role::Frozen,
        ),
        ("encoder.layer3.5.bn3.bias", vec![1024], Role::Frozen),
        (
            "encoder.layer4.0.conv1.weight",
            vec![512, 1024, 1, 1],
            Role::Encoder,
        ),
        (
            "encoder.layer4.0.downsample.1.weight",
            vec![2048],
            Role::Encoder,
        ),
        (
            "encoder.layer4.2.bn3.running_mean",
            vec![2048],
            Role::Frozen,
        ),
    ] {
        let id = params
            .find(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(
            (params.shape(id), params.role(id)),
            (shape.as_slice(), role),
            "{name}"
        );
    }
    assert!(
        params
            .find("encoder.layer1.1.downsample.0.weight")
            .is_none()
    );
    // 53 convolutions with a batch-norm each.
    assert_eq!(params.ids().count(), 53 * 5);
}

#[test]
fn a_plan_tells_what_a_batch_takes() {
    let ctx = Context::new(&Device::cpu().planning());
    let (encoder, params) = declare(ctx.device(), &ResNetConfig::resnet50(), None, DType::F32);
    let folded = Folded::new(&ctx, &encoder, &params, encoder.parts()).unwrap();
    let images = ctx.empty([32, 256, 256, 3], DType::F32).unwrap();
    let mut y = ctx.empty([32, 8, 8, 2048], DType::F32).unwrap();
    folded.forward(&ctx, &encoder, &images, &mut y).unwrap();
    let given = (images.len() + y.len()) * 4;
    // Four activations of 8 images, the largest of 2^20 elements each; the rest are smaller.
    let room = ctx.peak_bytes() - given;
    assert!(room <= 4 * 8 * (4 << 20), "{room}");
}

#[test]
fn folded_equals_separate_batch_norm_over_several_passes() {
    let ctx = cpu();
    let images = Numbers::new(3).f64(&ctx, [11, 21, 30, 3]);
    let (encoder, params) = small(&ctx, &[2, 1, 1], Some(0));
    let mut expected = features(&ctx, &encoder, &images);
    let mode = Mode::Running(None);
    encoder
        .forward(&ctx, &params, mode, &images, &mut expected)
        .unwrap();
    let folded = Folded::new(&ctx, &encoder, &params, encoder.parts()).unwrap();
    let mut got = features(&ctx, &encoder, &images);
    folded.forward(&ctx, &encoder, &images, &mut got).unwrap();
    for (got, expected) in values(&got).into_iter().zip(values(&expected)) {
        assert!(
            (got - expected).abs() < 1e-11 * (1.0 + expected.abs()),
            "{got} for {expected}"
        );
    }
}

#[test]
fn frozen_parts_change_nothing_but_what_is_trained() {
    let ctx = cpu();
    let images = Numbers::new(4).f64(&ctx, [3, 24, 24, 3]);
    for batch in [false, true] {
        let mut results = Vec::new();
        for fine_tune_from in [Some(0), Some(1), Some(3), None] {
            let (encoder, params) = small(&ctx, &[1, 2, 1], fine_tune_from);
            let folded = match encoder.frozen_parts() {
                0 => None,
                parts => Some(Folded::new(&ctx, &encoder, &params, parts).unwrap()),
            };
            let mode = if batch {
                Mode::Batch(Momentum::Fixed(0.1))
            } else {
                Mode::Running(folded.as_ref())
            };
            let mut y = features(&ctx, &encoder, &images);
            encoder
                .forward(&ctx, &params, mode, &images, &mut y)
                .unwrap();
            let statistic = params.find("encoder.layer1.0.bn2.running_var").unwrap();
            results.push((values(&y), values(params.value(statistic))));
        }
        for (y, statistic) in &results[1..] {
            assert_eq!(*statistic, results[0].1);
            for (got, expected) in y.iter().zip(&results[0].0) {
                assert!((got - expected).abs() < 1e-11 * (1.0 + expected.abs()));
            }
        }
    }
}

/// Compares a gradient with central differences along a random direction and along single elements.
///
/// ReLU and pooling have kinks, thousands of them: with the shared check's step of 2^-17 a few are crossed. With
/// 2^-27 none is crossed, and the rounding, ε |loss| / step, is below 1e-5 of a gradient this large.
fn check_gradient(name: &str, x: &Tensor, gradient: &Tensor, mut loss: impl FnMut() -> f64) {
    const STEP: f64 = 1.0 / 134_217_728.0;
    let (start, gradient) = (values(x), values(gradient));
    let mut numbers = Numbers::new(start.len() as u64);
    let mut directions = vec![numbers.vec(start.len())];
    for _ in 0..6 {
        let mut unit = vec![0.0; start.len()];
        unit[numbers.below(start.len())] = 1.0;
        directions.push(unit);
    }
    let mut handle = x.clone();
    let scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt().max(1.0);
    for direction in directions {
        let mut at = |step: f64| {
            let moved: Vec<f64> = start
                .iter()
                .zip(&direction)
                .map(|(x, d)| x + step * d)
                .collect();
            handle.copy_from_slice(&moved).unwrap();
            loss()
        };
        let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        assert!(
            (difference - exact).abs() <= 1e-5 * scale.max(exact.abs()),
            "{name}: backward gives {exact}, differences {difference}"
        );
    }
    handle.copy_from_slice(&start).unwrap();
}

fn check_backward(blocks: &[usize], fine_tune_from: usize, batch: bool) {
    let ctx = cpu();
    let mut numbers = Numbers::new(5);
    let images = numbers.f64(&ctx, [3, 22, 25, 3]);
    let (encoder, params) = small(&ctx, blocks, Some(fine_tune_from));
    let folded = match fine_tune_from {
        0 => None,
        parts => Some(Folded::new(&ctx, &encoder, &params, parts).unwrap()),
    };
    let mode = if batch {
        Mode::Batch(Momentum::Fixed(0.0))
    } else {
        Mode::Running(folded.as_ref())
    };
    let mut y = features(&ctx, &encoder, &images);
    let dy = numbers.f64(&ctx, y.shape());
    let saved = encoder
        .forward(&ctx, &params, mode, &images, &mut y)
        .unwrap();
    let mut used_up = Tensor::from_slice(ctx.device(), dy.shape(), &values(&dy)).unwrap();
    encoder
        .backward(&ctx, &params, &saved, &mut used_up)
        .unwrap();
    drop(saved);
    let trained: Vec<_> = params.ids().filter(|&id| params.is_trained(id)).collect();
    assert!(!trained.is_empty());
    for id in trained {
        let loss = || {
            ctx.reset().unwrap();
            let mut y = features(&ctx, &encoder, &images);
            encoder
                .forward(&ctx, &params, mode, &images, &mut y)
                .unwrap();
            inner(&y, &dy)
        };
        let gradient = params.gradient(id);
        check_gradient(params.name(id), params.value(id), &gradient, loss);
    }
}

#[test]
fn backward_through_everything_equals_finite_differences() {
    check_backward(&[1, 1], 0, false);
    check_backward(&[1, 1], 0, true);
}

#[test]
fn backward_stops_at_the_first_trained_stage() {
    check_backward(&[1, 2, 1], 2, false);
    check_backward(&[1, 2, 1], 2, true);
}

#[test]
fn frozen_parts_must_come_folded() {
    let ctx = cpu();
    let (encoder, params) = small(&ctx, &[1, 1], Some(2));
    let images = Numbers::new(6).f64(&ctx, [1, 16, 16, 3]);
    let mut y = features(&ctx, &encoder, &images);
    let result = encoder.forward(&ctx, &params, Mode::Running(None), &images, &mut y);
    let message = result.err().unwrap().to_string();
    assert!(
        message.contains("2 frozen parts should come folded"),
        "{message}"
    );
}
