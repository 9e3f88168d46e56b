//! Linear layer: y = x Wᵀ + b.
//!
//! x (R, I), W (O, I) as PyTorch stores it, b (O), y (R, O). Backward, from dy (R, O):
//! dx = dy W, dW = dyᵀ x, db = Σ_r dy_r. Saves x.

mod cpu;
pub(super) mod cuda;

use super::gemm::{self, Accumulate, Factor};
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "linear";

/// y = x Wᵀ + b.
pub fn forward(
    ctx: &Context,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &mut Tensor,
) -> Result<()> {
    check::shape(OP, "weight", weight, &[y.cols(), x.cols()])?;
    let (x, weight) = (Factor::Plain(x), Factor::Transposed(weight));
    match bias {
        Some(bias) => gemm::forward_biased(ctx, x, weight, bias, y),
        None => gemm::forward(ctx, x, weight, Accumulate::No, y),
    }
}

/// What backward writes; what is `None` is not computed.
#[derive(Default)]
pub struct Gradients<'a> {
    /// (R, I)
    pub x: Option<&'a mut Tensor>,
    /// (O, I)
    pub weight: Option<&'a mut Tensor>,
    /// (O)
    pub bias: Option<&'a mut Tensor>,
}

/// Gradients from dy (R, O).
pub fn backward(
    ctx: &Context,
    x: &Tensor,
    weight: &Tensor,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    check::shape(OP, "weight", weight, &[dy.cols(), x.cols()])?;
    if let Some(dx) = gradients.x {
        let (dy, weight) = (Factor::Plain(dy), Factor::Plain(weight));
        gemm::forward(ctx, dy, weight, accumulate, dx)?;
    }
    if let Some(dw) = gradients.weight {
        let (dy, x) = (Factor::Transposed(dy), Factor::Plain(x));
        gemm::forward(ctx, dy, x, accumulate, dw)?;
    }
    if let Some(db) = gradients.bias {
        check::tensor(
            OP,
            "bias gradient",
            db,
            &[dy.cols()],
            dy.dtype().of_parameters(),
        )?;
        dispatch!(ctx, dy.dtype(), sum_rows(dy, accumulate, db))?;
    }
    Ok(())
}
