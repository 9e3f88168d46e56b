//! Softmax cross-entropy over the vocabulary, mean over the rows whose target is not ignored.
//!
//! logits x (R, V), targets u32 (R):
//! loss_r = ln Σ_v e^{x_rv} - x_{r,target(r)}, 0 where the target is ignored; loss = Σ_r loss_r / n with n the
//! number of rows that are not. Backward: dx_rv = (softmax(x_r)_v - [v = target(r)]) / n, 0 in ignored rows.
//! Backward needs what forward has at hand, so the two are one pass, in place over the logits: the
//! largest tensors of a training step exist once.

mod cpu;

use super::{check, dispatch_cpu};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "cross_entropy";

/// Which rows count.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Rows with this target have neither loss nor gradient.
    pub ignore: u32,
    /// How many rows have another target: the host knows it from the captions. The mean is over so many.
    pub count: usize,
}

/// The rows' losses (R elements of any shape) and their mean (1 element).
///
/// # Errors
/// When no row counts, or a target is not below V.
pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    targets: &Tensor,
    rows: Rows,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    check_arguments(logits, targets, rows, losses, loss)?;
    dispatch_cpu!(
        ctx,
        OP,
        loss.dtype(),
        forward(logits, targets, rows, losses, loss)
    )
}

/// As [`forward`], and the logits become the gradient of the mean loss with respect to them.
pub fn forward_backward(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    rows: Rows,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    check_arguments(logits, targets, rows, losses, loss)?;
    dispatch_cpu!(
        ctx,
        OP,
        loss.dtype(),
        forward_backward(logits, targets, rows, losses, loss)
    )
}

fn check_arguments(
    logits: &Tensor,
    targets: &Tensor,
    rows: Rows,
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
    check::dtype(OP, "logits", logits, loss.dtype())?;
    check::that(OP, rows.count > 0, || {
        format!(
            "every target is {}, which is ignored: there is no mean",
            rows.ignore
        )
    })
}
