//! Matrix product through the `gemm` crate, on rayon's current pool.

use super::{Accumulate, Factor, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::{Host, Rows};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// Products of fewer multiplications than this stay on the calling thread.
const PARALLEL_FROM: usize = 1 << 18;

pub fn forward<T: Float>(
    ctx: &Context,
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    let Some(host) = Host::new(OP, ctx) else {
        return Ok(());
    };
    let (m, k) = a.dims();
    let bias = host.read_some::<T>(bias)?;
    let a = Strided::<T>::new(&host, &a)?;
    let b = Strided::<T>::new(&host, &b)?;
    let mut c = host.write::<T>(c)?;
    let accumulate = match bias {
        Some(bias) => {
            c.par_rows()
                .for_each(|row| row.copy_from_slice(bias.row(0)));
            Accumulate::Yes
        }
        None => accumulate,
    };
    let c = Destination {
        ld: c.ld,
        cols: c.cols,
        data: c.data(),
    };
    let threads = if m * k * c.cols < PARALLEL_FROM {
        ::gemm::Parallelism::None
    } else {
        ::gemm::Parallelism::Rayon(0)
    };
    product(m, k, a, b, accumulate, c, threads);
    Ok(())
}

/// A factor as the `gemm` crate takes it.
#[derive(Clone, Copy)]
pub struct Strided<'a, T> {
    pub data: &'a [T],
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a, T: Float> Strided<'a, T> {
    fn new(host: &'a Host, factor: &Factor<'a>) -> Result<Self> {
        Ok(match factor {
            Factor::Plain(tensor) => Strided::plain(host.read(tensor)?),
            Factor::Transposed(tensor) => Strided::transposed(host.read(tensor)?),
        })
    }

    pub fn plain(rows: Rows<'a, T>) -> Self {
        Strided {
            data: rows.data(),
            row_stride: rows.ld,
            col_stride: 1,
        }
    }

    pub fn transposed(rows: Rows<'a, T>) -> Self {
        Strided {
            data: rows.data(),
            row_stride: 1,
            col_stride: rows.ld,
        }
    }

    fn covers(&self, rows: usize, cols: usize) -> bool {
        let last = |n: usize, stride: usize| n.saturating_sub(1) * stride;
        rows * cols == 0
            || last(rows, self.row_stride) + last(cols, self.col_stride) < self.data.len()
    }
}

/// Where a product goes: rows of `cols` elements, `ld` apart.
pub struct Destination<'a, T> {
    pub data: &'a mut [T],
    pub cols: usize,
    pub ld: usize,
}

/// c = a b or c += a b, with a of (m, k) and b of (k, c.cols).
pub fn product<T: Float>(
    m: usize,
    k: usize,
    a: Strided<T>,
    b: Strided<T>,
    accumulate: Accumulate,
    c: Destination<T>,
    threads: ::gemm::Parallelism,
) {
    let n = c.cols;
    if m * n == 0 {
        return;
    }
    let fits = (m - 1) * c.ld + n <= c.data.len();
    assert!(fits && a.covers(m, k) && b.covers(k, n), "product bounds");
    // SAFETY: by the assertion every element that the strides reach lies inside the slices; `c` is a
    // unique borrow, so it overlaps neither factor.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            1,
            c.ld as isize,
            accumulate == Accumulate::Yes,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            threads,
        )
    }
}
