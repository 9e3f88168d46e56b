//! Clips and optimisers against PyTorch's formulas written out in plain loops, in f64.

use crate::support;
use half::bf16;
use proptest::prelude::*;
use showtell::ops::clip::{self, Clip};
use showtell::ops::optimiser::{self, Adam, Moments, Sgd, Weights};
use showtell::{Context, DType, Tensor};
use support::{Numbers, alone, contexts, counters, cpu, cuda, nan, zeros};

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
            optimiser::sgd(&ctx, settings, &schedule, clip, &gradients, &mut velocity, (&mut values).into())
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
        let settings = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-2 };
        for step in 1..=steps {
            let g: Vec<f64> = numbers.vec(n).iter().map(|g| 8.0 * g).collect();
            let gradients = Tensor::from_slice(ctx.device(), [n], &g).unwrap();
            let schedule = Tensor::from_slice(ctx.device(), [2], &[4e-4, step as f64]).unwrap();
            let moments = Moments { first: &mut first, second: &mut second };
            let clip = Clip::Value(5.0);
            optimiser::adam(&ctx, settings, &schedule, clip, &gradients, moments, (&mut values).into())
                .unwrap();
            let t = step as i32;
            for i in 0..n {
                let g = g[i].clamp(-5.0, 5.0) + 1e-2 * w[i];
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

const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 1e-5,
};
const SGD: Sgd = Sgd {
    momentum: 0.9,
    weight_decay: 1e-2,
};

/// With a decay that shows beside rounding: it is added after the clamp.
const DECAYING: Adam = Adam {
    weight_decay: 1e-2,
    ..ADAM
};

/// Values and state after `steps` steps in f32, on ranges of an arena that begin at `start`.
fn trained(ctx: &Context, adam: bool, n: usize, start: usize, steps: usize) -> Vec<Vec<f32>> {
    let mut numbers = Numbers::new(n as u64);
    let arena = |tensor: Tensor| tensor.columns(start, n).unwrap();
    let mut values = arena(numbers.f32(ctx, [n + start]));
    let mut state = [(); 2].map(|()| arena(zeros(ctx, [n + start], DType::F32)));
    let factor = Tensor::from_slice(ctx.device(), [1], &[0.3f32]).unwrap();
    for step in 1..=steps {
        let gradients = arena(numbers.f32(ctx, [n + start]));
        let schedule = [1e-2f32 / step as f32, step as f32];
        let schedule = Tensor::from_slice(ctx.device(), [2], &schedule).unwrap();
        let [first, second] = &mut state;
        let clip = [Clip::Factor(&factor), Clip::Value(0.4), Clip::None][step % 3];
        if adam {
            let moments = Moments { first, second };
            optimiser::adam(
                ctx,
                DECAYING,
                &schedule,
                clip,
                &gradients,
                moments,
                (&mut values).into(),
            )
            .unwrap();
        } else {
            optimiser::sgd(
                ctx,
                SGD,
                &schedule,
                clip,
                &gradients,
                first,
                (&mut values).into(),
            )
            .unwrap();
        }
    }
    let [first, second] = state;
    let tensors = [values, first, second];
    tensors.map(|tensor| tensor.to_vec().unwrap()).into()
}

/// The CUDA device and the CPU round a few operations a step differently, each within ε of the largest value there,
/// which is about 1; Adam's quotient of two such values, times its rate, is smaller still.
#[test]
fn the_cuda_device_follows_the_cpu() {
    let Some(ctx) = cuda() else { return };
    for adam in [false, true] {
        for (n, start) in [(1, 0), (1003, 0), (5000, 16), (2050, 3)] {
            let steps = 4;
            let got = trained(&ctx, adam, n, start, steps);
            let bound = 8.0 * (steps as f32).sqrt() * f32::EPSILON;
            for (got, expected) in got.iter().zip(trained(&cpu(), adam, n, start, steps)) {
                for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
                    let close = (got - expected).abs() <= bound * expected.abs().max(1.0);
                    assert!(close, "adam {adam}, {i} of {n}: {got} for {expected}");
                }
            }
            assert_eq!(got, trained(&ctx, adam, n, start, steps), "two runs");
        }
    }
}

#[test]
fn the_cpu_refuses_a_rounded_copy() {
    let ctx = support::cpu();
    let schedule = Tensor::from_slice(ctx.device(), [2], &[0.1f32, 1.0]).unwrap();
    let of = |dtype| zeros(&ctx, [5], dtype);
    let (g, mut u, mut values, mut rounded) = (
        of(DType::F32),
        of(DType::F32),
        of(DType::F32),
        of(DType::Bf16),
    );
    let weights = Weights {
        values: &mut values,
        rounded: Some(&mut rounded),
    };
    let refused = optimiser::sgd(&ctx, SGD, &schedule, Clip::None, &g, &mut u, weights);
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("the CPU updates no rounded copy"),
        "{message}"
    );
}

/// The copy for products is the new values, each rounded by itself, wherever it begins and ends, and the values are the same with it.
#[test]
fn the_rounded_copy_follows_the_values() {
    let Some(ctx) = cuda() else { return };
    let range = |arena: Tensor, start, n| arena.columns(start, n).unwrap();
    for (adam, n, start) in [
        (false, 1003, 0),
        (true, 1003, 0),
        (false, 2050, 3),
        (true, 2050, 3),
    ] {
        let of = |seed| range(Numbers::new(seed).f32(&ctx, [n + start]), start, n);
        let (gradients, mut values, mut alone) = (of(1), of(2), of(2));
        let mut rounded = range(zeros(&ctx, [n + start], DType::Bf16), start, n);
        let schedule = Tensor::from_slice(ctx.device(), [2], &[0.1f32, 1.0]).unwrap();
        for copied in [true, false] {
            let [mut first, mut second] =
                [(); 2].map(|()| range(zeros(&ctx, [n + start], DType::F32), start, n));
            let weights = match copied {
                true => Weights {
                    values: &mut values,
                    rounded: Some(&mut rounded),
                },
                false => (&mut alone).into(),
            };
            let (clip, g) = (Clip::None, &gradients);
            let moments = Moments {
                first: &mut first,
                second: &mut second,
            };
            match adam {
                true => optimiser::adam(&ctx, ADAM, &schedule, clip, g, moments, weights),
                false => optimiser::sgd(&ctx, SGD, &schedule, clip, g, moments.first, weights),
            }
            .unwrap();
        }
        let values = values.to_vec::<f32>().unwrap();
        let expected: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        assert_eq!(
            rounded.to_vec::<bf16>().unwrap(),
            expected,
            "adam {adam}, {n} from {start}"
        );
        assert_eq!(alone.to_vec::<f32>().unwrap(), values);
    }
}

/// 1 - βᵗ is small at first, where a plain difference in f32 would lose half its digits.
#[test]
fn adam_corrects_its_first_steps_exactly() {
    for ctx in contexts() {
        for t in [1, 2, 10, 1000, 100_000] {
            let one = |value: f32| Tensor::from_slice(ctx.device(), [1], &[value]).unwrap();
            let (mut first, mut second, mut values) = (one(0.0), one(0.0), one(0.0));
            let schedule = Tensor::from_slice(ctx.device(), [2], &[1f32, t as f32]).unwrap();
            let (settings, moments) = (
                Adam {
                    weight_decay: 0.0,
                    ..ADAM
                },
                Moments {
                    first: &mut first,
                    second: &mut second,
                },
            );
            let (clip, g) = (Clip::None, one(1.0));
            optimiser::adam(
                &ctx,
                settings,
                &schedule,
                clip,
                &g,
                moments,
                (&mut values).into(),
            )
            .unwrap();
            let share = |beta: f64| (1.0 - beta) / (1.0 - beta.powi(t));
            let expected = -share(0.9) / (share(0.999).sqrt() + 1e-8);
            let got = f64::from(values.to_vec::<f32>().unwrap()[0]);
            let bound = 8.0 * f64::from(f32::EPSILON);
            assert!(
                (got / expected - 1.0).abs() <= bound,
                "step {t}: {got} for {expected}"
            );
        }
    }
}

/// One launch whatever the arena, which reads g, m, v, w once and writes m, v, w once.
#[test]
fn an_update_is_one_launch_and_moves_each_value_once() {
    if !alone("an_update_is_one_launch_and_moves_each_value_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    for n in [1000, 100_000] {
        let mut tensors = [(); 4].map(|()| zeros(&ctx, [n], DType::F32));
        let schedule = Tensor::from_slice(ctx.device(), [2], &[1e-3f32, 1.0]).unwrap();
        let [g, first, second, values] = &mut tensors;
        let moments = Moments { first, second };
        let run = || {
            optimiser::adam(&ctx, ADAM, &schedule, Clip::None, g, moments, values.into()).unwrap();
        };
        let Some(counts) = counters(run) else { return };
        assert_eq!(counts.as_object().unwrap().len(), 1);
        let of = |what: &str| counts["optimiser_adam_f32x4"][what].as_u64().unwrap();
        let array = 4 * n as u64 / 32;
        assert_eq!(of("launches"), 1);
        assert_eq!(of("global_store_sectors"), 3 * array);
        // One sector more has the schedule.
        assert_eq!(of("distinct_sectors"), 4 * array + 1);
    }
}

/// No bound takes a NaN for a number.
#[test]
fn a_nan_passes_the_clip_on_the_cuda_device() {
    let Some(ctx) = cuda() else { return };
    for (n, place) in [3, 8]
        .into_iter()
        .flat_map(|n| (0..n).map(move |place| (n, place)))
    {
        let mut g = vec![1f32; n];
        g[place] = f32::NAN;
        let g = Tensor::from_slice(ctx.device(), [n], &g).unwrap();
        let [mut values, mut velocity] = [(); 2].map(|()| zeros(&ctx, [n], DType::F32));
        let schedule = Tensor::from_slice(ctx.device(), [2], &[0.1f32, 1.0]).unwrap();
        let (clip, weights) = (Clip::Value(5.0), (&mut values).into());
        optimiser::sgd(&ctx, SGD, &schedule, clip, &g, &mut velocity, weights).unwrap();
        let got = values.to_f32().unwrap();
        let expected = |i: usize| if i == place { f32::NAN } else { -0.1 };
        for (i, got) in got.into_iter().enumerate() {
            let same = got == expected(i) || got.is_nan() && i == place;
            assert!(same, "element {i} is {got}, of {n} with NaN in {place}");
        }
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
        (&mut values).into(),
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
        (&mut values).into(),
    )
    .unwrap();
    let values = values.to_vec::<f64>().unwrap();
    assert!(values[1].is_nan() && values[0] == -0.1);
}

#[test]
fn a_nan_gradient_stays_visible_on_every_device() {
    for ctx in contexts() {
        let three = |values: [f32; 3]| Tensor::from_slice(ctx.device(), [3], &values).unwrap();
        let (g, mut u, mut w) = (
            three([1.0, f32::NAN, 2.0]),
            three([0.0; 3]),
            three([0.0; 3]),
        );
        let schedule = Tensor::from_slice(ctx.device(), [2], &[0.1f32, 1.0]).unwrap();
        let clip = Clip::Value(0.5);
        optimiser::sgd(&ctx, SGD, &schedule, clip, &g, &mut u, (&mut w).into()).unwrap();
        let w = w.to_vec::<f32>().unwrap();
        assert!(w[1].is_nan() && w[0] == -0.05 && w[2] == -0.05, "{w:?}");
    }
}
