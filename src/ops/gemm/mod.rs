//! Matrix product: C = op(A) op(B) or C += op(A) op(B), op(X) being X or Xᵀ.
//!
//! op(A) is (m, k), op(B) is (k, n), C is (m, n); tensors of more dimensions count as (rows, cols).
//! It is the product that linear layers, LSTM gates and 1x1 convolutions are made of; backward is the
//! same product again, so it has no function of its own:
//! dA = dC op(B)ᵀ and dB = op(A)ᵀ dC.

pub(super) mod cpu;

use super::{check, dispatch_cpu};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "gemm";

/// What happens to what an output already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// Overwritten; it may be uninitialised.
    No,
    /// Added to.
    Yes,
}

/// A factor of the product, as it is or transposed.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    Plain(&'a Tensor),
    Transposed(&'a Tensor),
}

impl Factor<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Factor::Plain(tensor) | Factor::Transposed(tensor) => tensor,
        }
    }

    fn dims(&self) -> (usize, usize) {
        match self {
            Factor::Plain(tensor) => (tensor.rows(), tensor.cols()),
            Factor::Transposed(tensor) => (tensor.cols(), tensor.rows()),
        }
    }
}

/// C = op(A) op(B), or C += op(A) op(B).
///
/// # Errors
/// When the shapes do not fit or the element types differ.
pub fn forward(
    ctx: &Context,
    a: Factor,
    b: Factor,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    let ((m, k), (kb, n)) = (a.dims(), b.dims());
    check::that(OP, k == kb && (c.rows(), c.cols()) == (m, n), || {
        format!("({m}, {k}) x ({kb}, {n}) into ({}, {})", c.rows(), c.cols())
    })?;
    check::dtype(OP, "a", a.tensor(), c.dtype())?;
    check::dtype(OP, "b", b.tensor(), c.dtype())?;
    dispatch_cpu!(ctx, OP, c.dtype(), forward(a, b, accumulate, c))
}
