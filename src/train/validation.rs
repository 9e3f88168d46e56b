//! The end of an epoch: losses and captions of the validation split.

use super::config::{Config, EncoderBatchNorm};
use super::evaluate::{self, Evaluator};
use super::features::{Features, ImageSet};
use super::log::ValidationRecord;
use super::run::Engine;
use super::trainer::Trainer;
use super::{Observer, Stage};
use crate::data::samples::Samples;
use crate::decode::Search;
use crate::error::{Error, Result};
use std::sync::Arc;

impl Trainer<'_> {
    /// Runs the encoder over images.
    pub(super) fn compute(
        &self,
        images: &[usize],
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Features> {
        let dataset = self.dataset;
        let options = self.loader_options(None);
        Features::of(
            &self.engine,
            ImageSet { dataset, images },
            options,
            stage,
            observer,
        )
    }

    /// Losses and BLEU on the validation split; none when the observer wants to stop.
    pub(super) fn validate(
        &mut self,
        samples: &Arc<Samples>,
        observer: &mut dyn Observer,
    ) -> Result<Option<ValidationRecord>> {
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &mut self.engine;
        captioner.prepare(ctx, params)?;
        let features = match self.validation_features.take() {
            Some(features) => features,
            None => self.compute(&samples.images(), Stage::ValidationFeatures, observer)?,
        };
        let images = samples.images();
        let images: Vec<usize> = images
            .into_iter()
            .filter(|&i| features.contains(i))
            .collect();
        let missing = samples
            .images()
            .into_iter()
            .filter(|&i| !features.contains(i))
            .collect();
        let samples = Arc::new(samples.without(&missing));
        if samples.is_empty() {
            let message =
                "no image of the validation split can be read; `validate = false` trains without";
            return Err(Error::Config(message.into()));
        }
        if observer.wants_to_stop() {
            return Ok(None);
        }
        let Engine {
            ctx,
            captioner,
            params,
            vocabulary,
            ..
        } = &self.engine;
        let evaluator = Evaluator {
            ctx,
            params,
            captioner,
            vocabulary,
            dataset: self.dataset,
            features: &features,
            search: Search::GREEDY,
        };
        observer.begin(Stage::Validation, samples.len().div_ceil(evaluate::BATCH));
        let losses = evaluator.losses(&samples, |done| observer.progress(done))?;
        observer.end();
        if !losses.loss.is_finite() {
            return Err(self.diverged(
                self.position.step,
                &format!("the validation loss is {}", losses.loss),
            ));
        }
        if observer.wants_to_stop() {
            return Ok(None);
        }
        observer.begin(Stage::Captions, images.len());
        let captions = evaluator.captions(&images, |done| observer.progress(done))?;
        observer.end();
        let record = ValidationRecord {
            validation_loss: losses.loss,
            validation_ce: losses.ce,
            bleu: evaluator.bleu(&captions),
        };
        let config = &self.engine.config;
        if !config.fine_tune && !captioner_changes(config) {
            self.validation_features = Some(features);
        }
        Ok(Some(record))
    }
}

/// Whether the encoder's running statistics move although it is not trained.
fn captioner_changes(config: &Config) -> bool {
    config.encoder_batch_norm == EncoderBatchNorm::Batch
}
