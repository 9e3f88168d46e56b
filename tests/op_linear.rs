//! Linear layers: backward against finite differences on odd sizes; the product itself is in op_gemm.rs.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::gemm::Accumulate;
use showtell::ops::linear::{self, Gradients};
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
