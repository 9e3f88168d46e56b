//! The doubly stochastic regulariser: against plain sums and finite differences.

mod support;

use proptest::prelude::*;
use showtell::ops::regulariser;
use support::{Numbers, check_gradient, cpu, nan};

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

/// A caption that attends to every position once costs nothing.
#[test]
fn attending_once_to_everything_is_free() {
    let ctx = cpu();
    let alphas = [0.25f64; 8];
    let alphas = showtell::Tensor::from_slice(ctx.device(), [4, 1, 2], &alphas).unwrap();
    let mut loss = nan(&ctx, [1]);
    regulariser::forward(&ctx, &alphas, 1.0, &mut loss).unwrap();
    assert_eq!(loss.to_vec::<f64>().unwrap(), [0.0]);
}
