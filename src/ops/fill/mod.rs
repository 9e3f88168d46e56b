//! One value in every element. Padding between rows stays as it is.

mod cpu;

use super::dispatch_cpu;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Context, Tensor};

const OP: &str = "fill";

/// t = 0, whatever the element type: in all of them zero is all bits clear.
pub fn zero(ctx: &Context, t: &mut Tensor) -> Result<()> {
    match ctx.device() {
        Device::Plan(_) => Ok(()),
        Device::Cuda(_) => Err(Error::operation(
            OP,
            "the CUDA device has no kernel for it yet",
        )),
        Device::Cpu(_) => cpu::zero(t),
    }
}

/// t = value, for f32 and f64.
pub fn constant(ctx: &Context, value: f64, t: &mut Tensor) -> Result<()> {
    dispatch_cpu!(ctx, OP, t.dtype(), constant(value, t))
}
