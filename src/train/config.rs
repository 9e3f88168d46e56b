//! Every number of a training run, and the recipes of the two models.
//!
//! A run's `config.toml` is a [`Config`] as TOML. The same keys are the command line's flags.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// CNN + LSTM
    ShowTell,
    /// CNN + LSTM + additive attention
    Attend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    Sgd,
    Adam,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Lower the rate when the monitored score does not improve.
    Plateau,
    /// Let the rate fall in equal steps, to a tenth at `max_steps`.
    Linear,
    /// Keep the rate.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Monitor {
    Loss,
    Bleu4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderBatchNorm {
    /// Running statistics; folded into the filters where frozen.
    Running,
    /// Batch statistics, running ones updated: what the published runs did.
    Batch,
}

/// How features are stored in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureType {
    F32,
    /// Half the size; rounded to eight bits of mantissa.
    Bf16,
}

impl FromStr for FeatureType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(FeatureType::F32),
            "bf16" => Ok(FeatureType::Bf16),
            _ => Err(Error::Config(format!(
                "no element type '{name}': expected f32 or bf16"
            ))),
        }
    }
}

/// The value of `feature-cache` that stands for no cache.
pub const NO_CACHE: &str = "none";

/// All settings of a run. Keys are those of `config.toml` and, with dashes, the flags of `showtell train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub model: Model,
    /// Folder of the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Pretrained encoder, or `random`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_weights: Option<PathBuf>,
    /// Weights to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Checkpoints hold a frozen encoder too, instead of naming its file.
    pub standalone: bool,
    /// Bottlenecks of each residual stage: [3, 4, 6, 3] is ResNet-50.
    pub encoder_blocks: Vec<usize>,
    /// Channels of the stem; stage i ends with 4 · 2^i times as many.
    pub encoder_width: usize,
    /// Size of the stem's square filters.
    pub encoder_stem: usize,
    pub encoder_batch_norm: EncoderBatchNorm,
    /// Train the encoder from `fine_tune_from` on.
    pub fine_tune: bool,
    /// First residual stage that is trained, from 1; 0 is the stem.
    pub fine_tune_from: usize,
    /// Images are resized to this square, in pixels.
    pub image_size: usize,

    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    /// Layers of show-tell's LSTM.
    pub layers: usize,
    /// A, attend's
    pub attention: usize,
    /// Attend's attention sees a square grid of this side.
    pub positions: usize,
    /// Attend's, before the vocabulary.
    pub dropout: f64,
    /// Show-tell's, on embeddings.
    pub embed_dropout: f64,
    /// Show-tell's, between LSTM layers.
    pub lstm_dropout: f64,
    /// λ of attend's doubly stochastic regulariser.
    pub regulariser: f64,

    pub optimizer: Optimizer,
    pub lr: f64,
    pub encoder_lr: f64,
    pub momentum: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    pub encoder_weight_decay: f64,
    /// Largest norm of all gradients together; 0 for no such clip.
    pub clip_norm: f64,
    /// Largest absolute value of a gradient; 0 for no such clip.
    pub clip_value: f64,
    pub schedule: Schedule,
    /// What a plateau multiplies the rate by.
    pub schedule_factor: f64,
    /// First epoch, from 1, after which the rate may be lowered.
    pub schedule_from: usize,
    pub monitor: Monitor,

    pub batch_size: usize,
    pub epochs: usize,
    /// Stop after this many steps; 0 for no such limit.
    pub max_steps: usize,
    /// Save a checkpoint every so many steps, and at the end of epochs that are validated or as long; 0: at the end of
    /// every epoch.
    pub checkpoint_every: usize,
    pub validate: bool,
    /// Use the first N images of the training list; 0 for all.
    pub limit_images: usize,
    /// Use the first N captions of each image; 0 for all.
    pub captions_per_image: usize,
    pub augment: bool,
    pub shuffle: bool,
    pub skip_bad_images: bool,
    /// Directory where the encoder's outputs are kept for this run and others; `none` for nowhere.
    pub feature_cache: PathBuf,
    pub feature_type: FeatureType,
    pub seed: u64,
}

impl Config {
    /// The recipe of a model, as published.
    pub fn recipe(model: Model) -> Self {
        let attend = Config {
            model,
            data: None,
            encoder_weights: None,
            init: None,
            standalone: false,
            encoder_blocks: vec![3, 4, 23, 3],
            encoder_width: 64,
            encoder_stem: 7,
            encoder_batch_norm: EncoderBatchNorm::Running,
            fine_tune: false,
            fine_tune_from: 2,
            image_size: 256,
            embed: 512,
            hidden: 512,
            layers: 1,
            attention: 256,
            positions: 14,
            dropout: 0.5,
            embed_dropout: 0.0,
            lstm_dropout: 0.0,
            regulariser: 1.0,
            optimizer: Optimizer::Adam,
            lr: 4e-4,
            encoder_lr: 1e-4,
            momentum: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-5,
            encoder_weight_decay: 0.0,
            clip_norm: 0.0,
            clip_value: 5.0,
            schedule: Schedule::Plateau,
            schedule_factor: 0.8,
            schedule_from: 11,
            monitor: Monitor::Loss,
            batch_size: 32,
            epochs: 15,
            max_steps: 0,
            checkpoint_every: 500,
            validate: true,
            limit_images: 0,
            captions_per_image: 0,
            augment: true,
            shuffle: true,
            skip_bad_images: false,
            feature_cache: NO_CACHE.into(),
            feature_type: FeatureType::F32,
            seed: 8,
        };
        match model {
            Model::Attend => attend,
            Model::ShowTell => Config {
                encoder_blocks: vec![3, 4, 6, 3],
                embed: 256,
                hidden: 256,
                layers: 2,
                dropout: 0.0,
                embed_dropout: 0.3,
                lstm_dropout: 0.3,
                regulariser: 0.0,
                optimizer: Optimizer::Sgd,
                lr: 0.9,
                weight_decay: 1e-6,
                clip_norm: 0.25,
                clip_value: 0.0,
                schedule_factor: 0.2,
                schedule_from: 1,
                batch_size: 128,
                epochs: 20,
                ..attend
            },
        }
    }

    /// The recipe of the model that `settings` names, with all that `settings` says put in its place. A
    /// feature cache turns augmentation off: cached features are those of images as they are.
    ///
    /// # Errors
    /// When a key is unknown, a value has the wrong type, or the whole cannot work.
    pub fn from_settings(settings: toml::Table) -> Result<Self> {
        let config = Config::merge(settings)?;
        config.check()?;
        Ok(config)
    }

    fn merge(settings: toml::Table) -> Result<Self> {
        let model = settings.get("model").cloned().ok_or_else(|| {
            Error::Config("no model given: --model show-tell or --model attend".into())
        })?;
        let model = Model::deserialize(model)
            .map_err(|_| Error::Config("model: expected show-tell or attend".into()))?;
        let recipe = toml::Table::try_from(Config::recipe(model));
        let mut table = recipe.map_err(|e| Error::Config(e.to_string()))?;
        let cache = settings.get("feature-cache").and_then(|v| v.as_str());
        if cache.is_some_and(|directory| directory != NO_CACHE) {
            table.insert("augment".into(), false.into());
        }
        table.extend(settings);
        table
            .try_into()
            .map_err(|e| Error::Config(format!("settings: {}", explain(&e))))
    }

    /// Reads settings from a TOML file: any of the keys of a configuration.
    ///
    /// # Errors
    /// When a key is unknown or a value has the wrong type; the message names the key and the file.
    pub fn read_settings(path: &Path) -> Result<toml::Table> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let settings: toml::Table = toml::from_str(&text).map_err(|e: toml::de::Error| {
            let before = e.span().map_or("", |span| &text[..span.start]);
            let line = 1 + before.matches('\n').count();
            Error::file(path, format!("line {line}: {}", e.message()))
        })?;
        // One key at a time, to know which one is wrong; the model, which has no default, does not matter here.
        for (key, value) in &settings {
            let mut alone = toml::Table::from_iter([("model".into(), "attend".into())]);
            alone.insert(key.clone(), value.clone());
            let checked: Result<Config> = Config::merge(alone);
            checked.map_err(|e| Error::file(path, format!("key {key}: {e}")))?;
        }
        Ok(settings)
    }

    /// As the text of `config.toml`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config(e.to_string()))
    }

    fn check(&self) -> Result<()> {
        let positive = [
            ("batch-size", self.batch_size),
            ("embed", self.embed),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("attention", self.attention),
            ("positions", self.positions),
            ("image-size", self.image_size),
            ("encoder-width", self.encoder_width),
            ("encoder-stem", self.encoder_stem),
            ("encoder-blocks", self.encoder_blocks.len()),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::Config(format!("{name} is 0; it must be at least 1")));
            }
        }
        if self.encoder_blocks.contains(&0) {
            let message = "encoder-blocks: every stage needs at least one bottleneck";
            return Err(Error::Config(message.into()));
        }
        let shares = [
            ("dropout", self.dropout),
            ("embed-dropout", self.embed_dropout),
            ("lstm-dropout", self.lstm_dropout),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                let message = format!("{name} is {value}; it must be at least 0 and below 1");
                return Err(Error::Config(message));
            }
        }
        let amounts = [
            ("lr", self.lr),
            ("encoder-lr", self.encoder_lr),
            ("momentum", self.momentum),
            ("weight-decay", self.weight_decay),
            ("encoder-weight-decay", self.encoder_weight_decay),
            ("clip-norm", self.clip_norm),
            ("clip-value", self.clip_value),
            ("regulariser", self.regulariser),
            ("schedule-factor", self.schedule_factor),
        ];
        for (name, value) in amounts {
            if !(value.is_finite() && value >= 0.0) {
                let message = format!("{name} is {value}; it must be a number from 0");
                return Err(Error::Config(message));
            }
        }
        if self.clip_norm > 0.0 && self.clip_value > 0.0 {
            let message = "clip-norm and clip-value are both set; set one of them to 0";
            return Err(Error::Config(message.into()));
        }
        if self.schedule == Schedule::Linear && self.max_steps == 0 {
            let message = "the schedule linear needs max-steps: the step at which it ends";
            return Err(Error::Config(message.into()));
        }
        if self.fine_tune && self.fine_tune_from > self.encoder_blocks.len() {
            return Err(Error::Config(format!(
                "fine-tune-from is {}, the encoder has {} stages",
                self.fine_tune_from,
                self.encoder_blocks.len()
            )));
        }
        if self.feature_cache().is_some() && !self.features_are_fixed() {
            let message = "feature-cache: the features of an image must stay the same during training; \
                           that rules out augment, fine-tune and encoder-batch-norm batch";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }

    /// The directory where features are cached, if they are.
    pub fn feature_cache(&self) -> Option<&Path> {
        Some(&*self.feature_cache).filter(|directory| *directory != Path::new(NO_CACHE))
    }

    /// The first stage that is trained, when any is.
    pub fn trained_from(&self) -> Option<usize> {
        self.fine_tune.then_some(self.fine_tune_from)
    }

    /// Whether the encoder's output for an image never changes during training.
    pub fn features_are_fixed(&self) -> bool {
        !self.fine_tune && !self.augment && self.encoder_batch_norm == EncoderBatchNorm::Running
    }

    /// A name for the encoder's architecture.
    pub fn encoder_name(&self) -> String {
        match (
            self.encoder_width,
            self.encoder_stem,
            &self.encoder_blocks[..],
        ) {
            (64, 7, [3, 4, 6, 3]) => "resnet50".into(),
            (64, 7, [3, 4, 23, 3]) => "resnet101".into(),
            (width, _, blocks) => format!("ResNet {blocks:?} of width {width}"),
        }
    }
}

/// What a deserialiser says, on one line, without its list of all keys there are.
fn explain(error: &toml::de::Error) -> &str {
    let message = error.message();
    let end = message.find(", expected one of").unwrap_or(message.len());
    message[..end].trim()
}
