//! Optimisers on the CPU: one pass over the arena in parallel chunks.

use super::{Adam, Moments, OP, Sgd, Weights};
use crate::error::{Error, Result};
use crate::ops::Float;
use crate::ops::clip::Clip;
use crate::ops::host::Host;
use crate::ops::host::simd::simd;
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// Elements one task updates.
const CHUNK: usize = 1 << 14;

/// The clip as a factor and a bound, of which one does nothing.
fn clip_numbers<T: Float>(host: &Host, clip: Clip) -> Result<(T, T)> {
    Ok(match clip {
        Clip::None => (T::one(), T::infinity()),
        Clip::Factor(factor) => {
            let factor = factor.clone();
            (host.read::<T>(&factor)?.row(0)[0], T::infinity())
        }
        Clip::Value(bound) => (T::one(), T::of(bound)),
    })
}

/// Clamps to ± bound and keeps NaN.
#[inline(always)]
fn clamp<T: Float>(value: T, bound: T) -> T {
    let value = if value > bound { bound } else { value };
    if value < -bound { -bound } else { value }
}

/// The weights, which have no copy in bf16: nothing on the CPU would read it.
fn exact(weights: Weights<'_>) -> Result<&mut Tensor> {
    if weights.rounded.is_some() {
        let message = "the CPU updates no rounded copy of the weights".to_string();
        return Err(Error::operation(OP, message));
    }
    Ok(weights.values)
}

pub fn sgd<T: Float>(
    ctx: &Context,
    settings: Sgd,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    velocity: &mut Tensor,
    weights: Weights,
) -> Result<()> {
    let weights = exact(weights)?;
    let host = Host::new(OP, ctx);
    let (factor, bound) = clip_numbers::<T>(&host, clip)?;
    let lr = host.read::<T>(schedule)?.row(0)[0];
    let (momentum, decay) = (T::of(settings.momentum), T::of(settings.weight_decay));
    let gradients = host.read::<T>(gradients)?;
    let (mut velocity, mut values) = (host.write::<T>(velocity)?, host.write::<T>(weights)?);
    (values.data().par_chunks_mut(CHUNK))
        .zip(velocity.data().par_chunks_mut(CHUNK))
        .zip(gradients.data().par_chunks(CHUNK))
        .for_each(|((values, velocity), gradients)| {
            simd(|| {
                for ((w, u), &g) in values.iter_mut().zip(velocity).zip(gradients) {
                    let g = clamp(g * factor, bound) + decay * *w;
                    *u = momentum * *u + g;
                    *w -= lr * *u;
                }
            })
        });
    Ok(())
}

pub fn adam<T: Float>(
    ctx: &Context,
    settings: Adam,
    schedule: &Tensor,
    clip: Clip,
    gradients: &Tensor,
    moments: Moments,
    weights: Weights,
) -> Result<()> {
    let weights = exact(weights)?;
    let host = Host::new(OP, ctx);
    let (factor, bound) = clip_numbers::<T>(&host, clip)?;
    let schedule = host.read::<T>(schedule)?;
    let (lr, t) = (schedule.row(0)[0].to_f64(), schedule.row(0)[1].to_f64());
    let rate = T::of(lr / (1.0 - settings.beta1.powf(t)));
    let correction = T::of((1.0 - settings.beta2.powf(t)).sqrt());
    let (beta1, beta2) = (T::of(settings.beta1), T::of(settings.beta2));
    let (rest1, rest2) = (T::of(1.0 - settings.beta1), T::of(1.0 - settings.beta2));
    let (epsilon, decay) = (T::of(settings.epsilon), T::of(settings.weight_decay));
    let gradients = host.read::<T>(gradients)?;
    let mut first = host.write::<T>(moments.first)?;
    let mut second = host.write::<T>(moments.second)?;
    let mut values = host.write::<T>(weights)?;
    (values.data().par_chunks_mut(CHUNK))
        .zip(first.data().par_chunks_mut(CHUNK))
        .zip(second.data().par_chunks_mut(CHUNK))
        .zip(gradients.data().par_chunks(CHUNK))
        .for_each(|(((values, first), second), gradients)| {
            simd(|| {
                let state = values.iter_mut().zip(first).zip(second);
                for (((w, m), v), &g) in state.zip(gradients) {
                    let g = clamp(g * factor, bound) + decay * *w;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * g * g;
                    *w -= rate * *m / (v.sqrt() / correction + epsilon);
                }
            })
        });
    Ok(())
}
