//! One training step on the device: a batch goes up, losses and the gradients' norm come down.

use crate::data::batches::Batch;
use crate::error::Result;
use crate::model::{Engine, Input};
use crate::nn::noise::Noise;
use crate::ops::augment::{self, Change};
use crate::ops::copy;
use crate::tensor::{DType, Pending, Tensor};
use crate::train::checkpoint::Checkpoint;
use crate::train::config::Config;
use crate::train::data::{upload_captions, upload_captions_and_words};
use crate::train::features::{Features, gather};
use crate::train::optimiser::Optimiser;
use crate::train::step_graph::StepGraphs;
use std::cell::Cell;

/// An engine that is trained, with all that its steps need.
pub(in crate::train) struct Stepper {
    /// The captioner that is trained.
    pub engine: Engine,
    state: StepState,
}

/// What a step needs beside the engine.
struct StepState {
    optimiser: Optimiser,
    noise: Noise,
    /// What a step gives to the host: loss, cross-entropy, the gradients' norm.
    numbers: Tensor,
    graphs: StepGraphs,
    /// Whether a step that failed may have changed part of what a checkpoint holds.
    torn: Cell<bool>,
}

/// Where a batch's images are.
#[derive(Clone, Copy)]
pub(in crate::train) enum Source<'a> {
    /// Pixels (B, S, S, 3) on the host, and what becomes of each, if anything does.
    Pixels(&'a [u8], Option<&'a [Change]>),
    /// Among photos (N, S, S, 3) on the device, and what becomes of each.
    Photos(&'a Tensor, &'a [Change]),
    /// Among features that were computed before.
    Features(&'a Features),
    /// Nowhere: pixels of a dry run, which reads no numbers.
    Blank(Option<&'a [Change]>),
}

/// Number and rates of a step.
#[derive(Clone, Copy, Default)]
pub(in crate::train) struct StepPlace {
    /// Steps taken before this one.
    pub taken: u64,
    /// Learning rates of the decoder and of the encoder.
    pub rates: [f64; 2],
}

impl Stepper {
    /// Before the first step, with a new optimiser.
    pub fn new(engine: Engine, config: &Config) -> Result<Self> {
        let device = engine.ctx.device();
        let state = StepState {
            optimiser: Optimiser::new(config, &engine.params)?,
            noise: Noise::new(device, config.seed)?,
            numbers: Tensor::zeros(device, [3], DType::F32)?,
            graphs: StepGraphs::default(),
            torn: Cell::new(false),
        };
        Ok(Stepper { engine, state })
    }

    /// The optimiser, as the last step left it.
    pub fn optimiser(&self) -> &Optimiser {
        &self.state.optimiser
    }

    /// Forgets all momentum.
    pub fn reset_optimiser(&mut self) -> Result<()> {
        self.state.optimiser.reset(&self.engine.ctx)
    }

    /// The next step runs launch by launch.
    pub fn forget_recordings(&mut self) {
        self.state.graphs = StepGraphs::default();
    }

    /// Reads the optimiser's state from a checkpoint.
    pub fn load_optimiser(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.load_optimiser(&self.engine.params, &mut self.state.optimiser)
    }

    /// Whether all that a checkpoint holds is of the same step.
    pub fn is_whole(&self) -> bool {
        !self.state.torn.get()
    }

    /// Forward, backward, update. Loss, cross-entropy and the gradients' norm are on their way to the host.
    pub fn step(
        &mut self,
        batch: &Batch,
        source: Source,
        place: StepPlace,
    ) -> Result<Pending<f32>> {
        let (engine, state) = (&self.engine, &mut self.state);
        let numbers = match source {
            Source::Pixels(pixels, changes) => {
                return engine.with_images(pixels, |images| {
                    state.step(engine, batch, Given::images(images, changes), place)
                });
            }
            Source::Blank(changes) => {
                return engine.with_blank_images(batch.len(), |images| {
                    state.step(engine, batch, Given::images(images, changes), place)
                });
            }
            Source::Features(features) => match features.on_device() {
                None => {
                    return features.with_batch(engine, &batch.images, |features| {
                        let given = Given::Uploaded(Input::Features(features));
                        state.step(engine, batch, given, place)
                    });
                }
                Some(all) => {
                    let given = Given::Features(all, features.rows(&batch.images)?);
                    state.step(engine, batch, given, place)?
                }
            },
            Source::Photos(photos, changes) => {
                state.step(engine, batch, Given::images(photos, Some(changes)), place)?
            }
        };
        engine.ctx.reset()?;
        Ok(numbers)
    }
}

/// What the step of a batch reads of its images.
enum Given<'a, Words> {
    /// In the step arena.
    Uploaded(Input<'a>),
    /// Features (N, elements per image) on the device, to be gathered by their rows (1, B).
    Features(&'a Tensor, Words),
    /// Photos (N, S, S, 3) on the device, to be changed as columns (7, B) say.
    Photos(&'a Tensor, Words),
}

impl<'a> Given<'a, Vec<u32>> {
    /// Images (N, S, S, 3), as they are or changed.
    fn images(images: &'a Tensor, changes: Option<&[Change]>) -> Self {
        let Some(changes) = changes else {
            return Given::Uploaded(Input::Images(images));
        };
        let side = images.shape().dims()[1];
        Given::Photos(images, augment::words(changes, [side, side]))
    }
}

impl StepState {
    fn step(
        &mut self,
        engine: &Engine,
        batch: &Batch,
        given: Given<Vec<u32>>,
        place: StepPlace,
    ) -> Result<Pending<f32>> {
        let (ctx, captioner, params) = (&engine.ctx, &engine.captioner, &engine.params);
        let (captions, input) = match given {
            Given::Uploaded(input) => (upload_captions(ctx, batch)?, Given::Uploaded(input)),
            Given::Features(all, rows) => {
                let (captions, rows) = upload_captions_and_words(ctx, batch, &rows)?;
                (captions, Given::Features(all, rows))
            }
            Given::Photos(photos, changes) => {
                let (captions, changes) = upload_captions_and_words(ctx, batch, &changes)?;
                (captions, Given::Photos(photos, changes))
            }
        };
        self.noise.set_step(place.taken as u32)?;
        self.optimiser.begin_step(place.rates)?;
        // Batch-norm's running statistics move in the forward pass, weights in the optimiser's.
        self.torn.set(captioner.config().batch_statistics);
        let shape = [batch.len(), batch.steps];
        let (optimiser, numbers) = (&mut self.optimiser, &self.numbers);
        let (noise, torn) = (&self.noise, &self.torn);
        self.graphs.run(ctx, shape, || {
            let mut gathered;
            let input = match input {
                Given::Uploaded(input) => input,
                Given::Features(all, rows) => {
                    gathered = gather(engine, all, &rows)?;
                    Input::Features(&gathered)
                }
                Given::Photos(photos, changes) => {
                    let side = captioner.config().image_size;
                    gathered = ctx.empty([batch.len(), side, side, 3], DType::U8)?;
                    augment::forward(ctx, photos, &changes, &mut gathered)?;
                    Input::Images(&gathered)
                }
            };
            let losses = captioner.train(ctx, params, input, &captions, Some(noise.clone()))?;
            torn.set(true);
            optimiser.step(ctx, params)?;
            let all = [&losses.loss, &losses.cross_entropy, &optimiser.norm];
            let mut each = all.into_iter().enumerate();
            each.try_for_each(|(i, number)| copy::forward(ctx, number, &mut numbers.columns(i, 1)?))
        })?;
        self.torn.set(false);
        self.numbers.download_later()
    }
}
