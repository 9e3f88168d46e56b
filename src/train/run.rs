//! A run's directory, and the model that lives in it.
//!
//! `config.toml`, `vocab.txt`, `steps.jsonl`, `epochs.jsonl`, `best.safetensors`, `last.safetensors`.

use super::checkpoint::{Checkpoint, EncoderSource};
use super::config::{Config, EncoderBatchNorm, Model};
use crate::data::vocabulary::Vocabulary;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::captioner::{self, Captioner};
use crate::nn::params::Params;
use crate::nn::resnet;
use crate::ops::window::Window;
use crate::tensor::{Context, DType};
use crate::weights::WeightFile;
use crate::weights::torchvision::match_encoder;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The files of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// Makes the directory, if it is not there.
    ///
    /// # Errors
    /// When it holds a run already, one that took a step: it would be lost.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let run = RunDirectory(path.as_ref().to_path_buf());
        std::fs::create_dir_all(&run.0).map_err(Error::io(&run.0))?;
        let has_steps = std::fs::metadata(run.steps()).is_ok_and(|about| about.len() > 0);
        if has_steps || run.last().exists() {
            let message = "holds a run already: give another --out, or remove it first";
            return Err(Error::file(&run.0, message));
        }
        Ok(run)
    }

    /// A run that is there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let run = RunDirectory(path.as_ref().to_path_buf());
        if !run.config().is_file() {
            let message = "is not the directory of a run: it has no config.toml";
            return Err(Error::file(&run.0, message));
        }
        Ok(run)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub fn vocabulary(&self) -> PathBuf {
        self.0.join("vocab.txt")
    }

    pub fn steps(&self) -> PathBuf {
        self.0.join("steps.jsonl")
    }

    pub fn epochs(&self) -> PathBuf {
        self.0.join("epochs.jsonl")
    }

    pub fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    pub fn last(&self) -> PathBuf {
        self.0.join("last.safetensors")
    }
}

/// A model on a device, with the words it speaks.
pub struct Engine {
    pub ctx: Context,
    pub config: Config,
    pub vocabulary: Vocabulary,
    pub captioner: Captioner,
    pub params: Params,
    /// Where the frozen encoder was read from; none when its weights belong to the checkpoints.
    pub encoder: Option<EncoderSource>,
}

impl Engine {
    /// Room for a model, all zeros.
    pub fn new(device: &Device, config: Config, vocabulary: Vocabulary) -> Result<Self> {
        let (captioner, declarations) = Captioner::declare(&structure(&config, vocabulary.len()))?;
        let params = declarations.build(device, DType::F32)?;
        Ok(Engine {
            ctx: Context::new(device),
            config,
            vocabulary,
            captioner,
            params,
            encoder: None,
        })
    }

    /// The best checkpoint of a run, or the last when none was validated.
    pub fn open(run: &RunDirectory, device: &Device) -> Result<Self> {
        let text = std::fs::read_to_string(run.config()).map_err(Error::io(run.config()))?;
        let settings: toml::Table = toml::from_str(&text)
            .map_err(|e| Error::file(run.config(), e.message().to_string()))?;
        let config = Config::from_settings(settings)?;
        let vocabulary = Vocabulary::load(run.vocabulary())?;
        let mut engine = Engine::new(device, config, vocabulary)?;
        let best = run.best();
        let path = if best.is_file() { best } else { run.last() };
        let checkpoint = Checkpoint::open(&path)?;
        engine.restore(&checkpoint)?;
        Ok(engine)
    }

    /// Takes all weights from a checkpoint, and those of a frozen encoder from where it says they are.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.load_weights(&self.params)?;
        if let Some(source) = &checkpoint.encoder {
            let found = hash(&source.path)?;
            if found != source.sha256 {
                let message = format!(
                    "is not the encoder this run was trained with: expected sha256 {}, found {found}",
                    source.sha256
                );
                return Err(Error::file(&source.path, message));
            }
            self.load_encoder(&source.path)?;
        }
        self.encoder = checkpoint.encoder.clone();
        self.captioner.prepare(&self.ctx, &self.params)
    }

    /// Reads the encoder from a weight file with torchvision's names. If it stays as it is, checkpoints
    /// will only name the file.
    pub fn use_encoder_file(&mut self, path: &Path) -> Result<()> {
        self.load_encoder(path)?;
        let fixed = self.config.encoder_batch_norm == EncoderBatchNorm::Running;
        if !self.config.fine_tune && fixed {
            let path = std::path::absolute(path).map_err(Error::io(path))?;
            let sha256 = hash(&path)?;
            self.encoder = Some(EncoderSource { path, sha256 });
        }
        Ok(())
    }

    fn load_encoder(&self, path: &Path) -> Result<()> {
        let file = WeightFile::open(path)?;
        let params = &self.params;
        let ids = params
            .ids()
            .filter(|&id| self.captioner.is_encoder(params, id));
        let ids: Vec<_> = ids.collect();
        let expected = ids.iter().map(|&id| {
            let name = &params.name(id)[captioner::ENCODER_PREFIX.len()..];
            (name.to_string(), params.shape(id).to_vec())
        });
        let expected: Vec<_> = expected.collect();
        let tensors = match_encoder(&file, &expected, &self.config.encoder_name())?;
        for (&id, tensor) in ids.iter().zip(tensors) {
            params.import(id, &tensor.floats()?)?;
        }
        Ok(())
    }
}

/// The model that a configuration describes.
pub fn structure(config: &Config, vocabulary: usize) -> captioner::Config {
    let encoder = resnet::Config {
        stem: Window::square(config.encoder_stem, 2, config.encoder_stem / 2),
        width: config.encoder_width,
        blocks: config.encoder_blocks.clone(),
    };
    let decoder = match config.model {
        Model::ShowTell => captioner::DecoderConfig::ShowTell {
            layers: config.layers,
            embed_dropout: config.embed_dropout,
            lstm_dropout: config.lstm_dropout,
        },
        Model::Attend => captioner::DecoderConfig::Attend {
            attention: config.attention,
            positions: config.positions,
            dropout: config.dropout,
            regulariser: config.regulariser,
        },
    };
    captioner::Config {
        encoder,
        image_size: config.image_size,
        batch_statistics: config.encoder_batch_norm == EncoderBatchNorm::Batch,
        trained_from: config.trained_from(),
        embed: config.embed,
        hidden: config.hidden,
        vocabulary,
        decoder,
    }
}

/// SHA-256 of a file, in hexadecimal.
fn hash(path: &Path) -> Result<String> {
    let digest = Sha256::digest(&files::map(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
