//! A step of the LSTM and the cell's gradient, on every device and in every precision, against f64; what a step costs.

use crate::support;
use half::bf16;
use showtell::device::Precision;
use showtell::ops::lstm::{self, Cell, Input, Layer, LayerGradients, State, StateMut};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device, Shape};
use support::typed::{self, check_padding, off, random};
use support::{Numbers, alone, contexts, counters, cpu, cuda, zeros};

/// Matrices with padding around their rows, of each another one, from numbers that are the same on every device.
fn padded(
    ctx: &Context,
    mut numbers: Numbers,
    pad: usize,
) -> impl FnMut(DType, usize, usize) -> Tensor {
    let mut paddings = support::paddings(pad);
    move |dtype, rows, cols| {
        let padding = paddings.next().unwrap();
        random(ctx, &mut numbers, [rows, cols], padding, dtype)
    }
}

/// The same numbers in f64 on the CPU.
fn in_f64(x: &Tensor) -> Tensor {
    typed::in_f64(&cpu(), x)
}

/// A step on every device and in every precision against f64. Rounding the factors of a sum of K products, each at most 1, by u
/// moves it by about 2 u √(K / 9); adding up in f32 by ε √K; no activation is steeper than 1. 8 u √K, u the larger. Factors in bf16
/// are rounded beforehand, and h afterwards.
#[test]
fn a_step_in_every_precision() {
    let precisions = [
        (Precision::F32, 2f64.powi(-24)),
        (Precision::Tf32, 2f64.powi(-11)),
        // Tensor cores cut sums off: see `support::precision::tolerance`.
        (Precision::Bf16, 2f64.powi(-22)),
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
            (97, vec![36, 52], 9, 4),
            // Rows that begin at multiples of 8 bytes, a multiple of 16 apart.
            (4, vec![40], 8, 2),
            // In parts: of one input, and with borders of parts in both, the first of which ends within a step.
            (5, vec![700], 20, 0),
            (32, vec![512, 300], 16, 0),
            (70, vec![300, 577], 12, 4),
            (33, vec![40, 611], 21, 1),
        ] {
            step_is_near_f64(&ctx, unit, &depths, [batch, hidden, pad]);
        }
    }
}

/// One step; the numbers are rounded to `unit` where they are multiplied, if they are not in bf16 already.
fn step_is_near_f64(ctx: &Context, unit: f64, depths: &[usize], [batch, hidden, pad]: [usize; 3]) {
    let mut random = padded(ctx, Numbers::new(31), pad);
    let factor = DType::F32.of_activations(ctx.device().precision());
    let factors: Vec<[Tensor; 2]> = depths
        .iter()
        .map(|&depth| [batch, 4 * hidden].map(|rows| random(factor, rows, depth)))
        .collect();
    let mut of_sums = |cols| random(DType::F32, batch, cols);
    let (mut gates, c_prev, mut c) = (of_sums(4 * hidden), of_sums(hidden), of_sums(hidden));
    let mut h = random(factor, batch, hidden);
    let exact: Vec<[Tensor; 2]> = factors
        .iter()
        .map(|pair| pair.each_ref().map(in_f64))
        .collect();
    let [mut exact_gates, exact_c_prev, mut exact_c, mut exact_h] =
        [&gates, &c_prev, &c, &h].map(in_f64);
    let as_inputs = |pairs: &'_ [[Tensor; 2]], run: &mut dyn FnMut(&[Input])| {
        let inputs: Vec<Input> = pairs
            .iter()
            .map(|[x, weight]| Input { x, weight })
            .collect();
        run(&inputs);
    };
    as_inputs(&factors, &mut |inputs| {
        lstm::step_forward(ctx, inputs, &mut gates, &c_prev, &mut c, &mut h).unwrap();
    });
    as_inputs(&exact, &mut |inputs| {
        let (gates, c, h) = (&mut exact_gates, &mut exact_c, &mut exact_h);
        lstm::step_forward(&support::cpu(), inputs, gates, &exact_c_prev, c, h).unwrap();
    });
    check_padding();
    let bound = 8.0 * unit * (depths.iter().sum::<usize>() as f64).sqrt().max(2.0);
    // |h| is below 1.
    let of_h = bound + typed::unit_roundoff(factor);
    for (what, got, expected, bound) in [
        ("gates", &gates, &exact_gates, bound),
        ("c", &c, &exact_c, bound),
        ("h", &h, &exact_h, of_h),
    ] {
        let (off, name) = (off(got, expected), ctx.device().name());
        assert!(
            off <= bound,
            "{name}: {batch} x {depths:?} x {hidden}: {what} is off by {off}, more than {bound}"
        );
    }
}

/// The cell in the kernels of every precision, without the rounding of products, which are all zero: 32 ε. A NaN stays.
#[test]
fn the_cell_of_a_step_is_f32_in_every_precision() {
    for precision in support::precision::PRECISIONS {
        let Some(ctx) = support::cuda_with(precision) else {
            return;
        };
        for (batch, hidden) in [(32, 20), (130, 12)] {
            let mut numbers = Numbers::new(35);
            let mut of_sums = |cols| numbers.f32(&ctx, [batch, cols]);
            let (mut gates, c_prev, mut c) =
                (of_sums(4 * hidden), of_sums(hidden), of_sums(hidden));
            let mut h = zeros(&ctx, [batch, hidden], DType::F32.of_activations(precision));
            let [before, exact_c_prev] =
                [&gates, &c_prev].map(|t| in_f64(t).to_vec::<f64>().unwrap());
            let factor = DType::F32.of_activations(precision);
            let x = zeros(&ctx, [batch, 8], factor);
            let weight = random(&ctx, &mut Numbers::new(36), [4 * hidden, 8], 0, factor);
            let input = Input {
                x: &x,
                weight: &weight,
            };
            let step = |gates: &mut Tensor, c: &mut Tensor, h: &mut Tensor| {
                lstm::step_forward(&ctx, &[input], gates, &c_prev, c, h).unwrap();
            };
            step(&mut gates, &mut c, &mut h);
            let [c_values, h_values] = [&c, &h].map(|t| t.to_f32().unwrap());
            for i in 0..batch * hidden {
                let at = |gate: usize| before[(i / hidden * 4 + gate) * hidden + i % hidden];
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                let state = sigmoid(at(1)) * exact_c_prev[i] + sigmoid(at(0)) * at(2).tanh();
                let expected = [state, sigmoid(at(3)) * state.tanh()];
                let rounding = [0.0, typed::unit_roundoff(factor)];
                let got = [c_values[i], h_values[i]].into_iter().zip(rounding);
                for ((got, rounding), expected) in got.zip(expected) {
                    let off = (f64::from(got) - expected).abs();
                    let bound = 32.0 * f64::from(f32::EPSILON) + rounding * expected.abs();
                    assert!(
                        off <= bound,
                        "{precision}, {batch} x {hidden}: off by {off}"
                    );
                }
            }
            let all_nan = |like: &Tensor| {
                Tensor::from_slice(ctx.device(), like.shape(), &vec![f32::NAN; like.len()]).unwrap()
            };
            let (before, known) = (all_nan(&c_prev), [input]);
            lstm::step_forward(&ctx, &known, &mut gates, &before, &mut c, &mut h).unwrap();
            for state in [&c, &h] {
                let all = state.to_f32().unwrap().iter().all(|v| v.is_nan());
                assert!(all, "{precision}: of a state that is NaN");
            }
            let mut gates = all_nan(&gates);
            step(&mut gates, &mut c, &mut h);
            for tensor in [&gates, &c, &h] {
                let all = tensor.to_f32().unwrap().iter().all(|v| v.is_nan());
                assert!(all, "{precision}");
            }
        }
    }
}

/// The cell's backward against f64: a dozen operations on numbers of at most 2, and tanh: 32 ε. Gradients of the gates in bf16 are
/// those in f32, rounded.
#[test]
fn the_cell_backward_on_every_device() {
    for ctx in contexts() {
        for (batch, hidden, pad, with_later) in [
            (1, 1, 0, true),
            (5, 7, 2, false),
            (33, 16, 8, true),
            (40, 36, 0, false),
            (9, 40, 0, true),
        ] {
            let mut padded = padded(&ctx, Numbers::new(32), pad);
            let mut random = |cols| padded(DType::F32, batch, cols);
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
            let d_c_values = dc.to_f32().unwrap();
            lstm::cell_backward(&ctx, cell, &dh, later.as_ref(), &mut dc, &mut d_gates).unwrap();
            if let Device::Cuda(_) = ctx.device() {
                let mut again = padded(DType::F32, batch, hidden);
                again.copy_from_f32(&d_c_values).unwrap();
                let mut rounded = padded(DType::Bf16, batch, 4 * hidden);
                lstm::cell_backward(&ctx, cell, &dh, later.as_ref(), &mut again, &mut rounded)
                    .unwrap();
                let exact = d_gates.to_f32().unwrap();
                let expected = exact.iter().map(|&v| bf16::from_f32(v).to_f32());
                assert_eq!(rounded.to_f32().unwrap(), expected.collect::<Vec<_>>());
                assert_eq!(again.to_f32().unwrap(), dc.to_f32().unwrap());
            }
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
            check_padding();
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

/// Of a state that is NaN, everything that depends on it is.
#[test]
fn the_cell_backward_hides_no_nan() {
    for ctx in contexts() {
        for hidden in [8, 7] {
            let mut numbers = Numbers::new(37);
            let mut random = |cols| numbers.f32(&ctx, [2, cols]);
            let (gates, c_prev, dh) = (random(4 * hidden), random(hidden), random(hidden));
            let (mut dc, mut d_gates) = (random(hidden), random(4 * hidden));
            if let Device::Cuda(_) = ctx.device() {
                d_gates = zeros(&ctx, [2, 4 * hidden], DType::Bf16);
            }
            let c =
                Tensor::from_slice(ctx.device(), [2, hidden], &vec![f32::NAN; 2 * hidden]).unwrap();
            let cell = Cell {
                gates: &gates,
                c_prev: &c_prev,
                c: &c,
            };
            lstm::cell_backward(&ctx, cell, &dh, None, &mut dc, &mut d_gates).unwrap();
            for tensor in [&dc, &d_gates] {
                assert!(tensor.to_f32().unwrap().iter().all(|v| v.is_nan()));
            }
        }
    }
}

/// Two layers over a sequence from a state, forward and backward, in every precision against f64, relative to the norm: as
/// `nn_decoders` has it, 2 √30 times the rounding of what products read.
#[test]
fn a_sequence_from_a_state_in_every_precision() {
    for (precision, unit) in [
        (Precision::F32, 2f64.powi(-23)),
        (Precision::Tf32, 2f64.powi(-11)),
        (Precision::Bf16, 2f64.powi(-8)),
    ] {
        let Some(ctx) = support::cuda_with(precision) else {
            return;
        };
        let factor = DType::F32.of_activations(precision);
        let (got, expected) = (
            sequence(&ctx, factor, DType::F32),
            sequence(&cpu(), DType::F64, DType::F64),
        );
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let difference: Vec<f64> = got.iter().zip(expected).map(|(g, e)| g - e).collect();
            let (off, norm) = (norm(&difference), norm(expected));
            assert!(
                off <= 11.0 * unit * norm,
                "{precision}: {name} is off by {off} of {norm}"
            );
        }
    }
}

/// By name: the output and all gradients of such a sequence; what products read is of the type `factor`.
fn sequence(ctx: &Context, factor: DType, sums: DType) -> Vec<(String, Vec<f64>)> {
    let (steps, batch, inputs, hidden) = (4, 5, 20, 17);
    let mut numbers = Numbers::new(51);
    let mut random = |dtype, shape: &[usize], scale: f64| {
        let values = numbers.vec(shape.iter().product());
        let values: Vec<f32> = values.iter().map(|v| (scale * v) as f32).collect();
        let mut tensor = support::zeros(ctx, Shape::new(shape), dtype);
        tensor.copy_from_f32(&values).unwrap();
        tensor
    };
    let stack = [inputs, hidden].map(|inputs| {
        let (ih, hh) = ([4 * hidden, inputs], [4 * hidden, hidden]);
        let [ih, hh] = [random(factor, &ih, 0.4), random(factor, &hh, 0.4)];
        let [b, c] = [(); 2].map(|()| random(sums, &[4 * hidden], 0.4));
        [ih, hh, b, c]
    });
    let layers = stack
        .each_ref()
        .map(|[weight_ih, weight_hh, bias_ih, bias_hh]| Layer {
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
        });
    let x = random(factor, &[steps, batch, inputs], 1.0);
    let h = random(factor, &[2, batch, hidden], 1.0);
    let c = random(sums, &[2, batch, hidden], 1.0);
    let dy = random(sums, &[steps, batch, hidden], 1.0);
    let initial = Some(State { h: &h, c: &c });
    let saved = lstm::sequence::forward(ctx, &layers, &x, initial, None).unwrap();
    let mut gradients = stack.each_ref().map(|layer| {
        layer
            .each_ref()
            .map(|t| support::zeros(ctx, t.shape(), sums))
    });
    let [mut dx, mut dh, mut dc] =
        [x.shape(), h.shape(), c.shape()].map(|shape| support::zeros(ctx, shape, sums));
    let of_layers = gradients
        .iter_mut()
        .map(|[weight_ih, weight_hh, bias_ih, bias_hh]| LayerGradients {
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
        });
    let wanted = lstm::sequence::Gradients {
        layers: of_layers.collect(),
        x: Some(&mut dx),
        initial: Some(StateMut {
            h: &mut dh,
            c: &mut dc,
        }),
    };
    lstm::sequence::backward(ctx, &layers, &x, &saved, &dy, wanted).unwrap();
    let mut named = vec![
        ("y".to_string(), typed::to_f64(&saved.output().unwrap())),
        ("dx".to_string(), typed::to_f64(&dx)),
        ("dh".to_string(), typed::to_f64(&dh)),
        ("dc".to_string(), typed::to_f64(&dc)),
    ];
    for (l, layer) in gradients.iter().enumerate() {
        let name = |i: usize| format!("layer {l}, gradient {i}");
        named.extend(
            layer
                .iter()
                .enumerate()
                .map(|(i, t)| (name(i), typed::to_f64(t))),
        );
    }
    named
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
    let kernel = &counted["lstm_step_forward_f32"];
    let (depth, blocks) = (depths.iter().sum::<usize>(), hidden / 8);
    let loads = 4 * hidden * depth + blocks * batch * depth + batch * 5 * hidden;
    assert_eq!(kernel["launches"], 1);
    assert_eq!(kernel["global_load_bytes"], 4 * loads);
    assert_eq!(kernel["global_store_bytes"], 4 * batch * 6 * hidden);
    assert_eq!(kernel["bank_conflicts"], 0);
}

/// Vectors of 16 bytes are stored as such: in whole sectors.
#[test]
fn gradients_of_gates_are_stored_in_whole_sectors() {
    if !alone("gradients_of_gates_are_stored_in_whole_sectors", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let (b, h) = (32, 64);
    let mut random = padded(&ctx, Numbers::new(33), 0);
    let gates = random(DType::F32, b, 4 * h);
    let [c_prev, c, dh, mut dc] = [(); 4].map(|()| random(DType::F32, b, h));
    let [mut d_gates, mut rounded] = [DType::F32, DType::Bf16].map(|of| random(of, b, 4 * h));
    let counted = counters(|| {
        let cell = Cell {
            gates: &gates,
            c_prev: &c_prev,
            c: &c,
        };
        for d_gates in [&mut d_gates, &mut rounded] {
            lstm::cell_backward(&ctx, cell, &dh, None, &mut dc, d_gates).unwrap();
        }
    });
    let Some(counted) = counted else { return };
    let sectors = |kernel: &str| counted[kernel]["global_store_sectors"].as_u64().unwrap();
    let row = (b * h * 4 / 32) as u64;
    assert_eq!(sectors("lstm_cell_backward_f32x4"), 5 * row);
    assert_eq!(sectors("lstm_cell_backward_bf16x4"), 3 * row);
}
