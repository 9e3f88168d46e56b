//! Embedding on the CPU.

use super::{Accumulate, OP};
use crate::error::{Error, Result};
use crate::ops::Float;
use crate::ops::host::simd::{add, simd};
use crate::ops::host::{Host, Rows, rows_of};
use crate::tensor::{Context, Tensor};

pub fn forward<T: Float>(
    ctx: &Context,
    weight: &Tensor,
    ids: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let weight = host.read::<T>(weight)?;
    let ids = host.read::<u32>(ids)?;
    let mut y = host.write::<T>(y)?;
    let ids = to_vec(ids, weight.rows)?;
    y.for_each_row(|row, y| y.copy_from_slice(weight.row(ids[row] as usize)));
    Ok(())
}

/// Ids of one task: each task zeroes its rows and adds, in order, whatever belongs to them, so that the
/// sums do not depend on the threads. Few, since the frequent words have neighbouring ids.
const RANGE: usize = 64;

pub fn backward<T: Float>(
    ctx: &Context,
    ids: &Tensor,
    dy: &Tensor,
    padding: Option<u32>,
    accumulate: Accumulate,
    dw: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let ids = host.read::<u32>(ids)?;
    let dy = host.read::<T>(dy)?;
    let mut dw = host.write::<T>(dw)?;
    let ids = to_vec(ids, dw.rows)?;
    let (cols, ld) = (dw.cols, dw.ld);
    dw.for_each_block(RANGE, &|first, block| {
        if accumulate == Accumulate::No {
            rows_of(block, cols, ld).for_each(|row| row.fill(T::zero()));
        }
        for (i, &id) in ids.iter().enumerate() {
            let in_range = (first..first + RANGE).contains(&(id as usize));
            if in_range && Some(id) != padding {
                let row = &mut block[(id as usize - first) * ld..][..cols];
                simd(|| add(row, dy.row(i)));
            }
        }
    });
    Ok(())
}

/// The ids without padding, all below `limit`.
fn to_vec(ids: Rows<u32>, limit: usize) -> Result<Vec<u32>> {
    let ids: Vec<u32> = (0..ids.rows)
        .flat_map(|row| ids.row(row))
        .copied()
        .collect();
    match ids.iter().find(|&&id| id as usize >= limit) {
        None => Ok(ids),
        Some(id) => {
            let message = format!("id {id} in a table of {limit} rows");
            Err(Error::operation(OP, message))
        }
    }
}
