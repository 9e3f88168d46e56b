//! Matrix products through the `gemm-f32` and `gemm-f64` crates, on rayon's current pool.
//!
//! Those two hold all that is needed here. `gemm` itself also compiles products of complex and half-precision
//! numbers, which takes longer than the rest of the engine.

use super::{Accumulate, Factor, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::{Host, Rows};
use crate::tensor::{Context, Tensor};
pub use gemm_common::Parallelism;

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
    let host = Host::new(OP, ctx);
    let (m, k) = a.dims();
    let bias = host.read_some::<T>(bias)?;
    let a = Strided::<T>::new(&host, &a)?;
    let b = Strided::<T>::new(&host, &b)?;
    let mut c = host.write::<T>(c)?;
    let accumulate = match bias {
        Some(bias) => {
            c.for_each_row(|_, row| row.copy_from_slice(bias.row(0)));
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
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    };
    product(m, k, a, b, accumulate, c, threads);
    Ok(())
}

/// C = beta A B, or C = alpha C + beta A B, as the `gemm` crates declare it: m, n, k; C with the strides of its columns and of
/// its rows; whether C is read; A and B, each with both strides; alpha, beta; whether C, A, B are conjugated; the threads.
///
/// # Safety
/// Every element of the three matrices that the strides reach must lie in memory that may be used, and C must overlap neither
/// A nor B.
type Kernel<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    Parallelism,
);

/// An element type that has a matrix product.
pub trait Multiply: Sized {
    /// The product for the vector instructions of this machine. It works best on a C whose columns are contiguous.
    fn kernel() -> Kernel<Self>;
}

impl Multiply for f32 {
    fn kernel() -> Kernel<f32> {
        gemm_f32::gemm::f32::get_gemm_fn()
    }
}

impl Multiply for f64 {
    fn kernel() -> Kernel<f64> {
        gemm_f64::gemm::f64::get_gemm_fn()
    }
}

/// A factor as slices with strides, which may be those of a transposed matrix.
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

    /// The transposed matrix.
    fn turned(self) -> Self {
        Strided {
            data: self.data,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
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
    threads: Parallelism,
) {
    let n = c.cols;
    if m * n == 0 {
        return;
    }
    let fits = (m - 1) * c.ld + n <= c.data.len();
    assert!(fits && a.covers(m, k) && b.covers(k, n), "product bounds");
    // C with contiguous rows is computed as its transpose, Cᵀ = Bᵀ Aᵀ, which has contiguous columns.
    let transpose = c.ld > 1;
    let ([m, n], [column_stride, row_stride]) = if transpose {
        ([n, m], [c.ld, 1])
    } else {
        ([m, n], [1, c.ld])
    };
    let (a, b) = if transpose {
        (b.turned(), a.turned())
    } else {
        (a, b)
    };
    // SAFETY: by the assertion every element that the strides reach lies inside the slices; `c` is a
    // unique borrow, so it overlaps neither factor.
    unsafe {
        T::kernel()(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            column_stride as isize,
            row_stride as isize,
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
