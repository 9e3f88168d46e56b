//! The doubly stochastic regulariser: against plain sums and finite differences.

use crate::support;
use proptest::prelude::*;
use showtell::ops::regulariser;
use showtell::{DType, Tensor};
use support::typed::{check_padding, unwritten};
use support::{Numbers, check_gradient, contexts, cpu, nan, zeros};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn loss_and_gradient(
        steps in 1usize..6, batch in 1usize..5, positions in 1usize..40, seed: u64
    ) {
        let ctx = cpu();
        let lambda = 1.5;
        let wide = Numbers::new(seed).f64(&ctx, [steps, batch, positions + 2]);
        let alphas = wide.columns(1, positions).unwrap();
        let loss = || {
            let mut loss = nan(&ctx, [1]);
            regulariser::forward(&ctx, &alphas, lambda, &mut loss).unwrap();
            loss.to_vec::<f64>().unwrap()[0]
        };
        let values: Vec<f64> = alphas.to_vec().unwrap();
        let image = batch * positions;
        let squares = (0..image).map(|i| {
            let sum: f64 = values[i..].iter().step_by(image).sum();
            (1.0 - sum).powi(2)
        });
        let expected = lambda * squares.sum::<f64>() / image as f64;
        prop_assert!((loss() - expected).abs() <= 1e-13 * expected.max(1.0));

        let mut d_alpha = nan(&ctx, [batch, positions]);
        regulariser::backward(&ctx, &alphas, lambda, &mut d_alpha).unwrap();
        for t in 0..steps {
            let alpha = alphas.index(t).unwrap();
            check_gradient("alpha", &alpha, &d_alpha, loss);
        }
    }
}

/// In f32, with α as attention makes it: sums of T terms below 1, of which the loss averages the squares. One ε for
/// each term, √n of them, twice for the square.
#[test]
fn every_device_follows_the_sums() {
    for ctx in contexts() {
        for [steps, batch, positions, padding] in [
            [5, 3, 49, 3],
            [24, 4, 196, 0],
            [1, 1, 1, 0],
            [7, 2, 30, 1],
            [8, 2, 30, 1],
            [17, 60, 1200, 0],
            // Some threads add up four partial sums, the others three.
            [1, 200, 1000, 0],
        ] {
            let mut numbers = Numbers::new(positions as u64);
            let wide: Vec<f32> = (0..steps * batch * (positions + padding))
                .map(|_| numbers.uniform().abs() as f32 / steps as f32)
                .collect();
            let shape = [steps, batch, positions + padding];
            let wide = Tensor::from_slice(ctx.device(), shape, &wide).unwrap();
            let alphas = wide.columns(0, positions).unwrap();
            let values: Vec<f32> = alphas.to_vec().unwrap();
            let image = batch * positions;
            let missing = |i: usize| {
                let of_steps = values[i..].iter().step_by(image);
                1.0 - of_steps.map(|&a| f64::from(a)).sum::<f64>()
            };
            let lambda = 1.5;
            let run = || {
                let mut loss = zeros(&ctx, [1], DType::F32);
                regulariser::forward(&ctx, &alphas, lambda, &mut loss).unwrap();
                let mut d_alpha = unwritten(&ctx, [batch, positions], 2, DType::F32);
                regulariser::backward(&ctx, &alphas, lambda, &mut d_alpha).unwrap();
                check_padding();
                (
                    loss.to_vec::<f32>().unwrap(),
                    d_alpha.to_vec::<f32>().unwrap(),
                )
            };
            let (loss, d_alpha) = run();
            let expected = (0..image).map(|i| missing(i).powi(2)).sum::<f64>();
            let expected = lambda * expected / image as f64;
            let bound = 4.0 * f64::from(f32::EPSILON) * (steps as f64 + image as f64).sqrt();
            let error = (f64::from(loss[0]) - expected).abs();
            assert!(
                error <= bound * lambda,
                "{}: {} for {expected}",
                ctx.device().name(),
                loss[0]
            );
            for (i, got) in d_alpha.iter().enumerate() {
                let scale = -2.0 * lambda / image as f64;
                let exact = scale * missing(i);
                let bound = 4.0 * f64::from(f32::EPSILON) * (steps as f64).sqrt() * scale.abs();
                assert!(
                    (f64::from(*got) - exact).abs() <= bound,
                    "{got} for {exact} at {i}"
                );
            }
            assert_eq!(run(), (loss, d_alpha), "two runs");
        }
    }
}

/// A caption that attends to every position once costs nothing.
#[test]
fn attending_once_to_everything_is_free() {
    let ctx = cpu();
    let alphas = [0.25f64; 8];
    let alphas = Tensor::from_slice(ctx.device(), [4, 1, 2], &alphas).unwrap();
    let mut loss = nan(&ctx, [1]);
    regulariser::forward(&ctx, &alphas, 1.0, &mut loss).unwrap();
    assert_eq!(loss.to_vec::<f64>().unwrap(), [0.0]);
}
