//! Optimisers on the CUDA device: one launch over the range.

use super::{Adam, Moments, OP, Sgd};
use crate::device::cuda::{Grid, Read, kernel_struct};
use crate::error::Result;
use crate::ops::clip::Clip;
use crate::ops::kernels::optimiser as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Tensor};

const THREADS: u32 = 256;

kernel_struct! {
    pub struct SgdSettings {
        pub momentum: f32,
        pub decay: f32,
        pub bound: f32,
    }
}

kernel_struct! {
    pub struct AdamSettings {
        pub beta1: f32,
        pub beta2: f32,
        pub rest1: f32,
        pub rest2: f32,
        pub ln_beta1: f32,
        pub ln_beta2: f32,
        pub epsilon: f32,
        pub decay: f32,
        pub bound: f32,
    }
}

/// The factor, if any, and the bound, infinite if there is none.
fn clip_numbers(launch: &Launch, clip: Clip) -> Result<(Read<f32>, f32)> {
    Ok(match clip {
        Clip::None => (launch.read_some(None)?, f32::INFINITY),
        Clip::Factor(factor) => (launch.read(factor)?, f32::INFINITY),
        Clip::Value(bound) => (launch.read_some(None)?, bound as f32),
    })
}

/// A thread for every four parameters.
fn grid(len: usize) -> Grid {
    Grid::threads_for(len.div_ceil(4), THREADS)
}

pub fn sgd(
    ctx: &Context,
    settings: Sgd,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    velocity: &mut Tensor,
    values: &mut Tensor,
) -> Result<()> {
    let (launch, len) = (Launch::new(OP, ctx)?, values.len());
    if values.dtype() != DType::F32 {
        return launch.refuse(values.dtype());
    }
    if len == 0 {
        return Ok(());
    }
    let (factor, bound) = clip_numbers(&launch, clip)?;
    let arguments = (
        launch.read(schedule)?,
        factor,
        launch.read(gradients)?,
        launch.write(velocity)?,
        launch.write(values)?,
        launch.size(len)?,
        SgdSettings {
            momentum: settings.momentum as f32,
            decay: settings.weight_decay as f32,
            bound,
        },
    );
    launch.run(&kernels::OPTIMISER_SGD_F32, grid(len), arguments)
}

pub fn adam(
    ctx: &Context,
    settings: Adam,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    moments: Moments,
    values: &mut Tensor,
) -> Result<()> {
    let (launch, len) = (Launch::new(OP, ctx)?, values.len());
    if values.dtype() != DType::F32 {
        return launch.refuse(values.dtype());
    }
    if len == 0 {
        return Ok(());
    }
    let (factor, bound) = clip_numbers(&launch, clip)?;
    let arguments = (
        launch.read(schedule)?,
        factor,
        launch.read(gradients)?,
        launch.write(moments.first)?,
        launch.write(moments.second)?,
        launch.write(values)?,
        launch.size(len)?,
        AdamSettings {
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
    );
    launch.run(&kernels::OPTIMISER_ADAM_F32, grid(len), arguments)
}
