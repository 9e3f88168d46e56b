//! The optimiser of a run: its state in arenas laid out as the parameters, one group after the other.

use super::config::{Config, Optimizer};
use crate::error::Result;
use crate::nn::params::Params;
use crate::ops::clip::{self, Clip};
use crate::ops::fill;
use crate::ops::optimiser::{self, Adam, Moments, Sgd};
use crate::tensor::{Context, Tensor};

/// State and settings of SGD with momentum or Adam.
pub struct Optimiser {
    kind: Optimizer,
    sgd: [Sgd; 2],
    adam: [Adam; 2],
    /// Largest norm and largest value, where there is a limit.
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
    /// Velocity, or Adam's first and second moments, each as long as the parameters' arena.
    state: Vec<Tensor>,
    /// (lr, t) of each group, on the device.
    schedules: [Tensor; 2],
    factor: Tensor,
    /// The gradients' norm before clipping, (1).
    pub norm: Tensor,
    /// Steps since the state was last reset.
    steps: u64,
}

impl Optimiser {
    pub fn new(config: &Config, params: &Params) -> Result<Self> {
        let device = params.values().device();
        let (len, dtype) = (params.values().len(), params.dtype());
        let zeros = |len: usize| Tensor::zeros(device, [len], dtype);
        let decays = [config.weight_decay, config.encoder_weight_decay];
        let states = match config.optimizer {
            Optimizer::Sgd => 1,
            Optimizer::Adam => 2,
        };
        Ok(Optimiser {
            kind: config.optimizer,
            sgd: decays.map(|weight_decay| Sgd {
                momentum: config.momentum,
                weight_decay,
            }),
            adam: decays.map(|weight_decay| Adam {
                beta1: config.beta1,
                beta2: config.beta2,
                epsilon: config.epsilon,
                weight_decay,
            }),
            clip_norm: config.clip_norm,
            clip_value: config.clip_value,
            state: (0..states).map(|_| zeros(len)).collect::<Result<_>>()?,
            schedules: [zeros(2)?, zeros(2)?],
            factor: zeros(1)?,
            norm: zeros(1)?,
            steps: 0,
        })
    }

    /// Begins a step: its number and its rates, `lr` of the decoder and of the encoder, go to where
    /// [`Optimiser::step`] reads them on the device.
    pub fn begin_step(&mut self, lr: [f64; 2]) -> Result<()> {
        self.steps += 1;
        for (schedule, lr) in self.schedules.iter_mut().zip(lr) {
            schedule.copy_from_slice(&[lr as f32, self.steps as f32])?;
        }
        Ok(())
    }

    /// Clips the gradients and updates every parameter. The same launches every step.
    pub fn step(&mut self, ctx: &Context, params: &Params) -> Result<()> {
        let bound = self.clip_norm.unwrap_or(f64::INFINITY);
        clip::norm(
            ctx,
            params.gradients(),
            bound,
            &mut self.norm,
            &mut self.factor,
        )?;
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
            let schedule = &self.schedules[group];
            let (gradients, mut values) = (part(params.gradients())?, part(params.values())?);
            let mut state = self.state.iter().map(part).collect::<Result<Vec<_>>>()?;
            match (self.kind, &mut state[..]) {
                (Optimizer::Sgd, [velocity]) => {
                    let settings = self.sgd[group];
                    optimiser::sgd(
                        ctx,
                        settings,
                        schedule,
                        clip,
                        &gradients,
                        velocity,
                        &mut values,
                    )?;
                }
                (Optimizer::Adam, [first, second]) => {
                    let (settings, moments) = (self.adam[group], Moments { first, second });
                    optimiser::adam(
                        ctx,
                        settings,
                        schedule,
                        clip,
                        &gradients,
                        moments,
                        &mut values,
                    )?;
                }
                _ => unreachable!("one state for SGD, two for Adam"),
            }
        }
        Ok(())
    }

    /// Forgets all momentum, as a newly made optimiser.
    pub fn reset(&mut self, ctx: &Context) -> Result<()> {
        self.steps = 0;
        self.state
            .iter_mut()
            .try_for_each(|state| fill::zero(ctx, state))
    }

    /// Names of the state arenas, as checkpoints store them.
    pub fn state_names(&self) -> &'static [&'static str] {
        match self.kind {
            Optimizer::Sgd => &["momentum_buffer"],
            Optimizer::Adam => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// The state arenas, in the order of [`Optimiser::state_names`].
    pub fn state(&self) -> &[Tensor] {
        &self.state
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
