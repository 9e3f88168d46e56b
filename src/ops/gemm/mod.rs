//! Matrix product: C = op(A) op(B) or C += op(A) op(B), op(X) being X or Xᵀ.
//!
//! op(A) is (m, k), op(B) is (k, n), C is (m, n); tensors of more dimensions count as (rows, cols).
//! It is the product that linear layers, LSTM gates and 1x1 convolutions are made of; backward is the
//! same product again, so it has no function of its own:
//! dA = dC op(B)ᵀ and dB = op(A)ᵀ dC.

pub(super) mod cpu;
pub mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "gemm";

/// What happens to what an output already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// Overwritten; it may be uninitialised.
    No,
    /// Added to.
    Yes,
}

impl Accumulate {
    /// As kernels take it.
    pub(super) fn flag(self) -> i32 {
        i32::from(self == Accumulate::Yes)
    }
}

/// A factor of the product, as it is or transposed.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// The matrix as it is.
    Plain(&'a Tensor),
    /// The transposed matrix, without copying it.
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
/// A and B have one element type, and C has it too; of bf16, C may be f32. Sums are f32 (f64 of f64).
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn forward(
    ctx: &Context,
    a: Factor,
    b: Factor,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    run(ctx, a, b, None, accumulate, c)
}

/// C = op(A) op(B) + bias, `bias` (n) added to every row.
///
/// # Errors
/// As for [`forward`].
pub fn forward_biased(
    ctx: &Context,
    a: Factor,
    b: Factor,
    bias: &Tensor,
    c: &mut Tensor,
) -> Result<()> {
    check::shape(OP, "bias", bias, &[c.cols()])?;
    run(ctx, a, b, Some(bias), Accumulate::No, c)
}

fn run(
    ctx: &Context,
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    let ((m, k), (kb, n)) = (a.dims(), b.dims());
    check::that(OP, k == kb && (c.rows(), c.cols()) == (m, n), || {
        format!("({m}, {k}) x ({kb}, {n}) into ({}, {})", c.rows(), c.cols())
    })?;
    check::dtype(OP, "b", b.tensor(), a.tensor().dtype())?;
    let widened = a.tensor().dtype() == DType::Bf16 && c.dtype() == DType::F32;
    if !widened {
        check::dtype(OP, "a", a.tensor(), c.dtype())?;
    }
    dispatch!(ctx, c.dtype(), forward(a, b, bias, accumulate, c))
}
