//! What a device does for a training step, for the encoder, or for captions: kernel by kernel, with the least time that each
//! can take on a chip.
//!
//! A GPU is timed by events. In an emulator of the driver, where time says nothing, its counters say how many bytes were asked
//! for. On a dry run of a GPU that is not here, kernels are known with the tensors that they are given and the products that
//! they have to compute. On the CPU it is operations, timed.

pub mod chip;

use super::config::Config;
use super::features::Features;
use super::run::structure;
use super::trainer::stepper::{Source, StepPlace, Stepper};
use crate::data::batches::Batch;
use crate::data::vocabulary::{EOS, SOS, Vocabulary};
use crate::decode::Search;
use crate::device::{Call, Work, cuda};
use crate::error::{Error, Result};
use crate::model::Engine;
use crate::{Device, Tensor};
use chip::Chip;
use std::collections::BTreeMap;
use std::time::Duration;

words! {
    /// What is profiled.
    pub enum Part {
        /// A training step on given features: forward, backward, update.
        Step = "step",
        /// Images through the encoder, as for captions.
        Encoder = "encoder",
        /// Captions of images, the best word every time.
        Caption = "caption",
    }
}

/// How large a profiled part is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// B, captions of a step, or images.
    pub batch: usize,
    /// T, tokens of a caption with those that begin and end it.
    pub length: usize,
    /// V, words with the special ones.
    pub vocabulary: usize,
}

/// The special words, and one more.
const FEWEST_WORDS: usize = 5;

/// Runs of the whole part that are timed.
const RUNS: usize = 10;

/// What a device did.
pub struct Profile {
    /// Every call, in order.
    pub calls: Vec<Call>,
    /// The part as a whole as a run does it, on a GPU as one graph where it can be; the mean of ten runs. `None` on a dry run and
    /// in an emulator.
    pub whole: Option<Duration>,
    /// What an emulator counted, by kernel.
    pub counts: Option<BTreeMap<String, cuda::Counts>>,
}

/// All calls of one kernel or operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// How often it was called.
    pub calls: usize,
    /// How long all calls took, where they could be timed.
    pub time: Option<Duration>,
    /// Bytes of the tensors of all calls.
    pub bytes: usize,
    /// Multiplications and additions of all calls.
    pub flops: f64,
    /// What an emulator counted.
    pub counts: Option<cuda::Counts>,
    /// The least time for all calls on the chip.
    pub floor: Option<Duration>,
    /// The part of the floor of those calls that computing takes longer than memory.
    pub computing: Option<Duration>,
}

impl Profile {
    /// Does it once, and as often as it takes to time it. `config` is what a run would have; its data set is not looked at.
    ///
    /// # Errors
    /// When sizes cannot work, or the device fails or has no memory left.
    pub fn new(device: &Device, part: Part, config: &Config, size: Size) -> Result<Self> {
        if size.vocabulary < FEWEST_WORDS || size.length < 2 {
            let message = format!(
                "a vocabulary has at least {FEWEST_WORDS} words, and a caption at least 2 tokens"
            );
            return Err(Error::Config(message));
        }
        let mut engine = Engine::new(
            device,
            &structure(config, size.vocabulary),
            words_of(size.vocabulary)?,
        )?;
        engine.params.initialise(config.seed)?;
        engine.prepare()?;
        match part {
            Part::Step => {
                let features = Features::made_up(&engine, size.batch)?;
                let mut stepper = Stepper::new(engine, config)?;
                let batch = made_up(size);
                measured(device, |recorded| {
                    if !recorded {
                        stepper.forget_recordings();
                    }
                    let (source, place) = (Source::Features(&features), StepPlace::default());
                    stepper.step(&batch, source, place).map(drop)
                })
            }
            Part::Encoder => {
                let pictures = Pictures::new(&engine, size.batch);
                measured(device, |_| {
                    pictures.with(&engine, |images| engine.features(images).map(drop))
                })
            }
            Part::Caption => {
                let pictures = Pictures::new(&engine, size.batch);
                measured(device, |_| {
                    pictures.with(&engine, |images| {
                        let features = engine.features(images)?;
                        Search::GREEDY.sentences(&engine, &features).map(drop)
                    })
                })
            }
        }
    }

    /// Kernel by kernel, those first that take the longest, or whose floor on the chip is the highest.
    pub fn kernels(&self, chip: Option<Chip>) -> Vec<Kernel> {
        let mut kernels: BTreeMap<&str, Kernel> = BTreeMap::new();
        for call in &self.calls {
            let kernel = kernels.entry(&call.name).or_insert_with(|| Kernel {
                name: call.name.clone(),
                calls: 0,
                time: None,
                bytes: 0,
                flops: 0.0,
                counts: None,
                floor: None,
                computing: None,
            });
            kernel.calls += 1;
            kernel.bytes += call.work.bytes;
            kernel.flops += call.work.flops;
            if let Some((_, time)) = call.time {
                *kernel.time.get_or_insert_default() += time;
            }
            if let Some(chip) = chip {
                let floor = chip.floor(&call.name, call.work);
                *kernel.floor.get_or_insert_default() += floor;
                let bounds = floor == chip.computing(&call.name, call.work);
                let computing = if bounds { floor } else { Duration::ZERO };
                *kernel.computing.get_or_insert_default() += computing;
            }
        }
        let mut kernels: Vec<Kernel> = kernels.into_values().collect();
        for kernel in &mut kernels {
            kernel.counts = self
                .counts
                .as_ref()
                .and_then(|counts| counts.get(&kernel.name).copied());
            if let (Some(chip), Some(counts)) = (chip, kernel.counts) {
                let bytes = counts.distinct_bytes() as usize;
                let flops = kernel.flops;
                kernel.floor = Some(chip.floor(&kernel.name, Work { bytes, flops }));
            }
        }
        kernels.sort_by_key(|kernel| std::cmp::Reverse((kernel.time, kernel.floor, kernel.calls)));
        kernels
    }
}

/// Profiles `body`, which is told whether it may use what is recorded of it.
fn measured(device: &Device, mut body: impl FnMut(bool) -> Result<()>) -> Result<Profile> {
    // Kernels are loaded and the arena has its room before the clock starts.
    body(false)?;
    let emulator = device.emulator();
    if let Some(emulator) = emulator {
        device.synchronise()?;
        emulator.reset()?;
    }
    let calls = device.profile(|| body(false))?;
    let counts = emulator.map(|emulator| emulator.counts()).transpose()?;
    let untimed = emulator.is_some() || device.is_planning();
    let whole = (!untimed).then(|| {
        // The first one is recorded.
        body(true)?;
        body(true)?;
        let runs = device.time(|| (0..RUNS).try_for_each(|_| body(true)))?;
        Ok(runs / RUNS as u32)
    });
    Ok(Profile {
        calls,
        whole: whole.transpose()?,
        counts,
    })
}

fn words_of(count: usize) -> Result<Vocabulary> {
    let special = Vocabulary::build([]).words().to_vec();
    let others = (special.len()..count).map(|id| format!("word{id}"));
    Vocabulary::from_words(special.iter().cloned().chain(others).collect())
}

/// A batch of captions of other words, each of full length; row b belongs to image b.
fn made_up(size: Size) -> Batch {
    let mut batch = Batch::blank(size.batch, size.length);
    batch.images = (0..size.batch).collect();
    for (i, token) in batch.tokens.iter_mut().enumerate() {
        *token = match i % size.length {
            0 => SOS,
            at if at + 1 == size.length => EOS,
            _ => 4 + (i as u32).wrapping_mul(40_503) % (size.vocabulary as u32 - 4),
        };
    }
    batch
}

/// So many images that nobody took.
struct Pictures {
    count: usize,
    /// None on a dry run.
    pixels: Option<Vec<u8>>,
}

impl Pictures {
    fn new(engine: &Engine, count: usize) -> Self {
        let side = engine.captioner.config().image_size;
        let pixels = || (0..count * 3 * side * side).map(|i| (i * 31 % 251) as u8);
        let planning = engine.ctx.device().is_planning();
        let pixels = (!planning).then(|| pixels().collect());
        Pictures { count, pixels }
    }

    fn with(&self, engine: &Engine, body: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        match &self.pixels {
            Some(pixels) => engine.with_images(pixels, body),
            None => engine.with_blank_images(self.count, body),
        }
    }
}
