//! Dropout: its masks against Philox, element by element, and what they must not depend on.

use crate::support;
use proptest::prelude::*;
use showtell::ops::dropout::{self, Site};
use showtell::philox;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::{
    Numbers, alone, check_gradient, contexts, counters, cpu, cuda, inner, nan, site, zeros,
};

fn some_site(ctx: &Context) -> Site {
    site(ctx, 0x1234_5678_9abc_def0, 17, 3)
}

fn mask(ctx: &Context, p: f64, site: &Site, first_t: usize, shape: impl Into<Shape>) -> Vec<f32> {
    let shape = shape.into();
    let mut x = Tensor::from_slice(ctx.device(), shape, &vec![1f32; shape.len()]).unwrap();
    dropout::in_place(ctx, p, site, first_t, &mut x).unwrap();
    x.to_vec().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Bit for bit what the counter layout says, on sizes around the width of a vector.
    #[test]
    fn masks_are_philox_at_their_address(
        steps in 1usize..4, batch in 1usize..6, cols in 1usize..150,
        first_t in 0usize..100, p in 0.0f64..0.99, seed: u64, step: u32, site in 0..u32::MAX,
    ) {
        for ctx in contexts() {
            let got = mask(&ctx, p, &support::site(&ctx, seed, step, site), first_t, [steps, batch, cols]);
            for (i, got) in got.into_iter().enumerate() {
                let (t, b, c) = (i / cols / batch, i / cols % batch, i % cols);
                let row = ((b as u32) << 12) + (first_t + t) as u32;
                let bits = philox::block(seed, [c as u32 / 4, row, step, site])[c % 4];
                let kept = f64::from(bits) >= (p * 2f64.powi(32)).floor();
                let expected = if kept { (1.0 / (1.0 - p)) as f32 } else { 0.0 };
                let device = ctx.device().name();
                prop_assert_eq!(got, expected, "{}: t {}, b {}, c {}", device, t, b, c);
            }
        }
    }

    #[test]
    fn backward_equals_finite_differences(rows in 1usize..6, cols in 1usize..80, seed: u64) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let (x, dy) = (numbers.f64(&ctx, [rows, cols]), numbers.f64(&ctx, [rows, cols]));
        let mut dx = nan(&ctx, [rows, cols]);
        dropout::forward(&ctx, 0.4, &some_site(&ctx), 2, &dy, &mut dx).unwrap();
        check_gradient("x", &x, &dx, || {
            let mut y = nan(&ctx, [rows, cols]);
            dropout::forward(&ctx, 0.4, &some_site(&ctx), 2, &x, &mut y).unwrap();
            inner(&y, &dy)
        });
    }
}

#[test]
fn keeps_the_asked_share_and_the_mean() {
    let ctx = cpu();
    for p in [0.1, 0.3, 0.5, 0.9] {
        let values = mask(&ctx, p, &some_site(&ctx), 0, [24, 32, 256]);
        let n = values.len() as f64;
        let kept = values.iter().filter(|&&v| v != 0.0).count() as f64 / n;
        // Five standard errors of a share of n independent draws.
        let bound = 5.0 * (p * (1.0 - p) / n).sqrt();
        assert!((kept - (1.0 - p)).abs() < bound, "p {p}: kept {kept}");
    }
}

#[test]
fn padding_a_batch_does_not_change_its_masks() {
    let ctx = cpu();
    let (short, long) = ([5, 4, 70], [9, 4, 70]);
    let from_short = mask(&ctx, 0.5, &some_site(&ctx), 0, short);
    let from_long = mask(&ctx, 0.5, &some_site(&ctx), 0, long);
    assert_eq!(from_short, from_long[..from_short.len()]);
    for t in 0..5 {
        let alone = mask(&ctx, 0.5, &some_site(&ctx), t, [4, 70]);
        assert_eq!(alone, from_short[t * 280..][..280], "step {t} alone");
    }
}

#[test]
fn seeds_steps_and_sites_have_masks_of_their_own() {
    let ctx = cpu();
    let at = |site: Site| mask(&ctx, 0.5, &site, 0, [4, 64]);
    let masks = [
        at(site(&ctx, 9, 17, 3)),
        at(site(&ctx, 1, 17, 3)),
        at(site(&ctx, 9, 18, 3)),
        at(site(&ctx, 9, 17, 3).plus(1)),
    ];
    for (i, a) in masks.iter().enumerate() {
        for b in &masks[..i] {
            let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
            // 256 coin throws: 128 ± 5 · 8.
            assert!((88..=168).contains(&equal), "{equal} of 256 equal");
        }
    }
}

#[test]
fn threads_do_not_matter() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let shape = [24, 32, 100];
        pool.build().unwrap().install(|| {
            let ctx = cpu();
            mask(&ctx, 0.3, &some_site(&ctx), 0, shape)
        })
    };
    assert_eq!(on(1), on(3));
}

/// Rows that start at multiples of 16 bytes, and rows that do not: what lies around them stays, and both forms agree.
#[test]
fn padded_rows_keep_their_padding_and_p_zero_changes_nothing() {
    let contexts: Vec<Context> = contexts().collect();
    let views = |ctx| [(10, 30), (12, 28), (8, 30)].map(|(start, cols)| (ctx, start, cols));
    for (ctx, start, cols) in contexts.iter().flat_map(views) {
        let whole = Numbers::new(4).f32(ctx, [3, 52]);
        let before: Vec<f32> = whole.to_vec().unwrap();
        dropout::in_place(ctx, 0.0, &some_site(ctx), 0, &mut whole.handle()).unwrap();
        assert_eq!(whole.to_vec::<f32>().unwrap(), before);
        let x = Tensor::from_slice(ctx.device(), [3, 52], &before).unwrap();
        let mut y = zeros(ctx, [3, cols], DType::F32);
        let mut view = whole.columns(start, cols).unwrap();
        dropout::in_place(ctx, 0.5, &some_site(ctx), 0, &mut view).unwrap();
        let x = x.columns(start, cols).unwrap();
        dropout::forward(ctx, 0.5, &some_site(ctx), 0, &x, &mut y).unwrap();
        let after: Vec<f32> = whole.to_vec().unwrap();
        for (i, (after, before)) in after.into_iter().zip(before).enumerate() {
            if !(start..start + cols).contains(&(i % 52)) {
                assert_eq!(after, before, "padding at {i}");
            }
        }
        let (view, y): (Vec<f32>, Vec<f32>) = (view.to_vec().unwrap(), y.to_vec().unwrap());
        assert_eq!(view, y);
        assert!(y.contains(&0.0) && y.iter().any(|&y| y != 0.0));
    }
}

/// In bf16 the mask is the same, and what is kept is rounded once.
#[test]
fn bf16_has_the_same_mask() {
    let Some(ctx) = cuda() else { return };
    for (start, cols) in [(0, 48), (4, 36), (8, 30), (3, 29)] {
        let view = |dtype| {
            let mut whole = zeros(&ctx, [3, 5, 48], dtype);
            let numbers = Numbers::new(11).vec(whole.len());
            // What bf16 holds.
            let numbers = numbers
                .into_iter()
                .map(|v| half::bf16::from_f64(v).to_f32());
            whole.copy_from_f32(&numbers.collect::<Vec<_>>()).unwrap();
            whole.columns(start, cols).unwrap()
        };
        let dropped = |dtype| {
            let (mut x, mut y) = (view(dtype), zeros(&ctx, [3, 5, cols], dtype));
            dropout::forward(&ctx, 0.3, &some_site(&ctx), 2, &x, &mut y).unwrap();
            dropout::in_place(&ctx, 0.3, &some_site(&ctx), 2, &mut x).unwrap();
            assert_eq!(x.to_f32().unwrap(), y.to_f32().unwrap());
            y.to_f32().unwrap()
        };
        let rounded = |v: f32| half::bf16::from_f32(v).to_f32();
        let expected: Vec<f32> = dropped(DType::F32).into_iter().map(rounded).collect();
        assert_eq!(
            dropped(DType::Bf16),
            expected,
            "{cols} columns from {start}"
        );
    }
}

/// What is dropped is zero, whatever it was: in rows that are read four floats at a time and in rows that are not.
#[test]
fn a_dropped_infinity_or_nan_is_zero() {
    for ctx in contexts() {
        for (start, cols) in [(0, 8), (1, 7)] {
            for what in [f32::INFINITY, f32::NAN] {
                let kept = mask(&ctx, 0.5, &some_site(&ctx), 0, [6, cols]);
                let wide = Tensor::from_slice(ctx.device(), [6, 8], &[what; 48]).unwrap();
                let mut x = wide.columns(start, cols).unwrap();
                let mut y = zeros(&ctx, [6, cols], DType::F32);
                dropout::forward(&ctx, 0.5, &some_site(&ctx), 0, &x, &mut y).unwrap();
                dropout::in_place(&ctx, 0.5, &some_site(&ctx), 0, &mut x).unwrap();
                for got in [x.to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap()] {
                    for (got, kept) in got.into_iter().zip(&kept) {
                        let expected = if *kept == 0.0 { 0.0 } else { what };
                        let same = got == expected || got.is_nan() && expected.is_nan();
                        assert!(same, "{got} for {expected}");
                    }
                }
            }
        }
    }
}

/// Forward is one launch that reads and writes every element once.
#[test]
fn is_one_launch() {
    if !alone("is_one_launch", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let x = Numbers::new(5).f32(&ctx, [24, 8, 64]);
    let mut y = zeros(&ctx, [24, 8, 64], DType::F32);
    let counted =
        counters(|| dropout::forward(&ctx, 0.5, &some_site(&ctx), 0, &x, &mut y).unwrap());
    let Some(counted) = counted else { return };
    assert_eq!(counted.as_object().unwrap().len(), 1);
    let kernel = &counted["dropout_forward_f32x4"];
    let bytes = 24 * 8 * 64 * 4;
    assert_eq!(kernel["launches"], 1);
    // A thread takes 16 bytes, and all of them the step's number from one sector.
    assert_eq!(kernel["global_load_bytes"], bytes + bytes / 16 * 4);
    assert_eq!(kernel["distinct_sectors"], 2 * bytes / 32 + 1);
}

#[test]
fn impossible_arguments_are_errors() {
    let ctx = cpu();
    let mut x = zeros(&ctx, [2, 3, 4], DType::F32);
    let error = dropout::in_place(&ctx, 1.0, &some_site(&ctx), 0, &mut x).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dropout: the probability should be in [0, 1), is 1"
    );
    let error = dropout::in_place(&ctx, 0.5, &some_site(&ctx), 4095, &mut x).unwrap_err();
    assert!(error.to_string().contains("step 4096"), "{error}");
}
