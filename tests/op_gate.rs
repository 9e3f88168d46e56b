//! The gate: against its formula and finite differences, over padded rows.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::gate;
use showtell::tensor::{Context, Tensor};
use support::{Numbers, check_gradient, cpu, inner, nan, zeros};

/// A dense copy that an operation may overwrite.
fn copy(ctx: &Context, x: &Tensor) -> Tensor {
    Tensor::from_slice(ctx.device(), x.shape(), &x.to_vec::<f64>().unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn backward_equals_finite_differences(rows in 1usize..6, cols in 1usize..40, seed: u64) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let wide = [rows, cols + 3];
        let g = numbers.f64(&ctx, wide).columns(1, cols).unwrap();
        let x = numbers.f64(&ctx, wide).columns(2, cols).unwrap();
        let dz = numbers.f64(&ctx, wide).columns(0, cols).unwrap();
        let forward = |g: &Tensor| {
            let (mut activated, mut z) = (copy(&ctx, g), nan(&ctx, [rows, cols]));
            gate::forward(&ctx, &mut activated, &x, &mut z).unwrap();
            (activated, z)
        };
        let (activated, z) = forward(&g);
        let (mut dg, mut dx) = (nan(&ctx, [rows, cols]), nan(&ctx, [rows, cols]));
        gate::backward(&ctx, &activated, &x, &dz, &mut dg, &mut dx).unwrap();
        check_gradient("g", &g, &dg, || inner(&forward(&g).1, &dz));
        check_gradient("x", &x, &dx, || inner(&forward(&g).1, &dz));
        let (g, x) = (g.to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
        for (i, z) in z.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let expected = x[i] / (1.0 + (-g[i]).exp());
            prop_assert!((z - expected).abs() <= 4.0 * f64::EPSILON, "{} for {}", z, expected);
        }
    }
}

#[test]
fn shapes_must_fit() {
    let ctx = cpu();
    let tensor = |shape: [usize; 2]| zeros(&ctx, shape, DType::F32);
    let error = gate::forward(
        &ctx,
        &mut tensor([2, 3]),
        &tensor([2, 4]),
        &mut tensor([2, 4]),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "gate: g should have 2 rows of 4, has shape [2, 3]"
    );
}
