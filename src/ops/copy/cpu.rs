//! Copies and casts on the CPU.

use super::OP;
use crate::error::{Error, Result};
use crate::ops::host::Host;
use crate::tensor::{Context, DType, Element, Tensor};
use half::{bf16, f16};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    use DType::{Bf16, F16, F32, F64, U8, U32};
    match (x.dtype(), y.dtype()) {
        (F32, F32) => cast(ctx, x, y, |v: f32| v),
        (F32, F64) => cast(ctx, x, y, |v: f32| f64::from(v)),
        (F32, Bf16) => cast(ctx, x, y, bf16::from_f32),
        (F32, F16) => cast(ctx, x, y, f16::from_f32),
        (F64, F32) => cast(ctx, x, y, |v: f64| v as f32),
        (F64, F64) => cast(ctx, x, y, |v: f64| v),
        (F64, Bf16) => cast(ctx, x, y, bf16::from_f64),
        (F64, F16) => cast(ctx, x, y, f16::from_f64),
        (Bf16, F32) => cast(ctx, x, y, bf16::to_f32),
        (Bf16, F64) => cast(ctx, x, y, bf16::to_f64),
        (Bf16, Bf16) => cast(ctx, x, y, |v: bf16| v),
        (Bf16, F16) => cast(ctx, x, y, |v: bf16| f16::from_f32(v.to_f32())),
        (F16, F32) => cast(ctx, x, y, f16::to_f32),
        (F16, F64) => cast(ctx, x, y, f16::to_f64),
        (F16, Bf16) => cast(ctx, x, y, |v: f16| bf16::from_f32(v.to_f32())),
        (F16, F16) => cast(ctx, x, y, |v: f16| v),
        (U32, U32) => cast(ctx, x, y, |v: u32| v),
        (U8, U8) => cast(ctx, x, y, |v: u8| v),
        (from, to) => Err(Error::operation(OP, format!("no cast from {from} to {to}"))),
    }
}

fn cast<X: Element, Y: Element>(
    ctx: &Context,
    x: &Tensor,
    y: &mut Tensor,
    convert: impl Fn(X) -> Y + Sync,
) -> Result<()> {
    if ctx.device().is_planning() {
        return Ok(());
    }
    let host = Host::new(OP, ctx);
    let x = host.read::<X>(x)?;
    let mut y = host.write::<Y>(y)?;
    y.for_each_row(|row, y| {
        for (y, &x) in y.iter_mut().zip(x.row(row)) {
            *y = convert(x);
        }
    });
    Ok(())
}
