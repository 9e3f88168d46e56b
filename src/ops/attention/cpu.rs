//! Attention on the CPU: one task per image, which goes through all that the step does for it.
//!
//! A step reads every key and every value once: it is bound by memory, 24 MB a step for 32 images of
//! 196 x 256 keys and 64 x 2048 values in f32.

use super::{CellMix, Gradients, Inputs, KeyGradients, OP, Outputs};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::check;
use crate::ops::gemm::Accumulate;
use crate::ops::gemm::cpu::{Destination, Parallelism, Strided, product};
use crate::ops::host::simd::{self, add_scaled, simd};
use crate::ops::host::{Host, Rows, rows_of};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// A sparse matrix by rows: the columns and values of row i are entries `starts[i]..starts[i + 1]`.
struct Sparse<T> {
    starts: Vec<usize>,
    entries: Vec<(usize, T)>,
}

impl<T: Float> Sparse<T> {
    /// M, a row for each position.
    fn by_position(mix: &CellMix) -> Self {
        let taps = |p| mix.taps(p).map(|(c, weight)| (c, T::of(weight))).collect();
        Sparse::from_rows((0..mix.positions()).map(taps))
    }

    /// Mᵀ, a row for each cell.
    fn by_cell(mix: &CellMix) -> Self {
        let mut rows = vec![Vec::new(); mix.cells()];
        for p in 0..mix.positions() {
            for (c, weight) in mix.taps(p) {
                rows[c].push((p, T::of(weight)));
            }
        }
        Sparse::from_rows(rows.into_iter())
    }

    fn from_rows(rows: impl Iterator<Item = Vec<(usize, T)>>) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for row in rows {
            entries.extend(row);
            starts.push(entries.len());
        }
        Sparse { starts, entries }
    }

    fn row(&self, i: usize) -> &[(usize, T)] {
        &self.entries[self.starts[i]..self.starts[i + 1]]
    }

    fn rows(&self) -> usize {
        self.starts.len() - 1
    }
}

pub fn mix_forward<T: Float>(
    ctx: &Context,
    mix: &CellMix,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    mix_rows(ctx, &Sparse::<T>::by_position(mix), x, Accumulate::No, y)
}

pub fn mix_backward<T: Float>(
    ctx: &Context,
    mix: &CellMix,
    dy: &Tensor,
    accumulate: Accumulate,
    dx: &mut Tensor,
) -> Result<()> {
    mix_rows(ctx, &Sparse::<T>::by_cell(mix), dy, accumulate, dx)
}

/// Row i of each image's y becomes, or is increased by, Σ_j matrix_ij x_j.
fn mix_rows<T: Float>(
    ctx: &Context,
    matrix: &Sparse<T>,
    x: &Tensor,
    accumulate: Accumulate,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let x_rows = x.shape().dims()[1];
    let x = host.read::<T>(x)?;
    let mut y = host.write::<T>(y)?;
    y.for_each_row(|i, y| {
        let (image, row) = (i / matrix.rows(), i % matrix.rows());
        if accumulate == Accumulate::No {
            y.fill(T::zero());
        }
        for &(from, weight) in matrix.row(row) {
            add_scaled(y, weight, x.row(image * x_rows + from));
        }
    });
    Ok(())
}

/// Σ_p M_pc / P for each cell.
fn mean_weights<T: Float>(mix: &CellMix) -> Vec<T> {
    let mut weights = vec![0.0; mix.cells()];
    for p in 0..mix.positions() {
        for (c, weight) in mix.taps(p) {
            weights[c] += weight / mix.positions() as f64;
        }
    }
    weights.into_iter().map(T::of).collect()
}

pub fn mean_forward<T: Float>(
    ctx: &Context,
    mix: &CellMix,
    values: &Tensor,
    mean: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let values = host.read::<T>(values)?;
    let mut mean = host.write::<T>(mean)?;
    let weights = mean_weights::<T>(mix);
    mean.for_each_block(1, &|b, mean| {
        simd(|| weighted_sum(&weights, values, b * weights.len(), mean));
    });
    Ok(())
}

pub fn mean_backward<T: Float>(
    ctx: &Context,
    mix: &CellMix,
    d_mean: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let d_mean = host.read::<T>(d_mean)?;
    let mut d_values = host.write::<T>(d_values)?;
    let weights = mean_weights::<T>(mix);
    let (cols, ld) = (d_values.cols, d_values.ld);
    let cells = weights.len();
    d_values.for_each_block(cells, &|first, block| {
        let d_mean = d_mean.row(first / cells);
        simd(|| {
            for (row, &weight) in rows_of(block, cols, ld).zip(&weights) {
                if accumulate == Accumulate::No {
                    row.fill(T::zero());
                }
                add_scaled(row, weight, d_mean);
            }
        });
    });
    Ok(())
}

pub fn forward<T: Float>(
    ctx: &Context,
    inputs: Inputs,
    query: &Tensor,
    outputs: Outputs,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let mix = Sparse::<T>::by_position(inputs.mix);
    let (positions, cells) = (inputs.mix.positions(), inputs.mix.cells());
    let keys = host.read::<T>(inputs.keys)?;
    let values = host.read::<T>(inputs.values)?;
    let weight = host.read::<T>(inputs.weight)?.row(0);
    let bias = host.read::<T>(inputs.bias)?.row(0)[0];
    let query = host.read::<T>(query)?;
    let mut alpha = host.write::<T>(outputs.alpha)?;
    let mut beta = host.write::<T>(outputs.beta)?;
    let mut context = host.write::<T>(outputs.context)?;
    let weights = alpha.par_rows().zip(beta.par_rows());
    let images = weights.zip(context.par_rows()).enumerate();
    images.for_each(|(b, ((alpha, beta), context))| {
        simd(|| {
            for (p, alpha) in alpha.iter_mut().enumerate() {
                let key = keys.row(b * positions + p);
                *alpha = score(key, query.row(b), weight) + bias;
            }
            softmax(alpha);
            beta.fill(T::zero());
            for (p, &alpha) in alpha.iter().enumerate() {
                for &(c, share) in mix.row(p) {
                    beta[c] += share * alpha;
                }
            }
            weighted_sum(beta, values, b * cells, context);
        });
    });
    Ok(())
}

pub fn backward<T: Float>(
    ctx: &Context,
    inputs: Inputs,
    query: &Tensor,
    alpha: &Tensor,
    d_context: &Tensor,
    d_alpha: Option<&Tensor>,
    gradients: Gradients,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let mix = Sparse::<T>::by_position(inputs.mix);
    let (positions, cells) = (inputs.mix.positions(), inputs.mix.cells());
    let keys = host.read::<T>(inputs.keys)?;
    let values = host.read::<T>(inputs.values)?;
    let weight = host.read::<T>(inputs.weight)?.row(0);
    let query = host.read::<T>(query)?;
    let alpha = host.read::<T>(alpha)?;
    let d_context = host.read::<T>(d_context)?;
    let d_alpha = host.read_some::<T>(d_alpha)?;
    let mut d_query = host.write::<T>(gradients.query)?;
    let mut d_scores = host.write::<T>(gradients.scores)?;
    let images = d_query.par_rows().zip(d_scores.par_rows()).enumerate();
    images.for_each(|(b, (d_query, d_scores))| {
        let mut d_beta = vec![T::zero(); cells];
        simd(|| {
            for (c, d_beta) in d_beta.iter_mut().enumerate() {
                *d_beta = simd::dot(d_context.row(b), values.row(b * cells + c));
            }
            for (p, d_alpha) in d_scores.iter_mut().enumerate() {
                let from_context = mix.row(p).iter().map(|&(c, share)| share * d_beta[c]);
                *d_alpha = from_context.sum();
            }
            if let Some(d_alpha) = d_alpha {
                add_scaled(d_scores, T::one(), d_alpha.row(b));
            }
            softmax_backward(alpha.row(b), d_scores);
            d_query.fill(T::zero());
            for (p, &d_score) in d_scores.iter().enumerate() {
                let key = keys.row(b * positions + p);
                add_through_relu(d_score, key, query.row(b), weight, d_query);
            }
        });
    });
    Ok(())
}

/// One task per image, position by position, so that a key and its gradient stay in cache for all steps.
pub fn keys_backward<T: Float>(
    ctx: &Context,
    inputs: Inputs,
    queries: &Tensor,
    d_scores: &Tensor,
    accumulate: Accumulate,
    gradients: KeyGradients,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let positions = inputs.mix.positions();
    let [steps, batch, a] = check::dims(OP, "queries", queries)?;
    let keys = host.read::<T>(inputs.keys)?;
    let weight = host.read::<T>(inputs.weight)?.row(0);
    let queries = host.read::<T>(queries)?;
    let d_scores = host.read::<T>(d_scores)?;
    let mut d_keys = host.write::<T>(gradients.keys)?;
    let mut d_weight = host.write::<T>(gradients.weight)?;
    let mut d_bias = host.write::<T>(gradients.bias)?;
    let (d_weight, d_bias, ld) = (d_weight.row(0), d_bias.row(0), d_keys.ld);
    let images = d_keys.par_row_blocks(positions).enumerate();
    let of_images = images.map(|(b, (_, d_keys))| {
        let (mut of_weight, mut of_bias) = (vec![T::zero(); a], T::zero());
        simd(|| {
            for (p, d_key) in rows_of(d_keys, a, ld).enumerate() {
                if accumulate == Accumulate::No {
                    d_key.fill(T::zero());
                }
                let key = keys.row(b * positions + p);
                for row in (0..steps).map(|t| t * batch + b) {
                    let (d_score, query) = (d_scores.row(row)[p], queries.row(row));
                    add_through_relu(d_score, key, query, weight, d_key);
                    add_relu(d_score, key, query, &mut of_weight);
                    of_bias += d_score;
                }
            }
        });
        (of_weight, of_bias)
    });
    let of_images: Vec<_> = of_images.collect();
    if accumulate == Accumulate::No {
        d_weight.fill(T::zero());
        d_bias.fill(T::zero());
    }
    for (of_weight, of_bias) in of_images {
        add_scaled(d_weight, T::one(), &of_weight);
        d_bias[0] += of_bias;
    }
    Ok(())
}

/// Σ_a w_a relu(k_a + q_a), added up in a fixed order.
#[inline(always)]
fn score<T: Float>(key: &[T], query: &[T], weight: &[T]) -> T {
    const LANES: usize = 16;
    let term = |k: T, q: T, w: T| w * relu(k + q);
    let mut lanes = [T::zero(); LANES];
    let whole = key.len() / LANES * LANES;
    let chunks = key.chunks_exact(LANES).zip(query.chunks_exact(LANES));
    for ((key, query), weight) in chunks.zip(weight.chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] += term(key[i], query[i], weight[i]);
        }
    }
    let rest = key[whole..].iter().zip(&query[whole..]);
    for (lane, ((&k, &q), &w)) in lanes.iter_mut().zip(rest.zip(&weight[whole..])) {
        *lane += term(k, q, w);
    }
    simd::sum_lanes(lanes)
}

/// NaN stays NaN.
#[inline(always)]
fn relu<T: Float>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}

/// y += d_score w ∘ [k + q > 0]: the gradient of a score to that of its key, and to that of the query.
#[inline(always)]
fn add_through_relu<T: Float>(d_score: T, key: &[T], query: &[T], weight: &[T], y: &mut [T]) {
    for (y, ((&k, &q), &w)) in y.iter_mut().zip(key.iter().zip(query).zip(weight)) {
        let open = k + q > T::zero();
        *y += if open { d_score * w } else { T::zero() };
    }
}

/// y += d_score relu(k + q): the gradient of a score to that of the weight.
#[inline(always)]
fn add_relu<T: Float>(d_score: T, key: &[T], query: &[T], y: &mut [T]) {
    for (y, (&k, &q)) in y.iter_mut().zip(key.iter().zip(query)) {
        *y += d_score * relu(k + q);
    }
}

#[inline(always)]
fn softmax<T: Float>(x: &mut [T]) {
    let max = simd::max(x);
    for x in x.iter_mut() {
        *x = (*x - max).fast_exp();
    }
    let scale = simd::sum(x).recip();
    for x in x.iter_mut() {
        *x *= scale;
    }
}

/// From the softmax's output and, in place, its gradient to that of its input.
#[inline(always)]
fn softmax_backward<T: Float>(y: &[T], d: &mut [T]) {
    let mean = simd::dot(y, d);
    for (d, &y) in d.iter_mut().zip(y) {
        *d = y * (*d - mean);
    }
}

/// y = Σ_i weights_i rows_{first + i}. Four rows at a time, so that y is loaded and stored less often.
#[inline(always)]
fn weighted_sum<T: Float>(weights: &[T], rows: Rows<T>, first: usize, y: &mut [T]) {
    y.fill(T::zero());
    let quads = weights.chunks_exact(4);
    let rest = quads.remainder();
    let after = first + weights.len() - rest.len();
    for (i, w) in quads.enumerate() {
        let row = |k| rows.row(first + 4 * i + k).iter();
        let terms = row(0).zip(row(1)).zip(row(2).zip(row(3)));
        for (y, ((&x0, &x1), (&x2, &x3))) in y.iter_mut().zip(terms) {
            *y += (w[0] * x0 + w[1] * x1) + (w[2] * x2 + w[3] * x3);
        }
    }
    for (i, &w) in rest.iter().enumerate() {
        add_scaled(y, w, rows.row(after + i));
    }
}

/// For each image the product βᵀ d_context, (C, T) x (T, D); its steps lie a batch apart.
pub fn values_backward<T: Float>(
    ctx: &Context,
    beta: &Tensor,
    d_context: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let [steps, batch] = [beta.shape().dims()[0], beta.shape().dims()[1]];
    let beta = host.read::<T>(beta)?;
    let d_context = host.read::<T>(d_context)?;
    let mut d_values = host.write::<T>(d_values)?;
    let (cells, cols, ld) = (beta.cols, d_values.cols, d_values.ld);
    d_values.for_each_block(cells, &|first, data| {
        let b = first / cells;
        let beta = Strided {
            data: &beta.data()[b * beta.ld..],
            row_stride: 1,
            col_stride: batch * beta.ld,
        };
        let d_context = Strided {
            data: &d_context.data()[b * d_context.ld..],
            row_stride: batch * d_context.ld,
            col_stride: 1,
        };
        let to = Destination { data, cols, ld };
        let threads = Parallelism::None;
        product(cells, steps, beta, d_context, accumulate, to, threads);
    });
    Ok(())
}
