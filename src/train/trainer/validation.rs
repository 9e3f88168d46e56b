//! The end of an epoch: losses and captions of the validation split.

use super::Trainer;
use crate::data::samples::Samples;
use crate::decode::Search;
use crate::error::{Error, Result};
use crate::train::evaluate::Evaluator;
use crate::train::features::{Cache, Encoding, Features};
use crate::train::log::ValidationRecord;
use crate::train::{Observer, Stage};
use std::sync::Arc;

impl Trainer<'_> {
    /// Runs the encoder over images.
    pub(super) fn encode(
        &self,
        images: &[usize],
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Features> {
        let encoding = Encoding {
            engine: &self.stepper.engine,
            dataset: self.setup.dataset,
            images,
            options: self.loader_options(),
            cache: Cache::of(self.config()),
            stage,
        };
        encoding.features(observer)
    }

    /// Losses and BLEU on the validation split; `None` when the observer wants to stop.
    pub(super) fn validate(
        &mut self,
        samples: &Samples,
        observer: &mut dyn Observer,
    ) -> Result<Option<ValidationRecord>> {
        self.stepper.engine.prepare()?;
        let features = match self.validation_features.take() {
            Some(features) => features,
            None => match self.encode(&samples.images(), Stage::ValidationFeatures, observer) {
                Err(Error::Stopped(_)) => return Ok(None),
                encoded => encoded?,
            },
        };
        let record = self.evaluate(samples, &features, observer)?;
        if !self.config().encoder_changes() {
            self.validation_features = Some(features);
        }
        Ok(record)
    }

    fn evaluate(
        &self,
        samples: &Samples,
        features: &Features,
        observer: &mut dyn Observer,
    ) -> Result<Option<ValidationRecord>> {
        let samples = Arc::new(features.covered(samples));
        if samples.is_empty() {
            let message =
                "no image of the validation split can be read; `validate = false` trains without";
            return Err(Error::Config(message.into()));
        }
        if observer.wants_to_stop() {
            return Ok(None);
        }
        let engine = &self.stepper.engine;
        let evaluator = Evaluator::new(engine, self.setup.dataset, features, Search::GREEDY);
        let losses = evaluator.losses(&samples, observer)?;
        if !losses.loss.is_finite() {
            let what = format!("the validation loss is {}", losses.loss);
            return Err(self.diverged(self.position.step, &what));
        }
        if observer.wants_to_stop() {
            return Ok(None);
        }
        let captions = evaluator.captions(&samples.images(), observer)?;
        Ok(Some(ValidationRecord {
            validation_loss: losses.loss,
            validation_ce: losses.ce,
            bleu: evaluator.bleu(&captions),
        }))
    }
}
