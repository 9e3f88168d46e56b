//! Optimisers on the CUDA device: one launch over the range.

use super::{Adam, Moments, OP, Sgd, Weights};
use crate::error::Result;
use crate::ops::clip::Clip;
use crate::ops::kernels::optimiser::{AdamSettings, OptimiserAdam, OptimiserSgd, SgdSettings};
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

/// The factor, if any, and the bound, infinite if there is none.
fn clip_numbers(clip: Clip<'_>) -> (Option<&Tensor>, f32) {
    match clip {
        Clip::None => (None, f32::INFINITY),
        Clip::Factor(factor) => (Some(factor), f32::INFINITY),
        Clip::Value(bound) => (None, bound as f32),
    }
}

pub fn sgd(
    ctx: &Context,
    settings: Sgd,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    velocity: &mut Tensor,
    weights: Weights,
) -> Result<()> {
    let Weights { values, rounded } = weights;
    let (launch, n) = (Launch::new(OP, ctx)?, values.len());
    if n == 0 {
        return Ok(());
    }
    let (factor, bound) = clip_numbers(clip);
    let mut tensors = vec![&*values, gradients, &*velocity];
    tensors.extend(rounded.as_deref());
    let vector = launch.vector_and_rest(&tensors, true);
    let arguments = OptimiserSgd {
        n: launch.size(n)?,
        settings: SgdSettings {
            momentum: settings.momentum as f32,
            decay: settings.weight_decay as f32,
            bound,
        },
        schedule: schedule.into(),
        factor: factor.into(),
        gradients: gradients.into(),
        velocity: velocity.into(),
        values: values.into(),
        rounded: rounded.into(),
    };
    let blocks = Blocks::for_threads(n.div_ceil(vector.width));
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn adam(
    ctx: &Context,
    settings: Adam,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    moments: Moments,
    weights: Weights,
) -> Result<()> {
    let Weights { values, rounded } = weights;
    let (launch, n) = (Launch::new(OP, ctx)?, values.len());
    if n == 0 {
        return Ok(());
    }
    let (factor, bound) = clip_numbers(clip);
    let mut tensors = vec![&*values, gradients, &*moments.first, &*moments.second];
    tensors.extend(rounded.as_deref());
    let vector = launch.vector_and_rest(&tensors, true);
    let arguments = OptimiserAdam {
        n: launch.size(n)?,
        settings: AdamSettings {
            beta1: settings.beta1 as f32,
            beta2: settings.beta2 as f32,
            rest1: (1.0 - settings.beta1) as f32,
            rest2: (1.0 - settings.beta2) as f32,
            ln_beta1: settings.beta1.ln() as f32,
            ln_beta2: settings.beta2.ln() as f32,
            epsilon: settings.epsilon as f32,
            decay: settings.weight_decay as f32,
            bound,
        },
        schedule: schedule.into(),
        factor: factor.into(),
        gradients: gradients.into(),
        means: moments.first.into(),
        squares: moments.second.into(),
        values: values.into(),
        rounded: rounded.into(),
    };
    let blocks = Blocks::for_threads(n.div_ceil(vector.width));
    launch.run(&[vector.key()], blocks, arguments)
}
