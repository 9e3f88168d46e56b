//! How much memory a run takes on its device, found by a dry run of all that it does there.
//!
//! The device's dry twin walks the same code as the device, with the same precision and the same size, so that its
//! scratch, its copies in bf16 and its choice of tiles are the real ones. Every shape of batch that can come is walked: a
//! smaller batch may need more scratch than a larger one, where its sums are cut into more parts.

use super::config::{Config, EncoderWeights};
use super::data::{training_samples, validation_samples};
use super::evaluate;
use super::features;
use super::optimiser::Optimiser;
use super::run::structure;
use super::trainer::CALIBRATION_IMAGES;
use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::samples::Samples;
use crate::data::vocabulary::Vocabulary;
use crate::decode::Search;
use crate::device::Device;
use crate::error::Result;
use crate::model::{Captions, Engine, Input};
use crate::nn::noise::Noise;
use crate::tensor::{DType, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes that a run takes on its device. What a driver or a library allocates for itself is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Trained and frozen weights, and the folded copies of the latter.
    pub weights: usize,
    /// One for each trained weight.
    pub gradients: usize,
    /// The optimiser's state, and what it reads and writes every step: schedules, the clip's factor, the norm.
    pub optimiser: usize,
    /// The number of the step, and the numbers that every step gives back.
    pub numbers: usize,
    /// The step arena: activations, scratch, and whatever is uploaded for one batch.
    pub arena: usize,
}

impl DeviceMemory {
    /// Of a run on a device like `device`.
    pub fn new(
        device: &Device,
        config: &Config,
        vocabulary: &Vocabulary,
        work: &Work,
    ) -> Result<Self> {
        let mut run = DryRun::new(device, config, vocabulary)?;
        run.walk(config, work)?;
        Ok(DeviceMemory {
            arena: run.engine.ctx.peak_bytes(),
            ..run.lasting
        })
    }

    /// Bytes altogether.
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.optimiser + self.numbers + self.arena
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
    /// When there is nothing to train on.
    pub fn new(config: &Config, dataset: &Flickr8k, vocabulary: &Vocabulary) -> Result<Self> {
        Ok(Work {
            training: Arc::new(training_samples(config, dataset, vocabulary)?),
            validation: validation_samples(config, dataset, vocabulary).map(Arc::new),
        })
    }
}

/// The numbers that a step gives back: loss, cross-entropy, the gradients' norm.
pub fn step_numbers(device: &Device) -> Result<Tensor> {
    Tensor::zeros(device, [3], DType::F32)
}

/// A model on a planning device, and what is trained with it.
struct DryRun {
    engine: Engine,
    optimiser: Optimiser,
    noise: Noise,
    image_size: usize,
    /// What stays allocated during the whole run; no arena yet.
    lasting: DeviceMemory,
}

impl DryRun {
    fn new(device: &Device, config: &Config, vocabulary: &Vocabulary) -> Result<Self> {
        let device = device.planning();
        let structure = structure(config, vocabulary.len());
        let mut engine = Engine::new(&device, &structure, vocabulary.clone())?;
        engine.prepare()?;
        let params = &engine.params;
        let gradients = params.gradients().len() * params.dtype().bytes();
        let weights = device.bytes_in_use() - gradients;
        let optimiser = Optimiser::new(config, params)?;
        let with_optimiser = device.bytes_in_use();
        let (noise, _numbers) = (Noise::new(&device, config.seed)?, step_numbers(&device)?);
        Ok(DryRun {
            lasting: DeviceMemory {
                weights,
                gradients,
                optimiser: with_optimiser - gradients - weights,
                numbers: device.bytes_in_use() - with_optimiser,
                arena: 0,
            },
            engine,
            optimiser,
            noise,
            image_size: config.image_size,
        })
    }

    /// All that a run does between its start and its end.
    fn walk(&mut self, config: &Config, work: &Work) -> Result<()> {
        if config.encoder_weights == Some(EncoderWeights::Random) {
            let images = work.training.images().len().min(CALIBRATION_IMAGES);
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
            self.train(batch, steps, fixed)?;
        }
        Ok(())
    }

    fn pixels(&self, batch: usize) -> Result<Tensor> {
        let side = self.image_size;
        self.engine.ctx.empty([batch, side, side, 3], DType::U8)
    }

    fn features(&self, batch: usize) -> Result<Tensor> {
        let engine = &self.engine;
        let shape = engine.captioner.feature_shape(batch);
        engine.ctx.empty(shape, engine.params.dtype())
    }

    fn upload(&self, batch: usize, steps: usize) -> Result<Captions> {
        Captions::upload(&self.engine.ctx, steps, batch, &vec![0; batch * steps])
    }

    fn calibrate(&self, batch: usize) -> Result<()> {
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &self.engine;
        let pixels = self.pixels(batch)?;
        captioner.calibrate(ctx, params, &pixels, 0)?;
        drop(pixels);
        ctx.reset()
    }

    fn encode(&self, batch: usize) -> Result<()> {
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &self.engine;
        let pixels = self.pixels(batch)?;
        captioner.features(ctx, params, &pixels)?;
        drop(pixels);
        ctx.reset()
    }

    fn losses(&self, batch: usize, steps: usize) -> Result<()> {
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &self.engine;
        let (features, captions) = (self.features(batch)?, self.upload(batch, steps)?);
        captioner.decoder.loss(ctx, params, &features, &captions)?;
        drop((features, captions));
        ctx.reset()
    }

    fn captions(&self, batch: usize) -> Result<()> {
        let features = self.features(batch)?;
        Search::GREEDY.sentences(&self.engine, &features)?;
        drop(features);
        self.engine.ctx.reset()
    }

    fn train(&mut self, batch: usize, steps: usize, from_features: bool) -> Result<()> {
        let input = if from_features {
            self.features(batch)?
        } else {
            self.pixels(batch)?
        };
        let captions = self.upload(batch, steps)?;
        let given = if from_features {
            Input::Features(&input)
        } else {
            Input::Images(&input)
        };
        let Engine {
            ctx,
            captioner,
            params,
            ..
        } = &self.engine;
        let noise = Some(self.noise.clone());
        captioner.train(ctx, params, given, &captions, noise)?;
        self.optimiser.step(ctx, params)?;
        drop((input, captions));
        ctx.reset()
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
