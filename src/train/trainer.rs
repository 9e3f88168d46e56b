//! A training run: epochs of steps, a validation after each, records and checkpoints.

use super::checkpoint::{self, Position};
use super::config::{Config, Model, Monitor};
use super::evaluate::{self, Evaluator};
use super::features::{Features, ImageSet, report_skipped};
use super::log::{EpochRecord, Log, StepRecord, ValidationRecord};
use super::optimiser::Optimiser;
use super::run::{Engine, RunDirectory};
use super::schedule::Plateau;
use super::{Observer, Stage, step_memory};
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::loader::{Loader, LoaderOptions};
use crate::data::random::Epoch;
use crate::data::samples::{Limits, Samples};
use crate::data::vocabulary::Vocabulary;
use crate::decode::Search;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::captioner::Input;
use crate::nn::captions::{Captions, Noise};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// Images whose statistics a random encoder's batch-norm is calibrated on.
const CALIBRATION_IMAGES: usize = 64;

pub struct Trainer<'a> {
    engine: Engine,
    dataset: &'a Flickr8k,
    run: RunDirectory,
    /// Threads that decode images.
    loader_threads: usize,
    optimiser: Optimiser,
    position: Position,
    training: Arc<Samples>,
    /// The validation split, or nothing.
    validation: Option<Arc<Samples>>,
    /// Encoder outputs that never change: of all training images, of the validation images.
    training_features: Option<Features>,
    validation_features: Option<Features>,
    steps: Log,
    epochs: Log,
}

/// The vocabulary of a model: attend's comes from every caption line, show-tell's from the training captions.
pub fn vocabulary(model: Model, dataset: &Flickr8k) -> Vocabulary {
    match model {
        Model::Attend => Vocabulary::build(dataset.all_captions()),
        Model::ShowTell => Vocabulary::build(dataset.captions(Split::Train)),
    }
}

impl<'a> Trainer<'a> {
    /// Starts a run in an empty directory. The engine's decoder is initialised, its encoder loaded or
    /// initialised (`random_encoder`: then its batch-norm is calibrated on the first training images).
    pub fn start(
        engine: Engine,
        dataset: &'a Flickr8k,
        run: RunDirectory,
        loader_threads: usize,
        random_encoder: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let config = &engine.config;
        files::write_atomically(run.config(), |file| {
            let text = config.to_toml()?;
            file.write_all(text.as_bytes())
                .map_err(Error::io(run.config()))
        })?;
        engine.vocabulary.save(run.vocabulary())?;
        let limit = |n: usize| (n > 0).then_some(n);
        let limits = Limits {
            images: limit(config.limit_images),
            captions_per_image: limit(config.captions_per_image),
        };
        let samples = |split, limits| {
            let samples = Samples::new(dataset, split, &engine.vocabulary, limits);
            Arc::new(samples)
        };
        let training = samples(Split::Train, limits);
        if training.is_empty() {
            let message = "the training list names no image that has a caption";
            return Err(Error::Config(message.into()));
        }
        let validation = config
            .validate
            .then(|| samples(Split::Dev, Limits::default()));
        let validation = validation.filter(|samples| !samples.is_empty());
        let optimiser = Optimiser::new(config, &engine.params)?;
        let position = Position {
            epoch: 0,
            epoch_step: 0,
            step: 0,
            schedule: Plateau::new(config),
            optimiser_steps: 0,
            epoch_sums: [0.0; 2],
        };
        let (steps, epochs) = (Log::create(run.steps())?, Log::create(run.epochs())?);
        let mut trainer = Trainer {
            engine,
            dataset,
            run,
            loader_threads,
            optimiser,
            position,
            training,
            validation,
            training_features: None,
            validation_features: None,
            steps,
            epochs,
        };
        if random_encoder {
            trainer.calibrate()?;
        }
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &mut trainer.engine;
        captioner.prepare(ctx, params)?;
        trainer.precompute(observer)?;
        Ok(trainer)
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn config(&self) -> &Config {
        &self.engine.config
    }

    fn loader_options(&self, augment: Option<Epoch>) -> LoaderOptions {
        LoaderOptions {
            size: self.config().image_size,
            threads: self.loader_threads,
            augment,
            skip_bad_images: self.config().skip_bad_images,
            ..LoaderOptions::default()
        }
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
        let steps = Batches::new(&self.training, self.config().batch_size, Order::Listed)?;
        let bytes = step_memory::arena_bytes(self.config(), &self.engine.vocabulary, &steps)?;
        self.engine.ctx.reserve(bytes)
    }

    fn compute(
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

    /// Trains to the end of the run. A run of no epochs leaves the model as it started.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let epochs = self.config().epochs;
        if epochs == 0 {
            self.save(&self.run.last())?;
        }
        while self.position.epoch < epochs && !self.reached_step_limit() {
            self.epoch(observer)?;
        }
        Ok(())
    }

    fn reached_step_limit(&self) -> bool {
        let limit = self.config().max_steps as u64;
        limit > 0 && self.position.step >= limit
    }

    /// One pass over the training samples, its validation, its checkpoints.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let started = Instant::now();
        let seed = self.config().seed;
        let draw = Epoch {
            seed,
            epoch: self.position.epoch as u32,
        };
        let order = match self.config().shuffle {
            true => Order::Shuffled(draw),
            false => Order::Listed,
        };
        let batches = Batches::new(&self.training, self.config().batch_size, order)?;
        let steps = batches.len();
        observer.begin(Stage::Epoch(self.position.epoch + 1), steps);
        match self.training_features.take() {
            Some(features) => {
                let result = self.steps_from_features(&batches, &features, observer);
                self.training_features = Some(features);
                result?;
            }
            None => self.steps_from_images(batches, draw, observer)?,
        }
        observer.end();
        let whole = self.position.epoch_step == steps || !self.reached_step_limit();
        self.end_epoch(started, whole, observer)
    }

    fn steps_from_features(
        &mut self,
        batches: &Batches,
        features: &Features,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        for batch in batches.iter() {
            let started = Instant::now();
            let mut shape = self.engine.captioner.feature_shape();
            shape[0] = batch.len();
            let input = features.batch(&self.engine.ctx, &batch.images, &shape)?;
            self.step(&batch, Input::Features(&input), started, observer)?;
            drop(input);
            self.engine.ctx.reset()?;
            if self.reached_step_limit() {
                break;
            }
        }
        Ok(())
    }

    fn steps_from_images(
        &mut self,
        batches: Batches,
        draw: Epoch,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let augment = self.config().augment.then_some(draw);
        let paths = self.dataset.image_paths()?;
        let mut started = Instant::now();
        let mut loader = Loader::new(batches, paths, self.loader_options(augment))?;
        for loaded in &mut loader {
            let loaded = loaded?;
            let side = self.config().image_size;
            let shape = [loaded.batch.len(), side, side, 3];
            let mut pixels = self.engine.ctx.empty(shape, DType::U8)?;
            pixels.copy_from_slice(&loaded.pixels)?;
            self.step(&loaded.batch, Input::Images(&pixels), started, observer)?;
            drop(pixels);
            self.engine.ctx.reset()?;
            if self.reached_step_limit() {
                break;
            }
            started = Instant::now();
        }
        report_skipped(&loader.take_skipped(), observer);
        match self.position.epoch_step {
            0 => Err(Error::Config("no training image can be read".into())),
            _ => Ok(()),
        }
    }

    /// Forward, backward, update, record.
    fn step(
        &mut self,
        batch: &Batch,
        input: Input,
        started: Instant,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Engine {
            ctx,
            captioner,
            params,
            config,
            ..
        } = &mut self.engine;
        let captions = Captions::upload(ctx, batch.steps, batch.len(), &batch.time_major())?;
        let noise = Noise {
            seed: config.seed,
            step: self.position.step as u32,
        };
        let losses = captioner.train(ctx, params, input, &captions, Some(noise))?;
        let lr = self.position.schedule.rates(config, self.position.step);
        self.optimiser.step(ctx, params, lr)?;
        let read = |scalar: &Tensor| evaluate::read(scalar);
        self.position.step += 1;
        self.position.epoch_step += 1;
        self.position.optimiser_steps = self.optimiser.steps();
        let record = StepRecord {
            step: self.position.step,
            loss: read(&losses.loss)?,
            ce: read(&losses.cross_entropy)?,
            grad_norm: read(&self.optimiser.norm)?,
            lr: lr[0],
            ms: started.elapsed().as_secs_f64() * 1e3,
        };
        self.position.epoch_sums[0] += f64::from(record.loss);
        self.position.epoch_sums[1] += f64::from(record.ce);
        self.steps.write(&record)?;
        observer.step(&record, batch.len());
        Ok(())
    }

    fn end_epoch(
        &mut self,
        started: Instant,
        whole: bool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let [lr, _] = self
            .position
            .schedule
            .rates(self.config(), self.position.step);
        let count = self.position.epoch_step.max(1) as f64;
        let sums = self.position.epoch_sums;
        let validation = match self.validation.clone() {
            Some(samples) => Some(self.validate(&samples, observer)?),
            None => None,
        };
        let score = match (&validation, self.config().monitor) {
            (Some(v), Monitor::Loss) => v.validation_loss,
            (Some(v), Monitor::Bleu4) => -v.bleu[3],
            (None, _) => sums[0] / count,
        };
        let epoch = self.position.epoch + 1;
        if whole {
            self.position.epoch = epoch;
            (self.position.epoch_step, self.position.epoch_sums) = (0, [0.0; 2]);
        }
        let config = self.engine.config.clone();
        let verdict = self.position.schedule.end_epoch(&config, epoch, score);
        if verdict.lowered {
            self.optimiser.reset(&self.engine.ctx)?;
            self.position.optimiser_steps = 0;
        }
        if verdict.improved {
            self.save(&self.run.best())?;
        }
        self.save(&self.run.last())?;
        let record = EpochRecord {
            epoch,
            step: self.position.step,
            train_loss: sums[0] / count,
            train_ce: sums[1] / count,
            validation,
            lr,
            seconds: started.elapsed().as_secs_f64(),
        };
        self.epochs.write(&record)?;
        observer.epoch(&record);
        Ok(())
    }

    fn save(&self, path: &std::path::Path) -> Result<()> {
        let Engine {
            params, encoder, ..
        } = &self.engine;
        checkpoint::save(
            path,
            params,
            &self.optimiser,
            &self.position,
            encoder.as_ref(),
        )
    }

    /// Losses and BLEU on the validation split.
    fn validate(
        &mut self,
        samples: &Arc<Samples>,
        observer: &mut dyn Observer,
    ) -> Result<ValidationRecord> {
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
        Ok(record)
    }
}

/// Whether the encoder's running statistics move although it is not trained.
fn captioner_changes(config: &Config) -> bool {
    config.encoder_batch_norm == super::config::EncoderBatchNorm::Batch
}
