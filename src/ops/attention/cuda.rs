//! Attention on the CUDA device: `kernels/attention.cu`.

use super::{CellMix, Gradients, Inputs, KeyGradients, OP, Outputs};
use crate::device::cuda::{Grid, kernel_struct};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::attention as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

/// Threads of a block, all kernels.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;
/// Packs of columns that half a block takes.
const SLAB: usize = 128;
const BYTES: usize = size_of::<f32>();

kernel_struct! {
    pub struct AttentionMix {
        pub cells_h: i32,
        pub cells_w: i32,
        pub positions_h: i32,
        pub positions_w: i32,
    }
}

kernel_struct! {
    pub struct AttentionStep {
        pub a: i32,
        pub d: i32,
        pub keys_ld: i32,
        pub values_ld: i32,
        pub query_ld: i32,
        pub alpha_ld: i32,
        pub beta_ld: i32,
        pub context_ld: i32,
    }
}

kernel_struct! {
    pub struct AttentionScores {
        pub a: i32,
        pub keys_ld: i32,
        pub query_ld: i32,
        pub alpha_ld: i32,
        pub d_alpha_ld: i32,
        pub d_query_ld: i32,
        pub d_scores_ld: i32,
    }
}

kernel_struct! {
    pub struct AttentionKeys {
        pub steps: i32,
        pub batch: i32,
        pub positions: i32,
        pub a: i32,
        pub keys_ld: i32,
        pub queries_ld: i32,
        pub d_scores_ld: i32,
        pub d_keys_ld: i32,
        pub accumulate: i32,
    }
}

kernel_struct! {
    pub struct AttentionValues {
        pub steps: i32,
        pub batch: i32,
        pub cells: i32,
        pub d: i32,
        pub beta_ld: i32,
        pub d_context_ld: i32,
        pub d_values_ld: i32,
        pub accumulate: i32,
    }
}

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

pub fn mix_forward(ctx: &Context, mix: &CellMix, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        AttentionMix::new(&launch, mix)?,
        launch.read(x)?,
        launch.write(y)?,
        launch.size(x.shape().dims()[0])?,
        launch.size(y.cols())?,
        launch.size(x.ld())?,
        launch.size(y.ld())?,
    );
    let kernel = match launch.width(&[x, y]) {
        4 => &kernels::ATTENTION_MIX_FORWARD_F32X4,
        _ => &kernels::ATTENTION_MIX_FORWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(32 * y.rows(), THREADS), args)
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
    let args = (
        AttentionMix::new(&launch, mix)?,
        launch.read(dy)?,
        launch.write(dx)?,
        launch.size(dx.shape().dims()[0])?,
        launch.size(dx.cols())?,
        launch.size(dy.ld())?,
        launch.size(dx.ld())?,
        accumulate.flag(),
    );
    let kernel = match launch.width(&[dy, dx]) {
        4 => &kernels::ATTENTION_MIX_BACKWARD_F32X4,
        _ => &kernels::ATTENTION_MIX_BACKWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(32 * dx.rows(), THREADS), args)
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
    let args = (
        AttentionMix::new(&launch, mix)?,
        launch.read(values)?,
        launch.write(mean)?,
        launch.size(mean.cols())?,
        launch.size(values.ld())?,
        launch.size(mean.ld())?,
    );
    let width = launch.width(&[values, mean]);
    let kernel = match width {
        4 => &kernels::ATTENTION_MEAN_FORWARD_F32X4,
        _ => &kernels::ATTENTION_MEAN_FORWARD_F32,
    };
    launch.run(kernel, mean_grid(mix, mean, width), args)
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
    let args = (
        AttentionMix::new(&launch, mix)?,
        launch.read(d_mean)?,
        launch.write(d_values)?,
        launch.size(d_mean.cols())?,
        launch.size(d_mean.ld())?,
        launch.size(d_values.ld())?,
        accumulate.flag(),
    );
    let width = launch.width(&[d_mean, d_values]);
    let kernel = match width {
        4 => &kernels::ATTENTION_MEAN_BACKWARD_F32X4,
        _ => &kernels::ATTENTION_MEAN_BACKWARD_F32,
    };
    launch.run(kernel, mean_grid(mix, d_mean, width), args)
}

/// A block for every slab of every image.
fn mean_grid(mix: &CellMix, mean: &Tensor, width: usize) -> Grid {
    let slabs = mean.cols().div_ceil(SLAB * width);
    let numbers = mix.cells() + shares(mix);
    Grid::blocks([slabs, mean.rows(), 1], THREADS).shared(BYTES * numbers)
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
    let step = AttentionStep {
        a: launch.size(a)?,
        d: launch.size(context.cols())?,
        keys_ld: launch.size(inputs.keys.ld())?,
        values_ld: launch.size(inputs.values.ld())?,
        query_ld: launch.size(query.ld())?,
        alpha_ld: launch.size(alpha.ld())?,
        beta_ld: launch.size(beta.ld())?,
        context_ld: launch.size(context.ld())?,
    };
    let args = (
        AttentionMix::new(&launch, mix)?,
        step,
        launch.read(inputs.keys)?,
        launch.read(inputs.values)?,
        launch.read(inputs.weight)?,
        launch.read(inputs.bias)?,
        launch.read(query)?,
        launch.write(alpha)?,
        launch.write(beta)?,
        launch.write(context)?,
    );
    let width = launch.width(&[inputs.keys, inputs.values, context]);
    let kernel = match width {
        4 => &kernels::ATTENTION_FORWARD_F32X4,
        _ => &kernels::ATTENTION_FORWARD_F32,
    };
    let slabs = context.cols().div_ceil(SLAB * width);
    let blocks = blocks_per_image(slabs, launch.multiprocessors() / batch);
    let numbers = 2 * a.next_multiple_of(4) + mix.positions() + mix.cells() + shares(mix);
    let grid = Grid::blocks([blocks, batch, 1], THREADS).shared(BYTES * numbers);
    launch.run(kernel, grid, args)
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
    ctx.scope(|| {
        let mut d_beta = ctx.empty([query.rows(), inputs.mix.cells()], query.dtype())?;
        cells_backward(ctx, inputs, d_context, &mut d_beta)?;
        let saved = [query, alpha, &d_beta];
        scores_backward(ctx, inputs, saved, d_alpha, gradients)
    })
}

/// dβ (B, C)
fn cells_backward(
    ctx: &Context,
    inputs: Inputs,
    d_context: &Tensor,
    d_beta: &mut Tensor,
) -> Result<()> {
    const CELLS_OF_WARP: usize = 2;
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(inputs.values)?,
        launch.read(d_context)?,
        launch.write(d_beta)?,
        launch.size(d_beta.cols())?,
        launch.size(d_context.cols())?,
        launch.size(inputs.values.ld())?,
        launch.size(d_context.ld())?,
    );
    let kernel = match launch.width(&[inputs.values, d_context]) {
        4 => &kernels::ATTENTION_CELLS_BACKWARD_F32X4,
        _ => &kernels::ATTENTION_CELLS_BACKWARD_F32,
    };
    let blocks = d_beta.cols().div_ceil(CELLS_OF_WARP * WARPS);
    let grid = Grid::blocks([blocks, d_beta.rows(), 1], THREADS).shared(BYTES * d_context.cols());
    launch.run(kernel, grid, args)
}

/// From the query, α and dβ.
fn scores_backward(
    ctx: &Context,
    inputs: Inputs,
    [query, alpha, d_beta]: [&Tensor; 3],
    d_alpha: Option<&Tensor>,
    gradients: Gradients,
) -> Result<()> {
    const COLUMNS_OF_BLOCK: usize = 64;
    let launch = Launch::new(OP, ctx)?;
    let mix = inputs.mix;
    let scores = AttentionScores {
        a: launch.size(query.cols())?,
        keys_ld: launch.size(inputs.keys.ld())?,
        query_ld: launch.size(query.ld())?,
        alpha_ld: launch.size(alpha.ld())?,
        d_alpha_ld: launch.size(d_alpha.map_or(0, Tensor::ld))?,
        d_query_ld: launch.size(gradients.query.ld())?,
        d_scores_ld: launch.size(gradients.scores.ld())?,
    };
    let args = (
        AttentionMix::new(&launch, mix)?,
        scores,
        launch.read(inputs.keys)?,
        launch.read(inputs.weight)?,
        launch.read(query)?,
        launch.read(alpha)?,
        launch.read(d_beta)?,
        launch.read_some(d_alpha)?,
        launch.write(gradients.query)?,
        launch.write(gradients.scores)?,
    );
    let kernel = match launch.width(&[inputs.keys, inputs.weight, query, gradients.query]) {
        4 => &kernels::ATTENTION_SCORES_BACKWARD_F32X4,
        _ => &kernels::ATTENTION_SCORES_BACKWARD_F32,
    };
    let slabs = query.cols().div_ceil(COLUMNS_OF_BLOCK);
    let numbers = mix.cells() + 2 * mix.positions() + shares(mix);
    let grid = Grid::blocks([slabs, query.rows(), 1], THREADS).shared(BYTES * numbers);
    launch.run(kernel, grid, args)
}

pub fn keys_backward(
    ctx: &Context,
    inputs: Inputs,
    queries: &Tensor,
    d_scores: &Tensor,
    accumulate: Accumulate,
    gradients: KeyGradients,
) -> Result<()> {
    const POSITIONS_OF_BLOCK: usize = 16;
    let [steps, batch, a] = check::dims(OP, "queries", queries)?;
    let positions = inputs.mix.positions();
    let launch = Launch::new(OP, ctx)?;
    let keys = AttentionKeys {
        steps: launch.size(steps)?,
        batch: launch.size(batch)?,
        positions: launch.size(positions)?,
        a: launch.size(a)?,
        keys_ld: launch.size(inputs.keys.ld())?,
        queries_ld: launch.size(queries.ld())?,
        d_scores_ld: launch.size(d_scores.ld())?,
        d_keys_ld: launch.size(gradients.keys.ld())?,
        accumulate: accumulate.flag(),
    };
    ctx.scope(|| {
        let blocks = positions.div_ceil(POSITIONS_OF_BLOCK);
        let partials = ctx.empty([batch * blocks, a + 1], queries.dtype())?;
        let args = (
            keys,
            launch.read(inputs.keys)?,
            launch.read(inputs.weight)?,
            launch.read(queries)?,
            launch.read(d_scores)?,
            launch.write(gradients.keys)?,
            launch.write(&partials)?,
        );
        let in_packs = [inputs.keys, inputs.weight, queries, gradients.keys];
        let kernel = match launch.width(&in_packs) {
            4 => &kernels::ATTENTION_KEYS_BACKWARD_F32X4,
            _ => &kernels::ATTENTION_KEYS_BACKWARD_F32,
        };
        if batch > 0 {
            launch.run(kernel, Grid::blocks([blocks, batch, 1], THREADS), args)?;
        }
        sum_partials(ctx, &partials, accumulate, gradients.weight, gradients.bias)
    })
}

fn sum_partials(
    ctx: &Context,
    partials: &Tensor,
    accumulate: Accumulate,
    d_weight: &mut Tensor,
    d_bias: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(partials)?,
        launch.write(d_weight)?,
        launch.write(d_bias)?,
        launch.size(partials.rows())?,
        launch.size(d_weight.cols())?,
        accumulate.flag(),
    );
    let grid = Grid::blocks([partials.cols().div_ceil(32), 1, 1], THREADS);
    launch.run(&kernels::ATTENTION_PARTIALS_SUM_F32, grid, args)
}

pub fn values_backward(
    ctx: &Context,
    beta: &Tensor,
    d_context: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    const CELLS_OF_BLOCK: usize = 16;
    let [steps, batch, cells] = check::dims(OP, "beta", beta)?;
    if d_values.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let values = AttentionValues {
        steps: launch.size(steps)?,
        batch: launch.size(batch)?,
        cells: launch.size(cells)?,
        d: launch.size(d_values.cols())?,
        beta_ld: launch.size(beta.ld())?,
        d_context_ld: launch.size(d_context.ld())?,
        d_values_ld: launch.size(d_values.ld())?,
        accumulate: accumulate.flag(),
    };
    let args = (
        values,
        launch.read(beta)?,
        launch.read(d_context)?,
        launch.write(d_values)?,
    );
    let width = launch.width(&[d_context, d_values]);
    let kernel = match width {
        4 => &kernels::ATTENTION_VALUES_BACKWARD_F32X4,
        _ => &kernels::ATTENTION_VALUES_BACKWARD_F32,
    };
    let slabs = d_values.cols().div_ceil(SLAB * width);
    let grid = Grid::blocks([slabs, cells.div_ceil(CELLS_OF_BLOCK), batch], THREADS);
    launch.run(kernel, grid, args)
}
