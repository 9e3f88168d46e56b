//! How much memory a run will take, part by part, before it takes any.
//!
//! Weights, gradients, state and steps are counted by building and running the model on the planning device. What
//! threads keep for themselves while they compute is not in it: the sum is an estimate, a little low.

use super::available_memory;
use super::config::{Config, Optimizer};
use super::data::{training_samples, validation_samples};
use super::optimiser::Optimiser;
use super::run::structure;
use super::step_memory::arena_bytes;
use super::{evaluate, features};
use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::LoaderOptions;
use crate::data::samples::Samples;
use crate::data::vocabulary::{SOS, Vocabulary};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Captioner, Captions};
use crate::nn::params::Params;
use crate::tensor::{Context, DType};
use std::collections::BTreeSet;
use std::sync::Arc;

const MIB: f64 = (1 << 20) as f64;
const BATCH_SIZE: &str = "`batch-size";

/// Bytes that a run takes.
#[derive(Clone, Debug)]
pub struct MemoryPlan {
    /// Trained and frozen weights, and the folded copies of the latter.
    pub weights: usize,
    pub gradients: usize,
    pub optimiser: usize,
    /// Activations of the largest batch, in training or evaluation.
    pub step: usize,
    /// Encoder outputs kept in memory.
    pub features: usize,
    /// Batches of images decoded ahead.
    pub loader: usize,
    /// What would help, and the plan then; smaller batches first, the largest of them leading.
    remedies: Vec<(String, MemoryPlan)>,
}

impl MemoryPlan {
    pub fn new(config: &Config, dataset: &Flickr8k, vocabulary: &Vocabulary) -> Result<Self> {
        let training = Arc::new(training_samples(config, dataset, vocabulary)?);
        let validation = validation_samples(config, dataset, vocabulary);
        let plan = |config: &Config| estimate(config, vocabulary, &training, validation.as_ref());
        let mut chosen = plan(config)?;
        for (change, config) in alternatives(config) {
            let plan = plan(&config)?;
            if plan.total() < chosen.total() {
                chosen.remedies.push((change, plan));
            }
        }
        Ok(chosen)
    }

    pub fn total(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    fn parts(&self) -> [(&'static str, usize); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimiser", self.optimiser),
            ("step", self.step),
            ("features", self.features),
            ("loader", self.loader),
        ]
    }

    /// What lies on the device when that has memory of its own.
    fn on_device(&self) -> usize {
        self.weights + self.gradients + self.optimiser + self.step
    }

    /// # Errors
    /// When the device, or this machine where it has none of its own, has less memory left; the message says what
    /// would help. Nothing is said where what is left is unknown.
    pub fn check(&self, device: &Device) -> Result<()> {
        if let Some(free) = device.free_memory()? {
            return self.check_against(free, MemoryPlan::on_device);
        }
        match available_memory::bytes() {
            Some(available) => self.check_against(available, MemoryPlan::total),
            None => Ok(()),
        }
    }

    /// `needs` is the part of a plan that has to fit.
    fn check_against(&self, available: usize, needs: impl Fn(&MemoryPlan) -> usize) -> Result<()> {
        if needs(self) <= available {
            return Ok(());
        }
        let is_batch = |change: &str| change.starts_with(BATCH_SIZE);
        let remedies = self.remedies.iter();
        let remedies = remedies.map(|(change, plan)| (change, needs(plan)));
        let less: Vec<(&String, usize)> = remedies.filter(|&(_, n)| n < needs(self)).collect();
        let mut enough = less.clone();
        enough.retain(|&(_, needed)| needed <= available);
        let smaller = enough.iter().filter(|(change, _)| is_batch(change)).count();
        // Of the batches that fit, the largest is enough to know.
        enough.drain(1.min(smaller)..smaller);
        let (help, shown) = match enough.is_empty() {
            false => ("It would fit with", enough),
            true => ("No one setting makes it fit; it would need less with", less),
        };
        let shown: Vec<String> = shown
            .into_iter()
            .map(|(change, needed)| format!("{change} ({})", mebibytes(needed)))
            .collect();
        Err(Error::Device(format!(
            "this run needs about {}, {} are available. {help} {}",
            mebibytes(needs(self)),
            mebibytes(available),
            shown.join(", ")
        )))
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory: {}", mebibytes(self.total()))?;
        for (index, (name, bytes)) in self.parts().into_iter().enumerate() {
            let before = if index == 0 { " =" } else { " +" };
            write!(f, "{before} {name} {:.1}", bytes as f64 / MIB)?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

/// Settings that take less memory, each on its own.
fn alternatives(config: &Config) -> Vec<(String, Config)> {
    let mut alternatives = Vec::new();
    let mut offer = |change: String, config: Config| alternatives.push((change, config));
    let mut batch_size = config.batch_size / 2;
    while batch_size > 0 {
        let config = Config {
            batch_size,
            ..config.clone()
        };
        offer(format!("{BATCH_SIZE} = {batch_size}`"), config);
        batch_size /= 2;
    }
    let cached = Config {
        feature_cache: Some("DIR".into()),
        augment: false,
        ..config.clone()
    };
    if config.features_are_fixed() && config.feature_cache.is_none() {
        offer("`feature-cache = \"DIR\"`".into(), cached);
    }
    let switches = [
        (
            "`fine-tune = false`",
            Config {
                fine_tune: false,
                ..config.clone()
            },
        ),
        (
            "`augment = true`",
            Config {
                augment: true,
                ..config.clone()
            },
        ),
        (
            "`validate = false`",
            Config {
                validate: false,
                ..config.clone()
            },
        ),
        (
            "`optimizer = \"sgd\"`",
            Config {
                optimizer: Optimizer::Sgd,
                ..config.clone()
            },
        ),
    ];
    for (change, other) in switches {
        if other != *config {
            offer(change.into(), other);
        }
    }
    alternatives
}

fn estimate(
    config: &Config,
    vocabulary: &Vocabulary,
    training: &Arc<Samples>,
    validation: Option<&Samples>,
) -> Result<MemoryPlan> {
    let device = Device::plan();
    let (mut captioner, declarations) = Captioner::declare(&structure(config, vocabulary.len()))?;
    let params = declarations.build(&device, DType::F32)?;
    captioner.prepare(&Context::new(&device), &params)?;
    let gradients = params.gradients().len() * DType::F32.bytes();
    let weights = device.bytes_in_use() - gradients;
    let optimiser = Optimiser::new(config, &params)?;
    let optimiser_bytes = device.bytes_in_use() - weights - gradients;
    drop(optimiser);

    let steps = Batches::new(training, config.batch_size, Order::Listed)?;
    let an_image: usize = captioner.feature_shape(1).len();
    // Out of a cache they are mapped: the system keeps of them what there is room for.
    let cached = config.feature_cache.is_some();
    let mut kept = BTreeSet::new();
    if config.features_are_fixed() && !cached {
        kept.extend(training.images());
    }
    if let Some(validation) = validation.filter(|_| config.validate && !cached) {
        kept.extend(validation.images());
    }
    let pixels = 3 * config.image_size * config.image_size;
    let ahead = match config.features_are_fixed() {
        true => 0,
        // The batch in use, and those that the loader prepares meanwhile.
        false => (1 + LoaderOptions::default().prefetch) * config.batch_size.min(training.len()),
    };
    let longest = validation.filter(|_| config.validate).map(Samples::longest);
    let inference = match config.features_are_fixed() || longest.is_some() {
        true => inference_bytes(config, &captioner, &params, longest)?,
        false => 0,
    };
    Ok(MemoryPlan {
        weights,
        gradients,
        optimiser: optimiser_bytes,
        step: arena_bytes(&device, config, vocabulary, &steps)?.max(inference),
        features: kept.len() * an_image * DType::F32.bytes(),
        loader: ahead * pixels,
        remedies: Vec::new(),
    })
}

/// Bytes of the arena to encode images with, and for losses over captions of up to `longest` tokens.
fn inference_bytes(
    config: &Config,
    captioner: &Captioner,
    params: &Params,
    longest: Option<usize>,
) -> Result<usize> {
    let ctx = Context::new(params.values().device());
    let side = config.image_size;
    let pixels = ctx.empty([features::BATCH, side, side, 3], DType::U8)?;
    captioner.features(&ctx, params, &pixels)?;
    drop(pixels);
    ctx.reset()?;
    if let Some(longest) = longest {
        let batch = evaluate::BATCH;
        let features = ctx.empty(captioner.feature_shape(batch), DType::F32)?;
        let captions = Captions::upload(&ctx, longest, batch, &vec![SOS; longest * batch])?;
        captioner.decoder.loss(&ctx, params, &features, &captions)?;
    }
    Ok(ctx.peak_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_an_error_that_says_what_would_help() {
        let with_step = |step: usize| MemoryPlan {
            weights: 1 << 20,
            gradients: 1 << 20,
            optimiser: 2 << 20,
            step: step << 20,
            features: 3 << 20,
            loader: 1 << 20,
            remedies: Vec::new(),
        };
        let remedies = [
            ("`batch-size = 16`", 4),
            ("`batch-size = 8`", 2),
            ("`fine-tune = false`", 1),
        ];
        let plan = MemoryPlan {
            remedies: remedies
                .map(|(change, step)| (change.to_string(), with_step(step)))
                .to_vec(),
            ..with_step(8)
        };
        let shown = "memory: 16.0 MiB = weights 1.0 + gradients 1.0 + optimiser 2.0 + step 8.0 + features 3.0 \
                     + loader 1.0";
        assert_eq!(plan.to_string(), shown);
        assert!(plan.check_against(16 << 20, MemoryPlan::total).is_ok());
        assert!(plan.check_against(12 << 20, MemoryPlan::on_device).is_ok());
        let error = |available: usize| {
            let refused = plan.check_against(available << 20, MemoryPlan::total);
            refused.unwrap_err().to_string()
        };
        let expected = "this run needs about 16.0 MiB, 11.0 MiB are available. It would fit with `batch-size = 8` \
                        (10.0 MiB), `fine-tune = false` (9.0 MiB)";
        assert_eq!(error(11), expected);
        assert!(
            error(12).contains("with `batch-size = 16` (12.0 MiB), `fine-tune = false` (9.0 MiB)")
        );
        assert!(error(8).contains("No one setting makes it fit"));
        assert!(error(8).contains("`batch-size = 16` (12.0 MiB), `batch-size = 8` (10.0 MiB)"));
        let on_device = plan
            .check_against(7 << 20, MemoryPlan::on_device)
            .unwrap_err()
            .to_string();
        assert!(
            on_device.contains("needs about 12.0 MiB, 7.0 MiB are available. It would fit with")
        );
        assert!(on_device.contains("`batch-size = 8` (6.0 MiB), `fine-tune = false` (5.0 MiB)"));
    }
}
