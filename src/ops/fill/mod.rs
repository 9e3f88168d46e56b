//! One value in every element. Padding between rows stays as it is.

mod cpu;
mod cuda;

use super::dispatch;
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "fill";

/// t = 0, whatever the element type: in all of them zero is all bits clear.
pub fn zero(ctx: &Context, t: &mut Tensor) -> Result<()> {
    dispatch!(ctx, zero(t))
}

/// t = value, for f32 and f64.
pub fn constant(ctx: &Context, value: f64, t: &mut Tensor) -> Result<()> {
    dispatch!(ctx, t.dtype(), constant(value, t))
}
