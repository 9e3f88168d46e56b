//! y += x on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::{Host, simd};
use crate::tensor::{Context, Tensor};

pub fn forward<T: Float>(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let x = host.read::<T>(x)?;
    let mut y = host.write::<T>(y)?;
    y.for_each_row(|row, y| simd::add(y, x.row(row)));
    Ok(())
}
