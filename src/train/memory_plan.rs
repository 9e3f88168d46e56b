//! How much memory a run will take, part by part, before it takes any.
//!
//! What lies on the device is counted to the byte: see [`step_memory`](super::step_memory). Left out is what only
//! the code that takes it can count: what a driver, a library or the system allocates for itself, and on the CPU what
//! the threads of an operation keep for themselves while they compute, whose size depends on how many of them happen
//! to run at once. So on the CPU the sum is a little low.

use super::available_memory;
use super::config::{Config, OptimiserKind};
use super::photo_store;
use super::run::structure;
use super::step_memory::{DeviceMemory, Work};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::LoaderOptions;
use crate::data::vocabulary::Vocabulary;
use crate::device::Device;
use crate::error::Result;
use crate::model::Captioner;
use crate::tensor::DType;
use std::collections::BTreeSet;

const MIB: f64 = (1 << 20) as f64;
const BATCH_SIZE: &str = "batch-size";

/// What a setting has to save to be told: the tenth of a MiB that messages show.
const TOLD: usize = (1 << 20) / 10;

/// Bytes that a run takes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// What lies on the device, which is in the memory of the host where the device is the CPU.
    pub device: DeviceMemory,
    /// Encoder outputs kept in the host's memory.
    pub features: usize,
    /// Photos kept in the host's memory, where the device has too little.
    pub photos: usize,
    /// Batches of images decoded ahead, in the host's memory.
    pub loader: usize,
}

impl MemoryPlan {
    /// Bytes altogether.
    pub fn total(&self) -> usize {
        self.device.total() + self.features + self.photos + self.loader
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = &self.device;
        write!(f, "memory: {}", mebibytes(self.total()))?;
        let parts = [
            (" = weights", device.weights),
            (" + gradients", device.gradients),
            (" + optimiser", device.optimiser),
            (" + step", device.arena),
            (" + features", device.features + self.features),
            (" + photos", device.photos + self.photos),
            (" + loader", self.loader),
        ];
        parts
            .into_iter()
            .try_for_each(|(name, bytes)| write!(f, "{name} {:.1}", bytes as f64 / MIB))
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

/// Plans runs on a device, from a data set.
pub struct Planner<'a> {
    /// The device of the runs; nothing is allocated on it.
    pub device: &'a Device,
    /// What is trained on.
    pub dataset: &'a Flickr8k,
    /// The words that the model knows.
    pub vocabulary: &'a Vocabulary,
}

impl Planner<'_> {
    /// What a run with this configuration will take.
    pub fn plan(&self, config: &Config) -> Result<MemoryPlan> {
        let work = Work::new(config, self.dataset, self.vocabulary)?;
        let device = DeviceMemory::new(self.device, config, self.vocabulary, &work)?;
        let on_device = device.features > 0;
        Ok(MemoryPlan {
            device,
            features: features_kept(config, self.vocabulary, &work, on_device)?,
            photos: if config.features_are_fixed() || device.photos > 0 {
                0
            } else {
                photo_store::bytes_on_host(
                    self.device,
                    work.training.images().len(),
                    config.image_size,
                )?
            },
            loader: images_ahead(config, &work),
        })
    }

    /// Why a planned run does not fit into the memory that is left: the device's, or that of this machine. `None` when it
    /// fits, or when nobody can tell what is left.
    pub fn shortage(&self, config: &Config, plan: &MemoryPlan) -> Result<Option<Shortage>> {
        let (own, machine) = (self.device.free_memory()?, available_memory::bytes());
        let of_device = |plan: &MemoryPlan| plan.device.total();
        let of_machine = |plan: &MemoryPlan| match own {
            Some(_) => plan.features + plan.photos + plan.loader,
            None => plan.total(),
        };
        let lacks = |needed: usize, left: Option<usize>| left.filter(|&left| needed > left);
        if let Some(left) = lacks(of_device(plan), own) {
            let mut shortage = self.helped("the GPU's memory", left, config, plan, of_device);
            shortage.on_cpu = self.on_cpu(config, machine)?;
            return Ok(Some(shortage));
        }
        let left = lacks(of_machine(plan), machine);
        Ok(left.map(|left| self.helped("this machine's memory", left, config, plan, of_machine)))
    }

    /// A shortage of memory at one place, of which a plan takes `needs`, with every setting that takes less in this run.
    fn helped(
        &self,
        place: &'static str,
        available: usize,
        config: &Config,
        plan: &MemoryPlan,
        needs: impl Fn(&MemoryPlan) -> usize,
    ) -> Shortage {
        let remedies = alternatives(config).into_iter().filter_map(|other| {
            // A run that is refused for another reason is no help.
            let plan = self.plan(&other.config).ok()?;
            Some(Remedy {
                key: other.key,
                value: other.value,
                needed: needs(&plan),
            })
        });
        Shortage::new(place, needs(plan), available, remedies.collect())
    }

    /// Bytes of this machine's memory that the run would take on the CPU, if it has as many.
    fn on_cpu(&self, config: &Config, machine: Option<usize>) -> Result<Option<usize>> {
        let cpu = Planner {
            device: &Device::cpu(),
            ..*self
        };
        let needed = cpu.plan(config)?.total();
        Ok(machine.filter(|&left| needed <= left).map(|_| needed))
    }
}

/// Features stay in host memory where they are computed once, unless the device keeps those of the training images. Those in a
/// cache's file are mapped: the system keeps of them what there is room for.
fn features_kept(
    config: &Config,
    vocabulary: &Vocabulary,
    work: &Work,
    on_device: bool,
) -> Result<usize> {
    if config.feature_cache.is_some() {
        return Ok(0);
    }
    let mut kept = BTreeSet::new();
    if config.features_are_fixed() && !on_device {
        kept.extend(work.training.images());
    }
    if let Some(validation) = &work.validation {
        kept.extend(validation.images());
    }
    let (captioner, _) = Captioner::declare(&structure(config, vocabulary.len()))?;
    let elements = captioner.feature_shape(1).len();
    Ok(kept.len() * elements * DType::F32.bytes())
}

/// The batch of images in use, and those that the loader prepares meanwhile.
fn images_ahead(config: &Config, work: &Work) -> usize {
    if config.features_are_fixed() {
        return 0;
    }
    let batch = config.batch_size.min(work.training.len());
    let image = 3 * config.image_size * config.image_size;
    (1 + LoaderOptions::default().prefetch) * batch * image
}

/// A run that does not fit, and what would help.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortage {
    /// Whose memory it is, in words.
    pub place: &'static str,
    /// Bytes.
    pub needed: usize,
    /// Bytes.
    pub available: usize,
    /// Whether each of the remedies alone makes the run fit. If not, no single one does.
    pub suffices: bool,
    /// Settings that take less memory than the run as it is.
    pub remedies: Vec<Remedy>,
    /// Bytes of this machine's memory that the run takes on the CPU, where the GPU has too little and the machine enough.
    pub on_cpu: Option<usize>,
}

/// A setting that takes less memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// As in `config.toml`.
    pub key: &'static str,
    /// As in `config.toml`.
    pub value: String,
    /// Bytes that the run needs with it.
    pub needed: usize,
}

impl Shortage {
    /// `remedies`: all settings that may help, smaller batches in falling order.
    fn new(
        place: &'static str,
        needed: usize,
        available: usize,
        mut remedies: Vec<Remedy>,
    ) -> Self {
        remedies.retain(|remedy| remedy.needed + TOLD <= needed);
        let fits = |remedy: &Remedy| remedy.needed <= available;
        let suffices = remedies.iter().any(fits);
        if suffices {
            remedies.retain(fits);
            // Of the batches that fit, the largest is enough to know.
            let mut batches = 0;
            remedies.retain(|remedy| {
                batches += usize::from(remedy.key == BATCH_SIZE);
                remedy.key != BATCH_SIZE || batches == 1
            });
        }
        Shortage {
            place,
            needed,
            available,
            suffices,
            remedies,
            on_cpu: None,
        }
    }
}

/// Settings stand between backticks, as in `config.toml`.
impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let remedy = |Remedy { key, value, needed }: &Remedy| {
            format!("`{key} = {value}` ({})", mebibytes(*needed))
        };
        let remedies: Vec<String> = self.remedies.iter().map(remedy).collect();
        let (needed, available) = (mebibytes(self.needed), mebibytes(self.available));
        write!(
            f,
            "this run needs about {needed} of {}, {available} are available. ",
            self.place
        )?;
        match (self.suffices, remedies.join(", ").as_str()) {
            (_, "") => write!(f, "No single setting makes it need less")?,
            (true, remedies) => write!(f, "It would fit with {remedies}")?,
            (false, remedies) => write!(
                f,
                "No single setting makes it fit; it would need less with {remedies}"
            )?,
        }
        match self.on_cpu {
            Some(needed) => write!(
                f,
                ". With `device = \"cpu\"` it fits into this machine's memory ({}), and is slower",
                mebibytes(needed)
            ),
            None => Ok(()),
        }
    }
}

/// A configuration in which one setting is another.
struct Alternative {
    key: &'static str,
    value: String,
    config: Config,
}

/// Settings that may take less memory, each on its own.
fn alternatives(config: &Config) -> Vec<Alternative> {
    let mut alternatives = Vec::new();
    let mut offer = |key, value: String, change: &dyn Fn(&mut Config)| {
        let mut changed = config.clone();
        change(&mut changed);
        if changed != *config && changed.check().is_ok() {
            alternatives.push(Alternative {
                key,
                value,
                config: changed,
            });
        }
    };
    let halves = |&size: &usize| Some(size / 2);
    for size in std::iter::successors(Some(config.batch_size / 2), halves).take_while(|&n| n > 0) {
        offer(BATCH_SIZE, size.to_string(), &|c| c.batch_size = size);
    }
    if config.features_are_fixed() && config.feature_cache.is_none() {
        offer("feature-cache", "\"DIR\"".into(), &|c| {
            c.feature_cache = Some("DIR".into());
        });
    }
    offer("fine-tune", "false".into(), &|c| c.fine_tune = false);
    offer("augment", "true".into(), &|c| c.augment = true);
    offer("validate", "false".into(), &|c| c.validate = false);
    offer("optimizer", "\"sgd\"".into(), &|c| {
        c.optimizer = OptimiserKind::Sgd
    });
    alternatives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(key: &'static str, value: &str, mebibytes: usize) -> Remedy {
        Remedy {
            key,
            value: value.into(),
            needed: mebibytes << 20,
        }
    }

    #[test]
    fn a_plan_names_its_parts() {
        let plan = MemoryPlan {
            device: DeviceMemory {
                weights: 1 << 20,
                gradients: 1 << 20,
                optimiser: 2 << 20,
                arena: 8 << 20,
                features: 0,
                photos: 4 << 20,
            },
            features: 3 << 20,
            photos: 0,
            loader: 1 << 20,
        };
        let expected = "memory: 20.0 MiB = weights 1.0 + gradients 1.0 + optimiser 2.0 + step 8.0 + features 3.0 \
                        + photos 4.0 + loader 1.0";
        assert_eq!(plan.to_string(), expected);
        assert_eq!(plan.device.total(), 16 << 20);
    }

    #[test]
    fn too_little_memory_is_an_error_that_says_what_would_help() {
        let told = |available: usize| {
            let remedies = [
                remedy("batch-size", "16", 12),
                remedy("batch-size", "8", 10),
                remedy("fine-tune", "false", 9),
                remedy("augment", "true", 17),
            ];
            let remedies = remedies.to_vec();
            Shortage::new("its memory", 16 << 20, available << 20, remedies).to_string()
        };
        let expected = "this run needs about 16.0 MiB of its memory, 11.0 MiB are available. It would fit with `batch-size = 8` \
                        (10.0 MiB), `fine-tune = false` (9.0 MiB)";
        assert_eq!(told(11), expected);
        let expected =
            "It would fit with `batch-size = 16` (12.0 MiB), `fine-tune = false` (9.0 MiB)";
        assert!(told(12).ends_with(expected), "{}", told(12));
        let expected = "No single setting makes it fit; it would need less with `batch-size = 16` (12.0 MiB), \
                        `batch-size = 8` (10.0 MiB), `fine-tune = false` (9.0 MiB)";
        assert!(told(8).ends_with(expected), "{}", told(8));
        let mut nothing_helps = Shortage::new("its memory", 2 << 20, 1 << 20, Vec::new());
        let expected = "1.0 MiB are available. No single setting makes it need less";
        assert!(
            nothing_helps.to_string().ends_with(expected),
            "{nothing_helps}"
        );
        nothing_helps.on_cpu = Some(3 << 20);
        let expected = "need less. With `device = \"cpu\"` it fits into this machine's memory (3.0 MiB), and is slower";
        assert!(
            nothing_helps.to_string().ends_with(expected),
            "{nothing_helps}"
        );
    }
}
