//! The k most probable entries of every row, with their log-probabilities.
//!
//! logits (R, V) → ids (R, k) u32 and log p (R, k), best first; the lower id wins a tie. log p = logit -
//! log Σ exp(logits). With k = 1 the ids are the argmax.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "top-k";

/// The k most likely entries of each row of logits (R, V), the best first: ids (R, k) and log-probabilities (R, k).
///
/// # Errors
/// When shapes or element types do not fit, or when k is not in 1..=V.
pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    ids: &mut Tensor,
    log_probabilities: &mut Tensor,
) -> Result<()> {
    let (rows, k) = (logits.rows(), ids.cols());
    check::that(OP, k >= 1 && k <= logits.cols(), || {
        format!("{k} entries of rows of {}", logits.cols())
    })?;
    let (best, dtype) = (&*log_probabilities, logits.dtype());
    check::tensor(OP, "ids", ids, &[rows, k], DType::U32)?;
    check::tensor(OP, "log-probabilities", best, &[rows, k], dtype)?;
    dispatch!(ctx, logits.dtype(), forward(logits, ids, log_probabilities))
}
