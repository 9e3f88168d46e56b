//! Fills on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::Host;
use crate::tensor::{Context, DType, Element, Tensor};
use half::{bf16, f16};

pub fn zero(ctx: &Context, t: &mut Tensor) -> Result<()> {
    match t.dtype() {
        DType::F32 => fill(ctx, 0f32, t),
        DType::F64 => fill(ctx, 0f64, t),
        DType::Bf16 => fill(ctx, bf16::ZERO, t),
        DType::F16 => fill(ctx, f16::ZERO, t),
        DType::U32 => fill(ctx, 0u32, t),
        DType::U8 => fill(ctx, 0u8, t),
    }
}

pub fn constant<T: Float>(ctx: &Context, value: f64, t: &mut Tensor) -> Result<()> {
    fill(ctx, T::of(value), t)
}

fn fill<T: Element>(ctx: &Context, value: T, t: &mut Tensor) -> Result<()> {
    if ctx.device().is_planning() {
        return Ok(());
    }
    let host = Host::new(OP, ctx);
    let mut t = host.write::<T>(t)?;
    t.for_each_row(|_, row| row.fill(value));
    Ok(())
}
