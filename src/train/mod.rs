//! Training: settings, steps, schedules, validation, records, checkpoints. It writes to no terminal, but tells an
//! [`Observer`] what happens.

mod available_memory;
mod batch_values;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod feature_cache;
pub mod features;
pub mod initial;
mod lock;
pub mod log;
pub mod memory_plan;
pub mod optimiser;
mod photo_store;
pub mod profile;
pub mod run;
pub mod schedule;
pub mod step_graph;
pub mod step_memory;
pub mod trained_on;
pub mod trainer;

/// A part of the work that takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Decoding all images of a data set, to find those that cannot be decoded; counted in images.
    Images,
    /// Encoding the training images, counted in images.
    Features,
    /// An epoch with its number, which counts from 1; counted in steps.
    Epoch(usize),
    /// Encoding the validation images, counted in images.
    ValidationFeatures,
    /// Losses of the validation split, counted in batches.
    Validation,
    /// Captions of the validation images, counted in images.
    Captions,
}

/// Something that is told what training does.
pub trait Observer {
    /// A stage begins that has this many parts.
    fn begin(&mut self, stage: Stage, parts: usize);
    /// This many parts of the stage are done.
    fn progress(&mut self, done: usize);
    /// The stage is over.
    fn end(&mut self);
    /// A step of the current epoch was taken, with a batch of this many samples.
    fn step(&mut self, record: &log::StepRecord, samples: usize);
    /// An epoch has ended.
    fn epoch(&mut self, record: &log::EpochRecord);
    /// Something is not as it should be, but training goes on.
    fn warn(&mut self, message: &str);
    /// Something worth knowing.
    fn note(&mut self, _message: &str) {}
    /// Whether training should save a checkpoint and end; asked after every step, between the parts of a validation, and
    /// while images are encoded.
    fn wants_to_stop(&self) -> bool {
        false
    }
}
