//! Batch normalisation on every device and in every type, against the CPU in f64.

use crate::support;
use showtell::DType;
use showtell::ops::batch_norm::{
    self, Affine, BatchNorm, Epilogue, Gradients, MOMENTUM, Momentum, Running, RunningStatistics,
    Saved, Statistics,
};
use showtell::ops::{Accumulate, conv, copy};
use showtell::tensor::{Context, Tensor};
use support::typed::{
    check_padding, fill, in_f64, random, to_f64, typed_contexts, unit_roundoff, unwritten,
};
use support::{Numbers, alone, counters, cpu, cuda, paddings};

/// A normalisation on any device and in any type: forward, then backward.
struct Run {
    mode: BatchNorm,
    relu: bool,
    accumulate: Accumulate,
}

/// Inputs: x, residual and dy of the type, and γ, β, running mean and variance.
struct Inputs {
    x: Tensor,
    residual: Option<Tensor>,
    dy: Tensor,
    parameters: [Tensor; 4],
}

impl Inputs {
    fn new(ctx: &Context, [rows, c, padding]: [usize; 3], residual: bool, dtype: DType) -> Self {
        let mut numbers = Numbers::new((rows + c + padding) as u64);
        let mut paddings = paddings(padding);
        let mut of_rows = || {
            let padding = paddings.next().unwrap();
            random(ctx, &mut numbers, [rows, c], padding, dtype)
        };
        let (x, added, dy) = (of_rows(), of_rows(), of_rows());
        let [gamma, beta, mean] = std::array::from_fn(|_| numbers.f32(ctx, [c]));
        let var = numbers.vec(c).into_iter().map(|v| (v * v + 0.1) as f32);
        let var = Tensor::from_slice(ctx.device(), [c], &var.collect::<Vec<_>>()).unwrap();
        Inputs {
            x,
            residual: residual.then_some(added),
            dy,
            parameters: [gamma, beta, mean, var],
        }
    }

    fn in_f64(&self, cpu: &Context) -> Self {
        Inputs {
            x: in_f64(cpu, &self.x),
            residual: self.residual.as_ref().map(|z| in_f64(cpu, z)),
            dy: in_f64(cpu, &self.dy),
            parameters: self.parameters.each_ref().map(|p| in_f64(cpu, p)),
        }
    }
}

impl Run {
    /// y, dx, then (C) each: mean, invstd, running mean and variance, dγ, dβ.
    fn results(&self, ctx: &Context, inputs: &Inputs, padding: usize) -> [Vec<f64>; 8] {
        let Inputs {
            x,
            residual,
            dy,
            parameters,
        } = inputs;
        let [gamma, beta, running_mean, running_var] = parameters;
        // Behind those of the inputs.
        let mut paddings = paddings(padding).skip(3);
        let mut of_rows = || unwritten(ctx, x.shape(), paddings.next().unwrap(), x.dtype());
        let of_channels = || unwritten(ctx, gamma.shape(), 0, gamma.dtype());
        let (mut y, mut dx) = (of_rows(), of_rows());
        let [mut mean, mut invstd, mut d_gamma, mut d_beta] =
            std::array::from_fn(|_| of_channels());
        let copy = |from: &Tensor| {
            let mut to = unwritten(ctx, from.shape(), 0, from.dtype());
            copy::forward(ctx, from, &mut to).unwrap();
            to
        };
        let [mut running_mean, mut running_var] = [copy(running_mean), copy(running_var)];
        let affine = Affine { gamma, beta };
        let epilogue = Epilogue {
            residual: residual.as_ref(),
            relu: self.relu,
        };
        let statistics = Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        };
        match self.mode {
            BatchNorm::Running => {
                let (mean, var) = (&running_mean, &running_var);
                let running = RunningStatistics { mean, var };
                batch_norm::running_forward(ctx, x, affine, running, epilogue, statistics, &mut y)
            }
            BatchNorm::Batch => {
                let (mean, var) = (&mut running_mean, &mut running_var);
                let momentum = Momentum::Fixed(MOMENTUM);
                let running = Some(Running {
                    mean,
                    var,
                    momentum,
                });
                batch_norm::batch_forward(ctx, x, affine, running, epilogue, statistics, &mut y)
            }
        }
        .unwrap();
        let saved = Saved {
            x,
            gamma,
            mean: &mean,
            invstd: &invstd,
            relu: (self.relu && residual.is_none()).then_some(beta),
        };
        if self.accumulate == Accumulate::Yes {
            [d_gamma, d_beta] = [copy(beta), copy(beta)];
        }
        let gradients = Gradients {
            x: Some(&mut dx),
            gamma: Some(&mut d_gamma),
            beta: Some(&mut d_beta),
        };
        batch_norm::backward(ctx, self.mode, saved, dy, self.accumulate, gradients).unwrap();
        check_padding();
        [
            y,
            dx,
            mean,
            invstd,
            running_mean,
            running_var,
            d_gamma,
            d_beta,
        ]
        .map(|t| to_f64(&t))
    }
}

/// Against the CPU in f64, from the same rounded numbers. All arithmetic is f32: a mean is off by some u = 2^-24, so
/// (x − mean) invstd and invstd itself, relative to its size, by some u invstd; sums of M rows grow that by √M at most.
/// What is stored is rounded once more, to the type of x. With 136 columns 8 threads share the rows of a block, in whole vectors
/// too, and the last of two blocks has rows for one, two and three turns of them. In the last two shapes 101 and 140 blocks share the
/// rows, of which the threads that merge take 32 at a time, four and five times, and the last block has one row.
#[test]
fn every_device_and_type_equals_f64() {
    let cpu = cpu();
    for (ctx, dtype) in typed_contexts() {
        for (i, shape) in [
            [2, 1, 0],
            [37, 20, 0],
            [61, 13, 3],
            [35, 300, 8],
            [1500, 64, 8],
            [72, 136, 8],
            [80, 136, 8],
            [88, 136, 8],
            [6401, 17, 3],
            [8897, 17, 3],
        ]
        .into_iter()
        .enumerate()
        {
            let inputs = Inputs::new(&ctx, shape, i % 2 == 0, dtype);
            let expected_inputs = inputs.in_f64(&cpu);
            for mode in [BatchNorm::Running, BatchNorm::Batch] {
                let accumulate = [Accumulate::No, Accumulate::Yes][i % 2];
                let run = Run {
                    mode,
                    relu: i > 1,
                    accumulate,
                };
                let got = run.results(&ctx, &inputs, shape[2]);
                let expected = run.results(&cpu, &expected_inputs, 0);
                let invstd = &expected[3];
                let u = unit_roundoff(DType::F32);
                for (result, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                        let size = 1.0 + invstd[at % shape[1]];
                        let (growth, stored) = match result {
                            0 => (size, unit_roundoff(dtype)),
                            1 => (size * size, unit_roundoff(dtype)),
                            3 => (size * size, u),
                            6 | 7 => (size * (shape[0] as f64).sqrt(), u),
                            _ => (1.0, u),
                        };
                        let bound = 32.0 * u * growth + stored * expected.abs();
                        assert!(
                            (got - expected).abs() <= bound,
                            "{}, {dtype}, {mode:?}, {shape:?}: result {result} at {at} is {got} for {expected}",
                            ctx.device().name()
                        );
                    }
                }
                assert_eq!(got, run.results(&ctx, &inputs, shape[2]), "not repeatable");
            }
        }
    }
}

/// The CPU's numbers in f64, rounded to f32 and, for the filter, to its type: twice, where that is bf16.
#[test]
fn folding_on_every_device() {
    let cpu = cpu();
    for (ctx, dtype) in typed_contexts() {
        let mut numbers = Numbers::new(4);
        let (k, depth) = (5, 1100);
        let filter = random(&ctx, &mut numbers, [k, depth], 2, DType::F32);
        let Inputs { parameters, .. } = Inputs::new(&ctx, [1, k, 0], false, dtype);
        let fold = |ctx: &Context, filter: &Tensor, parameters: &[Tensor; 4], types: [DType; 2]| {
            let [gamma, beta, mean, var] = parameters;
            let mut folded = unwritten(ctx, [k, depth], 4, types[0]);
            let mut bias = unwritten(ctx, [k], 0, types[1]);
            let (affine, running) = (Affine { gamma, beta }, RunningStatistics { mean, var });
            batch_norm::fold(ctx, filter, affine, running, &mut folded, &mut bias).unwrap();
            [to_f64(&folded), to_f64(&bias)]
        };
        let got = fold(&ctx, &filter, &parameters, [dtype, DType::F32]);
        let wide = parameters.each_ref().map(|p| in_f64(&cpu, p));
        let expected = fold(&cpu, &in_f64(&cpu, &filter), &wide, [DType::F64; 2]);
        let u = unit_roundoff(DType::F32);
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            // The bias is a difference of two numbers of at most 1 and 1 / √0.1.
            let bound = (2.0 * u + unit_roundoff(dtype)) * expected.abs() + 4.0 * u;
            assert!((got - expected).abs() <= bound, "{got} for {expected}");
        }
    }
}

/// The ReLU lets NaN through, in every column of a vector, and cuts the infinity that is negative. Some threads have more rows than
/// one, with a residual and without.
#[test]
fn the_relu_hides_no_nan() {
    for (ctx, dtype) in typed_contexts() {
        for residual in [false, true] {
            check_relu(&ctx, residual, dtype);
        }
    }
}

fn check_relu(ctx: &Context, residual: bool, dtype: DType) {
    let (rows, c) = (20, 136);
    let mut inputs = Inputs::new(ctx, [rows, c, 0], residual, dtype);
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let mut values = to_f64(&inputs.x);
    for (i, value) in values.iter_mut().enumerate() {
        // Each kind in every column.
        *value = special.get((i / c + i) % 6).copied().unwrap_or(*value);
    }
    fill(&mut inputs.x, &values);
    let ones = Tensor::from_slice(ctx.device(), [c], &vec![1f32; c]).unwrap();
    copy::forward(ctx, &ones, &mut inputs.parameters[0]).unwrap();
    let (mode, relu, accumulate) = (BatchNorm::Running, true, Accumulate::No);
    let run = Run {
        mode,
        relu,
        accumulate,
    };
    let [y, ..] = run.results(ctx, &inputs, 0);
    for (i, (x, y)) in values.into_iter().zip(y).enumerate() {
        let right = match x {
            x if x.is_nan() => y.is_nan(),
            f64::INFINITY => y == f64::INFINITY,
            f64::NEG_INFINITY => y == 0.0,
            _ => y >= 0.0 && y.is_finite(),
        };
        assert!(right, "{}, {dtype}: {y} of {x} at {i}", ctx.device().name());
    }
}

/// No rows: nothing to normalise, and gradients of nothing.
#[test]
fn no_rows_have_no_gradient() {
    for (ctx, dtype) in typed_contexts() {
        let inputs = Inputs::new(&ctx, [0, 12, 0], true, dtype);
        let (mode, relu, accumulate) = (BatchNorm::Running, true, Accumulate::No);
        let [.., d_gamma, d_beta] = Run {
            mode,
            relu,
            accumulate,
        }
        .results(&ctx, &inputs, 0);
        assert_eq!([d_gamma, d_beta], [vec![0.0; 12], vec![0.0; 12]]);
    }
}

/// What has to move moves once, in whole sectors, in so many launches.
#[test]
fn kernels_read_no_more_than_they_must() {
    if !alone("kernels_read_no_more_than_they_must", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let (rows, c) = (4096, 128);
    let inputs = Inputs::new(&ctx, [rows, c, 0], false, DType::Bf16);
    let bytes = 2 * rows * c;
    for (mode, kernels) in [
        (
            BatchNorm::Running,
            vec![
                ("normalise_bf16x8", 1, 1),
                ("sums_bf16x8", 2, 1),
                ("merge_sums_f32", 0, 0),
            ],
        ),
        (
            BatchNorm::Batch,
            vec![
                ("moments_bf16x8", 1, 0),
                ("merge_moments_f32", 0, 0),
                ("normalise_bf16x8", 1, 1),
                ("sums_bf16x8", 2, 0),
                ("merge_sums_f32", 0, 0),
                ("gradient_bf16x8", 2, 1),
            ],
        ),
    ] {
        let (relu, accumulate) = (true, Accumulate::No);
        let run = Run {
            mode,
            relu,
            accumulate,
        };
        let counted = counters(|| {
            run.results(&ctx, &inputs, 0);
        });
        let Some(counted) = counted else { return };
        let launched = counted.as_object().unwrap().keys();
        let launched = launched
            .filter(|name| name.starts_with("batch_norm"))
            .count();
        assert_eq!(launched, kernels.len(), "{counted}");
        for (kernel, reads, writes) in kernels {
            let kernel = &counted[format!("batch_norm_{kernel}")];
            assert_eq!(kernel["launches"], 1);
            let sectors = kernel["distinct_sectors"].as_u64().unwrap() as usize;
            // Channels' parameters and blocks' sums come on top: a sixteenth at most.
            let least = (reads + writes) * bytes / 32;
            assert!(
                sectors >= least && sectors <= least + bytes / 32 / 8,
                "{mode:?}: {kernel}"
            );
        }
    }
}

/// The gradient through the ReLU is the same bits as by a pass of its own over what the ReLU gave: also where that is exactly 0, in a
/// channel that is 0 everywhere, and where it is NaN.
#[test]
fn a_relu_behind_it_masks_as_a_pass_of_its_own() {
    for (ctx, dtype) in typed_contexts() {
        for (rows, c, padding) in [(300, 24, 8), (77, 5, 3), (2, 1, 0)] {
            for mode in [BatchNorm::Running, BatchNorm::Batch] {
                masks_alike(&ctx, dtype, mode, [rows, c, padding]);
            }
        }
    }
}

fn masks_alike(ctx: &Context, dtype: DType, mode: BatchNorm, [rows, c, padding]: [usize; 3]) {
    let mut numbers = Numbers::new(17);
    let mut paddings = paddings(padding);
    let mut of_rows = || {
        let padding = paddings.next().unwrap();
        random(ctx, &mut numbers, [rows, c], padding, dtype)
    };
    let (x, mut dy, mut y) = (of_rows(), of_rows(), of_rows());
    let [mut dx, mut dx_alone] = [(); 2].map(|()| of_rows());
    let of_channels = |value: &dyn Fn(usize) -> f32| {
        let values: Vec<f32> = (0..c).map(value).collect();
        Tensor::from_slice(ctx.device(), [c], &values).unwrap()
    };
    // The first channel is 0 everywhere, and one is NaN.
    let gamma = of_channels(&|i| if i == 3 { f32::NAN } else { i as f32 * 0.1 });
    let beta = of_channels(&|i| if i == 0 { 0.0 } else { 0.05 - 0.01 * i as f32 });
    let (running_mean, running_var) = (of_channels(&|_| 0.1), of_channels(&|_| 0.3));
    let [mut mean, mut invstd] = [(); 2].map(|()| of_channels(&|_| f32::NAN));
    let affine = Affine {
        gamma: &gamma,
        beta: &beta,
    };
    let epilogue = Epilogue {
        residual: None,
        relu: true,
    };
    let statistics = Statistics {
        mean: &mut mean,
        invstd: &mut invstd,
    };
    match mode {
        BatchNorm::Running => {
            let (mean, var) = (&running_mean, &running_var);
            let running = RunningStatistics { mean, var };
            batch_norm::running_forward(ctx, &x, affine, running, epilogue, statistics, &mut y)
        }
        BatchNorm::Batch => {
            batch_norm::batch_forward(ctx, &x, affine, None, epilogue, statistics, &mut y)
        }
    }
    .unwrap();
    let backward = |relu, dy: &Tensor, dx: &mut Tensor| {
        let saved = Saved {
            x: &x,
            gamma: &gamma,
            mean: &mean,
            invstd: &invstd,
            relu,
        };
        let [mut d_gamma, mut d_beta] = [(); 2].map(|()| of_channels(&|_| f32::NAN));
        let gradients = Gradients {
            x: Some(&mut *dx),
            gamma: Some(&mut d_gamma),
            beta: Some(&mut d_beta),
        };
        batch_norm::backward(ctx, mode, saved, dy, Accumulate::No, gradients).unwrap();
        let bits = |tensor: &Tensor| -> Vec<u64> {
            to_f64(tensor).into_iter().map(f64::to_bits).collect()
        };
        [bits(dx), bits(&d_gamma), bits(&d_beta)]
    };
    let got = backward(Some(&beta), &dy, &mut dx);
    conv::relu_backward(ctx, &y, &mut dy).unwrap();
    let expected = backward(None, &dy, &mut dx_alone);
    check_padding();
    assert!(
        got == expected,
        "{}, {dtype}, {mode:?}, {rows} x {c}",
        ctx.device().name()
    );
}
