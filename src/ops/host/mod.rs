//! What the `cpu.rs` halves of operations share: tensors as slices, loops in vectors, sums down columns, the number types.
//!
//! [`Host`] is the one place where tensor memory becomes Rust references. It is made anew in every operation; it remembers
//! what it handed out and refuses a tensor that overlaps one it handed out for writing.

pub mod columns;
mod float;
pub mod simd;

use super::given::Given;
use crate::error::{Error, Result};
use crate::tensor::{Context, Element, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;

pub use float::Float;

pub struct Host {
    op: &'static str,
    given: RefCell<Given>,
}

/// Rows of `cols` elements that one task of an element-wise operation takes: enough that the cost of handing the task to a
/// thread does not matter.
pub fn rows_per_task(cols: usize) -> usize {
    (16_384 / cols.max(1)).max(1)
}

/// The rows of a block that [`RowsMut::par_row_blocks`] gave: `cols` elements each, `ld` apart.
#[inline(always)]
pub fn rows_of<T>(block: &mut [T], cols: usize, ld: usize) -> impl Iterator<Item = &mut [T]> {
    block.chunks_mut(ld.max(1)).map(move |row| &mut row[..cols])
}

/// A tensor to read: `rows` rows of `cols` elements, `ld` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    data: &'a [T],
    pub rows: usize,
    pub cols: usize,
    pub ld: usize,
}

/// A tensor to write.
pub struct RowsMut<'a, T> {
    data: &'a mut [T],
    pub rows: usize,
    pub cols: usize,
    pub ld: usize,
}

impl Host {
    /// For an operation that computes: not on a dry run, whose tensors have no memory.
    pub fn new(op: &'static str, ctx: &Context) -> Self {
        debug_assert!(!ctx.device().is_planning(), "{op} computes on a dry run");
        let given = RefCell::new(Given::new(op));
        Host { op, given }
    }

    pub fn read<'a, T: Element>(&'a self, tensor: &'a Tensor) -> Result<Rows<'a, T>> {
        let pointer = self.give::<T>(tensor, false)?;
        // SAFETY: `give` found `extent` elements of type T there, inside memory that `tensor` keeps
        // alive, and no overlap with anything given out for writing; the device lives on this thread.
        let data = unsafe { std::slice::from_raw_parts(pointer, tensor.extent()) };
        Ok(Rows {
            data,
            rows: tensor.rows(),
            cols: tensor.cols(),
            ld: tensor.ld(),
        })
    }

    pub fn write<'a, T: Element>(&'a self, tensor: &'a mut Tensor) -> Result<RowsMut<'a, T>> {
        let pointer = self.give::<T>(tensor, true)?;
        // SAFETY: as for `read`, and nothing given out overlaps it.
        let data = unsafe { std::slice::from_raw_parts_mut(pointer, tensor.extent()) };
        Ok(RowsMut {
            data,
            rows: tensor.rows(),
            cols: tensor.cols(),
            ld: tensor.ld(),
        })
    }

    pub fn read_some<'a, T: Element>(
        &'a self,
        tensor: Option<&'a Tensor>,
    ) -> Result<Option<Rows<'a, T>>> {
        tensor.map(|tensor| self.read(tensor)).transpose()
    }

    pub fn write_some<'a, T: Element>(
        &'a self,
        tensor: Option<&'a mut Tensor>,
    ) -> Result<Option<RowsMut<'a, T>>> {
        tensor.map(|tensor| self.write(tensor)).transpose()
    }

    fn give<T: Element>(&self, tensor: &Tensor, written: bool) -> Result<*mut T> {
        let Some(base) = tensor.memory().host() else {
            let message = format!("{tensor:?} is not in host memory");
            return Err(Error::operation(self.op, message));
        };
        let mut given = self.given.borrow_mut();
        given.add(tensor, T::DTYPE, base as u64, written)?;
        // SAFETY: `byte_range` lies inside the memory block.
        Ok(unsafe { base.add(tensor.byte_range().start) }.cast())
    }
}

impl<'a, T: Element> Rows<'a, T> {
    pub fn row(&self, row: usize) -> &'a [T] {
        &self.data[row * self.ld..][..self.cols]
    }

    /// Everything from the first element to the last, padding between rows included.
    pub fn data(&self) -> &'a [T] {
        self.data
    }
}

impl<T: Element> RowsMut<'_, T> {
    pub fn row(&mut self, row: usize) -> &mut [T] {
        &mut self.data[row * self.ld..][..self.cols]
    }

    /// Everything from the first element to the last, padding between rows included.
    pub fn data(&mut self) -> &mut [T] {
        self.data
    }

    /// Calls `body` with each row and its number: a block of rows is a task, in vector instructions.
    pub fn for_each_row(&mut self, body: impl Fn(usize, &mut [T]) + Sync) {
        let (cols, ld) = (self.cols, self.ld);
        self.for_each_block(rows_per_task(cols), &|first, block| {
            simd::simd(|| {
                for (i, row) in rows_of(block, cols, ld).enumerate() {
                    body(first + i, row);
                }
            });
        });
    }

    /// Calls `body` with each block of [`RowsMut::par_row_blocks`] and the number of its first row. One function for all bodies:
    /// handing out tasks takes longer to compile than most of them.
    pub fn for_each_block(&mut self, size: usize, body: &(dyn Fn(usize, &mut [T]) + Sync)) {
        self.par_row_blocks(size)
            .for_each(|(first, block)| body(first, block));
    }

    pub fn par_rows(&mut self) -> impl IndexedParallelIterator<Item = &mut [T]> {
        self.par_row_blocks(1).map(|(_, block)| block)
    }

    /// Blocks of `size` consecutive rows (the last may be shorter) with the number of the first row.
    /// A block spans padding: its rows start `ld` apart and it ends with the last row's last element.
    pub fn par_row_blocks(
        &mut self,
        size: usize,
    ) -> impl IndexedParallelIterator<Item = (usize, &mut [T])> {
        let (cols, ld) = (self.cols, self.ld);
        self.data
            .par_chunks_mut((size * ld).max(1))
            .enumerate()
            .map(move |(i, block)| {
                let rows = block.len().div_ceil(ld.max(1));
                let end = rows.saturating_sub(1) * ld + cols;
                (i * size, &mut block[..end])
            })
    }
}
