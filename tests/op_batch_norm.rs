//! Batch normalisation: against the definition, backward against finite differences, statistics that
//! are hard for f32, folding.

use crate::support;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::Accumulate;
use showtell::ops::batch_norm::{
    self, Affine, BatchNorm, EPSILON, Epilogue, Gradients, MOMENTUM, Momentum, Running,
    RunningStatistics, Saved, Statistics,
};
use showtell::ops::conv;
use showtell::ops::window::Window;
use showtell::tensor::{Context, Tensor};
use support::{Numbers, check_gradient, contexts, cpu, inner, nan, zeros};

/// Everything a normalisation takes, with M rows of C channels.
struct Problem {
    ctx: Context,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor,
    running: [Tensor; 2],
    saved: [Tensor; 2],
    dy: Tensor,
}

impl Problem {
    fn new(rows: usize, c: usize, seed: u64) -> Self {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let variances: Vec<f64> = numbers.vec(c).iter().map(|v| v * v + 0.1).collect();
        // Padded rows.
        let x = numbers.f64(&ctx, [rows, c + 3]).columns(1, c).unwrap();
        Problem {
            x,
            gamma: numbers.f64(&ctx, [c]),
            beta: numbers.f64(&ctx, [c]),
            residual: numbers.f64(&ctx, [rows, c]),
            running: [
                numbers.f64(&ctx, [c]),
                Tensor::from_slice(ctx.device(), [c], &variances).unwrap(),
            ],
            saved: [nan(&ctx, [c]), nan(&ctx, [c])],
            dy: numbers.f64(&ctx, [rows, c]),
            ctx,
        }
    }

    fn forward(&self, mode: BatchNorm, momentum: Momentum, relu: bool) -> Tensor {
        let (ctx, mut y) = (&self.ctx, nan(&self.ctx, self.x.shape()));
        let [mut mean, mut invstd] = self.saved.clone();
        let statistics = Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        };
        let affine = Affine {
            gamma: &self.gamma,
            beta: &self.beta,
        };
        let epilogue = Epilogue {
            residual: Some(&self.residual),
            relu,
        };
        match mode {
            BatchNorm::Running => {
                let [mean, var] = &self.running;
                let running = RunningStatistics { mean, var };
                batch_norm::running_forward(
                    ctx, &self.x, affine, running, epilogue, statistics, &mut y,
                )
            }
            BatchNorm::Batch => {
                let [mut mean, mut var] = self.running.clone();
                let running = Running {
                    mean: &mut mean,
                    var: &mut var,
                    momentum,
                };
                batch_norm::batch_forward(
                    ctx,
                    &self.x,
                    affine,
                    Some(running),
                    epilogue,
                    statistics,
                    &mut y,
                )
            }
        }
        .unwrap();
        y
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().unwrap()
}

/// Mean and Σ (x − mean)² of a column, in f64.
fn moments(x: &[f64], channels: usize, c: usize) -> (f64, f64) {
    let column: Vec<f64> = x.iter().skip(c).step_by(channels).copied().collect();
    let mean = column.iter().sum::<f64>() / column.len() as f64;
    (mean, column.iter().map(|v| (v - mean) * (v - mean)).sum())
}

fn modes() -> impl Strategy<Value = BatchNorm> {
    prop_oneof![Just(BatchNorm::Running), Just(BatchNorm::Batch)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn forward_follows_the_definition(
        mode in modes(), rows in 2usize..40, c in 1usize..20, relu: bool, seed: u64
    ) {
        let problem = Problem::new(rows, c, seed);
        let before = problem.running.each_ref().map(values);
        let y = values(&problem.forward(mode, Momentum::Fixed(MOMENTUM), relu));
        let x = values(&problem.x);
        let [gamma, beta] = [&problem.gamma, &problem.beta].map(values);
        let residual = values(&problem.residual);
        let after = problem.running.each_ref().map(values);
        for c_out in 0..c {
            let (mean, squares) = moments(&x, c, c_out);
            let [was_mean, was_var] = before.each_ref().map(|v| v[c_out]);
            let [now_mean, now_var] = after.each_ref().map(|v| v[c_out]);
            let (mean, var) = match mode {
                BatchNorm::Running => {
                    prop_assert_eq!([was_mean, was_var], [now_mean, now_var]);
                    (was_mean, was_var)
                }
                BatchNorm::Batch => {
                    let unbiased = squares / (rows as f64 - 1.0);
                    let near = |got: f64, was: f64, batch: f64| {
                        (got - (0.9 * was + 0.1 * batch)).abs() < 1e-13
                    };
                    prop_assert!(near(now_mean, was_mean, mean));
                    prop_assert!(near(now_var, was_var, unbiased));
                    (mean, squares / rows as f64)
                }
            };
            for i in (c_out..rows * c).step_by(c) {
                let sum = (x[i] - mean) / (var + EPSILON).sqrt() * gamma[c_out]
                    + beta[c_out] + residual[i];
                let expected = if relu { sum.max(0.0) } else { sum };
                prop_assert!((y[i] - expected).abs() < 1e-11, "{} for {expected}", y[i]);
            }
        }
    }

    #[test]
    fn backward_equals_finite_differences(
        mode in modes(), rows in 2usize..30, c in 1usize..12, seed: u64
    ) {
        let problem = Problem::new(rows, c, seed);
        let momentum = Momentum::Fixed(0.0);
        problem.forward(mode, momentum, false);
        let ctx = &problem.ctx;
        let [mean, invstd] = problem.saved.each_ref().map(|t| {
            Tensor::from_slice(ctx.device(), [c], &values(t)).unwrap()
        });
        let saved = Saved { x: &problem.x, gamma: &problem.gamma, mean: &mean, invstd: &invstd, relu: None };
        let (mut dx, mut dg, mut db) = (nan(ctx, [rows, c]), nan(ctx, [c]), nan(ctx, [c]));
        for accumulate in [Accumulate::No, Accumulate::Yes] {
            let gradients = Gradients {
                x: Some(&mut dx), gamma: Some(&mut dg), beta: Some(&mut db),
            };
            batch_norm::backward(ctx, mode, saved, &problem.dy, accumulate, gradients).unwrap();
        }
        let loss = || inner(&problem.forward(mode, momentum, false), &problem.dy);
        // Few rows of nearly equal values make third derivatives large.
        let smallest = (0..c).map(|c_out| moments(&values(&problem.x), c, c_out).1 / rows as f64);
        prop_assume!(mode == BatchNorm::Running || smallest.fold(1.0, f64::min) > 1e-2);
        support::check_gradient_within(1e-6, "x", &problem.x, &dx, loss);
        // γ and β were written once and added once.
        check_gradient("gamma", &problem.gamma, &dg, || 2.0 * loss());
        check_gradient("beta", &problem.beta, &db, || 2.0 * loss());
    }
}

/// x = 1000 + noise: the naive Σx² − (Σx)²/M leaves nothing of the variance in f32.
#[test]
fn the_variance_of_a_large_mean_survives_f32() {
    for ctx in contexts() {
        check_large_mean(&ctx);
    }
}

fn check_large_mean(ctx: &Context) {
    let (rows, c) = (20_000, 3);
    let mut numbers = Numbers::new(3);
    let x: Vec<f32> = numbers
        .vec(rows * c)
        .iter()
        .map(|v| 1000.0 + *v as f32)
        .collect();
    let exact: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let x = Tensor::from_slice(ctx.device(), [rows, c], &x).unwrap();
    let constant = |value: f32| Tensor::from_slice(ctx.device(), [c], &vec![value; c]).unwrap();
    let (gamma, beta) = (constant(1.0), constant(0.0));
    let (mut mean, mut invstd) = (constant(f32::NAN), constant(f32::NAN));
    let (mut running_mean, mut running_var) = (constant(5.0), constant(5.0));
    let mut y = zeros(ctx, [rows, c], DType::F32);
    batch_norm::batch_forward(
        ctx,
        &x,
        Affine {
            gamma: &gamma,
            beta: &beta,
        },
        Some(Running {
            mean: &mut running_mean,
            var: &mut running_var,
            momentum: Momentum::Cumulative { count: 0 },
        }),
        Epilogue::default(),
        Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        },
        &mut y,
    )
    .unwrap();
    let var = running_var.to_vec::<f32>().unwrap();
    for (c_out, got) in running_mean
        .to_vec::<f32>()
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let (mean, squares) = moments(&exact, c, c_out);
        let var_exact = squares / (rows as f64 - 1.0);
        // Means of blocks are sums of up to 1024 values near 1000, each sum rounded: 1000 ε √1024.
        assert!(
            (f64::from(got) - mean).abs() < 1000.0 * 32.0 * f64::from(f32::EPSILON),
            "{got}"
        );
        let relative = (f64::from(var[c_out]) - var_exact).abs() / var_exact;
        assert!(relative < 1e-4, "{} for {var_exact}", var[c_out]);
    }
}

#[test]
fn cumulative_momentum_is_the_mean_over_batches() {
    let problem = Problem::new(10, 4, 1);
    let mut sums = [0.0; 4];
    for count in 0..3 {
        let mut handle = problem.x.clone();
        let moved: Vec<f64> = Numbers::new(count).vec(40);
        handle.copy_from_slice(&moved).unwrap();
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum += moments(&moved, 4, c).0 / 3.0;
        }
        problem.forward(BatchNorm::Batch, Momentum::Cumulative { count }, false);
    }
    for (got, expected) in values(&problem.running[0]).into_iter().zip(sums) {
        assert!((got - expected).abs() < 1e-14, "{got} for {expected}");
    }
}

#[test]
fn a_folded_convolution_equals_convolution_then_normalisation() {
    let ctx = cpu();
    let mut numbers = Numbers::new(9);
    let (window, k) = (Window::square(3, 1, 1), 6);
    let x = numbers.f64(&ctx, [2, 5, 5, 4]);
    let filter = numbers.f64(&ctx, [k, 3, 3, 4]);
    let [gamma, beta, mean] = std::array::from_fn(|_| numbers.f64(&ctx, [k]));
    let var: Vec<f64> = numbers.vec(k).iter().map(|v| v * v + 0.05).collect();
    let var = Tensor::from_slice(ctx.device(), [k], &var).unwrap();
    let affine = Affine {
        gamma: &gamma,
        beta: &beta,
    };
    let shape = [2, 5, 5, k];
    let (mut between, mut expected, mut got) =
        (nan(&ctx, shape), nan(&ctx, shape), nan(&ctx, shape));
    conv::forward(
        &ctx,
        &x,
        &filter,
        window,
        conv::Epilogue::default(),
        &mut between,
    )
    .unwrap();
    let (mut saved_mean, mut invstd) = (nan(&ctx, [k]), nan(&ctx, [k]));
    let statistics = Statistics {
        mean: &mut saved_mean,
        invstd: &mut invstd,
    };
    let running = RunningStatistics {
        mean: &mean,
        var: &var,
    };
    let plain = Epilogue::default();
    batch_norm::running_forward(
        &ctx,
        &between,
        affine,
        running,
        plain,
        statistics,
        &mut expected,
    )
    .unwrap();
    // Rows of the folded filter are padded, as in a parameter arena.
    let mut folded = nan(&ctx, [k, 40]).columns(0, 36).unwrap();
    let mut bias = nan(&ctx, [k]);
    batch_norm::fold(&ctx, &filter, affine, running, &mut folded, &mut bias).unwrap();
    let epilogue = conv::Epilogue {
        bias: Some(&bias),
        ..conv::Epilogue::default()
    };
    conv::forward(&ctx, &x, &folded, window, epilogue, &mut got).unwrap();
    for (got, expected) in values(&got).into_iter().zip(values(&expected)) {
        assert!((got - expected).abs() < 1e-13, "{got} for {expected}");
    }
}

#[test]
fn one_value_per_channel_has_no_variance() {
    let ctx = cpu();
    let mut numbers = Numbers::new(1);
    let [gamma, beta, mut mean, mut invstd] = std::array::from_fn(|_| numbers.f64(&ctx, [3]));
    let (x, mut y) = (numbers.f64(&ctx, [1, 3]), nan(&ctx, [1, 3]));
    let error = batch_norm::batch_forward(
        &ctx,
        &x,
        Affine {
            gamma: &gamma,
            beta: &beta,
        },
        None,
        Epilogue::default(),
        Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        },
        &mut y,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("more than one value per channel"),
        "{error}"
    );
}
