//! LSTM: against PyTorch's, and every gradient of a stack with dropout against finite differences.

use crate::support;
use proptest::prelude::*;
use showtell::ops::lstm::sequence::{self, Dropout, Gradients};
use showtell::ops::lstm::{self, Layer, LayerGradients, State, StateMut};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::typed::{in_f64, off};
use support::{Golden, Numbers, check_gradient, contexts, cpu, inner, nan, zeros};

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
            .map(|layer| layer.each_ref().map(|t| in_f64(&cpu(), t)))
            .collect();
        let (exact_x, exact_states) = (
            in_f64(&cpu(), &x),
            states.each_ref().map(|t| in_f64(&cpu(), t)),
        );
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
