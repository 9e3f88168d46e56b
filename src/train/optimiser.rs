//! The optimiser of a run. Its state lies in arenas that are laid out as the parameters' arena.

use super::config::{Config, OptimiserKind};
use crate::error::Result;
use crate::nn::params::Params;
use crate::ops::clip::{self, Clip};
use crate::ops::fill;
use crate::ops::optimiser::{self, Adam, Moments, Sgd, Weights};
use crate::tensor::{Context, Tensor};

/// How parameters are updated: the settings of each group, and the state, in arenas as long as that of the parameters.
enum Method {
    Sgd {
        settings: [Sgd; 2],
        velocity: Tensor,
    },
    Adam {
        settings: [Adam; 2],
        first: Tensor,
        second: Tensor,
    },
}

/// State and settings of SGD with momentum or Adam.
pub struct Optimiser {
    method: Method,
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
    /// (lr, t) of each group, (2, 2) on the device.
    schedules: Tensor,
    factor: Tensor,
    /// The gradients' norm before clipping, (1).
    pub norm: Tensor,
    /// Steps since the state was last reset.
    steps: u64,
}

impl Optimiser {
    /// A new optimiser: no momentum, no step taken.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(config: &Config, params: &Params) -> Result<Self> {
        let device = params.values().device();
        let (len, dtype) = (params.values().len(), params.dtype());
        let zeros = |len: usize| Tensor::zeros(device, [len], dtype);
        let decays = [config.weight_decay, config.encoder_weight_decay];
        let method = match config.optimizer {
            OptimiserKind::Sgd => Method::Sgd {
                settings: decays.map(|weight_decay| Sgd {
                    momentum: config.momentum,
                    weight_decay,
                }),
                velocity: zeros(len)?,
            },
            OptimiserKind::Adam => Method::Adam {
                settings: decays.map(|weight_decay| Adam {
                    beta1: config.beta1,
                    beta2: config.beta2,
                    epsilon: config.epsilon,
                    weight_decay,
                }),
                first: zeros(len)?,
                second: zeros(len)?,
            },
        };
        Ok(Optimiser {
            method,
            clip_norm: config.clip_norm,
            clip_value: config.clip_value,
            schedules: Tensor::zeros(device, [2, 2], dtype)?,
            factor: zeros(1)?,
            norm: zeros(1)?,
            steps: 0,
        })
    }

    /// Begins a step: its number and its rates, `lr` of the decoder and of the encoder, go to where
    /// [`Optimiser::step`] reads them on the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin_step(&mut self, lr: [f64; 2]) -> Result<()> {
        self.steps += 1;
        let schedules = lr.map(|lr| [lr as f32, self.steps as f32]);
        self.schedules.copy_from_slice(schedules.as_flattened())
    }

    /// Clips the gradients and updates every parameter. The same launches every step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self, ctx: &Context, params: &Params) -> Result<()> {
        let bound = self.clip_norm.unwrap_or(f64::INFINITY);
        let (norm, factor) = (&mut self.norm, &mut self.factor);
        clip::norm(ctx, params.gradients(), bound, norm, factor)?;
        let clip = match (self.clip_norm, self.clip_value) {
            (Some(_), _) => Clip::Factor(&self.factor),
            (None, Some(value)) => Clip::Value(value),
            (None, None) => Clip::None,
        };
        for (group, range) in params.groups().into_iter().enumerate() {
            if range.is_empty() {
                continue;
            }
            let part = |arena: &Tensor| arena.columns(range.start, range.len());
            let schedule = &self.schedules.index(group)?;
            let (gradients, mut values) = (part(params.gradients())?, part(params.values())?);
            let mut rounded = params.rounded().map(part).transpose()?;
            let weights = Weights {
                values: &mut values,
                rounded: rounded.as_mut(),
            };
            match &self.method {
                Method::Sgd { settings, velocity } => {
                    let (settings, velocity) = (settings[group], &mut part(velocity)?);
                    optimiser::sgd(ctx, settings, schedule, clip, &gradients, velocity, weights)?;
                }
                Method::Adam {
                    settings,
                    first,
                    second,
                } => {
                    let settings = settings[group];
                    let moments = Moments {
                        first: &mut part(first)?,
                        second: &mut part(second)?,
                    };
                    optimiser::adam(ctx, settings, schedule, clip, &gradients, moments, weights)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets all momentum: the optimiser is then like a new one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn reset(&mut self, ctx: &Context) -> Result<()> {
        self.steps = 0;
        match &mut self.method {
            Method::Sgd { velocity, .. } => fill::zero(ctx, velocity),
            Method::Adam { first, second, .. } => {
                fill::zero(ctx, first)?;
                fill::zero(ctx, second)
            }
        }
    }

    /// The arenas of the state, each with its name in checkpoints.
    pub fn state(&self) -> Vec<(&'static str, &Tensor)> {
        match &self.method {
            Method::Sgd { velocity, .. } => vec![("momentum_buffer", velocity)],
            Method::Adam { first, second, .. } => vec![("exp_avg", first), ("exp_avg_sq", second)],
        }
    }

    /// Steps since the state was last reset.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on from a checkpoint whose state has been written to [`Optimiser::state`].
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
