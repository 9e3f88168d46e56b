//! A training run: epochs of steps, a validation after each, records and checkpoints.
//!
//! A checkpoint holds all that decides what comes next, and the records are cut back to it when a run is resumed
//! (`start`). Wherever a run is killed, it therefore goes on to the same numbers, and leaves the same files, as one
//! that was not: what happened after the last checkpoint happens again.

use super::checkpoint::{self, Position};
use super::config::{Config, EncoderBatchNorm, Monitor};
use super::features::{Features, report_skipped};
use super::log::{EpochRecord, Log, StepRecord};
use super::optimiser::Optimiser;
use super::run::{Engine, RunDirectory};
use super::step_graph::StepGraphs;
use super::{Observer, Stage};
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::loader::{Loader, LoaderOptions};
use crate::data::random::Epoch;
use crate::data::samples::Samples;
use crate::data::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::nn::captioner::Input;
use crate::nn::captions::{Captions, Noise};
use crate::ops::copy;
use crate::settings::VocabularyOf;
use crate::tensor::{DType, Pending, Tensor};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub struct Trainer<'a> {
    pub(super) engine: Engine,
    pub(super) dataset: &'a Flickr8k,
    pub(super) run: RunDirectory,
    /// Threads that decode images.
    pub(super) loader_threads: usize,
    pub(super) optimiser: Optimiser,
    pub(super) noise: Noise,
    /// What a step gives to the host: loss, cross-entropy, the gradients' norm.
    pub(super) numbers: Tensor,
    pub(super) graphs: StepGraphs,
    /// Whether a step that failed may have changed part of what a checkpoint holds.
    pub(super) torn: Cell<bool>,
    /// The last step, as long as its numbers are on their way.
    pub(super) issued: Option<Issued>,
    /// When the numbers of the step before it had arrived.
    pub(super) recorded: Instant,
    pub(super) position: Position,
    pub(super) training: Arc<Samples>,
    /// The validation split, or nothing.
    pub(super) validation: Option<Arc<Samples>>,
    /// Encoder outputs that never change: of all training images, of the validation images.
    pub(super) training_features: Option<Features>,
    pub(super) validation_features: Option<Features>,
    /// Steps taken when the last checkpoint was written.
    pub(super) saved_step: u64,
    pub(super) steps: Log,
    pub(super) epochs: Log,
}

/// A step that the device was asked for. A GPU is given the next one before this one's numbers are waited for.
pub(super) struct Issued {
    step: u64,
    samples: usize,
    lr: f64,
    started: Instant,
    numbers: Pending<f32>,
}

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All epochs, or all steps, are done.
    Finished,
    /// The observer asked to stop; the last checkpoint has everything so far.
    Interrupted,
}

/// The vocabulary of a model, from the captions that its recipe names.
pub fn vocabulary(model: Model, dataset: &Flickr8k) -> Vocabulary {
    match model.vocabulary {
        VocabularyOf::AllCaptions => Vocabulary::build(dataset.all_captions()),
        VocabularyOf::TrainingCaptions => Vocabulary::build(dataset.captions(Split::Train)),
    }
}

impl Trainer<'_> {
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn config(&self) -> &Config {
        &self.engine.config
    }

    pub(super) fn loader_options(&self, augment: Option<Epoch>) -> LoaderOptions {
        LoaderOptions {
            size: self.config().image_size,
            threads: self.loader_threads,
            augment,
            skip_bad_images: self.config().skip_bad_images,
            ..LoaderOptions::default()
        }
    }

    /// Trains to the end of the run.
    ///
    /// # Errors
    /// When the run diverges: a loss, a gradient or a weight is no finite number any more. The last checkpoint is
    /// then from before.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Ended> {
        let ended = self.remaining_epochs(observer);
        ended.map_err(|error| self.rescue(error, observer))
    }

    fn remaining_epochs(&mut self, observer: &mut dyn Observer) -> Result<Ended> {
        while !self.position.is_end_of(self.config()) {
            if self.epoch(observer)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            if self.reached_step_limit() {
                break;
            }
        }
        Ok(Ended::Finished)
    }

    fn reached_step_limit(&self) -> bool {
        self.position.reached_step_limit(self.config())
    }

    /// One pass over the training samples, or what is left of it, its validation, its checkpoints.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Ended> {
        let started = Instant::now();
        let draw = Epoch {
            seed: self.config().seed,
            epoch: self.position.epoch as u32,
        };
        let order = match self.config().shuffle {
            true => Order::Shuffled(draw),
            false => Order::Listed,
        };
        let batches = Batches::new(&self.training, self.config().batch_size, order)?;
        let count = batches.len();
        observer.begin(Stage::Epoch(self.position.epoch + 1), count);
        observer.progress(self.position.epoch_batches);
        let ended = match self.training_features.take() {
            Some(features) => {
                let result = self.steps_from_features(&batches, &features, observer);
                self.training_features = Some(features);
                result?
            }
            None => self.steps_from_images(batches, draw, observer)?,
        };
        self.record_issued(observer)?;
        observer.end();
        if ended == Ended::Interrupted {
            return Ok(ended);
        }
        let whole = self.position.epoch_batches == count;
        self.end_epoch(started, whole, observer)
    }

    fn steps_from_features(
        &mut self,
        batches: &Batches,
        features: &Features,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        for index in self.position.epoch_batches..batches.len() {
            if self.reached_step_limit() {
                break;
            }
            let started = Instant::now();
            let batch = batches.get(index);
            let mut shape = self.engine.captioner.feature_shape();
            shape[0] = batch.len();
            let input = features.batch(&self.engine.ctx, &batch.images, &shape)?;
            self.step(&batch, Input::Features(&input), started, observer)?;
            drop(input);
            self.engine.ctx.reset()?;
            if self.after_step(index + 1, observer)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Finished)
    }

    fn steps_from_images(
        &mut self,
        batches: Batches,
        draw: Epoch,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        let augment = self.config().augment.then_some(draw);
        let options = LoaderOptions {
            first: self.position.epoch_batches,
            ..self.loader_options(augment)
        };
        let mut started = Instant::now();
        let mut loader = Loader::new(batches, self.dataset.image_paths()?, options)?;
        while !self.reached_step_limit() {
            let Some(loaded) = loader.next().transpose()? else {
                // The last batches may have had no image that can be read.
                self.position.epoch_batches = loader.taken();
                break;
            };
            let side = self.config().image_size;
            let shape = [loaded.batch.len(), side, side, 3];
            let mut pixels = self.engine.ctx.empty(shape, DType::U8)?;
            pixels.copy_from_slice(&loaded.pixels)?;
            self.step(&loaded.batch, Input::Images(&pixels), started, observer)?;
            drop(pixels);
            self.engine.ctx.reset()?;
            if self.after_step(loader.taken(), observer)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            started = Instant::now();
        }
        report_skipped(&loader.take_skipped(), observer);
        match self.position.epoch_step {
            0 => Err(Error::Config("no training image can be read".into())),
            _ => Ok(Ended::Finished),
        }
    }

    /// Forward, backward, update. Records the step, or the one before it where the device works on this one still.
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
        } = &self.engine;
        let captions = Captions::upload(ctx, batch.steps, batch.len(), &batch.time_major())?;
        let lr = self.position.schedule.rates(config, self.position.step);
        self.noise.set_step(self.position.step as u32)?;
        self.optimiser.begin_step(lr)?;
        let shape = [batch.len(), batch.steps];
        let (noise, optimiser, numbers) = (&self.noise, &mut self.optimiser, &self.numbers);
        // Batch-norm's running statistics move in the forward pass, weights in the optimiser's.
        self.torn
            .set(config.encoder_batch_norm == EncoderBatchNorm::Batch);
        self.graphs.run(ctx, shape, || {
            let losses = captioner.train(ctx, params, input, &captions, Some(noise.clone()))?;
            self.torn.set(true);
            optimiser.step(ctx, params)?;
            let all = [&losses.loss, &losses.cross_entropy, &optimiser.norm];
            let mut each = all.into_iter().enumerate();
            each.try_for_each(|(i, number)| copy::forward(ctx, number, &mut numbers.columns(i, 1)?))
        })?;
        self.torn.set(false);
        self.position.step += 1;
        self.position.epoch_step += 1;
        self.position.optimiser_steps = self.optimiser.steps();
        let issued = Issued {
            step: self.position.step,
            samples: batch.len(),
            lr: lr[0],
            started,
            numbers: self.numbers.download_later()?,
        };
        let waits = ctx.device().is_asynchronous();
        self.record_issued(observer)?;
        self.issued = Some(issued);
        match waits {
            true => Ok(()),
            false => self.record_issued(observer),
        }
    }

    /// Records the step whose numbers are on their way, if there is one.
    pub(super) fn record_issued(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(issued) = self.issued.take() else {
            return Ok(());
        };
        let numbers = issued.numbers.wait()?;
        let now = Instant::now();
        // Steps overlap: one begins when the one before it has ended.
        let began = issued.started.max(self.recorded);
        self.recorded = now;
        let record = StepRecord {
            step: issued.step,
            loss: numbers[0],
            ce: numbers[1],
            grad_norm: numbers[2],
            lr: issued.lr,
            ms: (now - began).as_secs_f64() * 1e3,
        };
        for (what, value) in [("loss", record.loss), ("gradients' norm", record.grad_norm)] {
            if !value.is_finite() {
                return Err(self.diverged(record.step, &format!("the {what} is {value}")));
            }
        }
        self.position.epoch_sums[0] += f64::from(record.loss);
        self.position.epoch_sums[1] += f64::from(record.ce);
        self.steps.write(&record)?;
        observer.step(&record, issued.samples);
        Ok(())
    }

    /// `taken` batches of the epoch are behind us: saves when it is time to, or when the observer wants to stop.
    fn after_step(&mut self, taken: usize, observer: &mut dyn Observer) -> Result<Ended> {
        self.position.epoch_batches = taken;
        let every = self.config().checkpoint_every;
        if observer.wants_to_stop() {
            self.record_issued(observer)?;
            self.save_last()?;
            return Ok(Ended::Interrupted);
        }
        if every.is_some_and(|every| self.position.step.is_multiple_of(every as u64)) {
            self.record_issued(observer)?;
            self.save_last()?;
        }
        Ok(Ended::Finished)
    }

    /// Validates, records, saves. An epoch cut short by the limit of steps is validated and recorded, but the
    /// position stays inside it, and the schedule as it is: with a higher limit the run goes on from there.
    fn end_epoch(
        &mut self,
        started: Instant,
        whole: bool,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        if !whole {
            self.save_last()?;
        }
        let rates = (self.position.schedule).rates(self.config(), self.position.step);
        let count = self.position.epoch_step.max(1) as f64;
        let sums = self.position.epoch_sums;
        let validation = match self.validation.clone() {
            Some(samples) => {
                let Some(record) = self.validate(&samples, observer)? else {
                    self.save_last()?;
                    return Ok(Ended::Interrupted);
                };
                Some(record)
            }
            None => None,
        };
        let score = match (&validation, self.config().monitor) {
            (Some(v), Monitor::Loss) => v.validation_loss,
            (Some(v), Monitor::Bleu4) => -v.bleu[3],
            (None, _) => sums[0] / count,
        };
        let epoch = self.position.epoch + 1;
        let improved = match whole {
            true => self.close_epoch(score)?,
            false => self.position.schedule.is_best(score),
        };
        let record = EpochRecord {
            epoch,
            step: self.position.step,
            train_loss: sums[0] / count,
            train_ce: sums[1] / count,
            validation,
            lr: rates[0],
            seconds: started.elapsed().as_secs_f64(),
        };
        if improved && record.validation.is_some() {
            self.save(&self.run.best())?;
        }
        self.epochs.write(&record)?;
        // Epochs of a few steps and no validation would spend their time writing checkpoints.
        let unsaved = self.position.step - self.saved_step;
        let every = self.config().checkpoint_every;
        let due = record.validation.is_some()
            || every.is_none_or(|every| unsaved >= every as u64)
            || self.position.is_end_of(self.config())
            || observer.wants_to_stop();
        if whole && due {
            self.save_last()?;
        }
        observer.epoch(&record);
        match observer.wants_to_stop() {
            true => Ok(Ended::Interrupted),
            false => Ok(Ended::Finished),
        }
    }

    /// Moves the position to the start of the next epoch and the schedule with it. Whether this one was the best.
    fn close_epoch(&mut self, score: f64) -> Result<bool> {
        self.position.epoch += 1;
        (self.position.epoch_step, self.position.epoch_batches) = (0, 0);
        self.position.epoch_sums = [0.0; 2];
        let config = &self.engine.config;
        let schedule = &mut self.position.schedule;
        let verdict = schedule.end_epoch(config, self.position.epoch, score);
        if verdict.lowered {
            self.optimiser.reset(&self.engine.ctx)?;
            self.position.optimiser_steps = 0;
        }
        Ok(verdict.improved)
    }

    /// Saves where the run stands, once its records up to here are safe.
    pub(super) fn save_last(&mut self) -> Result<()> {
        self.steps.sync()?;
        self.epochs.sync()?;
        self.save(&self.run.last())?;
        self.saved_step = self.position.step;
        Ok(())
    }

    /// A device that fails loses a step, not the run: what was trained before is saved if the device still gives it.
    fn rescue(&mut self, error: Error, observer: &mut dyn Observer) -> Error {
        let Error::Device(message) = error else {
            return error;
        };
        let unsaved = self.position.step != self.saved_step;
        let whole = !self.torn.get() && self.record_issued(observer).is_ok();
        let saved = unsaved && whole && self.save_last().is_ok();
        let last = self.run.last();
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

    fn save(&self, path: &Path) -> Result<()> {
        let Engine {
            params, encoder, ..
        } = &self.engine;
        let weights = params.values().to_vec::<f32>()?;
        if !weights.iter().all(|weight| weight.is_finite()) {
            return Err(self.diverged(self.position.step, "a weight is no finite number"));
        }
        checkpoint::save(
            path,
            params,
            &self.optimiser,
            &self.position,
            encoder.as_ref(),
        )
    }

    /// The error of a run whose numbers became infinite or not a number.
    pub(super) fn diverged(&self, step: u64, what: &str) -> Error {
        let config = self.config();
        let clip = match (config.clip_norm, config.clip_value) {
            (Some(norm), _) => format!("a `clip-norm` below {norm}"),
            (_, Some(value)) => format!("a `clip-value` below {value}"),
            _ => "`clip-norm = 1`".into(),
        };
        Error::Diverged(format!(
            "training diverged at step {step}: {what}. The last good checkpoint is {}. Start anew with `lr` below {} \
             or with {clip}",
            self.run.last().display(),
            config.lr,
        ))
    }
}
