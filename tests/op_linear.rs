//! Linear layers: against plain loops, and backward against finite differences on odd sizes.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::linear::{self, Gradients};
use showtell::ops::matmul::{self, Accumulate, Factor};
use support::{Numbers, check_gradient, cpu, inner, nan, zeros};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn backward_equals_finite_differences(
        rows in 1usize..9, inputs in 1usize..12, outputs in 1usize..12, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let x = numbers.f64(&ctx, [rows, inputs]);
        let weight = numbers.f64(&ctx, [outputs, inputs]);
        let bias = numbers.f64(&ctx, [outputs]);
        let dy = numbers.f64(&ctx, [rows, outputs]);
        let mut dx = nan(&ctx, [rows, inputs]);
        let mut dw = nan(&ctx, [outputs, inputs]);
        let mut db = nan(&ctx, [outputs]);
        let gradients = Gradients { x: Some(&mut dx), weight: Some(&mut dw), bias: Some(&mut db) };
        linear::backward(&ctx, &x, &weight, &dy, Accumulate::No, gradients).unwrap();
        let loss = || {
            let mut y = nan(&ctx, [rows, outputs]);
            linear::forward(&ctx, &x, &weight, Some(&bias), &mut y).unwrap();
            inner(&y, &dy)
        };
        check_gradient("x", &x, &dx, loss);
        check_gradient("weight", &weight, &dw, loss);
        check_gradient("bias", &bias, &db, loss);
    }

    #[test]
    fn products_equal_plain_loops(
        m in 1usize..20, n in 1usize..20, k in 1usize..40,
        ta: bool, tb: bool, accumulate: bool, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        // Columns of a wider tensor, so that rows are padded.
        let a = numbers.f64(&ctx, if ta { [k, m + 3] } else { [m, k + 3] });
        let a = a.columns(2, if ta { m } else { k }).unwrap();
        let b = numbers.f64(&ctx, if tb { [n, k + 1] } else { [k, n + 1] });
        let b = b.columns(1, if tb { k } else { n }).unwrap();
        let before = numbers.f64(&ctx, [m, n]);
        let mut c = before.clone();
        let start = before.to_vec::<f64>().unwrap();
        let (av, bv) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
        let factor = |t, x| if t { Factor::Transposed(x) } else { Factor::Plain(x) };
        let mode = if accumulate { Accumulate::Yes } else { Accumulate::No };
        matmul::forward(&ctx, factor(ta, &a), factor(tb, &b), mode, &mut c).unwrap();
        for (i, got) in c.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let (row, col) = (i / n, i % n);
            let at = |p: usize| if ta { av[p * m + row] } else { av[row * k + p] };
            let bt = |p: usize| if tb { bv[col * k + p] } else { bv[p * n + col] };
            let sum: f64 = (0..k).map(|p| at(p) * bt(p)).sum();
            let expected = sum + if accumulate { start[i] } else { 0.0 };
            prop_assert!((got - expected).abs() <= 1e-15 * k as f64 * 4.0, "{got} for {expected}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let ctx = cpu();
    let tensor = |shape: [usize; 2]| zeros(&ctx, shape, DType::F32);
    let (x, weight, mut y) = (tensor([3, 5]), tensor([4, 6]), tensor([3, 4]));
    let error = linear::forward(&ctx, &x, &weight, None, &mut y).unwrap_err();
    assert_eq!(
        error.to_string(),
        "linear: weight should have shape [4, 5], has [4, 6]"
    );
}

#[test]
fn an_output_that_overlaps_an_input_is_an_error() {
    let ctx = cpu();
    let x = zeros(&ctx, [4, 4], DType::F32);
    let mut y = x.clone();
    let (a, b) = (Factor::Plain(&x), Factor::Transposed(&x));
    let error = matmul::forward(&ctx, a, b, Accumulate::No, &mut y).unwrap_err();
    assert!(error.to_string().contains("overlaps"), "{error}");
}
