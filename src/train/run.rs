//! A run's directory, and the captioner that it describes.
//!
//! `config.toml`, `vocab.txt`, `steps.jsonl`, `epochs.jsonl`, `best.safetensors`, `last.safetensors`, `lock`.

use super::checkpoint::{Checkpoint, Position};
use super::config::{Config, EncoderBatchNorm};
use super::lock::RunLock;
use crate::data::vocabulary::Vocabulary;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{CaptionerConfig, Engine, MODELS, Model};
use crate::nn::resnet::ResNetConfig;
use crate::ops::window::Window;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// The kinds of decoder that the run's settings may name.
    models: Vec<Model>,
    /// Held by the process that trains the run.
    lock: Option<Arc<RunLock>>,
}

impl RunDirectory {
    fn at(path: &Path) -> Self {
        RunDirectory {
            path: path.to_path_buf(),
            models: MODELS.to_vec(),
            lock: None,
        }
    }

    /// The same run, whose settings may name any of these kinds of decoder instead of those of the library.
    pub fn with_models(mut self, models: &[Model]) -> Self {
        self.models = models.to_vec();
        self
    }

    /// Makes the directory, if it does not exist, and [locks](RunDirectory::lock) it.
    ///
    /// # Errors
    /// When another process trains in the directory, or it holds a run that has a checkpoint or took a step, and would be
    /// lost.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let mut run = RunDirectory::at(path.as_ref());
        files::make_folder(&run.path)?;
        run.lock()?;
        if run.has_steps() || run.last().exists() {
            let message = "holds a run already: resume that run, choose another folder, or remove this one first";
            return Err(Error::file(&run.path, message));
        }
        files::remove_leftovers(&run.path)?;
        Ok(run)
    }

    /// A run that exists.
    ///
    /// # Errors
    /// When the directory has no `config.toml`, or is a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let run = RunDirectory::at(path.as_ref());
        if run.path.is_file() {
            let message = "is a file, expected the directory of a run";
            return Err(Error::file(&run.path, message));
        }
        if !run.config().is_file() {
            let message = "is not the directory of a run: it has no config.toml";
            return Err(Error::file(&run.path, message));
        }
        Ok(run)
    }

    /// Keeps other processes from training this run, until this value and its copies are dropped or the process ends.
    /// They can still read it. On a file system without locks, nothing is locked.
    ///
    /// # Errors
    /// When another process trains this run, or the file `lock` cannot be written.
    pub fn lock(&mut self) -> Result<()> {
        if self.lock.is_none() {
            self.lock = Some(Arc::new(RunLock::take(&self.lock_file())?));
        }
        Ok(())
    }

    /// Whether other processes are kept from training this run: not before [`RunDirectory::lock`], and not on a file system
    /// without locks.
    pub fn is_locked(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.is_held())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings of the run.
    ///
    /// # Errors
    /// When `config.toml` cannot be read, or its settings cannot work.
    pub fn read_config(&self) -> Result<Config> {
        let settings = Config::read_settings(&self.models, &self.config(), &[])?;
        let config = Config::from_settings_of(&self.models, settings);
        config.map_err(|e| Error::file(self.config(), e.to_string()))
    }

    /// Writes the settings of the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        files::write_text(self.config(), &config.to_toml())
    }

    /// The last checkpoint, where the run goes on; `None` when it ended before the first.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or is missing although the run has taken steps, which starting again would lose.
    pub fn open_last(&self) -> Result<Option<Checkpoint>> {
        let path = self.last();
        if path.exists() {
            return Checkpoint::open(&path).map(Some);
        }
        if self.has_steps() || self.best().exists() {
            let message = "is missing, but the run has taken steps: put the file back, or start another run in another folder";
            return Err(Error::file(path, message));
        }
        Ok(None)
    }

    fn has_steps(&self) -> bool {
        std::fs::metadata(self.steps()).is_ok_and(|about| about.len() > 0)
    }

    /// The captioner of the best checkpoint, or of the last when none was validated, ready for inference.
    ///
    /// The file of a frozen encoder is looked for where `config.toml` says, where it was when the checkpoint was saved, in
    /// the run's folder, and in the folder around it.
    ///
    /// # Errors
    /// When a file of the run is missing, damaged or edited, the encoder's file is another one than in training, or the device
    /// has no memory left.
    pub fn engine(&self, device: &Device) -> Result<Engine> {
        self.engine_of(device, |checkpoint, config| {
            checkpoint.look_where_settings_say(config);
            Ok(())
        })
    }

    /// As [`RunDirectory::engine`], with the frozen encoder's weights from this file.
    ///
    /// # Errors
    /// Also when the checkpoint has the encoder's weights itself.
    pub fn engine_with_encoder(&self, device: &Device, encoder: &Path) -> Result<Engine> {
        self.engine_of(device, |checkpoint, _| checkpoint.set_encoder_file(encoder))
    }

    fn engine_of(
        &self,
        device: &Device,
        find_encoder: impl FnOnce(&mut Checkpoint, &Config) -> Result<()>,
    ) -> Result<Engine> {
        let best = self.best();
        let path = if best.is_file() { best } else { self.last() };
        let (mut checkpoint, config) = (Checkpoint::open(&path)?, self.read_config()?);
        let checked = checkpoint.check_settings(&config);
        checked.map_err(|e| match e {
            damaged @ Error::File { .. } => damaged,
            other => {
                let message = format!("{other}, as {} says", path.display());
                Error::file(self.config(), message)
            }
        })?;
        find_encoder(&mut checkpoint, &config)?;
        let vocabulary = self.read_vocabulary(&checkpoint)?;
        let structure = structure(&config, vocabulary.len());
        let mut engine = Engine::new(device, &structure, vocabulary)?;
        checkpoint.restore(&mut engine)?;
        Ok(engine)
    }

    /// The words of the run, which this checkpoint was trained with.
    ///
    /// # Errors
    /// When `vocab.txt` cannot be read, or the checkpoint was trained with other words.
    pub fn read_vocabulary(&self, checkpoint: &Checkpoint) -> Result<Vocabulary> {
        let path = self.vocabulary();
        let vocabulary = Vocabulary::load(&path)?;
        checkpoint.check_vocabulary(&vocabulary, &path)?;
        Ok(vocabulary)
    }

    /// Whether a run at this position has nothing left to do, not even its last record to write.
    pub fn is_finished(&self, config: &Config, position: &Position) -> Result<bool> {
        if position.is_end_of(config) || !position.reached_step_limit(config) {
            return Ok(position.is_end_of(config));
        }
        let path = self.epochs();
        let records = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        Ok(records.matches('\n').count() > position.epoch)
    }

    /// All files of a run, whether they are there or not.
    pub fn files(&self) -> Vec<PathBuf> {
        vec![
            self.config(),
            self.vocabulary(),
            self.steps(),
            self.epochs(),
            self.best(),
            self.last(),
            self.lock_file(),
        ]
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The settings: `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The words, one per line: `vocab.txt`.
    pub fn vocabulary(&self) -> PathBuf {
        self.path.join("vocab.txt")
    }

    /// The records of steps: `steps.jsonl`.
    pub fn steps(&self) -> PathBuf {
        self.path.join("steps.jsonl")
    }

    /// The records of epochs: `epochs.jsonl`.
    pub fn epochs(&self) -> PathBuf {
        self.path.join("epochs.jsonl")
    }

    /// The best checkpoint: `best.safetensors`.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The last checkpoint: `last.safetensors`.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }
}

/// The captioner that a configuration describes, with a vocabulary of this many words.
pub fn structure(config: &Config, vocabulary: usize) -> CaptionerConfig {
    CaptionerConfig {
        encoder: ResNetConfig {
            stem: Window::square(config.encoder_stem, 2, config.encoder_stem / 2),
            width: config.encoder_width,
            blocks: config.encoder_blocks.clone(),
        },
        image_size: config.image_size,
        batch_statistics: config.encoder_batch_norm == EncoderBatchNorm::Batch,
        trained_from: config.trained_from(),
        embed: config.embed,
        hidden: config.hidden,
        vocabulary,
        decoder: config.model,
        settings: config.own.clone(),
    }
}
