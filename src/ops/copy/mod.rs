//! Copy: y = x, for x and y of the same number of rows and columns, whatever their padding.
//!
//! Element types may differ among f32, f64, bf16 and f16: values are rounded to the nearest, ties to
//! even; what is too large becomes infinite.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "copy";

/// y = x.
pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    check::matrix(OP, "x", x, [y.rows(), y.cols()], x.dtype())?;
    dispatch!(ctx, forward(x, y))
}
