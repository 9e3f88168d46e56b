//! Sums down the columns of a tall matrix, in an order that does not depend on the number of threads.

use super::Float;
use super::simd::simd;
use rayon::prelude::*;

/// Elements of a block of rows: it stays in a core's own cache while it is read more than once.
const BLOCK: usize = 1 << 15;

/// How many rows a block has: fixed by the shape alone.
pub fn block_rows(cols: usize) -> usize {
    (BLOCK / cols.max(1)).clamp(16, 1024)
}

/// `rows` rows cut into blocks: `block(first row, number of rows, sums)` adds its part to zeroed sums of
/// `sums` elements; `merge(total, sums, number of rows)` is then called for every block in order.
pub fn reduce<T: Float, S>(
    [rows, cols]: [usize; 2],
    sums: usize,
    mut total: S,
    block: impl Fn(usize, usize, &mut [T]) + Sync,
    mut merge: impl FnMut(&mut S, &[T], usize),
) -> S {
    let step = block_rows(cols);
    let count = |i: usize| step.min(rows - i * step);
    let mut partial = vec![T::zero(); rows.div_ceil(step) * sums];
    partial
        .par_chunks_mut(sums.max(1))
        .enumerate()
        .for_each(|(i, sums)| simd(|| block(i * step, count(i), sums)));
    for (i, sums) in partial.chunks(sums.max(1)).enumerate() {
        merge(&mut total, sums, count(i));
    }
    total
}

/// Σ over all blocks of what `block` adds to its sums (see [`reduce`]), in f64 between blocks.
pub fn sums<T: Float>(
    shape: [usize; 2],
    sums: usize,
    block: impl Fn(usize, usize, &mut [T]) + Sync,
) -> Vec<f64> {
    let zeros = vec![0.0; sums];
    reduce(shape, sums, zeros, block, |total, sums: &[T], _| {
        for (total, &sum) in total.iter_mut().zip(sums) {
            *total += Float::to_f64(sum);
        }
    })
}
