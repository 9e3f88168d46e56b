//! Preprocessing: torchvision's arithmetic, step by step, for every value of a pixel.

use crate::support;
use showtell::ops::preprocess::{self, Normalisation};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::typed::{check_padding, to_f64, typed_contexts, unwritten};
use support::{Numbers, alone, contexts, counters, cpu, cuda, zeros};

fn every_value() -> Vec<u8> {
    (0..=255u8).flat_map(|v| [v, v, v]).collect()
}

#[test]
fn every_value_is_rounded_as_torchvision_rounds_it() {
    contexts().for_each(|ctx| check_every_value(&ctx));
}

fn check_every_value(ctx: &Context) {
    let shape = Shape::from([1, 16, 16, 3]);
    let images = Tensor::from_slice(ctx.device(), shape, &every_value()).unwrap();
    let mut y = zeros(ctx, shape, DType::F32);
    preprocess::forward(ctx, &images, Normalisation::IMAGENET, &mut y).unwrap();
    let [mean, std] = [[0.485f32, 0.456, 0.406], [0.229, 0.224, 0.225]];
    for (i, got) in y.to_vec::<f32>().unwrap().into_iter().enumerate() {
        let scaled = (i / 3) as f32 / 255.0;
        assert_eq!(
            got.to_bits(),
            ((scaled - mean[i % 3]) / std[i % 3]).to_bits()
        );
    }
    // PyTorch 2's own results for a few: value 0, 127 and 255 of red, green and blue.
    let torch = [
        (0, [-2.117_904, -2.035_714_1, -1.804_444_4]),
        (127, [0.056_939_743, 0.187_675_06, 0.409_063_25]),
        (255, [2.248_908_3, 2.428_571_5, 2.64]),
    ];
    let got = y.to_vec::<f32>().unwrap();
    for (value, expected) in torch {
        assert_eq!(got[value * 3..][..3], expected);
    }
}

#[test]
fn it_works_in_f64_and_into_padded_rows() {
    let ctx = cpu();
    let shape = Shape::from([1, 16, 16, 3]);
    let images = Tensor::from_slice(ctx.device(), shape, &every_value()).unwrap();
    let wide = zeros(&ctx, [1, 16, 16, 8], DType::F64);
    let mut y = wide.columns(0, 3).unwrap();
    preprocess::forward(&ctx, &images, Normalisation::IMAGENET, &mut y).unwrap();
    for (i, got) in y.to_vec::<f64>().unwrap().into_iter().enumerate() {
        let mean = f64::from(Normalisation::IMAGENET.mean[i % 3]);
        let std = f64::from(Normalisation::IMAGENET.std[i % 3]);
        let expected = ((i / 3) as f64 / 255.0 - mean) / std;
        assert!((got - expected).abs() < 1e-15);
    }
    let padding = wide.columns(3, 5).unwrap().to_vec::<f64>().unwrap();
    assert!(padding.iter().all(|&v| v == 0.0));
}

#[test]
fn four_channels_are_an_error() {
    let ctx = cpu();
    let images = zeros(&ctx, [1, 2, 2, 4], DType::U8);
    let mut y = zeros(&ctx, [1, 2, 2, 4], DType::F32);
    let error = preprocess::forward(&ctx, &images, Normalisation::IMAGENET, &mut y).unwrap_err();
    assert!(
        error.to_string().contains("should have shape [1, 2, 2, 3]"),
        "{error}"
    );
}

/// Pixels with padding behind each.
fn of_bytes(ctx: &Context, shape: Shape, padding: usize) -> Tensor {
    let mut dims = shape.dims().to_vec();
    dims[3] += padding;
    let whole = zeros(ctx, Shape::new(&dims), DType::U8);
    whole.columns(0, 3).unwrap()
}

/// The CPU's f32, rounded once more for bf16: pixels that run on, as many as make whole vectors and others; padded rows of both.
#[test]
fn every_device_and_type_has_the_same_numbers() {
    let cpu = cpu();
    for (ctx, dtype) in typed_contexts() {
        for (shape, padding) in [
            ([2, 16, 16, 3], 0),
            ([1, 5, 7, 3], 0),
            ([2, 3, 5, 3], 2),
            ([0, 4, 4, 3], 0),
        ] {
            let shape = Shape::from(shape);
            let mut numbers = Numbers::new(6);
            let pixels: Vec<u8> = (0..shape.len()).map(|_| numbers.below(256) as u8).collect();
            let run = |ctx: &Context, dtype: DType| {
                let mut images = of_bytes(ctx, shape, if padding > 0 { 5 } else { 0 });
                images.copy_from_slice(&pixels).unwrap();
                let mut y = unwritten(ctx, shape, padding, dtype);
                preprocess::forward(ctx, &images, Normalisation::IMAGENET, &mut y).unwrap();
                check_padding();
                to_f64(&y)
            };
            let expected = run(&cpu, DType::F32).into_iter().map(|v| match dtype {
                DType::Bf16 => half::bf16::from_f64(v).into(),
                _ => v,
            });
            let expected: Vec<f64> = expected.collect();
            assert_eq!(
                run(&ctx, dtype),
                expected,
                "{}, {dtype}",
                ctx.device().name()
            );
        }
    }
}

/// A byte for an element and two for its result, in whole sectors.
#[test]
fn preprocessing_moves_each_byte_once() {
    if !alone("preprocessing_moves_each_byte_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let images = zeros(&ctx, [2, 64, 64, 3], DType::U8);
    let mut y = zeros(&ctx, [2, 64, 64, 3], DType::Bf16);
    let counted = counters(|| {
        preprocess::forward(&ctx, &images, Normalisation::IMAGENET, &mut y).unwrap();
    });
    let Some(counted) = counted else { return };
    let kernel = &counted["preprocess_forward_bf16x8"];
    assert_eq!(kernel["launches"], 1);
    assert_eq!(kernel["global_load_sectors"], y.len() / 32);
    assert_eq!(kernel["global_store_sectors"], 2 * y.len() / 32);
}
