//! The gradients' norm and the factor that clips it, against plain sums.

use crate::support;
use proptest::prelude::*;
use showtell::ops::clip;
use showtell::tensor::Tensor;
use showtell::{Context, DType};
use support::{Numbers, alone, contexts, counters, cpu, cuda, zeros};

fn norm_and_factor(ctx: &Context, gradients: &Tensor, largest: f64) -> [f64; 2] {
    let scalar = || zeros(ctx, [1], DType::F64);
    let (mut norm, mut factor) = (scalar(), scalar());
    clip::norm(ctx, gradients, largest, &mut norm, &mut factor).unwrap();
    [norm, factor].map(|tensor| tensor.to_vec::<f64>().unwrap()[0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn norm_is_the_root_of_the_sum_of_squares(len in 1usize..70_000, seed: u64) {
        let ctx = cpu();
        let gradients = Numbers::new(seed).f64(&ctx, [len]);
        let values = gradients.to_vec::<f64>().unwrap();
        let expected = values.iter().map(|g| g * g).sum::<f64>().sqrt();
        for largest in [0.25, expected * 2.0] {
            let [norm, factor] = norm_and_factor(&ctx, &gradients, largest);
            // Both sums round at most `len` times; halved by the root.
            let bound = f64::EPSILON * (len as f64 + 4.0);
            prop_assert!((norm / expected - 1.0).abs() <= bound, "{norm} for {expected}");
            let clipped = (largest / (expected + 1e-6)).min(1.0);
            prop_assert!((factor / clipped - 1.0).abs() <= bound, "{factor} for {clipped}");
        }
    }
}

/// In f32 on every device: at most 512 squares are added in a row, on the CPU, and k ε √n bounds what they round.
#[test]
fn norm_on_every_device() {
    let bound = 2.0 * f64::from(f32::EPSILON) * 512f64.sqrt();
    for ctx in contexts() {
        for (len, start) in [
            (1, 0),
            (6, 0),
            (7, 0),
            (6, 1),
            (7, 1),
            (100, 3),
            (16_384, 0),
            (16_385, 0),
            (70_001, 0),
            (40_000, 1),
            (70_002, 1),
        ] {
            let wide = Numbers::new(len as u64).f32(&ctx, [len + start]);
            let gradients = wide.columns(start, len).unwrap();
            let values = gradients.to_vec::<f32>().unwrap();
            let squares = values.iter().map(|&g| f64::from(g).powi(2));
            let expected = squares.sum::<f64>().sqrt();
            for largest in [0.25, expected * 2.0, f64::INFINITY] {
                let [norm, factor] = on_device(&ctx, &gradients, largest);
                assert!(
                    (norm / expected - 1.0).abs() <= bound,
                    "{norm} for {expected} of {len}"
                );
                let clipped = (largest / (expected + 1e-6)).min(1.0);
                assert!(
                    (factor / clipped - 1.0).abs() <= bound,
                    "{factor} for {clipped}"
                );
                assert_eq!([norm, factor], on_device(&ctx, &gradients, largest));
            }
        }
    }
}

/// More partial sums than a block has threads: the gradients of a network of four million parameters. Each partial sum is of
/// 64 squares in a row and a tree, and so is the last.
#[test]
fn the_norm_of_millions() {
    let Some(ctx) = cuda() else { return };
    let len = 16_384 * 257 + 5;
    let values: Vec<f32> = (0..len)
        .map(|i| (i % 7) as f32 - 3.0 + (i / 16_384) as f32 / 64.0)
        .collect();
    let gradients = Tensor::from_slice(ctx.device(), [len], &values).unwrap();
    let expected = values
        .iter()
        .map(|&g| f64::from(g).powi(2))
        .sum::<f64>()
        .sqrt();
    let [norm, _] = on_device(&ctx, &gradients, 1.0);
    let bound = 2.0 * f64::from(f32::EPSILON) * 64f64.sqrt();
    assert!(
        (norm / expected - 1.0).abs() <= bound,
        "{norm} for {expected}"
    );
}

/// 1e-6 is added to the norm, which shows where the norm is not larger.
#[test]
fn small_norms_are_clipped_as_pytorch_does() {
    for ctx in contexts() {
        for size in [1e-7f32, 1e-6, 1e-5] {
            let gradients = Tensor::from_slice(ctx.device(), [4], &[size; 4]).unwrap();
            let norm = 2.0 * f64::from(size);
            let [_, factor] = on_device(&ctx, &gradients, norm / 4.0);
            let expected = norm / 4.0 / (norm + 1e-6);
            let bound = 4.0 * f64::from(f32::EPSILON);
            assert!(
                (factor / expected - 1.0).abs() <= bound,
                "{factor} for {expected}"
            );
        }
    }
}

/// Alignment decides how gradients are read, not how they are added.
#[test]
fn alignment_does_not_change_the_norm() {
    for ctx in contexts() {
        let values: Vec<f32> = Numbers::new(5)
            .vec(20_000)
            .iter()
            .map(|&v| v as f32)
            .collect();
        let at = |start: usize| {
            let wide = zeros(&ctx, [20_004], DType::F32);
            let mut gradients = wide.columns(start, 20_000).unwrap();
            gradients.copy_from_slice(&values).unwrap();
            on_device(&ctx, &gradients, 0.25)
        };
        assert_eq!(at(0), at(1));
    }
}

fn on_device(ctx: &Context, gradients: &Tensor, largest: f64) -> [f64; 2] {
    let scalar = || zeros(ctx, [1], DType::F32);
    let (mut norm, mut factor) = (scalar(), scalar());
    clip::norm(ctx, gradients, largest, &mut norm, &mut factor).unwrap();
    [norm, factor].map(|tensor| f64::from(tensor.to_vec::<f32>().unwrap()[0]))
}

#[test]
fn gradients_are_read_once_in_two_launches() {
    if !alone("gradients_are_read_once_in_two_launches", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let len = 3 * 16_384 + 800;
    let gradients = Numbers::new(6).f32(&ctx, [len]);
    let (mut norm, mut factor) = (zeros(&ctx, [1], DType::F32), zeros(&ctx, [1], DType::F32));
    let run = || clip::norm(&ctx, &gradients, 1.0, &mut norm, &mut factor).unwrap();
    let Some(counts) = counters(run) else { return };
    assert_eq!(counts.as_object().unwrap().len(), 2);
    let of = |kernel: &str, what: &str| counts[kernel][what].as_u64().unwrap();
    assert_eq!(of("clip_squares_f32x4", "launches"), 1);
    assert_eq!(
        of("clip_squares_f32x4", "global_load_bytes"),
        4 * len as u64
    );
    assert_eq!(of("clip_norm_f32", "launches"), 1);
}

#[test]
fn no_bound_leaves_gradients_alone() {
    let ctx = cpu();
    let gradients = Numbers::new(1).f64(&ctx, [1000]);
    let [_, factor] = norm_and_factor(&ctx, &gradients, f64::INFINITY);
    assert_eq!(factor, 1.0);
}

#[test]
fn a_nan_anywhere_shows_in_both() {
    let ctx = cpu();
    for place in [0, 31, 9_999] {
        let mut values = vec![1.0; 10_000];
        values[place] = f64::NAN;
        let gradients = Tensor::from_slice(ctx.device(), [10_000], &values).unwrap();
        let found = norm_and_factor(&ctx, &gradients, 0.25);
        assert!(found.iter().all(|v| v.is_nan()), "{place}: {found:?}");
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        for ctx in contexts() {
            let gradients = Tensor::from_slice(ctx.device(), [10_000], &values).unwrap();
            let found = on_device(&ctx, &gradients, 0.25);
            assert!(found.iter().all(|v| v.is_nan()), "{place}: {found:?}");
        }
    }
}

#[test]
fn outputs_of_another_shape_are_errors() {
    let ctx = cpu();
    let gradients = Numbers::new(2).f64(&ctx, [10]);
    let (mut norm, mut factor) = (zeros(&ctx, [2], DType::F64), zeros(&ctx, [1], DType::F64));
    let error = clip::norm(&ctx, &gradients, 1.0, &mut norm, &mut factor).unwrap_err();
    assert_eq!(
        error.to_string(),
        "clip: norm should have shape [1], has [2]"
    );
}
