//! Embedding on the CUDA device: `kernels/embedding.cu`.

use super::{Accumulate, OP};
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::fill;
use crate::ops::kernels::embedding as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, weight: &Tensor, ids: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(weight)?,
        launch.read(ids)?,
        launch.write(y)?,
        launch.size(weight.rows())?,
        launch.size(y.rows())?,
        launch.size(y.cols())?,
        launch.size(ids.cols())?,
        launch.size(ids.ld())?,
        launch.size(weight.ld())?,
        launch.size(y.ld())?,
    );
    let width = launch.width(&[weight, y]);
    let kernel = match width {
        4 => &kernels::EMBEDDING_FORWARD_F32X4,
        _ => &kernels::EMBEDDING_FORWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(y.len() / width, 256), args)
}

pub fn backward(
    ctx: &Context,
    ids: &Tensor,
    dy: &Tensor,
    padding: Option<u32>,
    accumulate: Accumulate,
    dw: &mut Tensor,
) -> Result<()> {
    const THREADS: u32 = 128;
    if accumulate == Accumulate::No {
        fill::zero(ctx, dw)?;
    }
    if dy.is_empty() || dw.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(ids)?,
        launch.read(dy)?,
        launch.write(dw)?,
        launch.size(dw.rows())?,
        launch.size(ids.len())?,
        launch.size(dw.cols())?,
        launch.size(ids.cols())?,
        launch.size(ids.ld())?,
        launch.size(dy.ld())?,
        launch.size(dw.ld())?,
        padding.map_or(-1, i64::from),
    );
    let width = launch.width(&[dy, dw]);
    let kernel = match width {
        4 => &kernels::EMBEDDING_BACKWARD_F32X4,
        _ => &kernels::EMBEDDING_BACKWARD_F32,
    };
    let slabs = dw.cols().div_ceil(width * THREADS as usize);
    launch.run(kernel, Grid::blocks([ids.len(), slabs, 1], THREADS), args)
}
