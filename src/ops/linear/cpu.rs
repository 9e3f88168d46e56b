//! The gradient of a linear layer's bias on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::gemm::Accumulate;
use crate::ops::host::Host;
use crate::ops::host::simd::{add, simd};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// Columns are summed in strips, each by one thread from the first row to the last, so that the
/// result does not depend on the number of threads.
const STRIP: usize = 256;

pub fn sum_rows<T: Float>(
    ctx: &Context,
    dy: &Tensor,
    accumulate: Accumulate,
    db: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let dy = host.read::<T>(dy)?;
    let mut db = host.write::<T>(db)?;
    let strips = db.data().par_chunks_mut(STRIP).enumerate();
    strips.for_each(|(strip, sums)| {
        if accumulate == Accumulate::No {
            sums.fill(T::zero());
        }
        simd(|| {
            for row in 0..dy.rows {
                add(sums, &dy.row(row)[strip * STRIP..][..sums.len()]);
            }
        });
    });
    Ok(())
}
