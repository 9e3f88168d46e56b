//! Doubly stochastic regulariser (Xu et al. 2015): over a caption, every position should be attended to once.
//!
//! α (T, B, P): loss = λ mean over (B, P) of (1 - Σ_t α_tbp)². Backward: dα_bp = -2 λ (1 - Σ_t α_tbp) / (B P), the
//! same for every t. Saves nothing: the sum over t is taken again.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "regulariser";

/// The loss, 1 element; `lambda` is λ.
pub fn forward(ctx: &Context, alphas: &Tensor, lambda: f64, loss: &mut Tensor) -> Result<()> {
    check::dims::<3>(OP, "alphas", alphas)?;
    check::tensor(OP, "loss", loss, &[1], alphas.dtype())?;
    dispatch!(ctx, alphas.dtype(), forward(alphas, lambda, loss))
}

/// The gradient (B, P) of α at any step.
pub fn backward(ctx: &Context, alphas: &Tensor, lambda: f64, d_alpha: &mut Tensor) -> Result<()> {
    let [_, batch, positions] = check::dims(OP, "alphas", alphas)?;
    check::tensor(OP, "d_alpha", d_alpha, &[batch, positions], alphas.dtype())?;
    dispatch!(ctx, alphas.dtype(), backward(alphas, lambda, d_alpha))
}
