//! How a run begins: anew, or from its last checkpoint.

use super::stepper::Stepper;
use super::{Setup, Trainer};
use crate::data::batches::{Batches, Order};
use crate::data::loader::Loader;
use crate::data::samples::Samples;
use crate::error::{Error, Result};
use crate::model::Engine;
use crate::tensor::Tensor;
use crate::train::batch_values::calibration_images;
use crate::train::checkpoint::{Checkpoint, Position};
use crate::train::initial::Initial;
use crate::train::log::Log;
use crate::train::photo_store::PhotoStore;
use crate::train::step_memory::{DeviceMemory, Work};
use crate::train::trained_on::TrainedOn;
use crate::train::{Observer, Stage, evaluate};
use std::sync::Arc;
use std::time::Instant;

impl<'a> Trainer<'a> {
    /// Starts a run from the beginning, with the weights that the engine has; `initial` says where they came
    /// from.
    ///
    /// # Errors
    /// When another process trains this run, there is no sample to train on, an image cannot be read, a file cannot
    /// be written, the device fails, or the observer asks to stop before images are encoded.
    pub fn start(
        mut setup: Setup<'a>,
        engine: Engine,
        initial: Initial,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        setup.run.lock()?;
        setup.run.write_config(&setup.config)?;
        engine.vocabulary.save(setup.run.vocabulary())?;
        let position = Position::start(&setup.config);
        let mut trainer = Trainer::at(position, setup, engine)?;
        trainer.encoder = initial.encoder;
        if initial.random_encoder {
            trainer.calibrate()?;
        }
        trainer.prepare(observer)?;
        trainer.save_last()?;
        Ok(trainer)
    }

    /// Goes on from a checkpoint of this run, with its words and captions; later records are cut off. The settings are
    /// written to the run's folder. The engine needs no weights.
    ///
    /// # Errors
    /// When another process trains this run, the vocabulary, the data set or a setting is not that of the run, the checkpoint
    /// does not fit the engine, records are missing, the device fails, or the observer asks to stop before images are encoded.
    pub fn resume(
        mut setup: Setup<'a>,
        mut engine: Engine,
        checkpoint: &Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        setup.run.lock()?;
        let (config, vocabulary) = (&setup.config, &engine.vocabulary);
        checkpoint.check_vocabulary(vocabulary, &setup.run.vocabulary())?;
        let found = TrainedOn::new(config, setup.dataset, vocabulary);
        checkpoint.check_settings(config)?;
        checkpoint.check_data(&found, config)?;
        checkpoint.restore(&mut engine)?;
        let mut trainer = Trainer::at(checkpoint.position.clone(), setup, engine)?;
        trainer.encoder.clone_from(&checkpoint.encoder);
        trainer.stepper.load_optimiser(checkpoint)?;
        trainer.setup.run.write_config(trainer.config())?;
        trainer.prepare(observer)?;
        trainer.check_position()?;
        Ok(trainer)
    }

    /// Checks that the epoch has as many batches as were taken of it.
    fn check_position(&self) -> Result<()> {
        let batches = self.training.len().div_ceil(self.config().batch_size);
        let taken = self.position.epoch_batches;
        if taken <= batches {
            return Ok(());
        }
        let message = format!(
            "damaged position: {taken} batches of an epoch of {batches}; or images could be read when the run was started \
             that cannot be read now"
        );
        Err(Error::file(self.setup.run.last(), message))
    }

    /// A trainer at this position, with records up to it and a new optimiser.
    fn at(position: Position, setup: Setup<'a>, engine: Engine) -> Result<Self> {
        let (config, vocabulary) = (&setup.config, &engine.vocabulary);
        let work = Work::new(config, setup.dataset, vocabulary)?;
        let memory = DeviceMemory::new(engine.ctx.device(), config, vocabulary, &work)?;
        engine.ctx.reserve(memory.arena)?;
        let (images, size) = (work.training.images().len(), config.image_size);
        let device = engine.ctx.device();
        let photos = match config.features_are_fixed() {
            true => None,
            false if memory.photos == 0 => PhotoStore::on_host(device, images, size)?,
            false => Some(PhotoStore::on_device(device, images, size)?),
        };
        let trained_on = TrainedOn::new(config, setup.dataset, vocabulary);
        Ok(Trainer {
            steps: Log::cut(setup.run.steps(), position.step)?,
            epochs: Log::cut(setup.run.epochs(), position.epoch as u64)?,
            stepper: Stepper::new(engine, config)?,
            issued: None,
            recorded: Instant::now(),
            training: work.training,
            validation: work.validation,
            keep_features: memory.features > 0,
            training_features: None,
            validation_features: None,
            photos,
            encoder: None,
            trained_on,
            setup,
            saved_step: position.step,
            position,
        })
    }

    /// Everything between weights and steps: folded filters, features.
    fn prepare(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.stepper.engine.prepare()?;
        if self.config().validate && self.validation.is_none() {
            observer.warn(
                "no validation image has a caption: nothing is validated, and the last checkpoint counts as the best one",
            );
        }
        if self.config().features_are_fixed() {
            let images = self.training.images();
            let mut features = self.encode(&images, Stage::Features, observer)?;
            if self.keep_features {
                features = features.to_device(&self.stepper.engine)?;
            }
            self.training = Arc::new(features.covered(&self.training));
            self.training_features = Some(features);
        }
        Ok(())
    }

    /// Sets a random encoder's running statistics to those of the first training images, as one batch after the
    /// other; without them activations grow from layer to layer.
    fn calibrate(&mut self) -> Result<()> {
        let images = self.training.images();
        let count = calibration_images(self.config(), images.len())?;
        let samples = Arc::new(Samples::of_images(images.into_iter().take(count)));
        let batches = Batches::new(&samples, evaluate::BATCH, Order::Listed)?;
        let paths = self.setup.dataset.image_paths()?;
        let loader = Loader::new(batches, paths, self.loader_options())?;
        let engine = &self.stepper.engine;
        let mut batches = 0;
        for loaded in loader {
            let calibrate = |images: &Tensor| engine.calibrate(images, batches);
            engine.with_images(&loaded?.pixels, calibrate)?;
            batches += 1;
        }
        if batches == 0 {
            let message = format!(
                "none of the first {count} training images can be read; a random encoder takes its statistics from them"
            );
            return Err(Error::Config(message));
        }
        Ok(())
    }
}
