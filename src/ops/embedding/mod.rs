//! Embedding: y_r = W_id(r), a row of W (V, E) for each id.
//!
//! ids are u32 of any shape, N of them; y has N rows of E. Backward, from dy: dW_v = Σ_{r: id(r) = v} dy_r,
//! added up in the order of r; the row of the padding id gets nothing. Saves the ids.

mod cpu;
mod cuda;

use super::{Accumulate, check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "embedding";

/// y = W[ids]: gathers rows of any matrix.
///
/// # Errors
/// On the CPU, when an id is not below the number of rows of W. On a GPU an error would have to wait for the result: there such a
/// row is NaN, and [`backward`] leaves it out.
pub fn forward(ctx: &Context, weight: &Tensor, ids: &Tensor, y: &mut Tensor) -> Result<()> {
    check::dtype(OP, "ids", ids, DType::U32)?;
    check::matrix(OP, "y", y, [ids.len(), weight.cols()], weight.dtype())?;
    dispatch!(ctx, y.dtype(), forward(weight, ids, y))
}

/// dW from dy; rows of `padding` get no gradient.
pub fn backward(
    ctx: &Context,
    ids: &Tensor,
    dy: &Tensor,
    padding: Option<u32>,
    accumulate: Accumulate,
    dw: &mut Tensor,
) -> Result<()> {
    check::dtype(OP, "ids", ids, DType::U32)?;
    check::matrix(OP, "dy", dy, [ids.len(), dw.cols()], dw.dtype())?;
    dispatch!(ctx, dw.dtype(), backward(ids, dy, padding, accumulate, dw))
}
