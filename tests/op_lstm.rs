//! LSTM: against PyTorch's, and every gradient of a stack with dropout against finite differences.

use crate::support;
use proptest::prelude::*;
use showtell::device::Precision;
use showtell::ops::lstm::sequence::{self, Dropout, Gradients};
use showtell::ops::lstm::{self, Cell, Input, Layer, LayerGradients, State, StateMut};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device, Shape};
use support::{
    Golden, Numbers, alone, check_gradient, contexts, counters, cpu, cuda, inner, nan, zeros,
};

const NAMES: [&str; 4] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];

/// The four tensors of each layer, in the order of `NAMES`.
type Stack = Vec<[Tensor; 4]>;

fn shapes(inputs: usize, hidden: usize, layers: usize) -> Vec<[Shape; 4]> {
    let layer = |l| {
        let inputs = if l == 0 { inputs } else { hidden };
        let (ih, hh) = ([4 * hidden, inputs], [4 * hidden, hidden]);
        [
            ih.into(),
            hh.into(),
            [4 * hidden].into(),
            [4 * hidden].into(),
        ]
    };
    (0..layers).map(layer).collect()
}

fn layers(stack: &Stack) -> Vec<Layer<'_>> {
    stack
        .iter()
        .map(|[weight_ih, weight_hh, bias_ih, bias_hh]| Layer {
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
        })
        .collect()
}

fn layer_gradients(stack: &mut Stack) -> Vec<LayerGradients<'_>> {
    stack
        .iter_mut()
        .map(|[weight_ih, weight_hh, bias_ih, bias_hh]| LayerGradients {
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
        })
        .collect()
}

/// Everything that `sequence::backward` writes, overwritten from NaN.
struct All {
    stack: Stack,
    x: Tensor,
    h: Tensor,
    c: Tensor,
}

fn backward(
    ctx: &Context,
    stack: &Stack,
    x: &Tensor,
    state: State,
    dropout: Option<Dropout>,
    dy: &Tensor,
) -> All {
    let saved = sequence::forward(ctx, &layers(stack), x, Some(state), dropout).unwrap();
    let [h, c] = [nan(ctx, state.h.shape()), nan(ctx, state.c.shape())];
    let nans = |layer: &[Tensor; 4]| layer.each_ref().map(|t| nan(ctx, t.shape()));
    let (stack_gradient, x_gradient) = (stack.iter().map(nans).collect(), nan(ctx, x.shape()));
    let mut all = All {
        stack: stack_gradient,
        x: x_gradient,
        h,
        c,
    };
    let gradients = Gradients {
        layers: layer_gradients(&mut all.stack),
        x: Some(&mut all.x),
        initial: Some(StateMut {
            h: &mut all.h,
            c: &mut all.c,
        }),
    };
    sequence::backward(ctx, &layers(stack), x, &saved, dy, gradients).unwrap();
    all
}

#[test]
fn equals_pytorch() {
    let ctx = cpu();
    let golden = Golden::open("lstm");
    let get = |name: &str| golden.tensor(&ctx, name);
    let names = |l: usize| NAMES.map(|name| format!("{name}_l{l}"));
    let stack: Stack = (0..2).map(|l| names(l).map(|name| get(&name))).collect();
    let (x, h, c, dy) = (get("x"), get("h0"), get("c0"), get("dy"));
    let state = State { h: &h, c: &c };
    let saved = sequence::forward(&ctx, &layers(&stack), &x, Some(state), None).unwrap();
    golden.check("y", &saved.output().unwrap());
    let all = backward(&ctx, &stack, &x, state, None, &dy);
    golden.check("d_x", &all.x);
    golden.check("d_h0", &all.h);
    golden.check("d_c0", &all.c);
    for l in 0..2 {
        for (name, gradient) in names(l).iter().zip(&all.stack[l]) {
            golden.check(&format!("d_{name}"), gradient);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn backward_equals_finite_differences(
        steps in 1usize..5, batch in 1usize..4, inputs in 1usize..6, hidden in 1usize..6,
        depth in 1usize..4, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let stack: Stack = shapes(inputs, hidden, depth)
            .into_iter()
            .map(|layer| layer.map(|shape| numbers.f64(&ctx, shape)))
            .collect();
        let wide = numbers.f64(&ctx, [steps, batch, inputs + 3]);
        let x = wide.columns(2, inputs).unwrap();
        let [h, c] = [(); 2].map(|()| numbers.f64(&ctx, [depth, batch, hidden]));
        let dy = numbers.f64(&ctx, [steps, batch, hidden]);
        let site = support::site(&ctx, seed, 3, 5);
        let dropout = Some(Dropout { p: 0.4, site });
        let state = State { h: &h, c: &c };
        let all = backward(&ctx, &stack, &x, state, dropout.clone(), &dy);
        let loss = || {
            let saved = sequence::forward(&ctx, &layers(&stack), &x, Some(state), dropout.clone()).unwrap();
            inner(&saved.output().unwrap(), &dy)
        };
        check_gradient("x", &x, &all.x, loss);
        check_gradient("h", &h, &all.h, loss);
        check_gradient("c", &c, &all.c, loss);
        for (layer, gradients) in stack.iter().zip(&all.stack) {
            for ((name, tensor), gradient) in NAMES.iter().zip(layer).zip(gradients) {
                check_gradient(name, tensor, gradient, loss);
            }
        }
    }
}

/// A matrix of f32 with padding behind its rows, from numbers that are the same on every device.
fn padded(ctx: &Context, numbers: &mut Numbers, rows: usize, cols: usize, pad: usize) -> Tensor {
    let wide = numbers.f32(ctx, [rows, cols + pad]);
    wide.columns(0, cols).unwrap()
}

/// The same numbers in f64 on the CPU.
fn in_f64(x: &Tensor) -> Tensor {
    let values: Vec<f64> = x
        .to_vec::<f32>()
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect();
    Tensor::from_slice(&Device::cpu(), x.shape(), &values).unwrap()
}

/// The largest difference of an f32 tensor from an f64 one.
fn off(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (
        got.to_vec::<f32>().unwrap(),
        expected.to_vec::<f64>().unwrap(),
    );
    let differences = got
        .iter()
        .zip(&expected)
        .map(|(&g, e)| (f64::from(g) - e).abs());
    differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// A step on every device and in every precision against f64. Rounding the factors of a sum of K products, each at most 1, by u
/// moves it by about 2 u √(K / 9); adding up in f32 by ε √K; no activation is steeper than 1. 8 u √K, u the larger.
#[test]
fn a_step_in_every_precision() {
    let precisions = [
        (Precision::F32, 2f64.powi(-24)),
        (Precision::Tf32, 2f64.powi(-11)),
        (Precision::Bf16, 2f64.powi(-9)),
    ];
    let cuda = precisions.map(|(precision, unit)| Some((support::cuda_with(precision)?, unit)));
    let cpu = Some((cpu(), precisions[0].1));
    for (ctx, unit) in cuda.into_iter().chain([cpu]).flatten() {
        for (batch, depths, hidden, pad) in [
            (1, vec![1], 1, 0),
            (3, vec![5, 3], 7, 2),
            (32, vec![64], 16, 0),
            (33, vec![40, 52], 20, 4),
            (70, vec![33, 100], 37, 1),
            (130, vec![36], 12, 4),
        ] {
            let name = format!("{}: {batch} x {depths:?} x {hidden}", ctx.device().name());
            let mut numbers = Numbers::new(31);
            let mut random = |rows, cols| padded(&ctx, &mut numbers, rows, cols, pad);
            let factors: Vec<[Tensor; 2]> = depths
                .iter()
                .map(|&depth| [random(batch, depth), random(4 * hidden, depth)])
                .collect();
            let (mut gates, c_prev) = (random(batch, 4 * hidden), random(batch, hidden));
            let [mut c, mut h] = [(); 2].map(|()| random(batch, hidden));
            let exact: Vec<[Tensor; 2]> = factors
                .iter()
                .map(|pair| pair.each_ref().map(in_f64))
                .collect();
            let [mut exact_gates, exact_c_prev, mut exact_c, mut exact_h] =
                [&gates, &c_prev, &c, &h].map(in_f64);
            let inputs = |factors: &'_ [[Tensor; 2]]| -> Vec<(Tensor, Tensor)> {
                factors
                    .iter()
                    .map(|[x, weight]| (x.clone(), weight.clone()))
                    .collect()
            };
            let (inputs, exact) = (inputs(&factors), inputs(&exact));
            let as_inputs = |pairs: &[(Tensor, Tensor)], run: &mut dyn FnMut(&[Input])| {
                let inputs: Vec<Input> = pairs
                    .iter()
                    .map(|(x, weight)| Input { x, weight })
                    .collect();
                run(&inputs);
            };
            as_inputs(&inputs, &mut |inputs| {
                lstm::step_forward(&ctx, inputs, &mut gates, &c_prev, &mut c, &mut h).unwrap();
            });
            as_inputs(&exact, &mut |inputs| {
                let (gates, c, h) = (&mut exact_gates, &mut exact_c, &mut exact_h);
                lstm::step_forward(&support::cpu(), inputs, gates, &exact_c_prev, c, h).unwrap();
            });
            let bound = 8.0 * unit * (depths.iter().sum::<usize>() as f64).sqrt().max(2.0);
            for (what, got, expected) in [
                ("gates", &gates, &exact_gates),
                ("c", &c, &exact_c),
                ("h", &h, &exact_h),
            ] {
                let off = off(got, expected);
                assert!(
                    off <= bound,
                    "{name}: {what} is off by {off}, more than {bound}"
                );
            }
        }
    }
}

/// The cell's backward against f64: a dozen operations on numbers of at most 2, and tanh: 32 ε.
#[test]
fn the_cell_backward_on_every_device() {
    for ctx in contexts() {
        for (batch, hidden, pad, with_later) in [
            (1, 1, 0, true),
            (5, 7, 2, false),
            (33, 16, 4, true),
            (40, 36, 0, false),
        ] {
            let mut numbers = Numbers::new(32);
            let mut random = |cols| padded(&ctx, &mut numbers, batch, cols, pad);
            let (gates, c_prev, c, dh) = (
                random(4 * hidden),
                random(hidden),
                random(hidden),
                random(hidden),
            );
            let (mut dc, mut d_gates) = (random(hidden), random(4 * hidden));
            let later = with_later.then(|| random(hidden));
            let [e_gates, e_c_prev, e_c, e_dh, mut e_dc, mut e_d_gates] =
                [&gates, &c_prev, &c, &dh, &dc, &d_gates].map(in_f64);
            let e_later = later.as_ref().map(in_f64);
            let cell = Cell {
                gates: &gates,
                c_prev: &c_prev,
                c: &c,
            };
            lstm::cell_backward(&ctx, cell, &dh, later.as_ref(), &mut dc, &mut d_gates).unwrap();
            let cell = Cell {
                gates: &e_gates,
                c_prev: &e_c_prev,
                c: &e_c,
            };
            lstm::cell_backward(
                &cpu(),
                cell,
                &e_dh,
                e_later.as_ref(),
                &mut e_dc,
                &mut e_d_gates,
            )
            .unwrap();
            for (got, expected) in [(&dc, &e_dc), (&d_gates, &e_d_gates)] {
                let off = off(got, expected);
                let name = ctx.device().name();
                assert!(
                    off <= 32.0 * f64::from(f32::EPSILON),
                    "{name}: {batch} x {hidden} is off by {off}"
                );
            }
        }
    }
}

/// A step for decoding, through two layers, against f64.
#[test]
fn a_decoding_step_on_every_device() {
    for ctx in contexts() {
        let mut numbers = Numbers::new(33);
        let (batch, inputs, hidden) = (5, 20, 17);
        let stack = f32_stack(&ctx, &mut numbers, inputs, hidden);
        let x = numbers.f32(&ctx, [batch, inputs]);
        let states = [(); 4].map(|()| numbers.f32(&ctx, [2, batch, hidden]));
        let exact_stack: Stack = stack
            .iter()
            .map(|layer| layer.each_ref().map(in_f64))
            .collect();
        let (exact_x, exact_states) = (in_f64(&x), states.each_ref().map(in_f64));
        for (ctx, stack, x, states) in [
            (&ctx, &stack, &x, &states),
            (&cpu(), &exact_stack, &exact_x, &exact_states),
        ] {
            let [h, c, mut next_h, mut next_c] = states.clone();
            let next = StateMut {
                h: &mut next_h,
                c: &mut next_c,
            };
            lstm::step(ctx, &layers(stack), x, State { h: &h, c: &c }, next).unwrap();
        }
        let bound = 8.0 * f64::from(f32::EPSILON) * ((inputs + 2 * hidden) as f64).sqrt();
        for (got, expected) in states.iter().zip(&exact_states).skip(2) {
            let off = off(got, expected);
            assert!(off <= bound, "{}: off by {off}", ctx.device().name());
        }
    }
}

/// One launch, which writes gates, c and h once and asks for the weights once for every 32 rows.
#[test]
fn a_step_is_one_launch() {
    if !alone("a_step_is_one_launch", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let (batch, hidden, depths, mut numbers) = (32, 64, [128, 64], Numbers::new(34));
    let mut random = |rows, cols| numbers.f32(&ctx, [rows, cols]);
    let factors = depths.map(|depth| [random(batch, depth), random(4 * hidden, depth)]);
    let (mut gates, c_prev) = (random(batch, 4 * hidden), random(batch, hidden));
    let [mut c, mut h] = [(); 2].map(|()| random(batch, hidden));
    let inputs = factors.each_ref().map(|[x, weight]| Input { x, weight });
    let counted = counters(|| {
        lstm::step_forward(&ctx, &inputs, &mut gates, &c_prev, &mut c, &mut h).unwrap();
    });
    let Some(counted) = counted else { return };
    assert_eq!(counted.as_object().unwrap().len(), 1, "{counted}");
    let kernel = &counted["lstm_step_forward_f32_short_step"];
    let (depth, blocks) = (depths.iter().sum::<usize>(), hidden / 8);
    let loads = 4 * hidden * depth + blocks * batch * depth + batch * 5 * hidden;
    assert_eq!(kernel["launches"], 1);
    assert_eq!(kernel["global_load_bytes"], 4 * loads);
    assert_eq!(kernel["global_store_bytes"], 4 * batch * 6 * hidden);
    assert_eq!(kernel["bank_conflicts"], 0);
}

fn f32_stack(ctx: &Context, numbers: &mut Numbers, inputs: usize, hidden: usize) -> Stack {
    let layers = shapes(inputs, hidden, 2).into_iter();
    layers
        .map(|layer| layer.map(|shape| numbers.f32(ctx, shape)))
        .collect()
}

/// A sequence from zero is its single steps; rounding differs only in how products are blocked: k ε √n with n the
/// length of the products, times the steps that an error lives on.
#[test]
fn steps_make_up_the_sequence() {
    let ctx = cpu();
    let mut numbers = Numbers::new(11);
    let (steps, batch, inputs, hidden) = (6, 3, 20, 17);
    let stack = f32_stack(&ctx, &mut numbers, inputs, hidden);
    let x = numbers.f32(&ctx, [steps, batch, inputs]);
    let saved = sequence::forward(&ctx, &layers(&stack), &x, None, None).unwrap();
    let output = saved.output().unwrap();
    let shape = [2, batch, hidden];
    let mut states = [(); 4].map(|()| zeros(&ctx, shape, DType::F32));
    for t in 0..steps {
        let [h, c, next_h, next_c] = &mut states;
        let next = StateMut {
            h: next_h,
            c: next_c,
        };
        lstm::step(
            &ctx,
            &layers(&stack),
            &x.index(t).unwrap(),
            State { h, c },
            next,
        )
        .unwrap();
        states.rotate_left(2);
        let got = states[0].index(1).unwrap().to_vec::<f32>().unwrap();
        let expected = output.index(t).unwrap().to_vec::<f32>().unwrap();
        let bound = 4.0 * steps as f32 * f32::EPSILON * ((inputs + hidden) as f32).sqrt();
        for (got, expected) in got.iter().zip(&expected) {
            assert!(
                (got - expected).abs() <= bound,
                "step {t}: {got} for {expected}"
            );
        }
    }
}

#[test]
fn layers_that_do_not_fit_are_errors() {
    let ctx = cpu();
    let stack = f32_stack(&ctx, &mut Numbers::new(13), 4, 3);
    let x = zeros(&ctx, [2, 2, 5], DType::F32);
    let error = sequence::forward(&ctx, &layers(&stack), &x, None, None)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "lstm: weight_ih should have shape [12, 5], has [12, 4]"
    );
    let error = sequence::forward(&ctx, &[], &x, None, None).err().unwrap();
    assert_eq!(error.to_string(), "lstm: there are no layers");
}
