//! How a run begins: anew, or from its last checkpoint.

use super::Observer;
use super::Stage;
use super::checkpoint::{Checkpoint, Position};
use super::evaluate;
use super::log::Log;
use super::optimiser::Optimiser;
use super::run::{Engine, RunDirectory};
use super::step_memory::{DeviceMemory, Work, step_numbers};
use super::trainer::Trainer;
use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::loader::Loader;
use crate::data::samples::{Limits, Samples};
use crate::data::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::nn::captions::Noise;
use crate::tensor::DType;
use crate::train::config::Config;
use crate::train::step_graph::StepGraphs;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Images whose statistics a random encoder's batch-norm is calibrated on.
pub(super) const CALIBRATION_IMAGES: usize = 64;

impl<'a> Trainer<'a> {
    /// Starts a run from the beginning. The engine's decoder is initialised, its encoder loaded or initialised
    /// (`random_encoder`: then its batch-norm is calibrated on the first training images).
    pub fn start(
        engine: Engine,
        dataset: &'a Flickr8k,
        run: RunDirectory,
        loader_threads: usize,
        random_encoder: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        run.write_config(&engine.config)?;
        engine.vocabulary.save(run.vocabulary())?;
        let position = Position::start(&engine.config);
        let mut trainer = Trainer::at(position, engine, dataset, run, loader_threads)?;
        if random_encoder {
            trainer.calibrate()?;
        }
        trainer.prepare(observer)?;
        trainer.save_last()?;
        Ok(trainer)
    }

    /// Goes on where a checkpoint of this run stands; later records are cut off. The engine needs no weights.
    pub fn resume(
        mut engine: Engine,
        dataset: &'a Flickr8k,
        run: RunDirectory,
        loader_threads: usize,
        checkpoint: &Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        engine.restore(checkpoint)?;
        let position = checkpoint.position.clone();
        let mut trainer = Trainer::at(position, engine, dataset, run, loader_threads)?;
        checkpoint.load_optimiser(&trainer.engine.params, &mut trainer.optimiser)?;
        trainer.prepare(observer)?;
        Ok(trainer)
    }

    /// A trainer at this position, with records up to it and a new optimiser.
    fn at(
        position: Position,
        engine: Engine,
        dataset: &'a Flickr8k,
        run: RunDirectory,
        loader_threads: usize,
    ) -> Result<Self> {
        let work = Work::new(&engine.config, dataset, &engine.vocabulary)?;
        let (device, config) = (engine.ctx.device(), &engine.config);
        let memory = DeviceMemory::new(device, config, &engine.vocabulary, &work)?;
        engine.ctx.reserve(memory.arena)?;
        Ok(Trainer {
            optimiser: Optimiser::new(&engine.config, &engine.params)?,
            noise: Noise::new(engine.ctx.device(), engine.config.seed)?,
            numbers: step_numbers(engine.ctx.device())?,
            graphs: StepGraphs::default(),
            torn: Cell::new(false),
            issued: None,
            recorded: Instant::now(),
            steps: Log::cut(run.steps(), position.step)?,
            epochs: Log::cut(run.epochs(), position.epoch as u64)?,
            training: work.training,
            validation: work.validation,
            training_features: None,
            validation_features: None,
            engine,
            dataset,
            run,
            loader_threads,
            saved_step: position.step,
            position,
        })
    }

    /// Everything between weights and steps: folded filters, features.
    fn prepare(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &mut self.engine;
        captioner.prepare(ctx, params)?;
        self.precompute(observer)
    }

    /// Sets a random encoder's running statistics to those of the first training images, as one batch after the
    /// other; without them activations grow from layer to layer.
    fn calibrate(&mut self) -> Result<()> {
        let images: Vec<usize> = self.training.images();
        let images = images.into_iter().take(CALIBRATION_IMAGES);
        let samples = Arc::new(Samples::of_images(images));
        let batches = Batches::new(&samples, evaluate::BATCH, Order::Listed)?;
        let loader = Loader::new(
            batches,
            self.dataset.image_paths()?,
            self.loader_options(None),
        )?;
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &self.engine;
        for (count, loaded) in loader.enumerate() {
            let loaded = loaded?;
            let side = self.config().image_size;
            let mut pixels = ctx.empty([loaded.batch.len(), side, side, 3], DType::U8)?;
            pixels.copy_from_slice(&loaded.pixels)?;
            captioner.calibrate(ctx, params, &pixels, count as u64)?;
            drop(pixels);
            ctx.reset()?;
        }
        Ok(())
    }

    /// Computes, once, the features that will not change.
    fn precompute(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if self.config().features_are_fixed() {
            let images = self.training.images();
            let features = self.compute(&images, Stage::Features, observer)?;
            let missing = |image: &usize| !features.contains(*image);
            let missing: BTreeSet<usize> = images.iter().copied().filter(missing).collect();
            self.training = Arc::new(self.training.without(&missing));
            self.training_features = Some(features);
        }
        Ok(())
    }
}

/// The samples that a run trains on.
///
/// # Errors
/// When there are none.
pub fn training_samples(
    config: &Config,
    dataset: &Flickr8k,
    vocabulary: &Vocabulary,
) -> Result<Samples> {
    let limit = |n: usize| (n > 0).then_some(n);
    let limits = Limits {
        images: limit(config.limit_images),
        captions_per_image: limit(config.captions_per_image),
    };
    let samples = Samples::new(dataset, Split::Train, vocabulary, limits);
    match samples.is_empty() {
        true => {
            let message = "the training list names no image that has a caption";
            Err(Error::Config(message.into()))
        }
        false => Ok(samples),
    }
}

/// The samples that a run validates on, if it does.
pub fn validation_samples(
    config: &Config,
    dataset: &Flickr8k,
    vocabulary: &Vocabulary,
) -> Option<Samples> {
    let samples = || Samples::new(dataset, Split::Dev, vocabulary, Limits::default());
    let samples = config.validate.then(samples);
    samples.filter(|samples| !samples.is_empty())
}
