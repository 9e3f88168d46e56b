//! Optimisers, over one range of the parameter arena at a time.
//!
//! g is the gradient after the clip, plus weight_decay · w.
//!
//! - SGD with momentum μ (PyTorch's form): u ← μ u + g, w ← w - lr u.
//! - Adam (Kingma and Ba 2015): m ← β1 m + (1-β1) g, v ← β2 v + (1-β2) g²,
//!   w ← w - lr / (1-β1ᵗ) · m / (√(v / (1-β2ᵗ)) + ε), t the number of this step, from 1.
//!
//! lr and t change from step to step, so they are read from device memory: `schedule` holds (lr, t).
//! Where products read the parameters in bf16, the same launch writes the rounded copy that they read.
//! w, g, u, m, v are (n), dense; padding of the arena holds zeros and keeps them.

mod cpu;
pub(in crate::ops) mod cuda;

use super::clip::Clip;
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "optimiser";

/// The constants of SGD.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// μ; 0 for plain SGD.
    pub momentum: f64,
    /// How much of w is added to its gradient.
    pub weight_decay: f64,
}

/// The constants of Adam.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// β1: how much of m is kept in a step.
    pub beta1: f64,
    /// β2: how much of v is kept in a step.
    pub beta2: f64,
    /// ε, which keeps the divisor away from 0.
    pub epsilon: f64,
    /// How much of w is added to its gradient.
    pub weight_decay: f64,
}

/// What is trained.
pub struct Weights<'a> {
    /// w
    pub values: &'a mut Tensor,
    /// A copy of them in bf16 for products of matrices, if there is one; the CPU has none.
    pub rounded: Option<&'a mut Tensor>,
}

/// Without a copy.
impl<'a> From<&'a mut Tensor> for Weights<'a> {
    fn from(values: &'a mut Tensor) -> Self {
        let rounded = None;
        Weights { values, rounded }
    }
}

impl Weights<'_> {
    fn check(&self) -> Result<()> {
        let len = self.values.len();
        let rounded = self.rounded.as_deref();
        check::optional(OP, "rounded values", rounded, &[len], DType::Bf16)
    }
}

/// One step of SGD; `velocity` is u. `schedule` (2) holds lr and t.
pub fn sgd(
    ctx: &Context,
    settings: Sgd,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    velocity: &mut Tensor,
    weights: Weights,
) -> Result<()> {
    check_arguments(schedule, clip, gradients, &[velocity, weights.values])?;
    weights.check()?;
    dispatch!(
        ctx,
        gradients.dtype(),
        sgd(settings, schedule, clip, gradients, velocity, weights)
    )
}

/// Adam's running means of the gradient and of its square.
pub struct Moments<'a> {
    /// m
    pub first: &'a mut Tensor,
    /// v
    pub second: &'a mut Tensor,
}

/// One step of Adam. `schedule` (2) holds lr and t.
pub fn adam(
    ctx: &Context,
    settings: Adam,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    moments: Moments,
    weights: Weights,
) -> Result<()> {
    let state = [&*moments.first, moments.second, weights.values];
    check_arguments(schedule, clip, gradients, &state)?;
    weights.check()?;
    dispatch!(
        ctx,
        gradients.dtype(),
        adam(settings, schedule, clip, gradients, moments, weights)
    )
}

fn check_arguments(
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    state: &[&Tensor],
) -> Result<()> {
    check::tensor(OP, "schedule", schedule, &[2], gradients.dtype())?;
    if let Clip::Factor(factor) = clip {
        check::tensor(OP, "clip factor", factor, &[1], gradients.dtype())?;
    }
    for tensor in state {
        check::tensor(OP, "state", tensor, &[gradients.len()], gradients.dtype())?;
    }
    Ok(())
}
