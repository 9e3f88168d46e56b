//! Gradient clipping over an arena.
//!
//! By norm (Pascanu et al. 2013, PyTorch's `clip_grad_norm_`): norm = √Σ g², and every gradient is to be
//! multiplied by factor = min(1, max_norm / (norm + 1e-6)). By value: g ← min(max(g, -bound), bound). Neither
//! writes the gradients: the optimiser applies the clip as it reads them, and norm and factor stay on
//! the device.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "clip";

/// Added to the norm before the bound is divided by it, as PyTorch does.
const EPSILON: f64 = 1e-6;

/// What an optimiser does to a gradient before anything else.
#[derive(Clone, Copy)]
pub enum Clip<'a> {
    /// Gradients stay as they are.
    None,
    /// Multiply by this one-element tensor.
    Factor(&'a Tensor),
    /// Clamp to ± this.
    Value(f64),
}

/// Writes `norm` (1), the Euclidean norm of `gradients` (n), and `factor` (1), the number to multiply them
/// by so that their norm is at most `max_norm`. The sum's order is fixed. A NaN anywhere makes both NaN.
pub fn norm(
    ctx: &Context,
    gradients: &Tensor,
    max_norm: f64,
    norm: &mut Tensor,
    factor: &mut Tensor,
) -> Result<()> {
    for (name, tensor) in [("norm", &*norm), ("factor", &*factor)] {
        check::tensor(OP, name, tensor, &[1], gradients.dtype())?;
    }
    dispatch!(
        ctx,
        gradients.dtype(),
        norm(gradients, max_norm, norm, factor)
    )
}
