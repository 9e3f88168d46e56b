//! Sum in place: y ← y + x, for x and y of the same number of rows and columns.
//!
//! Its backward is the identity: dx = dy.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "add";

/// y += x.
pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    check::matrix(OP, "x", x, [y.rows(), y.cols()], y.dtype())?;
    dispatch!(ctx, y.dtype(), forward(x, y))
}
