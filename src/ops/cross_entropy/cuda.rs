//! Cross-entropy on the CUDA device: a block a row, then one block for the mean.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::cross_entropy as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Tensor};

const THREADS: u32 = 256;
/// Shared memory that the reductions take.
const FIXED_SHARED: usize = 128;

pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if loss.dtype() != DType::F32 {
        return launch.refuse(loss.dtype());
    }
    if logits.rows() > 0 {
        let arguments = (
            launch.read(logits)?,
            launch.read(targets)?,
            launch.write(losses)?,
            launch.size(logits.cols())?,
            launch.size(logits.ld())?,
            ignore,
        );
        let grid = Grid::blocks([logits.rows(), 1, 1], THREADS);
        launch.run(&kernels::CROSS_ENTROPY_LOSS_F32, grid, arguments)?;
    }
    mean(ctx, losses, targets, ignore, loss)
}

pub fn forward_backward(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    if loss.dtype() != DType::F32 {
        return Launch::new(OP, ctx)?.refuse(loss.dtype());
    }
    if logits.rows() > 0 {
        ctx.scope(|| {
            let mut counted = ctx.empty([1], DType::F32)?;
            count(ctx, targets, ignore, &mut counted)?;
            gradient(ctx, logits, targets, ignore, &counted, losses)
        })?;
    }
    mean(ctx, losses, targets, ignore, loss)
}

fn one_block() -> Grid {
    Grid::blocks([1, 1, 1], THREADS)
}

/// How many targets are not ignored.
fn count(ctx: &Context, targets: &Tensor, ignore: u32, counted: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let rows = launch.size(targets.len())?;
    let arguments = (launch.read(targets)?, launch.write(counted)?, rows, ignore);
    launch.run(&kernels::CROSS_ENTROPY_COUNT_F32, one_block(), arguments)
}

fn gradient(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    counted: &Tensor,
    losses: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let row = logits.cols() * DType::F32.bytes();
    let grid = Grid::blocks([logits.rows(), 1, 1], THREADS);
    let (cols, ld) = (launch.size(logits.cols())?, launch.size(logits.ld())?);
    let arguments = (
        launch.write(logits)?,
        launch.read(targets)?,
        launch.read(counted)?,
        launch.write(losses)?,
        cols,
        ld,
        ignore,
    );
    match row + FIXED_SHARED <= launch.shared_memory() {
        true => {
            let grid = grid.shared(row);
            launch.run(&kernels::CROSS_ENTROPY_GRADIENT_F32, grid, arguments)
        }
        false => {
            let kernel = &kernels::CROSS_ENTROPY_GRADIENT_TWICE_F32;
            launch.run(kernel, grid, arguments)
        }
    }
}

fn mean(
    ctx: &Context,
    losses: &Tensor,
    targets: &Tensor,
    ignore: u32,
    loss: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let arguments = (
        launch.read(losses)?,
        launch.read(targets)?,
        launch.write(loss)?,
        launch.size(targets.len())?,
        ignore,
    );
    launch.run(&kernels::CROSS_ENTROPY_MEAN_F32, one_block(), arguments)
}
