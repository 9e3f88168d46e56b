//! Checkpoints: one safetensors file with weights, optimiser and position, under PyTorch's names and in
//! its layouts, so that weights move both ways.
//!
//! Parameters and buffers have PyTorch's names. The optimiser's state has the same names with `optimizer.exp_avg.` or the
//! like in front. The metadata holds the format version, the position, the settings, hashes of the words and captions
//! that the weights belong to, and, if a frozen encoder is not in the file, where it came from.

use super::config::{Config, EncoderWeights};
use super::optimiser::Optimiser;
use super::schedule::ScheduleState;
use super::trained_on::{self, TrainedOn};
use crate::data::digest;
use crate::data::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Engine;
use crate::nn::params::{Id, Params};
use crate::weights::safetensors::{self, Spec};
use crate::weights::{StoredType, WeightFile, torchvision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// It increases when files of the version before can no longer be read.
pub const FORMAT_VERSION: u32 = 1;

const VERSION_KEY: &str = "showtell.format";
const POSITION_KEY: &str = "showtell.position";
const ENCODER_KEY: &str = "showtell.encoder";
const STATE_PREFIX: &str = "optimizer.";

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: usize,
    /// Batches of the current epoch that are done, including those without any readable image.
    pub epoch_batches: usize,
    /// Steps taken in the current epoch.
    pub epoch_step: usize,
    /// Steps taken in all.
    pub step: u64,
    /// The learning rates, and the best score so far.
    pub schedule: ScheduleState,
    /// Steps since the optimiser's state was last reset.
    pub optimiser_steps: u64,
    /// Sums of loss and cross-entropy over the steps of the current epoch.
    pub epoch_sums: [f64; 2],
}

impl Position {
    /// Before the first step.
    pub fn start(config: &Config) -> Self {
        Position {
            epoch: 0,
            epoch_batches: 0,
            epoch_step: 0,
            step: 0,
            schedule: ScheduleState::new(config),
            optimiser_steps: 0,
            epoch_sums: [0.0; 2],
        }
    }

    /// Checks what a run keeps true; a damaged file may say anything.
    fn check(&self) -> std::result::Result<(), String> {
        let rates = self.schedule.lr;
        let counts = [self.epoch_step as u64, self.optimiser_steps];
        if self.epoch_step > self.epoch_batches || counts.iter().any(|&count| count > self.step) {
            return Err(format!(
                "{} steps in the epoch and {} of the optimiser, of {} in all",
                self.epoch_step, self.optimiser_steps, self.step
            ));
        }
        if !rates
            .iter()
            .all(|&rate| rate >= 0.0 && (rate as f32).is_finite())
        {
            return Err(format!("learning rates {rates:?}"));
        }
        Ok(())
    }

    /// Whether as many steps were taken as the settings allow.
    pub fn reached_step_limit(&self, config: &Config) -> bool {
        config
            .max_steps
            .is_some_and(|limit| self.step >= limit as u64)
    }

    /// Whether nothing is left to do: all epochs are complete, or the limit of steps was reached at the end of an epoch.
    pub fn is_end_of(&self, config: &Config) -> bool {
        self.epoch >= config.epochs || (self.reached_step_limit(config) && self.epoch_batches == 0)
    }
}

/// The file that a frozen encoder was read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderSource {
    /// Where it is.
    pub path: PathBuf,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
}

impl EncoderSource {
    /// For the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(Error::io(path))?;
        let sha256 = hash(&path)?;
        Ok(EncoderSource { path, sha256 })
    }

    /// The file of this content: where it was, or else at one of these places.
    ///
    /// # Errors
    /// When the file is missing everywhere, cannot be read, or is not the same file any more.
    fn find(&self, others: &[PathBuf]) -> Result<PathBuf> {
        let places = std::iter::once(&self.path).chain(others);
        let mut wrong = None;
        for place in places.filter(|place| place.exists()) {
            let error = match hash(place) {
                Ok(found) if found == self.sha256 => return Ok(place.clone()),
                Ok(found) => {
                    let message = format!(
                        "is not the encoder this run was trained with: expected sha256 {}, found {found}",
                        self.sha256
                    );
                    Error::file(place, message)
                }
                Err(error) => error,
            };
            wrong.get_or_insert(error);
        }
        Err(wrong.unwrap_or_else(|| {
            let message = "the run's encoder was read from this file, which is not there now, nor is it in the run's \
                           folder or beside it: say where it is with `encoder-weights = FILE`";
            Error::file(&self.path, message)
        }))
    }
}

/// SHA-256 of a file, in hexadecimal.
fn hash(path: &Path) -> Result<String> {
    Ok(digest::hexadecimal(&Sha256::digest(&*files::map(path)?)))
}

/// Writes a checkpoint. With a `source`, the encoder is left out, and the checkpoint names its file.
///
/// # Errors
/// [`Error::Diverged`] when a weight, or a number of the optimiser's state, is not finite; then no file is written. When the file cannot be
/// written.
pub fn save(
    path: &Path,
    params: &Params,
    optimiser: &Optimiser,
    position: &Position,
    trained_on: &TrainedOn,
    source: Option<&EncoderSource>,
) -> Result<()> {
    let text =
        |value: serde_json::Result<String>| value.map_err(|e| Error::file(path, e.to_string()));
    let mut metadata = BTreeMap::from([
        (VERSION_KEY.to_string(), FORMAT_VERSION.to_string()),
        (
            POSITION_KEY.to_string(),
            text(serde_json::to_string(position))?,
        ),
        (
            trained_on::KEY.to_string(),
            text(serde_json::to_string(trained_on))?,
        ),
    ]);
    if let Some(source) = source {
        metadata.insert(ENCODER_KEY.into(), text(serde_json::to_string(source))?);
    }
    let stored: Vec<Id> = params
        .ids()
        .filter(|&id| params.is_trained(id) || source.is_none())
        .collect();
    let trained: Vec<Id> = params.ids().filter(|&id| params.is_trained(id)).collect();
    let spec = |prefix: &str, id: Id| Spec {
        name: format!("{prefix}{}", params.name(id)),
        dtype: StoredType::F32,
        shape: params.shape(id).to_vec(),
    };
    let mut specs: Vec<Spec> = stored.iter().map(|&id| spec("", id)).collect();
    let state = optimiser.state();
    for (name, _) in &state {
        let prefix = format!("{STATE_PREFIX}{name}.");
        specs.extend(trained.iter().map(|&id| spec(&prefix, id)));
    }
    safetensors::write(path, &metadata, &specs, |i| {
        let values = match i.checked_sub(stored.len()) {
            None => finite(params, stored[i])?,
            Some(i) => {
                let ((_, arena), id) = (state[i / trained.len()], trained[i % trained.len()]);
                let values = params.read(id, &params.slice_of(id, arena)?)?;
                check_finite(&values, "a number of the optimiser's state")?;
                values
            }
        };
        Ok(Cow::Owned(bytemuck::cast_slice(&values).to_vec()))
    })
}

/// The values of a tensor. Those of a trained one must be finite.
fn finite(params: &Params, id: Id) -> Result<Vec<f32>> {
    let values = params.export(id)?;
    if params.is_trained(id) {
        check_finite(&values, "a weight")?;
    }
    Ok(values)
}

fn check_finite(values: &[f32], what: &str) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::Diverged(format!("{what} is {value}"))),
        None => Ok(()),
    }
}

/// An opened checkpoint.
pub struct Checkpoint {
    file: WeightFile,
    /// Where a file of the encoder's name may be, too: the folder of the checkpoint, the folder around it.
    folders: Vec<PathBuf>,
    /// Where the encoder was when the checkpoint was saved, if it is looked for elsewhere first.
    recorded: Option<PathBuf>,
    /// Where the run was.
    pub position: Position,
    /// What the weights belong to; `None` in files from before it was stored.
    pub trained_on: Option<TrainedOn>,
    /// Where the encoder is, when it is not in the file.
    pub encoder: Option<EncoderSource>,
}

impl Checkpoint {
    /// # Errors
    /// When the file is not a checkpoint, or one of another format version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = WeightFile::open(path)?;
        let metadata = file.metadata();
        let version = metadata.get(VERSION_KEY).ok_or_else(|| {
            let message = "these are weights, not a checkpoint: no position of a run in it";
            Error::file(path, message)
        })?;
        if *version != FORMAT_VERSION.to_string() {
            let message = format!(
                "checkpoint of format version {version}; this showtell reads version \
                 {FORMAT_VERSION}: use the showtell that wrote it"
            );
            return Err(Error::file(path, message));
        }
        let damaged = |what: String| Error::file(path, format!("damaged position: {what}"));
        let position = metadata.get(POSITION_KEY).map_or("", String::as_str);
        let position: Position =
            serde_json::from_str(position).map_err(|e| damaged(e.to_string()))?;
        position.check().map_err(damaged)?;
        let encoder = metadata
            .get(ENCODER_KEY)
            .map(|text| serde_json::from_str(text));
        let encoder = encoder.transpose();
        let encoder =
            encoder.map_err(|e| Error::file(path, format!("damaged {ENCODER_KEY}: {e}")))?;
        let folder = std::path::absolute(path).map_err(Error::io(path))?;
        Ok(Checkpoint {
            trained_on: TrainedOn::read(&file)?,
            file,
            folders: folder.ancestors().skip(1).take(2).map(Into::into).collect(),
            recorded: None,
            position,
            encoder,
        })
    }

    /// The frozen encoder's file is now this one, and is looked for nowhere else.
    ///
    /// # Errors
    /// When the checkpoint has the weights of the encoder itself, or the file is not the one that the run was trained with.
    pub fn set_encoder_file(&mut self, path: &Path) -> Result<()> {
        let Some(source) = &mut self.encoder else {
            let message = "the checkpoint has the weights of the encoder itself: leave this out";
            return Err(Error::setting("encoder-weights", message));
        };
        source.path = std::path::absolute(path).map_err(Error::io(path))?;
        self.folders.clear();
        self.recorded = None;
        if !source.path.exists() {
            return Err(Error::file(path, "does not exist"));
        }
        source.find(&[]).map(drop)
    }

    /// Looks for the frozen encoder first where these settings say.
    pub fn look_where_settings_say(&mut self, config: &Config) {
        if let (Some(source), Some(EncoderWeights::File(path))) =
            (&mut self.encoder, &config.encoder_weights)
            && path.exists()
        {
            self.recorded = Some(std::mem::replace(&mut source.path, path.clone()));
        }
    }

    /// Checks that the weights were trained with this vocabulary, which was read from the file `words`. A checkpoint
    /// without the hash of its vocabulary passes.
    ///
    /// # Errors
    /// When they were trained with another one.
    pub fn check_vocabulary(&self, vocabulary: &Vocabulary, words: &Path) -> Result<()> {
        self.trained_on.as_ref().map_or(Ok(()), |trained_on| {
            trained_on.check_vocabulary(&vocabulary.sha256(), words, self.file.path())
        })
    }

    /// Checks this configuration against that of the run. A checkpoint without its settings passes.
    ///
    /// # Errors
    /// When a setting that may not change is another one.
    pub fn check_settings(&self, config: &Config) -> Result<()> {
        self.trained_on.as_ref().map_or(Ok(()), |trained_on| {
            trained_on.check_settings(config, self.file.path())
        })
    }

    /// Checks that a run of this configuration can go on from here with these captions. A checkpoint without their hashes
    /// passes.
    ///
    /// # Errors
    /// When the run was started with other captions.
    pub fn check_data(&self, found: &TrainedOn, config: &Config) -> Result<()> {
        self.trained_on.as_ref().map_or(Ok(()), |trained_on| {
            trained_on.check_data(found, config, self.file.path())
        })
    }

    /// Gives the engine the weights of the checkpoint, and those of a frozen encoder from the file that the checkpoint
    /// names, or from the same file in the run's folder or beside it. The engine is then ready for inference.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape, or the encoder's file is not the same file any more.
    pub fn restore(&self, engine: &mut Engine) -> Result<()> {
        self.load_weights(&engine.params)?;
        if let Some(source) = &self.encoder {
            let named = std::iter::once(&source.path).chain(&self.recorded);
            let names = named.filter_map(|path| path.file_name());
            let beside = |name| self.folders.iter().map(move |folder| folder.join(name));
            let others = self.recorded.iter().cloned();
            let others: Vec<PathBuf> = others.chain(names.flat_map(beside)).collect();
            engine.load_encoder(&source.find(&others)?)?;
        }
        engine.prepare()
    }

    /// Reads every parameter and buffer; those of a frozen encoder only when they are in the file.
    fn load_weights(&self, params: &Params) -> Result<()> {
        for id in params.ids() {
            if params.is_trained(id) || self.encoder.is_none() {
                let tensor = self.file.tensor(params.name(id), params.shape(id))?;
                params.import(id, &tensor.finite_floats()?)?;
            }
        }
        Ok(())
    }

    /// Reads the optimiser's state.
    pub fn load_optimiser(&self, params: &Params, optimiser: &mut Optimiser) -> Result<()> {
        for (name, arena) in optimiser.state() {
            for id in params.ids().filter(|&id| params.is_trained(id)) {
                let name = format!("{STATE_PREFIX}{name}.{}", params.name(id));
                let tensor = self.file.tensor(&name, params.shape(id))?;
                params.write(id, params.slice_of(id, arena)?, &tensor.finite_floats()?)?;
            }
        }
        optimiser.set_steps(self.position.optimiser_steps);
        Ok(())
    }
}

/// The part of a model that a file gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subset {
    /// Names of the parameters and buffers that the file does not have.
    pub missing: Vec<String>,
    /// What stands in front of all names in the file, such as `module.`, and was left out; mostly nothing.
    pub prefix: String,
}

/// Loads any subset of parameters and buffers by name (the setting `init`). A usual prefix of the names, such as `module.`,
/// is left out.
///
/// # Errors
/// When the file has a tensor that the model does not have, one with another shape, or a number that is not finite; when
/// the file is a checkpoint that was trained with another vocabulary.
pub fn load_subset(path: &Path, params: &Params, vocabulary: &Vocabulary) -> Result<Subset> {
    let file = WeightFile::open(path)?;
    let prefix = torchvision::common_prefix(&file, "model", |name| params.find(name).is_some())?;
    let mut given = Vec::new();
    for tensor in file.tensors() {
        let name = tensor.name().strip_prefix(prefix);
        if name.is_some_and(is_no_parameter) {
            continue;
        }
        let Some(id) = name.and_then(|name| params.find(name)) else {
            let message = format!(
                "tensor {} {:?}: the model has no parameter of that name",
                tensor.name(),
                tensor.shape()
            );
            return Err(Error::file(path, message));
        };
        given.push((tensor, id));
    }
    if let Some(trained_on) = TrainedOn::read(&file)? {
        trained_on.check_initial(&vocabulary.sha256(), path)?;
    }
    for &(tensor, id) in &given {
        let tensor = file.tensor(tensor.name(), params.shape(id))?;
        params.import(id, &tensor.finite_floats()?)?;
    }
    let missing = params
        .ids()
        .filter(|id| !given.iter().any(|(_, given)| given == id));
    Ok(Subset {
        missing: missing.map(|id| params.name(id).to_string()).collect(),
        prefix: prefix.into(),
    })
}

/// Whether a name is that of a counter of batch-norm, or of the optimiser's state.
fn is_no_parameter(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name.starts_with(STATE_PREFIX)
}
