//! How much memory a run takes on its device, found by a dry run of all that it does there.
//!
//! The device's dry twin walks the same code as the device, with the same precision and the same size, so that its
//! scratch, its copies in bf16 and its choice of tiles are the real ones. Every shape of batch that can come is walked: a
//! smaller batch may need more scratch than a larger one, where its sums are cut into more parts.

use super::available_memory;
use super::batch_values::{calibration_images, check_batches};
use super::config::{Config, EncoderWeights};
use super::data::{training_samples, upload_captions, validation_samples};
use super::evaluate;
use super::features::{self, Features};
use super::photo_store::{self, PhotoStore};
use super::run::structure;
use super::trainer::stepper::{Source, StepPlace, Stepper};
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::samples::Samples;
use crate::data::vocabulary::Vocabulary;
use crate::decode::Search;
use crate::device::Device;
use crate::error::Result;
use crate::model::Engine;
use crate::ops::augment::Change;
use crate::tensor::Tensor;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes that a run takes on its device. What a driver or a library allocates for itself,
/// such as the nodes of a recorded graph, is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Trained weights with their rounded copies, frozen weights, and the folded copies of the latter.
    pub weights: usize,
    /// One for each trained weight.
    pub gradients: usize,
    /// The optimiser's state, the few numbers that every step reads and gives back, and those with which blocks of a launch count
    /// each other.
    pub optimiser: usize,
    /// The step arena: activations, scratch, and whatever is uploaded for one batch.
    pub arena: usize,
    /// The training images' features, when the device keeps them.
    pub features: usize,
    /// The training images, resized, when they go through the encoder in every step and the device keeps them.
    pub photos: usize,
}

impl DeviceMemory {
    /// Of a run on `device`, or on one like it. The device keeps what steps read of the training images, if all fits: where
    /// features never change those, on a device that has memory of its own; else the resized photos. In the host's memory,
    /// where other things lie, too, there must be room for twice the photos.
    pub fn new(
        device: &Device,
        config: &Config,
        vocabulary: &Vocabulary,
        work: &Work,
    ) -> Result<Self> {
        let own = device.free_memory()?;
        let free = match own {
            None if config.features_are_fixed() => None,
            None => available_memory::bytes(),
            own => own,
        };
        if let Some(free) = free {
            let keeping = DeviceMemory::walked(device, config, vocabulary, work, true)?;
            let spare = if own.is_none() { keeping.photos } else { 0 };
            if keeping.total() + spare <= free + device.bytes_in_use() {
                return Ok(keeping);
            }
        }
        DeviceMemory::walked(device, config, vocabulary, work, false)
    }

    fn walked(
        device: &Device,
        config: &Config,
        vocabulary: &Vocabulary,
        work: &Work,
        keep: bool,
    ) -> Result<Self> {
        let device = device.planning();
        let structure = structure(config, vocabulary.len());
        let mut engine = Engine::new(&device, &structure, vocabulary.clone())?;
        engine.prepare()?;
        let gradients = engine.params.gradients().len() * engine.params.dtype().bytes();
        let weights = device.bytes_in_use() - gradients;
        let images = work.training.images().len();
        let elements = images * engine.captioner.feature_shape(1).len();
        let (keep_features, keep_photos) = match config.features_are_fixed() {
            true => (keep, false),
            false => (false, keep),
        };
        let of_features = engine.params.operands();
        let features = Features::blank(&engine, false)?;
        let stepper = Stepper::new(engine, config)?;
        let optimiser = device.bytes_in_use() - weights - gradients;
        let kept = Features::blank(&stepper.engine, keep_features)?;
        let photos = PhotoStore::on_device(&device, usize::from(keep_photos), config.image_size)?;
        let mut run = DryRun {
            stepper,
            training: kept,
            photos: keep_photos.then_some(photos),
            features,
        };
        run.walk(config, work)?;
        let ctx = &run.stepper.engine.ctx;
        Ok(DeviceMemory {
            weights,
            gradients,
            optimiser: optimiser + ctx.counter_bytes(),
            arena: ctx.peak_bytes(),
            features: usize::from(keep_features) * elements * of_features.bytes(),
            photos: usize::from(keep_photos) * photo_store::bytes(images, config.image_size),
        })
    }

    /// Bytes altogether.
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.optimiser + self.arena + self.features + self.photos
    }
}

/// The samples of a run.
pub struct Work {
    /// What is trained on.
    pub training: Arc<Samples>,
    /// `None` when nothing is validated.
    pub validation: Option<Arc<Samples>>,
}

impl Work {
    /// # Errors
    /// When there is nothing to train on, or a batch of it cannot be normalised.
    pub fn new(config: &Config, dataset: &Flickr8k, vocabulary: &Vocabulary) -> Result<Self> {
        let training = training_samples(config, dataset, vocabulary)?;
        check_batches(config, training.len())?;
        Ok(Work {
            training: Arc::new(training),
            validation: validation_samples(config, dataset, vocabulary).map(Arc::new),
        })
    }
}

/// A run on a dry device, whose images, features and captions are blank.
struct DryRun {
    stepper: Stepper,
    /// Of the training images.
    training: Features,
    /// One of the training images, where they are kept.
    photos: Option<PhotoStore>,
    /// Of the validation images.
    features: Features,
}

impl DryRun {
    /// All that a run does between its start and its end.
    fn walk(&mut self, config: &Config, work: &Work) -> Result<()> {
        if config.encoder_weights == Some(EncoderWeights::Random) {
            let images = calibration_images(config, work.training.images().len())?;
            for size in sizes(images, evaluate::BATCH) {
                self.calibrate(size)?;
            }
        }
        let fixed = config.features_are_fixed();
        let mut encoded = BTreeSet::new();
        if fixed {
            encoded.extend(sizes(work.training.images().len(), features::BATCH));
        }
        if let Some(validation) = &work.validation {
            let images = validation.images().len();
            encoded.extend(sizes(images, features::BATCH));
            for size in sizes(images, Search::GREEDY.batch(evaluate::BATCH)) {
                self.captions(size)?;
            }
            let batches = Batches::new(validation, evaluate::BATCH, Order::Listed)?;
            for (batch, steps) in batches.shapes() {
                self.losses(batch, steps)?;
            }
        }
        for size in encoded {
            self.encode(size)?;
        }
        for (batch, steps) in step_shapes(config, &work.training)? {
            self.train(config, batch, steps)?;
        }
        Ok(())
    }

    fn calibrate(&self, batch: usize) -> Result<()> {
        let engine = &self.stepper.engine;
        engine.with_blank_images(batch, |images| engine.calibrate(images, 0))
    }

    fn encode(&self, batch: usize) -> Result<()> {
        let engine = &self.stepper.engine;
        engine.with_blank_images(batch, |images| engine.features(images).map(drop))
    }

    fn losses(&self, batch: usize, steps: usize) -> Result<()> {
        let (engine, batch) = (&self.stepper.engine, Batch::blank(batch, steps));
        self.features.with_batch(engine, &batch.images, |features| {
            let captions = upload_captions(&engine.ctx, &batch)?;
            engine.losses(features, &captions).map(drop)
        })
    }

    fn captions(&self, batch: usize) -> Result<()> {
        let engine = &self.stepper.engine;
        let captions = |features: &Tensor| Search::GREEDY.sentences(engine, features).map(drop);
        self.features.with_batch(engine, &vec![0; batch], captions)
    }

    fn train(&mut self, config: &Config, batch: usize, steps: usize) -> Result<()> {
        let changes = vec![Change::none(0); batch];
        let source = match self.photos.as_ref().and_then(PhotoStore::photos) {
            _ if config.features_are_fixed() => Source::Features(&self.training),
            Some(photos) => Source::Photos(photos, &changes),
            None => Source::Blank(config.augment.then_some(&changes)),
        };
        let batch = Batch::blank(batch, steps);
        self.stepper.step(&batch, source, StepPlace::default())?;
        Ok(())
    }
}

/// The sizes of the batches that `count` things make.
fn sizes(count: usize, batch: usize) -> BTreeSet<usize> {
    let sizes = [batch.min(count), count % batch];
    sizes.into_iter().filter(|&size| size > 0).collect()
}

/// Every (B, T) that a batch of training can have: shuffled, a batch of any size may have any caption as its longest.
fn step_shapes(config: &Config, samples: &Arc<Samples>) -> Result<BTreeSet<(usize, usize)>> {
    if !config.shuffle {
        return Ok(Batches::new(samples, config.batch_size, Order::Listed)?.shapes());
    }
    let lengths = (0..samples.len()).map(|sample| samples.tokens(sample).len());
    let lengths: BTreeSet<usize> = lengths.collect();
    let sizes = sizes(samples.len(), config.batch_size);
    let shapes = sizes
        .into_iter()
        .flat_map(|size| lengths.iter().map(move |&length| (size, length)));
    Ok(shapes.collect())
}
