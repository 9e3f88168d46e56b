//! Top-k on the CUDA device: a block for each row.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::top_k as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    ids: &mut Tensor,
    log_probabilities: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if logits.rows() == 0 {
        return Ok(());
    }
    let row = kernels::row_shared_bytes(logits.cols());
    let fits = row + kernels::REDUCTION_BYTES <= launch.shared_memory();
    let arguments = kernels::TopK {
        cols: launch.size(logits.cols())?,
        k: launch.size(ids.cols())?,
        ld: launch.size(logits.ld())?,
        ld_ids: launch.size(ids.ld())?,
        ld_log_probabilities: launch.size(log_probabilities.ld())?,
        in_shared: i32::from(fits),
        logits: logits.into(),
        ids: ids.into(),
        log_probabilities: log_probabilities.into(),
    };
    let blocks = Blocks::new([logits.rows(), 1, 1]);
    launch.run(&[], blocks.shared(if fits { row } else { 0 }), arguments)
}
