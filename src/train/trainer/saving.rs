//! Checkpoints of a run under way, and the errors that end it.

use super::Trainer;
use crate::error::{Error, Result};
use crate::train::Observer;
use crate::train::checkpoint;
use crate::train::config::EncoderWeights;
use std::path::Path;

impl Trainer<'_> {
    /// Saves where the run is, once its records up to here are safe.
    pub(super) fn save_last(&mut self) -> Result<()> {
        self.steps.sync()?;
        self.epochs.sync()?;
        self.save(&self.setup.run.last())?;
        self.saved_step = self.position.step;
        Ok(())
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let (params, optimiser) = (&self.stepper.engine.params, self.stepper.optimiser());
        let encoder = self.encoder.as_ref();
        let (position, trained_on) = (&self.position, &self.trained_on);
        let saved = checkpoint::save(path, params, optimiser, position, trained_on, encoder);
        saved.map_err(|error| match error {
            Error::Diverged(what) => self.diverged(self.position.step, &what),
            other => other,
        })
    }

    /// A device that fails loses a step, not the run: what was trained before is saved if the device still gives it.
    pub(super) fn rescue(&mut self, error: Error, observer: &mut dyn Observer) -> Error {
        let Error::Device(message) = error else {
            return error;
        };
        let unsaved = self.position.step != self.saved_step;
        let whole = self.stepper.is_whole() && self.record_issued(observer).is_ok();
        let saved = unsaved && whole && self.save_last().is_ok();
        let last = self.setup.run.last();
        let help = match (saved || !unsaved, last.is_file()) {
            (true, true) => format!(
                "step {} is saved, and the run can be resumed from it",
                self.saved_step
            ),
            (false, true) => format!(
                "{} is of step {}, and the run can be resumed from it",
                last.display(),
                self.saved_step
            ),
            (_, false) => "nothing was saved before".into(),
        };
        Error::Device(format!("{message}; {help}"))
    }

    /// The error of a run in which a number that a step has computed is no longer finite.
    pub(super) fn diverged(&self, step: u64, what: &str) -> Error {
        let config = self.config();
        let clip = match (config.clip_norm, config.clip_value) {
            (Some(norm), _) => format!("a `clip-norm` below {norm:?}"),
            (_, Some(value)) => format!("a `clip-value` below {value:?}"),
            _ => "`clip-norm = 1`".into(),
        };
        let clip = match config.weight_decay >= 1.0 {
            true => format!("a `weight-decay` below {:?}", config.weight_decay),
            false => format!("with {clip}"),
        };
        Error::Diverged(format!(
            "training diverged at step {step}: {what}. The last good checkpoint is {}. Start anew with `lr` below {:?} \
             or {clip}",
            self.setup.run.last().display(),
            config.lr,
        ))
    }

    /// The error of a run whose first step, which no learning rate has a part in, computes a number that is not finite.
    pub(super) fn cannot_begin(&self, what: &str) -> Error {
        let config = self.config();
        let of_file = matches!(config.encoder_weights, Some(EncoderWeights::File(_)));
        let cause = if of_file || config.init.is_some() {
            "the weights that the run began with give such numbers. Use other files for `encoder-weights` and `init`, or \
             settings closer to their defaults"
        } else {
            "the weights are drawn at random, so that it is a setting that gives such numbers. Use settings closer to their \
             defaults"
        };
        Error::Diverged(format!(
            "{what} at step 1, before training has changed any weight: {cause}"
        ))
    }
}
