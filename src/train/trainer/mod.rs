//! A training run: epochs of steps, a validation after each, records and checkpoints.
//!
//! A checkpoint holds everything that decides what comes next, and when a run is resumed, its records are cut back to the
//! last checkpoint (`start`): what happened after it happens again. A run that is killed at any moment and resumed
//! therefore reaches the same numbers, and leaves the same files, as one that was not killed.

mod images;
mod saving;
mod start;
pub(super) mod stepper;
mod validation;

use super::batch_values::check_batch;
use super::checkpoint::{EncoderSource, Position};
use super::config::{Config, Monitor};
use super::features::Features;
use super::log::{EpochRecord, Log, StepRecord};
use super::photo_store::PhotoStore;
use super::run::RunDirectory;
use super::trained_on::TrainedOn;
use super::{Observer, Stage};
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::LoaderOptions;
use crate::data::random::Epoch;
use crate::data::samples::Samples;
use crate::error::Result;
use crate::model::Engine;
use crate::tensor::Pending;
use std::sync::Arc;
use std::time::Instant;
use stepper::{Source, StepPlace, Stepper};

pub use super::data::vocabulary;

/// What a run is: its settings, its data, its folder.
pub struct Setup<'a> {
    /// All settings.
    pub config: Config,
    /// The data set.
    pub dataset: &'a Flickr8k,
    /// Where the run's files are.
    pub run: RunDirectory,
    /// Threads that decode images.
    pub loader_threads: usize,
}

/// A run under way.
pub struct Trainer<'a> {
    setup: Setup<'a>,
    stepper: Stepper,
    /// The file of a frozen encoder, which checkpoints name instead of storing it.
    encoder: Option<EncoderSource>,
    /// What the weights belong to.
    trained_on: TrainedOn,
    /// The last step, as long as its numbers are on their way.
    issued: Option<Issued>,
    /// When the numbers of the step before it had arrived.
    recorded: Instant,
    position: Position,
    training: Arc<Samples>,
    /// The validation split, or nothing.
    validation: Option<Arc<Samples>>,
    /// Whether the device keeps the features of the training images.
    keep_features: bool,
    /// Encoder outputs that never change: of all training images, of the validation images.
    training_features: Option<Features>,
    validation_features: Option<Features>,
    /// Training images that go through the encoder in every step, where there is room for them.
    photos: Option<PhotoStore>,
    /// Steps taken when the last checkpoint was written.
    saved_step: u64,
    steps: Log,
    epochs: Log,
}

/// A step that the device was asked for. A GPU is given the next one before this one's numbers are waited for.
struct Issued {
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

impl Trainer<'_> {
    /// The captioner as it is now.
    pub fn engine(&self) -> &Engine {
        &self.stepper.engine
    }

    fn config(&self) -> &Config {
        &self.setup.config
    }

    fn loader_options(&self) -> LoaderOptions {
        let config = self.config();
        LoaderOptions {
            size: config.image_size,
            threads: self.setup.loader_threads,
            skip_bad_images: config.skip_bad_images,
            ..LoaderOptions::default()
        }
    }

    /// Trains to the end of the run.
    ///
    /// # Errors
    /// When the run diverges: a loss, a gradient or a weight is no longer a finite number. The last checkpoint is then
    /// from before. When a file cannot be read or written, or the device fails.
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
        let order = if self.config().shuffle {
            Order::Shuffled(draw)
        } else {
            Order::Listed
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
            self.step(&batch, Source::Features(features), started, observer)?;
            if self.after_step(index + 1, observer)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Finished)
    }

    /// Takes a step, and records it, or the one before it where the device still works on this one.
    fn step(
        &mut self,
        batch: &Batch,
        source: Source,
        started: Instant,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        check_batch(self.config(), batch.len(), self.training.len())?;
        let taken = self.position.step;
        let rates = self.position.schedule.rates(self.config(), taken);
        let numbers = (self.stepper).step(batch, source, StepPlace { taken, rates })?;
        self.position.step += 1;
        self.position.epoch_step += 1;
        self.position.optimiser_steps = self.stepper.optimiser().steps();
        let issued = Issued {
            step: self.position.step,
            samples: batch.len(),
            lr: rates[0],
            started,
            numbers,
        };
        self.record_issued(observer)?;
        self.issued = Some(issued);
        if self.engine().ctx.device().is_asynchronous() {
            Ok(())
        } else {
            self.record_issued(observer)
        }
    }

    /// Records the step whose numbers are on their way, if there is one.
    fn record_issued(&mut self, observer: &mut dyn Observer) -> Result<()> {
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
                let what = format!("the {what} is {value}");
                return Err(match record.step {
                    1 => self.cannot_begin(&what),
                    step => self.diverged(step, &what),
                });
            }
        }
        self.position.epoch_sums[0] += f64::from(record.loss);
        self.position.epoch_sums[1] += f64::from(record.ce);
        self.steps.write(&record)?;
        observer.step(&record, issued.samples);
        Ok(())
    }

    /// Called when `taken` batches of the epoch are done: saves when it is time to, or when the observer wants to stop.
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
                let validated = self.validate(&samples, observer);
                if !matches!(validated, Ok(Some(_))) {
                    self.save_last()?;
                }
                let Some(record) = validated? else {
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
        let improved = if whole {
            self.close_epoch(score)?
        } else {
            self.position.schedule.is_best(score)
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
            self.save(&self.setup.run.best())?;
        }
        self.epochs.write(&record)?;
        let validated = record.validation.is_some();
        if whole && (validated || observer.wants_to_stop() || self.checkpoint_is_due()) {
            self.save_last()?;
        }
        observer.epoch(&record);
        if observer.wants_to_stop() {
            Ok(Ended::Interrupted)
        } else {
            Ok(Ended::Finished)
        }
    }

    /// Whether the end of an epoch without validation is saved. If every one were, short epochs would spend their time
    /// writing checkpoints.
    fn checkpoint_is_due(&self) -> bool {
        let unsaved = self.position.step - self.saved_step;
        let every = self.config().checkpoint_every;
        every.is_none_or(|every| unsaved >= every as u64) || self.position.is_end_of(self.config())
    }

    /// Moves the position and the schedule to the start of the next epoch. Returns whether this epoch was the best.
    fn close_epoch(&mut self, score: f64) -> Result<bool> {
        self.position.epoch += 1;
        (self.position.epoch_step, self.position.epoch_batches) = (0, 0);
        self.position.epoch_sums = [0.0; 2];
        let config = &self.setup.config;
        let schedule = &mut self.position.schedule;
        let verdict = schedule.end_epoch(config, self.position.epoch, score);
        if verdict.lowered {
            self.stepper.reset_optimiser()?;
            self.position.optimiser_steps = 0;
        }
        Ok(verdict.improved)
    }
}
