//! The gradients' norm and the factor that clips it, against plain sums.

mod support;

use proptest::prelude::*;
use showtell::ops::clip;
use showtell::tensor::Tensor;
use showtell::{Context, DType};
use support::{Numbers, cpu, zeros};

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
