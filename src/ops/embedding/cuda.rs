//! Embedding on the CUDA device: `kernels/embedding.cu`.

use super::{Accumulate, OP};
use crate::error::Result;
use crate::ops::fill;
use crate::ops::kernels::embedding as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, weight: &Tensor, ids: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[weight, y]);
    let blocks = Blocks::for_threads(y.len() / vector.width);
    let arguments = kernels::EmbeddingForward {
        words: launch.size(weight.rows())?,
        rows: launch.size(y.rows())?,
        cols: launch.size(y.cols())?,
        ids_cols: launch.size(ids.cols())?,
        ids_ld: launch.size(ids.ld())?,
        weight_ld: launch.size(weight.ld())?,
        y_ld: launch.size(y.ld())?,
        weight: weight.into(),
        ids: ids.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn backward(
    ctx: &Context,
    ids: &Tensor,
    dy: &Tensor,
    padding: Option<u32>,
    accumulate: Accumulate,
    dw: &mut Tensor,
) -> Result<()> {
    if accumulate == Accumulate::No {
        fill::zero(ctx, dw)?;
    }
    if dy.is_empty() || dw.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[dy, dw]);
    let slabs = dw.cols().div_ceil(vector.width * kernels::SCATTER_THREADS);
    let arguments = kernels::EmbeddingBackward {
        words: launch.size(dw.rows())?,
        rows: launch.size(ids.len())?,
        cols: launch.size(dw.cols())?,
        ids_cols: launch.size(ids.cols())?,
        ids_ld: launch.size(ids.ld())?,
        dy_ld: launch.size(dy.ld())?,
        dw_ld: launch.size(dw.ld())?,
        padding: padding.map_or(-1, i64::from),
        ids: ids.into(),
        dy: dy.into(),
        dw: dw.into(),
    };
    launch.run(
        &[vector.key()],
        Blocks::new([ids.len(), slabs, 1]),
        arguments,
    )
}
