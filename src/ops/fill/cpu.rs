//! Fills on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::{Host, rows_of, rows_per_task};
use crate::tensor::{Context, DType, Element, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

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
    let Some(host) = Host::new(OP, ctx) else {
        return Ok(());
    };
    let mut t = host.write::<T>(t)?;
    let (cols, ld) = (t.cols, t.ld);
    let blocks = t.par_row_blocks(rows_per_task(cols));
    blocks.for_each(|(_, block)| {
        for row in rows_of(block, cols, ld) {
            row.fill(value);
        }
    });
    Ok(())
}
