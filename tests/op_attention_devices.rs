//! Attention on the CUDA device: everything it makes against the CPU in f64, and what a step reads.

use crate::support;
use half::bf16;
use showtell::ops::Accumulate;
use showtell::ops::attention::{self, CellMix, Inputs, KeyGradients};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::attention::{backward, forward};
use support::typed::{check_padding, fill, to_f64, unit_roundoff, unwritten};
use support::{Numbers, alone, contexts, counters, cpu, cuda, paddings, zeros};

/// Sizes of a case, and how many columns of padding its rows have.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    cells: [usize; 2],
    positions: [usize; 2],
    steps: usize,
    batch: usize,
    a: usize,
    d: usize,
    pad: usize,
}

/// Element types: of what every step reads, and of all else.
#[derive(Clone, Copy, Debug)]
struct Types {
    read: DType,
    sums: DType,
}

const F32: Types = Types {
    read: DType::F32,
    sums: DType::F32,
};
const BF16: Types = Types {
    read: DType::Bf16,
    ..F32
};
const F64: Types = Types {
    read: DType::F64,
    sums: DType::F64,
};

/// A tensor that the operation makes, its type, and its elements.
type Made = (&'static str, DType, Vec<f64>);

/// Every tensor that the operation makes, from numbers that `stored` holds. With `known` keys, those are read in place of the keys that
/// are made.
fn everything(
    ctx: &Context,
    sizes: Sizes,
    types: Types,
    stored: DType,
    known: Option<&[f64]>,
) -> Vec<Made> {
    let Types { read, sums: dtype } = types;
    let Sizes {
        steps,
        batch,
        a,
        d,
        pad,
        ..
    } = sizes;
    let mix = CellMix::new(sizes.cells, sizes.positions).unwrap();
    let (p, c) = (mix.positions(), mix.cells());
    let (mut numbers, mut paddings) = (Numbers::new(21), paddings(pad));
    let mut of_type = |dtype, shape: &[usize]| {
        let padding = paddings.next().unwrap();
        let mut tensor = unwritten(ctx, Shape::new(shape), padding, dtype);
        // So that all types begin with the same numbers.
        let rounded = |v: f64| match stored {
            DType::Bf16 => bf16::from_f64(v).to_f64(),
            _ => f64::from(v as f32),
        };
        let values = numbers.vec(tensor.len()).into_iter();
        fill(&mut tensor, &values.map(rounded).collect::<Vec<_>>());
        tensor
    };
    let (values, mut keys) = (of_type(read, &[batch, c, d]), of_type(read, &[batch, p, a]));
    let mut d_cells = of_type(read, &[batch, c, a]);
    let mut random = |shape: &[usize]| of_type(dtype, shape);
    let (cells, queries) = (random(&[batch, c, a]), random(&[steps, batch, a]));
    let (weight, bias, d_mean) = (random(&[1, a]), random(&[1]), random(&[batch, d]));
    let (d_contexts, d_alpha) = (random(&[steps, batch, d]), random(&[batch, p]));
    let mut d_values = random(&[batch, c, d]);
    attention::mix_forward(ctx, &mix, &cells, &mut keys).unwrap();
    let made_keys = (read, to_f64(&keys));
    if let Some(known) = known {
        fill(&mut keys, known);
    }
    let mut mean = unwritten(ctx, [batch, d], 8, read);
    attention::mean_forward(ctx, &mix, &values, &mut mean).unwrap();
    let inputs = Inputs {
        mix: &mix,
        keys: &keys,
        values: &values,
        weight: &weight,
        bias: &bias,
    };
    let [alphas, betas, contexts] = forward(ctx, inputs, &queries);
    let all = backward(
        ctx,
        inputs,
        [&queries, &alphas, &d_contexts],
        Some(&d_alpha),
    );
    let without = backward(ctx, inputs, [&queries, &alphas, &d_contexts], None);
    let (yes, no) = (Accumulate::Yes, Accumulate::No);
    let d_scores = random(&[steps, batch, p]);
    let [keys_twice, weight_twice, bias_twice] =
        keys_backward_twice(ctx, inputs, &queries, &d_scores);
    let mut d_cells_anew = unwritten(ctx, [batch, c, a], 8, read);
    attention::mix_backward(ctx, &mix, &all.keys, no, &mut d_cells_anew).unwrap();
    let mut d_values_of_mean = unwritten(ctx, [batch, c, d], 8, dtype);
    attention::mean_backward(ctx, &mix, &d_mean, no, &mut d_values_of_mean).unwrap();
    attention::mix_backward(ctx, &mix, &all.keys, yes, &mut d_cells).unwrap();
    attention::values_backward(ctx, &betas, &d_contexts, no, &mut d_values).unwrap();
    attention::values_backward(ctx, &betas, &d_contexts, yes, &mut d_values).unwrap();
    attention::mean_backward(ctx, &mix, &d_mean, yes, &mut d_values).unwrap();
    let named = [
        ("mean", mean),
        ("alphas", alphas),
        ("betas", betas),
        ("contexts", contexts),
        ("d_queries", all.queries),
        ("d_keys", all.keys),
        ("d_weight", all.weight),
        ("d_queries without d_alpha", without.queries),
        ("d_cells", d_cells),
        ("d_values", d_values),
        ("d_keys twice", keys_twice),
        ("d_weight twice", weight_twice),
        ("d_bias twice", bias_twice),
        ("d_cells anew", d_cells_anew),
        ("d_values of the mean", d_values_of_mean),
    ];
    check_padding();
    let mut all = vec![("keys", made_keys.0, made_keys.1)];
    all.extend(named.map(|(name, tensor)| (name, tensor.dtype(), to_f64(&tensor))));
    all
}

/// The gradients of keys, weight and bias, twice the same, the second time into what is there. Each of the scores has a gradient of
/// its own: those of a softmax add up to nothing, and so does the gradient of the bias.
fn keys_backward_twice(
    ctx: &Context,
    inputs: Inputs,
    queries: &Tensor,
    d_scores: &Tensor,
) -> [Tensor; 3] {
    let dtype = queries.dtype();
    let mut twice = [
        unwritten(ctx, inputs.keys.shape(), 12, dtype),
        unwritten(ctx, inputs.weight.shape(), 0, dtype),
        unwritten(ctx, inputs.bias.shape(), 0, dtype),
    ];
    for mode in [Accumulate::No, Accumulate::Yes] {
        let [keys, weight, bias] = &mut twice;
        let gradients = KeyGradients { keys, weight, bias };
        attention::keys_backward(ctx, inputs, queries, d_scores, mode, gradients).unwrap();
    }
    twice
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// The CUDA device in f32 against the CPU in f64. Sums have up to n = max(A, D, P T) terms and results are made of a few such
/// sums in a row: 8 ε √n, relative to the norm. A key whose k + q rounds to the other side of zero changes nothing
/// by more than that, as k + q is then no more than an ε. With keys and values in bf16, what is made in bf16 is rounded once more.
#[test]
fn the_cuda_device_agrees_with_f64() {
    let Some(ctx) = cuda() else { return };
    let base = Sizes {
        cells: [8, 8],
        positions: [14, 14],
        steps: 3,
        batch: 2,
        a: 40,
        d: 72,
        pad: 8,
    };
    let vectors = Sizes {
        steps: 1,
        batch: 1,
        a: 8,
        d: 16,
        pad: 0,
        ..base
    };
    let few = Sizes {
        a: 5,
        d: 3,
        pad: 1,
        ..vectors
    };
    for sizes in [
        base,
        Sizes {
            a: 101,
            d: 131,
            pad: 3,
            ..base
        },
        // Vectors of four in f32 and none in bf16.
        Sizes {
            a: 36,
            d: 68,
            pad: 4,
            ..base
        },
        // More cells than a block has threads, and four times as many positions.
        Sizes {
            cells: [9, 30],
            positions: [33, 40],
            ..vectors
        },
        // More columns than a block takes in four rounds.
        Sizes {
            cells: [1, 2],
            positions: [2, 2],
            d: 18_432,
            ..vectors
        },
        Sizes {
            cells: [2, 150],
            positions: [31, 35],
            ..few
        },
        // More positions of a cell in a row than a loop takes at once.
        Sizes {
            cells: [3, 2],
            positions: [4, 23],
            ..few
        },
        Sizes {
            cells: [3, 5],
            positions: [7, 2],
            batch: 3,
            a: 300,
            d: 1100,
            pad: 0,
            ..base
        },
        // One column. Eight images, as a context that is a sum of nearly nothing would be all of the norm.
        Sizes {
            cells: [4, 3],
            positions: [4, 3],
            batch: 8,
            a: 1,
            d: 1,
            ..vectors
        },
        Sizes {
            cells: [5, 9],
            positions: [2, 3],
            steps: 9,
            batch: 120,
            ..vectors
        },
    ] {
        let n = [
            sizes.a,
            sizes.d,
            sizes.positions[0] * sizes.positions[1] * sizes.steps,
        ];
        let bound = 8.0 * f64::from(f32::EPSILON) * (n.into_iter().max().unwrap() as f64).sqrt();
        for types in [F32, BF16] {
            let got = everything(&ctx, sizes, types, types.read, None);
            let (_, _, keys) = &got[0];
            let expected = everything(&cpu(), sizes, F64, types.read, Some(keys));
            for ((name, dtype, got), (.., expected)) in got.iter().zip(&expected) {
                let difference = norm(got.iter().zip(expected).map(|(a, b)| a - b));
                let norm = norm(expected.iter().copied());
                let bound = match dtype {
                    DType::Bf16 => bound + unit_roundoff(DType::Bf16),
                    _ => bound,
                };
                assert!(
                    difference <= bound * norm.max(1e-3),
                    "{sizes:?}, {types:?}: {name} is off by {difference} of {norm}"
                );
            }
        }
    }
}

/// A NaN in a key makes α, β and the context of its image NaN, and of no other.
#[test]
fn a_nan_stays_in_its_image() {
    for ctx in contexts() {
        let mix = CellMix::new([4, 4], [7, 7]).unwrap();
        let (batch, a, d) = (3, 40, 24);
        let mut numbers = Numbers::new(22);
        let mut keys = numbers.vec(batch * 49 * a);
        // One that the ReLU would take for a negative number, at the last position of the second image.
        keys[(2 * 49 - 1) * a + a - 1] = f64::NAN;
        let keys: Vec<f32> = keys.into_iter().map(|v| v as f32).collect();
        let keys = Tensor::from_slice(ctx.device(), [batch, 49, a], &keys).unwrap();
        let values = numbers.f32(&ctx, [batch, 16, d]);
        let (weight, bias) = (numbers.f32(&ctx, [1, a]), numbers.f32(&ctx, [1]));
        let inputs = Inputs {
            mix: &mix,
            keys: &keys,
            values: &values,
            weight: &weight,
            bias: &bias,
        };
        let outputs = forward(&ctx, inputs, &numbers.f32(&ctx, [1, batch, a]));
        for output in outputs {
            let found: Vec<f32> = output.to_vec().unwrap();
            for (i, value) in found.iter().enumerate() {
                let image = i / (found.len() / batch);
                assert_eq!(
                    value.is_nan(),
                    image == 1,
                    "{}: image {image}",
                    ctx.device().name()
                );
            }
        }
    }
}

/// Scores of any size: the largest is subtracted before exp.
#[test]
fn large_scores_do_not_overflow() {
    for ctx in contexts() {
        let mix = CellMix::new([2, 2], [7, 7]).unwrap();
        let keys: Vec<f32> = (0..49 * 8).map(|i| (i / 8 * 100) as f32).collect();
        let keys = Tensor::from_slice(ctx.device(), [1, 49, 8], &keys).unwrap();
        let ones = |cols| Tensor::from_slice(ctx.device(), [1, cols], &vec![1f32; cols]).unwrap();
        let (values, weight) = (Numbers::new(1).f32(&ctx, [1, 4, 3]), ones(8));
        let bias = zeros(&ctx, [1], DType::F32);
        let inputs = Inputs {
            mix: &mix,
            keys: &keys,
            values: &values,
            weight: &weight,
            bias: &bias,
        };
        let [alphas, ..] = forward(&ctx, inputs, &zeros(&ctx, [1, 1, 8], DType::F32));
        let expected: Vec<f32> = (0..49).map(|p| f32::from(u8::from(p == 48))).collect();
        assert_eq!(alphas.to_vec::<f32>().unwrap(), expected);
    }
}

/// relu'(0) is 0: where k + q is exactly 0, there is no gradient.
#[test]
fn the_kink_of_the_relu_has_no_gradient() {
    for ctx in contexts() {
        let mix = CellMix::new([2, 2], [3, 3]).unwrap();
        let a = 8;
        let of = |value: f32, shape: [usize; 3]| {
            let len = shape.iter().product();
            Tensor::from_slice(ctx.device(), shape, &vec![value; len]).unwrap()
        };
        let mut numbers = Numbers::new(23);
        let (keys, queries) = (of(-0.75, [2, 9, a]), of(0.75, [1, 2, a]));
        let values = numbers.f32(&ctx, [2, 4, 5]);
        let (weight, bias) = (numbers.f32(&ctx, [1, a]), numbers.f32(&ctx, [1]));
        let inputs = Inputs {
            mix: &mix,
            keys: &keys,
            values: &values,
            weight: &weight,
            bias: &bias,
        };
        let [alphas, _, contexts] = forward(&ctx, inputs, &queries);
        let d_alpha = numbers.f32(&ctx, [2, 9]);
        let all = backward(&ctx, inputs, [&queries, &alphas, &contexts], Some(&d_alpha));
        for gradient in [all.queries, all.keys, all.weight] {
            let values: Vec<f32> = gradient.to_vec().unwrap();
            assert!(
                values.iter().all(|&v| v == 0.0),
                "{}: {values:?}",
                ctx.device().name()
            );
        }
    }
}

/// A step is one launch forward. With a block for each image (as many images as multiprocessors) every byte of keys
/// and values is asked for once, in whole sectors; what else is read is small.
#[test]
fn a_step_reads_keys_and_values_once() {
    if !alone(
        "a_step_reads_keys_and_values_once",
        &[("CUDA_EMULATOR_SM_COUNT", "4")],
    ) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let (mix, mut numbers) = (CellMix::new([8, 8], [14, 14]).unwrap(), Numbers::new(5));
    let (batch, p, c, a, d) = (4, 196, 64, 256, 1024);
    let (keys, values) = (
        numbers.f32(&ctx, [batch, p, a]),
        numbers.f32(&ctx, [batch, c, d]),
    );
    let (weight, bias) = (numbers.f32(&ctx, [1, a]), numbers.f32(&ctx, [1]));
    let queries = numbers.f32(&ctx, [1, batch, a]);
    let inputs = Inputs {
        mix: &mix,
        keys: &keys,
        values: &values,
        weight: &weight,
        bias: &bias,
    };
    let mut outputs = None;
    let counted = counters(|| outputs = Some(forward(&ctx, inputs, &queries)));
    let Some(counted) = counted else { return };
    assert_eq!(counted.as_object().unwrap().len(), 1, "{counted}");
    let kernel = &counted["attention_forward_f32x4"];
    let count = |name: &str| kernel[name].as_u64().unwrap() as f64;
    assert_eq!(count("launches"), 1.0);
    let floor = 4.0 * (batch * (p * a + c * d)) as f64;
    let asked = count("global_load_bytes");
    // Query and weight are half a percent of it.
    assert!(asked <= 1.01 * floor, "{asked} bytes for {floor}");
    assert!(count("global_load_sectors") * 32.0 <= 1.001 * asked);
    assert!(count("distinct_sectors") * 32.0 <= 1.02 * floor);
    // Of the cells' gathering of their positions, which lie in a rectangle.
    assert!(count("bank_conflicts") <= 0.02 * count("shared_accesses"));

    let [alphas, _, contexts] = outputs.unwrap();
    let counted =
        counters(|| drop(backward(&ctx, inputs, [&queries, &alphas, &contexts], None))).unwrap();
    let asked: f64 = [
        "attention_cells_backward_f32x4",
        "attention_scores_backward_f32x4",
    ]
    .iter()
    .map(|kernel| {
        assert_eq!(counted[kernel]["launches"], 1);
        counted[kernel]["global_load_bytes"].as_u64().unwrap() as f64
    })
    .sum();
    // d_context for every 16 cells is a sixteenth of the values' bytes; α and dβ are read by every block: 8.2% in all.
    assert!(asked <= 1.09 * floor, "{asked} bytes for {floor}");
}
