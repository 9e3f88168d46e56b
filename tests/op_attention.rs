//! Attention on cells: against PyTorch on the materialised positions, and each part against plain loops and
//! finite differences.

use crate::support;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::attention::{self, CellMix, Inputs};
use showtell::ops::{Accumulate, regulariser};
use showtell::tensor::Tensor;
use support::attention::{All, backward, forward};
use support::{Golden, Numbers, check_gradient, cpu, inner, nan, zeros};

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
        if (start..end).contains(&cell) {
            1.0 / (end - start) as f64
        } else {
            0.0
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
        let (mode, before) = if accumulate {
            (Accumulate::Yes, numbers.vec(x.len()))
        } else {
            (Accumulate::No, vec![0.0; x.len()])
        };
        let before = Tensor::from_slice(ctx.device(), shape, &before).unwrap();
        let target = || {
            if accumulate {
                Tensor::from_slice(ctx.device(), shape, &before.to_vec::<f64>().unwrap()).unwrap()
            } else {
                nan(&ctx, shape)
            }
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
