//! The norm on the CUDA device: a sum of squares for every chunk, then all of them by one block.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::clip as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Tensor};

/// Elements a chunk, as the kernel has it.
const CHUNK: usize = 16_384;
const THREADS: u32 = 256;

pub fn norm(
    ctx: &Context,
    gradients: &Tensor,
    max_norm: f64,
    norm: &mut Tensor,
    factor: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if gradients.dtype() != DType::F32 {
        return launch.refuse(gradients.dtype());
    }
    let (len, chunks) = (gradients.len(), gradients.len().div_ceil(CHUNK));
    ctx.scope(|| {
        let squares = ctx.empty([chunks], DType::F32)?;
        if len > 0 {
            let (g, squares) = (launch.read(gradients)?, launch.write(&squares)?);
            let arguments = (g, squares, launch.size(len)?);
            let grid = Grid::blocks([chunks, 1, 1], THREADS);
            launch.run(&kernels::CLIP_SQUARES_F32, grid, arguments)?;
        }
        let launch = Launch::new(OP, ctx)?;
        let arguments = (
            launch.read(&squares)?,
            launch.write(norm)?,
            launch.write(factor)?,
            launch.size(chunks)?,
            max_norm as f32,
        );
        let grid = Grid::blocks([1, 1, 1], THREADS);
        launch.run(&kernels::CLIP_NORM_F32, grid, arguments)
    })
}
