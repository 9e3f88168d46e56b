//! Linear layers: backward against finite differences on odd sizes; the product itself is in op_gemm.rs.

use crate::support;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::gemm::Accumulate;
use showtell::ops::linear::{self, Gradients};
use support::typed::{random, to_f64, typed_contexts};
use support::{Numbers, alone, check_gradient, counters, cpu, cuda, inner, nan, zeros};

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

/// Column sums of as many rows as are summed in one part and in several, and as give every warp one, two and three, from padded
/// rows; every device and type, against f64.
#[test]
fn the_gradient_of_the_bias_sums_rows_on_every_device() {
    for (ctx, dtype) in typed_contexts() {
        for (rows, cols) in [
            (1, 1),
            (3, 7),
            (4, 7),
            (8, 7),
            (12, 7),
            (16, 40),
            (129, 66),
            (700, 5),
            (1500, 130),
            (0, 4),
        ] {
            let mut numbers = Numbers::new(3);
            // Without padding, nothing is behind the last element.
            let padding = if cols == 40 { 0 } else { 3 };
            let dy = random(&ctx, &mut numbers, [rows, cols], padding, dtype);
            let x = numbers.f32(&ctx, [rows, 2]);
            let weight = numbers.f32(&ctx, [cols, 2]);
            let start = numbers.f32(&ctx, [cols]);
            let mut db = start.clone();
            let before = start.to_vec::<f32>().unwrap();
            let values = to_f64(&dy);
            let mut bits = Vec::new();
            for accumulate in [Accumulate::Yes, Accumulate::No, Accumulate::No] {
                let gradients = Gradients {
                    bias: Some(&mut db),
                    ..Gradients::default()
                };
                linear::backward(&ctx, &x, &weight, &dy, accumulate, gradients).unwrap();
                let got = db.to_vec::<f32>().unwrap();
                for (col, &got) in got.iter().enumerate() {
                    let sum: f64 = (0..rows).map(|row| values[row * cols + col]).sum();
                    let first = if accumulate == Accumulate::Yes {
                        f64::from(before[col])
                    } else {
                        0.0
                    };
                    // Sums of numbers in [-1, 1) stay below 4 √n here; n roundings of them, at random.
                    let bound = 4.0 * (rows + 4) as f64 / 16_777_216.0;
                    assert!(
                        (f64::from(got) - sum - first).abs() <= bound,
                        "{rows} x {cols}, column {col}"
                    );
                }
                bits.push(got);
            }
            assert_eq!(bits[1], bits[2], "the same sums twice");
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

/// The gradient of a bias asks for every element of dy once, in whole sectors.
#[test]
fn the_gradient_of_a_bias_reads_whole_sectors() {
    if !alone("the_gradient_of_a_bias_reads_whole_sectors", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    for (dtype, name) in [
        (DType::F32, "linear_sum_rows_f32"),
        (DType::Bf16, "linear_sum_rows_bf16"),
    ] {
        let dy = zeros(&ctx, [100, 1024], dtype);
        let x = zeros(&ctx, [100, 8], dtype);
        let weight = zeros(&ctx, [1024, 8], dtype);
        let mut db = zeros(&ctx, [1024], DType::F32);
        let gradients = Gradients {
            x: None,
            weight: None,
            bias: Some(&mut db),
        };
        let counted = counters(|| {
            linear::backward(&ctx, &x, &weight, &dy, Accumulate::No, gradients).unwrap();
        });
        let Some(counted) = counted else { return };
        let sectors = dy.len() * dtype.bytes() / 32;
        assert_eq!(counted[name]["global_load_sectors"], sectors, "{name}");
    }
}
