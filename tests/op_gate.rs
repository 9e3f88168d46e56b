//! The gate: against its formula and finite differences, over padded rows.

use crate::support;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::gate;
use showtell::tensor::{Context, Tensor};
use support::typed::{check_padding, random};
use support::{
    Numbers, alone, check_gradient, contexts, counters, cpu, cuda, inner, nan, paddings, zeros,
};

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

/// Against the formula in f64, on rows that are read four floats at a time and on rows that cannot be. Both passes are at most
/// six operations on numbers of at most 1, each rounded; exp and its argument bring the bound to 16 ε.
#[test]
fn every_device_follows_the_formula() {
    for ctx in contexts() {
        let mut numbers = Numbers::new(3);
        for (rows, cols, pad) in [(1, 1, 0), (7, 37, 3), (33, 64, 4), (300, 8, 8)] {
            let name = format!("{}: {rows} x {cols}", ctx.device().name());
            let mut paddings = paddings(pad);
            let mut view = || {
                let padding = paddings.next().unwrap();
                random(&ctx, &mut numbers, [rows, cols], padding, DType::F32)
            };
            let [mut g, x, mut z, dz, mut dg, mut dx] = [(); 6].map(|()| view());
            let f64s = |x: &Tensor| -> Vec<f64> {
                let values = x.to_vec::<f32>().unwrap();
                values.into_iter().map(f64::from).collect()
            };
            let [raw, x_values, dz_values] = [&g, &x, &dz].map(f64s);
            gate::forward(&ctx, &mut g, &x, &mut z).unwrap();
            gate::backward(&ctx, &g, &x, &dz, &mut dg, &mut dx).unwrap();
            check_padding();
            let [s, z, dg, dx] = [&g, &z, &dg, &dx].map(f64s);
            for i in 0..rows * cols {
                let sigmoid = 1.0 / (1.0 + (-raw[i]).exp());
                let expected = [
                    sigmoid,
                    sigmoid * x_values[i],
                    dz_values[i] * x_values[i] * sigmoid * (1.0 - sigmoid),
                    dz_values[i] * sigmoid,
                ];
                for (got, expected) in [s[i], z[i], dg[i], dx[i]].into_iter().zip(expected) {
                    let close = (got - expected).abs() <= 16.0 * f64::from(f32::EPSILON);
                    assert!(close, "{name}: element {i} is {got} for {expected}");
                }
            }
        }
    }
}

/// z and dg in bf16 are those in f32, rounded, in rows that are read four floats at a time and in rows that cannot be.
#[test]
fn factors_of_products_may_be_rounded() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(5);
    for (rows, cols, pad) in [(7, 37, 3), (33, 64, 8), (20, 12, 8), (5, 8, 0)] {
        let mut paddings = paddings(pad);
        let mut view = |dtype| {
            let padding = paddings.next().unwrap();
            random(&ctx, &mut numbers, [rows, cols], padding, dtype)
        };
        let [g, x, dz] = [(); 3].map(|()| view(DType::F32));
        let mut run = |dtype| {
            let [mut s, mut z, mut dg, mut dx] =
                [DType::F32, dtype, dtype, DType::F32].map(&mut view);
            s.copy_from_f32(&g.to_f32().unwrap()).unwrap();
            gate::forward(&ctx, &mut s, &x, &mut z).unwrap();
            gate::backward(&ctx, &s, &x, &dz, &mut dg, &mut dx).unwrap();
            check_padding();
            [s, z, dg, dx]
        };
        let (exact, rounded) = (run(DType::F32), run(DType::Bf16));
        for (exact, rounded) in exact.iter().zip(&rounded) {
            let mut expected = zeros(&ctx, [rows, cols], rounded.dtype());
            expected.copy_from_f32(&exact.to_f32().unwrap()).unwrap();
            assert_eq!(rounded.to_f32().unwrap(), expected.to_f32().unwrap());
        }
    }
}

#[test]
fn large_numbers_and_nan() {
    for ctx in contexts() {
        let values = [f32::INFINITY, -f32::INFINITY, f32::NAN, 1e30, -1e30];
        let mut g = Tensor::from_slice(ctx.device(), [1, 5], &values).unwrap();
        let x = Tensor::from_slice(ctx.device(), [1, 5], &[2.0f32; 5]).unwrap();
        let mut z = zeros(&ctx, [1, 5], DType::F32);
        gate::forward(&ctx, &mut g, &x, &mut z).unwrap();
        let z: Vec<f32> = z.to_vec().unwrap();
        assert!(z[2].is_nan());
        assert_eq!([z[0], z[1], z[3], z[4]], [2.0, 0.0, 2.0, 0.0]);
        let mut empty = [(); 3].map(|()| zeros(&ctx, [0, 5], DType::F32));
        let [g, x, z] = &mut empty;
        gate::forward(&ctx, g, x, z).unwrap();
    }
}

/// One launch; every element is asked for once, in whole sectors.
#[test]
fn moves_each_byte_once() {
    if !alone("moves_each_byte_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(4);
    let [mut g, x, mut z, mut dx] = [(); 4].map(|()| numbers.f32(&ctx, [32, 2048]));
    let mut dg = numbers.f32(&ctx, [32, 2048]);
    let counted = counters(|| {
        gate::forward(&ctx, &mut g, &x, &mut z).unwrap();
        gate::backward(&ctx, &g, &x, &z, &mut dg, &mut dx).unwrap();
    });
    let Some(counted) = counted else { return };
    let bytes = 32 * 2048 * 4;
    for (kernel, loaded, distinct) in [("gate_forward_f32x4", 2, 3), ("gate_backward_f32x4", 3, 5)]
    {
        let kernel = &counted[kernel];
        assert_eq!(kernel["launches"], 1);
        assert_eq!(kernel["global_load_bytes"], loaded * bytes);
        assert_eq!(kernel["global_store_bytes"], 2 * bytes);
        assert_eq!(kernel["global_load_sectors"], loaded * bytes / 32);
        assert_eq!(kernel["global_store_sectors"], 2 * bytes / 32);
        assert_eq!(kernel["distinct_sectors"], distinct * bytes / 32);
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
