//! A run's directory, and the model that lives in it.
//!
//! `config.toml`, `vocab.txt`, `steps.jsonl`, `epochs.jsonl`, `best.safetensors`, `last.safetensors`.

use super::checkpoint::{self, Checkpoint, EncoderSource, Position};
use super::config::{Config, EncoderBatchNorm, EncoderWeights};
use crate::data::vocabulary::Vocabulary;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{SHOW_TELL, attend, show_tell};
use crate::nn::captioner::{self, Captioner};
use crate::nn::params::Params;
use crate::nn::resnet;
use crate::ops::window::Window;
use crate::tensor::{Context, DType};
use crate::weights::WeightFile;
use crate::weights::torchvision::match_encoder;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The files of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// Makes the directory, if it is not there.
    ///
    /// # Errors
    /// When it holds a run already, one that has a checkpoint or took a step: it would be lost.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let run = RunDirectory(path.as_ref().to_path_buf());
        std::fs::create_dir_all(&run.0).map_err(Error::io(&run.0))?;
        let has_steps = std::fs::metadata(run.steps()).is_ok_and(|about| about.len() > 0);
        if has_steps || run.last().exists() {
            let message = "holds a run already: resume that run, choose another folder, or remove this one first";
            return Err(Error::file(&run.0, message));
        }
        files::remove_leftovers(&run.0)?;
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

    /// The settings of the run.
    pub fn read_config(&self) -> Result<Config> {
        let settings = Config::read_settings(&self.config())?;
        Config::from_settings(settings).map_err(|e| Error::file(self.config(), e.to_string()))
    }

    pub fn write_config(&self, config: &Config) -> Result<()> {
        let (path, text) = (self.config(), config.to_toml());
        files::write_atomically(&path, |file| {
            file.write_all(text.as_bytes()).map_err(Error::io(&path))
        })
    }

    /// The last checkpoint, which is where the run goes on; none when it was ended before the first.
    pub fn open_last(&self) -> Result<Option<Checkpoint>> {
        let path = self.last();
        match path.exists() {
            true => Checkpoint::open(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Whether a run that stands at `position` has nothing left to do, its last record included.
    pub fn is_finished(&self, config: &Config, position: &Position) -> Result<bool> {
        if position.is_end_of(config) || !position.reached_step_limit(config) {
            return Ok(position.is_end_of(config));
        }
        let path = self.epochs();
        let records = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        Ok(records.matches('\n').count() > position.epoch)
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
        let (captioner, declarations) = Captioner::declare(&structure(&config, vocabulary.len())?)?;
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
        let config = run.read_config()?;
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
    /// will only name the file, unless they are to stand alone.
    pub fn use_encoder_file(&mut self, path: &Path) -> Result<()> {
        self.load_encoder(path)?;
        let fixed = self.config.encoder_batch_norm == EncoderBatchNorm::Running;
        if !self.config.fine_tune && fixed && !self.config.standalone {
            let path = std::path::absolute(path).map_err(Error::io(path))?;
            let sha256 = hash(&path)?;
            self.encoder = Some(EncoderSource { path, sha256 });
        }
        Ok(())
    }

    /// Initialises, then reads what the configuration names: encoder, initial weights. Whether the encoder stays
    /// random.
    pub fn load_initial(&mut self) -> Result<bool> {
        self.params.initialise(self.config.seed)?;
        let encoder = self.config.encoder_weights.clone();
        let random = encoder == Some(EncoderWeights::Random);
        if let Some(EncoderWeights::File(path)) = &encoder {
            self.use_encoder_file(path)?;
        }
        let Some(init) = self.config.init.clone() else {
            if encoder.is_none() {
                let message = "is not given; expected a file, or the word random to try things out";
                return Err(Error::setting("encoder-weights", message));
            }
            return Ok(random);
        };
        let left = checkpoint::load_subset(&init, &self.params)?;
        let ids = self.params.ids();
        let tensors: Vec<_> = ids
            .filter(|&id| self.captioner.is_encoder(&self.params, id))
            .collect();
        let given = tensors
            .iter()
            .filter(|&&id| !left.iter().any(|name| name == self.params.name(id)))
            .count();
        if given > 0 {
            self.encoder = None;
        }
        if encoder.is_none() && given < tensors.len() {
            let message = format!(
                "has {given} of the encoder's {} tensors: give the others by `encoder-weights`",
                tensors.len()
            );
            return Err(Error::file(&init, message));
        }
        Ok(random && given == 0)
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
pub fn structure(config: &Config, vocabulary: usize) -> Result<captioner::Config> {
    let encoder = resnet::Config {
        stem: Window::square(config.encoder_stem, 2, config.encoder_stem / 2),
        width: config.encoder_width,
        blocks: config.encoder_blocks.clone(),
    };
    let decoder = if config.model == SHOW_TELL {
        let own = show_tell::Settings::read(&config.own)?;
        captioner::DecoderConfig::ShowTell {
            layers: own.layers,
            embed_dropout: own.embed_dropout,
            lstm_dropout: own.lstm_dropout,
        }
    } else {
        let own = attend::Settings::read(&config.own)?;
        captioner::DecoderConfig::Attend {
            attention: own.attention,
            positions: own.positions,
            dropout: own.dropout,
            regulariser: own.regulariser,
        }
    };
    Ok(captioner::Config {
        encoder,
        image_size: config.image_size,
        batch_statistics: config.encoder_batch_norm == EncoderBatchNorm::Batch,
        trained_from: config.trained_from(),
        embed: config.embed,
        hidden: config.hidden,
        vocabulary,
        decoder,
    })
}

/// SHA-256 of a file, in hexadecimal.
fn hash(path: &Path) -> Result<String> {
    let digest = Sha256::digest(&files::map(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
