//! Attention on cells: against PyTorch on the materialised positions, and each part against plain loops and
//! finite differences.

mod support;

use proptest::prelude::*;
use showtell::ops::attention::{self, CellMix, Gradients, Inputs, KeyGradients, Outputs};
use showtell::ops::{Accumulate, regulariser};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::{Golden, Numbers, alone, check_gradient, counters, cpu, cuda, inner, nan, zeros};

/// What a backward loop over the steps, and what follows it, leave: from garbage.
struct All {
    queries: Tensor,
    keys: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// All steps backward, last to first; queries (T, B, A), alphas (T, B, P), d_contexts (T, B, D).
fn backward(
    ctx: &Context,
    inputs: Inputs,
    [queries, alphas, d_contexts]: [&Tensor; 3],
    d_alpha: Option<&Tensor>,
) -> All {
    let [steps, _, a] = queries.shape().dims().try_into().unwrap();
    let dtype = queries.dtype();
    let mut all = All {
        queries: filled(ctx, queries.shape(), dtype),
        keys: filled(ctx, inputs.keys.shape(), dtype),
        weight: filled(ctx, [1, a], dtype),
        bias: filled(ctx, [1], dtype),
    };
    let d_scores = filled(ctx, alphas.shape(), dtype);
    for t in (0..steps).rev() {
        let [query, alpha, d_context] = [queries, alphas, d_contexts].map(|x| x.index(t).unwrap());
        let gradients = Gradients {
            query: &mut all.queries.index(t).unwrap(),
            scores: &mut d_scores.index(t).unwrap(),
        };
        attention::backward(ctx, inputs, &query, &alpha, &d_context, d_alpha, gradients).unwrap();
    }
    let gradients = KeyGradients {
        keys: &mut all.keys,
        weight: &mut all.weight,
        bias: &mut all.bias,
    };
    attention::keys_backward(ctx, inputs, queries, &d_scores, Accumulate::No, gradients).unwrap();
    all
}

/// NaN everywhere.
fn filled(ctx: &Context, shape: impl Into<Shape>, dtype: DType) -> Tensor {
    let shape = shape.into();
    match dtype {
        DType::F64 => nan(ctx, shape),
        _ => Tensor::from_slice(ctx.device(), shape, &vec![f32::NAN; shape.len()]).unwrap(),
    }
}

/// All steps forward: α (T, B, P), β (T, B, C), contexts (T, B, D).
fn forward(ctx: &Context, inputs: Inputs, queries: &Tensor) -> [Tensor; 3] {
    let [steps, batch, _] = queries.shape().dims().try_into().unwrap();
    let cols = [
        inputs.mix.positions(),
        inputs.mix.cells(),
        inputs.values.cols(),
    ];
    let outputs = cols.map(|cols| filled(ctx, [steps, batch, cols], queries.dtype()));
    for t in 0..steps {
        let [mut alpha, mut beta, mut context] = outputs.each_ref().map(|x| x.index(t).unwrap());
        let outputs = Outputs {
            alpha: &mut alpha,
            beta: &mut beta,
            context: &mut context,
        };
        attention::forward(ctx, inputs, &queries.index(t).unwrap(), outputs).unwrap();
    }
    outputs
}

#[test]
fn equals_pytorch_on_the_materialised_positions() {
    let ctx = cpu();
    let golden = Golden::open("attention");
    let get = |name: &str| golden.tensor(&ctx, name);
    let mix = CellMix::new([8, 6], [14, 9]).unwrap();
    let (cells, values, queries) = (get("keys"), get("values"), get("queries"));
    let (weight, bias) = (get("weight"), get("bias"));
    let [batch, _, a] = cells.shape().dims().try_into().unwrap();
    let mut keys = nan(&ctx, [batch, mix.positions(), a]);
    attention::mix_forward(&ctx, &mix, &cells, &mut keys).unwrap();
    let mut mean = nan(&ctx, [batch, values.cols()]);
    attention::mean_forward(&ctx, &mix, &values, &mut mean).unwrap();
    golden.check("mean", &mean);

    let inputs = Inputs {
        mix: &mix,
        keys: &keys,
        values: &values,
        weight: &weight,
        bias: &bias,
    };
    let [alphas, betas, contexts] = forward(&ctx, inputs, &queries);
    golden.check("alphas", &alphas);
    golden.check("contexts", &contexts);
    let mut loss = nan(&ctx, [1]);
    regulariser::forward(&ctx, &alphas, 0.7, &mut loss).unwrap();
    golden.check("regulariser", &loss);

    let mut d_alpha = nan(&ctx, [batch, mix.positions()]);
    regulariser::backward(&ctx, &alphas, 0.7, &mut d_alpha).unwrap();
    let d_contexts = get("d_contexts");
    let all = backward(
        &ctx,
        inputs,
        [&queries, &alphas, &d_contexts],
        Some(&d_alpha),
    );
    golden.check("d_queries", &all.queries);
    golden.check("d_weight", &all.weight);
    golden.check("d_bias", &all.bias);
    let mut d_cells = nan(&ctx, cells.shape());
    attention::mix_backward(&ctx, &mix, &all.keys, Accumulate::No, &mut d_cells).unwrap();
    golden.check("d_keys", &d_cells);
    let mut d_values = nan(&ctx, values.shape());
    attention::values_backward(&ctx, &betas, &d_contexts, Accumulate::No, &mut d_values).unwrap();
    attention::mean_backward(&ctx, &mix, &get("d_mean"), Accumulate::Yes, &mut d_values).unwrap();
    golden.check("d_values", &d_values);
}

/// M as a plain matrix, from the rule of the adaptive average pooling.
fn plain_mix(cells: [usize; 2], positions: [usize; 2]) -> Vec<Vec<f64>> {
    let axis = |n: usize, p: usize, i: usize, cell: usize| {
        let start = (i as f64 * n as f64 / p as f64 + 1e-9).floor() as usize;
        let end = ((i + 1) as f64 * n as f64 / p as f64 - 1e-9).ceil() as usize;
        match (start..end).contains(&cell) {
            true => 1.0 / (end - start) as f64,
            false => 0.0,
        }
    };
    let row = |p: usize| {
        let entry = |c: usize| {
            axis(cells[0], positions[0], p / positions[1], c / cells[1])
                * axis(cells[1], positions[1], p % positions[1], c % cells[1])
        };
        (0..cells[0] * cells[1]).map(entry).collect()
    };
    (0..positions[0] * positions[1]).map(row).collect()
}

fn grid() -> impl Strategy<Value = [usize; 2]> {
    [1usize..7, 1usize..7]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_mix_is_the_pooling_matrix(
        cells in grid(), positions in grid(), batch in 1usize..4, cols in 1usize..8, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let mix = CellMix::new(cells, positions).unwrap();
        let matrix = plain_mix(cells, positions);
        let (p, c) = (mix.positions(), mix.cells());
        let x = numbers.f64(&ctx, [batch, c, cols + 2]).columns(1, cols).unwrap();
        let mut y = nan(&ctx, [batch, p, cols]);
        attention::mix_forward(&ctx, &mix, &x, &mut y).unwrap();
        let values: Vec<f64> = x.to_vec().unwrap();
        let at = |b: usize, cell: usize, col: usize| values[(b * c + cell) * cols + col];
        for (i, got) in y.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let (b, position, col) = (i / cols / p, i / cols % p, i % cols);
            let expected: f64 = (0..c).map(|cell| matrix[position][cell] * at(b, cell, col)).sum();
            prop_assert!((got - expected).abs() <= 1e-14, "{} for {}", got, expected);
        }
        // The mean over the positions is the mean of what the mix gives.
        let mut mean = nan(&ctx, [batch, cols]);
        attention::mean_forward(&ctx, &mix, &x, &mut mean).unwrap();
        let y: Vec<f64> = y.to_vec().unwrap();
        for (i, got) in mean.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let sum: f64 = (0..p).map(|q| y[(i / cols * p + q) * cols + i % cols]).sum();
            prop_assert!((got - sum / p as f64).abs() <= 1e-14);
        }
    }

    /// Backward of a linear map is its adjoint: <M x, dy> = <x, Mᵀ dy>.
    #[test]
    fn mix_and_mean_backward_are_adjoints(
        cells in grid(), positions in grid(), accumulate: bool, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let mix = CellMix::new(cells, positions).unwrap();
        let (batch, cols) = (2, 3);
        let shape = [batch, mix.cells(), cols];
        let x = numbers.f64(&ctx, shape);
        let (mode, before) = match accumulate {
            true => (Accumulate::Yes, numbers.vec(x.len())),
            false => (Accumulate::No, vec![0.0; x.len()]),
        };
        let before = Tensor::from_slice(ctx.device(), shape, &before).unwrap();
        let target = || match accumulate {
            true => Tensor::from_slice(ctx.device(), shape, &before.to_vec::<f64>().unwrap()).unwrap(),
            false => nan(&ctx, shape),
        };
        let dy = numbers.f64(&ctx, [batch, mix.positions(), cols]);
        let (mut y, mut dx) = (nan(&ctx, dy.shape()), target());
        attention::mix_forward(&ctx, &mix, &x, &mut y).unwrap();
        attention::mix_backward(&ctx, &mix, &dy, mode, &mut dx).unwrap();
        let adjoint = inner(&x, &dx) - inner(&x, &before);
        prop_assert!((inner(&y, &dy) - adjoint).abs() <= 1e-12);

        let d_mean = numbers.f64(&ctx, [batch, cols]);
        let (mut mean, mut dx) = (nan(&ctx, d_mean.shape()), target());
        attention::mean_forward(&ctx, &mix, &x, &mut mean).unwrap();
        attention::mean_backward(&ctx, &mix, &d_mean, mode, &mut dx).unwrap();
        let adjoint = inner(&x, &dx) - inner(&x, &before);
        prop_assert!((inner(&mean, &d_mean) - adjoint).abs() <= 1e-12);
    }

    #[test]
    fn backward_equals_finite_differences(
        cells in grid(), positions in grid(), steps in 1usize..4, batch in 1usize..3,
        a in 1usize..40, d in 1usize..9, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let mix = CellMix::new(cells, positions).unwrap();
        let p = mix.positions();
        // |k + q| > 0.1, well away from the kink of the relu: |q| < 0.3, |k| > 0.4.
        let small: Vec<f64> = numbers.vec(steps * batch * a).iter().map(|v| 0.3 * v).collect();
        let queries = Tensor::from_slice(ctx.device(), [steps, batch, a], &small).unwrap();
        let large: Vec<f64> = numbers.vec(batch * p * a).iter().map(|v| v + v.signum() * 0.4).collect();
        let keys = Tensor::from_slice(ctx.device(), [batch, p, a], &large).unwrap();
        let values = numbers.f64(&ctx, [batch, mix.cells(), d]);
        let (weight, bias) = (numbers.f64(&ctx, [1, a]), numbers.f64(&ctx, [1]));
        let inputs = Inputs { mix: &mix, keys: &keys, values: &values, weight: &weight, bias: &bias };
        let d_contexts = numbers.f64(&ctx, [steps, batch, d]);
        let d_alpha = numbers.f64(&ctx, [batch, p]);

        let [alphas, betas, _] = forward(&ctx, inputs, &queries);
        let all = backward(&ctx, inputs, [&queries, &alphas, &d_contexts], Some(&d_alpha));
        let mut d_values = nan(&ctx, values.shape());
        attention::values_backward(&ctx, &betas, &d_contexts, Accumulate::No, &mut d_values).unwrap();
        let loss = || {
            let [alphas, _, contexts] = forward(&ctx, inputs, &queries);
            let alphas = (0..steps).map(|t| inner(&alphas.index(t).unwrap(), &d_alpha));
            alphas.sum::<f64>() + inner(&contexts, &d_contexts)
        };
        check_gradient("queries", &queries, &all.queries, loss);
        check_gradient("keys", &keys, &all.keys, loss);
        check_gradient("values", &values, &d_values, loss);
        check_gradient("weight", &weight, &all.weight, loss);
        check_gradient("bias", &bias, &all.bias, loss);
    }
}

/// In f32, over rows with padding, at the sizes of the model: bit for bit the same on any number of threads.
#[test]
fn threads_do_not_matter() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let ctx = cpu();
            let mut numbers = Numbers::new(14);
            let mix = CellMix::new([8, 8], [14, 14]).unwrap();
            let (batch, a, d) = (3, 37, 50);
            let keys = numbers
                .f32(&ctx, [batch, 196, a + 3])
                .columns(0, a)
                .unwrap();
            let values = numbers.f32(&ctx, [batch, 64, d + 6]).columns(0, d).unwrap();
            let (weight, bias) = (numbers.f32(&ctx, [1, a]), numbers.f32(&ctx, [1]));
            let inputs = Inputs {
                mix: &mix,
                keys: &keys,
                values: &values,
                weight: &weight,
                bias: &bias,
            };
            let queries = numbers.f32(&ctx, [2, batch, a]);
            let [alphas, betas, contexts] = forward(&ctx, inputs, &queries);
            let all = backward(&ctx, inputs, [&queries, &alphas, &contexts], None);
            let sum: f32 = alphas.to_vec::<f32>().unwrap()[..196].iter().sum();
            assert!(
                (sum - 1.0).abs() <= 14.0 * f32::EPSILON,
                "alpha sums up to {sum}"
            );
            let All {
                queries,
                keys,
                weight,
                bias,
            } = all;
            [alphas, betas, contexts, queries, keys, weight, bias]
                .map(|tensor| tensor.to_vec::<f32>().unwrap())
        })
    };
    assert_eq!(on(1), on(3));
}

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

/// Every tensor that the operation makes from the numbers of `seed`, in the type of `dtype`, to f64.
fn everything(ctx: &Context, sizes: Sizes, dtype: DType) -> Vec<(&'static str, Vec<f64>)> {
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
    let mut numbers = Numbers::new(21);
    let mut random = |shape: &[usize]| {
        let mut wide = shape.to_vec();
        let cols = shape[shape.len() - 1];
        *wide.last_mut().unwrap() += pad;
        let tensor = match dtype {
            DType::F64 => {
                // What f32 holds, so that both types begin with the same numbers.
                let tensor = numbers.f64(ctx, Shape::new(&wide));
                let values: Vec<f64> = tensor.to_vec::<f64>().unwrap();
                let rounded: Vec<f64> = values.iter().map(|&v| f64::from(v as f32)).collect();
                Tensor::from_slice(ctx.device(), Shape::new(&wide), &rounded).unwrap()
            }
            _ => numbers.f32(ctx, Shape::new(&wide)),
        };
        tensor.columns(0, cols).unwrap()
    };
    let (cells, values, queries) = (
        random(&[batch, c, a]),
        random(&[batch, c, d]),
        random(&[steps, batch, a]),
    );
    let (weight, bias, d_mean) = (random(&[1, a]), random(&[1]), random(&[batch, d]));
    let (d_contexts, d_alpha) = (random(&[steps, batch, d]), random(&[batch, p]));
    let (mut d_cells, mut d_values) = (random(&[batch, c, a]), random(&[batch, c, d]));
    let mut keys = random(&[batch, p, a]);
    attention::mix_forward(ctx, &mix, &cells, &mut keys).unwrap();
    let mut mean = filled(ctx, [batch, d], dtype);
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
    attention::mix_backward(ctx, &mix, &all.keys, yes, &mut d_cells).unwrap();
    attention::values_backward(ctx, &betas, &d_contexts, no, &mut d_values).unwrap();
    attention::values_backward(ctx, &betas, &d_contexts, yes, &mut d_values).unwrap();
    attention::mean_backward(ctx, &mix, &d_mean, yes, &mut d_values).unwrap();
    let named = [
        ("keys", keys),
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
    ];
    let to_f64 = |tensor: &Tensor| match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>().unwrap(),
        _ => tensor
            .to_vec::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect(),
    };
    named
        .iter()
        .map(|(name, tensor)| (*name, to_f64(tensor)))
        .collect()
}

/// The CUDA device in f32 against the CPU in f64. Sums have up to n = max(A, D, P T) terms and results are made of a few such
/// sums in a row: 8 ε √n, relative to the norm. A key whose k + q rounds to the other side of zero changes nothing
/// by more than that, as k + q is then no more than an ε.
#[test]
fn the_cuda_device_agrees_with_f64() {
    let Some(ctx) = cuda() else { return };
    let base = Sizes {
        cells: [8, 8],
        positions: [14, 14],
        steps: 3,
        batch: 2,
        a: 36,
        d: 68,
        pad: 4,
    };
    for sizes in [
        base,
        Sizes {
            a: 37,
            d: 131,
            pad: 3,
            ..base
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
        Sizes {
            cells: [4, 3],
            positions: [4, 3],
            steps: 1,
            batch: 1,
            a: 1,
            d: 1,
            pad: 0,
        },
        Sizes {
            cells: [5, 9],
            positions: [2, 3],
            steps: 9,
            batch: 120,
            a: 8,
            d: 16,
            pad: 0,
        },
    ] {
        let n = [
            sizes.a,
            sizes.d,
            sizes.positions[0] * sizes.positions[1] * sizes.steps,
        ];
        let bound = 8.0 * f64::from(f32::EPSILON) * (n.into_iter().max().unwrap() as f64).sqrt();
        let got = everything(&ctx, sizes, DType::F32);
        let expected = everything(&cpu(), sizes, DType::F64);
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            let squares =
                |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let difference = squares(&mut got.iter().zip(expected).map(|(a, b)| a - b));
            let norm = squares(&mut expected.iter().copied());
            assert!(
                difference <= bound * norm.max(1e-3),
                "{sizes:?}: {name} is off by {difference} of {norm}"
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
    // Query and weight are 0.4% of it. The last warps read a position again where 196 is no multiple of 32: 14%.
    assert!(asked <= 1.07 * floor, "{asked} bytes for {floor}");
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
    // d_context for every four cells of 64 is a quarter of the values' bytes.
    assert!(asked <= 1.3 * floor, "{asked} bytes for {floor}");
}

#[test]
fn shapes_must_fit_the_mix() {
    let ctx = cpu();
    let tensor = |shape: [usize; 3]| zeros(&ctx, shape, DType::F32);
    let mix = CellMix::new([2, 2], [3, 3]).unwrap();
    let error = attention::mix_forward(&ctx, &mix, &tensor([1, 4, 5]), &mut tensor([1, 8, 5]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "attention: positions should have shape [1, 9, 5], has [1, 8, 5]"
    );
    assert_eq!(
        CellMix::new([0, 2], [3, 3]).unwrap_err().to_string(),
        "attention: cannot pool [0, 2] cells to [3, 3] positions"
    );
}
