//! Clips and optimisers against PyTorch's formulas written out in plain loops, in f64.

mod support;

use proptest::prelude::*;
use showtell::Tensor;
use showtell::ops::clip::{self, Clip};
use showtell::ops::optimiser::{self, Adam, Moments, Sgd};
use support::{Numbers, cpu, nan};

/// Within rounding of sums of `n` terms.
fn close(name: &str, n: usize, got: &Tensor, expected: &[f64]) {
    let got = got.to_vec::<f64>().unwrap();
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let bound = 8.0 * (n as f64).sqrt() * f64::EPSILON * expected.abs().max(1.0);
        assert!(
            (got - expected).abs() <= bound,
            "{name}[{i}]: {got} for {expected}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn sgd_follows_its_formula(n in 1usize..40_000, steps in 1usize..4, seed: u64) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let (mut w, mut u) = (numbers.vec(n), vec![0.0; n]);
        let mut values = Tensor::from_slice(ctx.device(), [n], &w).unwrap();
        let mut velocity = Tensor::from_slice(ctx.device(), [n], &u).unwrap();
        let settings = Sgd { momentum: 0.9, weight_decay: 1e-2 };
        let (mut norm, mut factor) = (nan(&ctx, [1]), nan(&ctx, [1]));
        for step in 1..=steps {
            let lr = 0.9 / step as f64;
            let g = numbers.vec(n);
            let gradients = Tensor::from_slice(ctx.device(), [n], &g).unwrap();
            let schedule = Tensor::from_slice(ctx.device(), [2], &[lr, step as f64]).unwrap();
            clip::norm(&ctx, &gradients, 0.25, &mut norm, &mut factor).unwrap();
            let clip = Clip::Factor(&factor);
            optimiser::sgd(&ctx, settings, &schedule, clip, &gradients, &mut velocity, &mut values)
                .unwrap();
            let total = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            let scale = (0.25 / (total + 1e-6)).min(1.0);
            close("norm", n, &norm, &[total]);
            close("factor", n, &factor, &[scale]);
            for i in 0..n {
                u[i] = 0.9 * u[i] + (scale * g[i] + 1e-2 * w[i]);
                w[i] -= lr * u[i];
            }
        }
        close("values", n, &values, &w);
        close("velocity", n, &velocity, &u);
    }

    #[test]
    fn adam_follows_its_formula(n in 1usize..40_000, steps in 1usize..4, seed: u64) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let (mut w, mut m, mut v) = (numbers.vec(n), vec![0.0; n], vec![0.0; n]);
        let mut values = Tensor::from_slice(ctx.device(), [n], &w).unwrap();
        let mut first = Tensor::from_slice(ctx.device(), [n], &m).unwrap();
        let mut second = Tensor::from_slice(ctx.device(), [n], &v).unwrap();
        let settings = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-5 };
        for step in 1..=steps {
            let g: Vec<f64> = numbers.vec(n).iter().map(|g| 8.0 * g).collect();
            let gradients = Tensor::from_slice(ctx.device(), [n], &g).unwrap();
            let schedule = Tensor::from_slice(ctx.device(), [2], &[4e-4, step as f64]).unwrap();
            let moments = Moments { first: &mut first, second: &mut second };
            let clip = Clip::Value(5.0);
            optimiser::adam(&ctx, settings, &schedule, clip, &gradients, moments, &mut values)
                .unwrap();
            let t = step as i32;
            for i in 0..n {
                let g = g[i].clamp(-5.0, 5.0) + 1e-5 * w[i];
                m[i] = 0.9 * m[i] + (1.0 - 0.9) * g;
                v[i] = 0.999 * v[i] + (1.0 - 0.999) * g * g;
                let (mean, square) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
                w[i] -= 4e-4 * mean / (square.sqrt() + 1e-8);
            }
        }
        close("values", n, &values, &w);
        close("first", n, &first, &m);
        close("second", n, &second, &v);
    }
}

#[test]
fn a_nan_gradient_stays_visible() {
    let ctx = cpu();
    let gradients = Tensor::from_slice(ctx.device(), [3], &[1.0, f64::NAN, 2.0]).unwrap();
    let (mut norm, mut factor) = (nan(&ctx, [1]), nan(&ctx, [1]));
    norm.copy_from_slice(&[0.0]).unwrap();
    clip::norm(&ctx, &gradients, 0.25, &mut norm, &mut factor).unwrap();
    assert!(norm.to_vec::<f64>().unwrap()[0].is_nan());
    assert!(factor.to_vec::<f64>().unwrap()[0].is_nan());
    let mut values = Tensor::from_slice(ctx.device(), [3], &[0.0; 3]).unwrap();
    let mut velocity = values.clone();
    let schedule = Tensor::from_slice(ctx.device(), [2], &[0.1, 1.0]).unwrap();
    let settings = Sgd {
        momentum: 0.9,
        weight_decay: 0.0,
    };
    let clip = Clip::Value(5.0);
    let overlap = optimiser::sgd(
        &ctx,
        settings,
        &schedule,
        clip,
        &gradients,
        &mut velocity,
        &mut values,
    );
    assert!(overlap.unwrap_err().to_string().contains("overlaps"));
    let mut velocity = Tensor::from_slice(ctx.device(), [3], &[0.0; 3]).unwrap();
    optimiser::sgd(
        &ctx,
        settings,
        &schedule,
        clip,
        &gradients,
        &mut velocity,
        &mut values,
    )
    .unwrap();
    let values = values.to_vec::<f64>().unwrap();
    assert!(values[1].is_nan() && values[0] == -0.1);
}
