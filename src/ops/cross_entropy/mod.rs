//! Softmax cross-entropy over the vocabulary, mean over the rows whose target is not ignored.
//!
//! logits x (R, V), targets u32 (R):
//! loss_r = ln Σ_v e^{x_rv} - x_{r,target(r)}, 0 where the target is ignored; loss = Σ_r loss_r / n with n the
//! number of rows that are not, NaN without any, as in PyTorch. n is counted from the targets on the device:
//! nothing that changes from batch to batch comes from the host. Backward: dx_rv = (softmax(x_r)_v - [v = target(r)]) / n, 0 in ignored rows.
//! Logits, and with them their gradient, may be bf16; losses are then f32.
//! Backward needs what forward has at hand, so the two are one pass, in place over the logits: the
//! largest tensors of a training step exist once.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "cross_entropy";

/// The rows' losses (R elements of any shape) and their mean (1 element). Rows whose target is `ignore` have
/// neither loss nor gradient.
///
/// # Errors
/// On the CPU, when a target is not below V. On a GPU an error would have to wait for the result: there the row's loss is NaN,
/// and so is the mean.
pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    check_arguments(logits, targets, losses, loss)?;
    dispatch!(
        ctx,
        loss.dtype(),
        forward(logits, targets, ignore, losses, loss)
    )
}

/// As [`forward`], and the logits become the gradient of the mean loss with respect to them.
pub fn forward_backward(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    check_arguments(logits, targets, losses, loss)?;
    dispatch!(
        ctx,
        loss.dtype(),
        forward_backward(logits, targets, ignore, losses, loss)
    )
}

fn check_arguments(
    logits: &Tensor,
    targets: &Tensor,
    losses: &Tensor,
    loss: &Tensor,
) -> Result<()> {
    let fits = |tensor: &Tensor| tensor.len() == logits.rows() && tensor.is_dense();
    for (name, tensor) in [("targets", targets), ("losses", losses)] {
        check::that(OP, fits(tensor), || {
            let (shape, rows) = (tensor.shape(), logits.rows());
            format!("{name} {shape:?} should be {rows} elements without padding")
        })?;
    }
    check::dtype(OP, "targets", targets, DType::U32)?;
    check::shape(OP, "loss", loss, &[1])?;
    check::dtype(OP, "losses", losses, loss.dtype())?;
    let sums = logits.dtype().of_parameters();
    check::dtype(OP, "loss", loss, sums)
}
