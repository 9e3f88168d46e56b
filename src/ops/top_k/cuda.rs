//! Top-k on the CUDA device: a block a row.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::top_k as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Tensor};

const THREADS: u32 = 256;
/// Shared memory that the reductions take.
const FIXED_SHARED: usize = 128;

pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    ids: &mut Tensor,
    log_probabilities: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if logits.dtype() != DType::F32 {
        return launch.refuse(logits.dtype());
    }
    if logits.rows() == 0 {
        return Ok(());
    }
    let row = logits.cols() * DType::F32.bytes();
    let fits = row + FIXED_SHARED <= launch.shared_memory();
    let (ld_ids, ld_log_probabilities) = (ids.ld(), log_probabilities.ld());
    let k = launch.size(ids.cols())?;
    let arguments = (
        launch.read(logits)?,
        launch.write(ids)?,
        launch.write(log_probabilities)?,
        launch.size(logits.cols())?,
        k,
        launch.size(logits.ld())?,
        launch.size(ld_ids)?,
        launch.size(ld_log_probabilities)?,
        i32::from(fits),
    );
    let grid = Grid::blocks([logits.rows(), 1, 1], THREADS);
    let grid = grid.shared(if fits { row } else { 0 });
    launch.run(&kernels::TOP_K_F32, grid, arguments)
}
