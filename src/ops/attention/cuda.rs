//! Attention on the CUDA device: `kernels/attention.cu`.

use super::{CellMix, Gradients, Inputs, KeyGradients, OP, Outputs};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::attention::{
    self as kernels, AttentionKeys, AttentionMix, AttentionScores, AttentionStep, AttentionValues,
};
use crate::ops::launch::{Blocks, Launch, Vector};
use crate::tensor::{Context, Tensor};

impl AttentionMix {
    fn new(launch: &Launch, mix: &CellMix) -> Result<Self> {
        let [[cells_h, cells_w], [positions_h, positions_w]] = mix.grids();
        Ok(AttentionMix {
            cells_h: launch.size(cells_h)?,
            cells_w: launch.size(cells_w)?,
            positions_h: launch.size(positions_h)?,
            positions_w: launch.size(positions_w)?,
        })
    }
}

/// Numbers of shared memory that the shares of a mix take.
fn shares(mix: &CellMix) -> usize {
    let [_, [height, width]] = mix.grids();
    height + width
}

/// A warp for every row.
fn warps(rows: usize) -> Blocks {
    Blocks::for_threads(kernels::WARP * rows)
}

/// Slabs of columns.
fn slabs(cols: usize, vector: Vector) -> usize {
    cols.div_ceil(kernels::SLAB_VECTORS * vector.width)
}

pub fn mix_forward(ctx: &Context, mix: &CellMix, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let (vector, blocks) = (launch.vector(&[y, x]), warps(y.rows()));
    let arguments = kernels::AttentionMixForward {
        mix: AttentionMix::new(&launch, mix)?,
        batch: launch.size(x.shape().dims()[0])?,
        cols: launch.size(y.cols())?,
        x_ld: launch.size(x.ld())?,
        y_ld: launch.size(y.ld())?,
        x: x.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn mix_backward(
    ctx: &Context,
    mix: &CellMix,
    dy: &Tensor,
    accumulate: Accumulate,
    dx: &mut Tensor,
) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let (vector, blocks) = (launch.vector(&[dx, dy]), warps(dx.rows()));
    let arguments = kernels::AttentionMixBackward {
        mix: AttentionMix::new(&launch, mix)?,
        batch: launch.size(dx.shape().dims()[0])?,
        cols: launch.size(dx.cols())?,
        dy_ld: launch.size(dy.ld())?,
        dx_ld: launch.size(dx.ld())?,
        accumulate: accumulate.flag(),
        dy: dy.into(),
        dx: dx.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn mean_forward(
    ctx: &Context,
    mix: &CellMix,
    values: &Tensor,
    mean: &mut Tensor,
) -> Result<()> {
    if mean.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[values, mean]);
    let blocks = mean_blocks(mix, mean, vector);
    let arguments = kernels::AttentionMeanForward {
        mix: AttentionMix::new(&launch, mix)?,
        d: launch.size(mean.cols())?,
        values_ld: launch.size(values.ld())?,
        mean_ld: launch.size(mean.ld())?,
        values: values.into(),
        mean: mean.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn mean_backward(
    ctx: &Context,
    mix: &CellMix,
    d_mean: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    if d_mean.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[d_mean, d_values]);
    let arguments = kernels::AttentionMeanBackward {
        mix: AttentionMix::new(&launch, mix)?,
        d: launch.size(d_mean.cols())?,
        d_mean_ld: launch.size(d_mean.ld())?,
        d_values_ld: launch.size(d_values.ld())?,
        accumulate: accumulate.flag(),
        d_mean: d_mean.into(),
        d_values: d_values.into(),
    };
    launch.run(&[vector.key()], mean_blocks(mix, d_mean, vector), arguments)
}

/// A block for every slab of every image.
fn mean_blocks(mix: &CellMix, mean: &Tensor, vector: Vector) -> Blocks {
    let shared = kernels::mean_shared_bytes(mix.cells(), shares(mix));
    Blocks::new([slabs(mean.cols(), vector), mean.rows(), 1]).shared(shared)
}

pub fn forward(ctx: &Context, inputs: Inputs, query: &Tensor, outputs: Outputs) -> Result<()> {
    let Outputs {
        alpha,
        beta,
        context,
    } = outputs;
    let (batch, a, mix) = (query.rows(), query.cols(), inputs.mix);
    if batch == 0 {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector_beside(&[inputs.keys, inputs.values], &[context]);
    let slabs = slabs(context.cols(), vector);
    let blocks = blocks_per_image(slabs, launch.multiprocessors() / batch);
    let shared = kernels::forward_shared_bytes(a, mix.positions(), mix.cells(), shares(mix));
    let arguments = kernels::AttentionForward {
        mix: AttentionMix::new(&launch, mix)?,
        at: AttentionStep {
            a: launch.size(a)?,
            d: launch.size(context.cols())?,
            keys_ld: launch.size(inputs.keys.ld())?,
            values_ld: launch.size(inputs.values.ld())?,
            query_ld: launch.size(query.ld())?,
            alpha_ld: launch.size(alpha.ld())?,
            beta_ld: launch.size(beta.ld())?,
            context_ld: launch.size(context.ld())?,
        },
        keys: inputs.keys.into(),
        values: inputs.values.into(),
        weight: inputs.weight.into(),
        bias: inputs.bias.into(),
        query: query.into(),
        alpha: alpha.into(),
        beta: beta.into(),
        context: context.into(),
    };
    let blocks = Blocks::new([blocks, batch, 1]).shared(shared);
    launch.run(&[vector.key()], blocks, arguments)
}

/// At most `most` blocks, and at least one, for the slabs of an image; no more than it takes for the same rounds.
fn blocks_per_image(slabs: usize, most: usize) -> usize {
    let rounds = slabs.div_ceil(most.max(1)).max(1);
    slabs.div_ceil(rounds).max(1)
}

pub fn backward(
    ctx: &Context,
    inputs: Inputs,
    query: &Tensor,
    alpha: &Tensor,
    d_context: &Tensor,
    d_alpha: Option<&Tensor>,
    gradients: Gradients,
) -> Result<()> {
    if query.rows() == 0 {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    ctx.scope(|| {
        let mut d_beta = ctx.empty([query.rows(), inputs.mix.cells()], query.dtype())?;
        cells_backward(&launch, inputs, d_context, &mut d_beta)?;
        let step = Step {
            query,
            alpha,
            d_beta: &d_beta,
            d_alpha,
        };
        scores_backward(&launch, inputs, step, gradients)
    })
}

/// dβ (B, C)
fn cells_backward(
    launch: &Launch,
    inputs: Inputs,
    d_context: &Tensor,
    d_beta: &mut Tensor,
) -> Result<()> {
    let (cells, d) = (d_beta.cols(), d_context.cols());
    let vector = launch.vector_beside(&[inputs.values], &[d_context]);
    let blocks = cells.div_ceil(kernels::CELLS_OF_WARP * kernels::WARPS);
    let blocks = Blocks::new([blocks, d_beta.rows(), 1]).shared(kernels::cells_shared_bytes(d));
    let arguments = kernels::AttentionCellsBackward {
        cells: launch.size(cells)?,
        d: launch.size(d)?,
        values_ld: launch.size(inputs.values.ld())?,
        d_context_ld: launch.size(d_context.ld())?,
        values: inputs.values.into(),
        d_context: d_context.into(),
        d_beta: d_beta.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

/// What the scores' gradients of a step are made of.
struct Step<'a> {
    query: &'a Tensor,
    alpha: &'a Tensor,
    d_beta: &'a Tensor,
    d_alpha: Option<&'a Tensor>,
}

fn scores_backward(
    launch: &Launch,
    inputs: Inputs,
    step: Step,
    gradients: Gradients,
) -> Result<()> {
    let (mix, query) = (inputs.mix, step.query);
    let vector = launch.vector_beside(&[inputs.keys, gradients.query], &[inputs.weight, query]);
    let slabs = query.cols().div_ceil(kernels::SCORES_COLUMNS);
    let shared = kernels::scores_shared_bytes(mix.positions(), mix.cells(), shares(mix));
    let arguments = kernels::AttentionScoresBackward {
        mix: AttentionMix::new(launch, mix)?,
        at: AttentionScores {
            a: launch.size(query.cols())?,
            keys_ld: launch.size(inputs.keys.ld())?,
            query_ld: launch.size(query.ld())?,
            alpha_ld: launch.size(step.alpha.ld())?,
            d_alpha_ld: launch.size(step.d_alpha.map_or(0, Tensor::ld))?,
            d_query_ld: launch.size(gradients.query.ld())?,
            d_scores_ld: launch.size(gradients.scores.ld())?,
        },
        keys: inputs.keys.into(),
        weight: inputs.weight.into(),
        query: query.into(),
        alpha: step.alpha.into(),
        d_beta: step.d_beta.into(),
        d_alpha: step.d_alpha.into(),
        d_query: gradients.query.into(),
        d_scores: gradients.scores.into(),
    };
    let blocks = Blocks::new([slabs, query.rows(), 1]).shared(shared);
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn keys_backward(
    ctx: &Context,
    inputs: Inputs,
    queries: &Tensor,
    d_scores: &Tensor,
    accumulate: Accumulate,
    gradients: KeyGradients,
) -> Result<()> {
    let [steps, batch, a] = check::dims(OP, "queries", queries)?;
    let positions = inputs.mix.positions();
    let launch = Launch::new(OP, ctx)?;
    ctx.scope(|| {
        let blocks = positions.div_ceil(kernels::POSITIONS_OF_BLOCK);
        let mut partials = ctx.empty([batch * blocks, a + 1], queries.dtype())?;
        if batch > 0 {
            let vector = launch.vector(&[inputs.keys, inputs.weight, queries, gradients.keys]);
            let arguments = kernels::AttentionKeysBackward {
                at: AttentionKeys {
                    steps: launch.size(steps)?,
                    batch: launch.size(batch)?,
                    positions: launch.size(positions)?,
                    a: launch.size(a)?,
                    keys_ld: launch.size(inputs.keys.ld())?,
                    queries_ld: launch.size(queries.ld())?,
                    d_scores_ld: launch.size(d_scores.ld())?,
                    d_keys_ld: launch.size(gradients.keys.ld())?,
                    accumulate: accumulate.flag(),
                },
                keys: inputs.keys.into(),
                weight: inputs.weight.into(),
                queries: queries.into(),
                d_scores: d_scores.into(),
                d_keys: gradients.keys.into(),
                partials: (&mut partials).into(),
            };
            launch.run(&[vector.key()], Blocks::new([blocks, batch, 1]), arguments)?;
        }
        let blocks = partials.cols().div_ceil(kernels::PARTIAL_COLUMNS);
        let arguments = kernels::AttentionPartialsSum {
            rows: launch.size(partials.rows())?,
            a: launch.size(a)?,
            accumulate: accumulate.flag(),
            partials: (&partials).into(),
            d_weight: gradients.weight.into(),
            d_bias: gradients.bias.into(),
        };
        launch.run(&[], Blocks::new([blocks, 1, 1]), arguments)
    })
}

pub fn values_backward(
    ctx: &Context,
    beta: &Tensor,
    d_context: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    let [steps, batch, cells] = check::dims(OP, "beta", beta)?;
    if d_values.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[d_context, d_values]);
    let blocks = cells.div_ceil(kernels::CELLS_OF_BLOCK);
    let blocks = Blocks::new([slabs(d_values.cols(), vector), blocks, batch]);
    let arguments = kernels::AttentionValuesBackward {
        at: AttentionValues {
            steps: launch.size(steps)?,
            batch: launch.size(batch)?,
            cells: launch.size(cells)?,
            d: launch.size(d_values.cols())?,
            beta_ld: launch.size(beta.ld())?,
            d_context_ld: launch.size(d_context.ld())?,
            d_values_ld: launch.size(d_values.ld())?,
            accumulate: accumulate.flag(),
        },
        beta: beta.into(),
        d_context: d_context.into(),
        d_values: d_values.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}
