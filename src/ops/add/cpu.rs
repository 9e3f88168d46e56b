//! y += x on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::simd::simd;
use crate::ops::host::{Host, rows_of, rows_per_task};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward<T: Float>(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let Some(host) = Host::new(OP, ctx) else {
        return Ok(());
    };
    let x = host.read::<T>(x)?;
    let mut y = host.write::<T>(y)?;
    let (cols, ld) = (y.cols, y.ld);
    let blocks = y.par_row_blocks(rows_per_task(cols));
    blocks.for_each(|(first, block)| {
        simd(|| {
            for (i, y) in rows_of(block, cols, ld).enumerate() {
                for (y, &x) in y.iter_mut().zip(x.row(first + i)) {
                    *y += x;
                }
            }
        });
    });
    Ok(())
}
