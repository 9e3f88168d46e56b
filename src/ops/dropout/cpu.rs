//! Dropout on the CPU: sixteen Philox blocks at once, one vector register of AVX-512 for each word.

use super::{Mask, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::simd::simd;
use crate::ops::host::{Host, RowsMut, rows_of, rows_per_task};
use crate::philox;
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

const BLOCKS: usize = 16;
const COLUMNS: usize = 4 * BLOCKS;

pub fn forward<T: Float>(
    ctx: &Context,
    mask: &Mask,
    step: &Tensor,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let step = host.read::<u32>(step)?.row(0)[0];
    let x = host.read::<T>(x)?;
    each_row(mask, step, &mut host.write::<T>(y)?, |row, y| {
        y.copy_from_slice(x.row(row));
    })
}

pub fn in_place<T: Float>(ctx: &Context, mask: &Mask, step: &Tensor, x: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let step = host.read::<u32>(step)?.row(0)[0];
    each_row(mask, step, &mut host.write::<T>(x)?, |_, _| ())
}

/// Drops from every row of y, after `prepare` has seen its number and the row.
fn each_row<T: Float>(
    mask: &Mask,
    step: u32,
    y: &mut RowsMut<T>,
    prepare: impl Fn(usize, &mut [T]) + Sync,
) -> Result<()> {
    let (cols, ld) = (y.cols, y.ld);
    let blocks = y.par_row_blocks(rows_per_task(cols));
    blocks.try_for_each(|(first, block)| {
        for (i, y) in rows_of(block, cols, ld).enumerate() {
            prepare(first + i, y);
            let (t, b) = ((first + i) / mask.batch, (first + i) % mask.batch);
            let row = philox::row_id(mask.first_t + t, b)?;
            simd(|| apply_row(mask, [row, step], y));
        }
        Ok(())
    })
}

#[inline(always)]
fn apply_row<T: Float>(mask: &Mask, row_and_step: [u32; 2], x: &mut [T]) {
    let scale = T::of(mask.scale);
    for (i, x) in x.chunks_mut(COLUMNS).enumerate() {
        let bits = draw(mask, row_and_step, (i * BLOCKS) as u32);
        for (x, bits) in x.iter_mut().zip(bits) {
            let kept = *x * scale;
            *x = if bits >= mask.threshold {
                kept
            } else {
                T::zero()
            };
        }
    }
}

/// The random bits of the columns from `4 * first_block` on.
#[inline(always)]
fn draw(mask: &Mask, [row, step]: [u32; 2], first_block: u32) -> [u32; COLUMNS] {
    let mut block_numbers = [first_block; BLOCKS];
    for (i, number) in block_numbers.iter_mut().enumerate() {
        *number += i as u32;
    }
    let counters = [
        block_numbers,
        [row; BLOCKS],
        [step; BLOCKS],
        [mask.site; BLOCKS],
    ];
    let words = philox::blocks(mask.seed, counters);
    let mut bits = [0; COLUMNS];
    for (i, lanes) in bits.chunks_exact_mut(4).enumerate() {
        for (lane, words) in lanes.iter_mut().zip(&words) {
            *lane = words[i];
        }
    }
    bits
}
