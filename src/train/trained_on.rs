//! What the weights of a run belong to: its words and its captions, by their hashes, and its settings. They stand in every
//! checkpoint. With other words of the same number the same weights would say something else, and a run that goes on with
//! other captions or settings would not be the run that its records show.

use super::config::Config;
use super::data::training_limits;
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::samples::{Limits, Samples};
use crate::data::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::model::MODELS;
use crate::weights::WeightFile;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The key in the metadata of a checkpoint.
pub const KEY: &str = "showtell.trained_on";

/// Hashes of the words and captions of a run, SHA-256 in hexadecimal, and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// Of the vocabulary: [`Vocabulary::sha256`].
    pub vocabulary: String,
    /// Of the training samples: [`Samples::sha256`].
    pub training: String,
    /// Of the validation samples; `None` when the run does not validate.
    pub validation: Option<String>,
    /// The settings, as they stand in `config.toml`; `None` in files from before they were stored.
    pub settings: Option<String>,
}

impl TrainedOn {
    /// Of a run on this data set.
    pub fn new(config: &Config, dataset: &Flickr8k, vocabulary: &Vocabulary) -> Self {
        let validation = || Samples::sha256(dataset, Split::Dev, Limits::default());
        TrainedOn {
            vocabulary: vocabulary.sha256(),
            training: Samples::sha256(dataset, Split::Train, training_limits(config)),
            validation: config.validate.then(validation),
            settings: Some(config.to_toml()),
        }
    }

    /// Those in a file of weights; `None` if it is no checkpoint, or one from before they were stored.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(file: &WeightFile) -> Result<Option<Self>> {
        let Some(text) = file.metadata().get(KEY) else {
            return Ok(None);
        };
        let damaged = |e| Error::file(file.path(), format!("damaged hashes in {KEY}: {e}"));
        serde_json::from_str(text).map_err(damaged)
    }

    /// Checks the words in the file `words` against those that the weights in the file `weights` were trained with.
    ///
    /// # Errors
    /// When they are others.
    pub fn check_vocabulary(&self, found: &str, words: &Path, weights: &Path) -> Result<()> {
        if self.vocabulary == found {
            return Ok(());
        }
        let message = format!(
            "is not the vocabulary that {} was trained with: expected sha256 {}, found {found}; put the file of this \
             run back (the vocabulary of another run on the same captions is the same)",
            weights.display(),
            self.vocabulary
        );
        Err(Error::file(words, message))
    }

    /// Checks the words of a run that is to begin with the weights in the file `weights`.
    ///
    /// # Errors
    /// When they are not those that the weights were trained with.
    pub fn check_initial(&self, found: &str, weights: &Path) -> Result<()> {
        if self.vocabulary == found {
            return Ok(());
        }
        let message = format!(
            "was trained with other words: expected a vocabulary of sha256 {found}, found {}; its embeddings and scores \
             would be taken for those of other words. Start without `init`, or with a file that holds only the encoder",
            self.vocabulary
        );
        Err(Error::file(weights, message))
    }

    /// Checks this configuration against that of the run whose checkpoint is in the file `weights`.
    ///
    /// # Errors
    /// When a setting that may not change is another one.
    pub fn check_settings(&self, config: &Config, weights: &Path) -> Result<()> {
        if let Some(settings) = &self.settings {
            let damaged =
                |e: String| Error::file(weights, format!("damaged settings in {KEY}: {e}"));
            let settings = toml::from_str(settings).map_err(|e| damaged(e.to_string()))?;
            let models = [&[config.model], MODELS].concat();
            let started = Config::from_settings_of(&models, settings);
            config.check_continues(&started.map_err(|e| damaged(e.to_string()))?)?;
        }
        Ok(())
    }

    /// Checks the captions with which the run of this configuration is to go on from the checkpoint in the file `weights`.
    ///
    /// # Errors
    /// When they, or the images that they belong to, are others than those that the run was started with.
    pub fn check_data(&self, found: &TrainedOn, config: &Config, weights: &Path) -> Result<()> {
        let which = if self.training != found.training {
            "training"
        } else if self.validation != found.validation {
            "validation"
        } else {
            return Ok(());
        };
        let data = config.data.as_deref().unwrap_or(Path::new("a data set"));
        let message = format!(
            "the {which} images in {} or their captions have changed since this run was started; put them back as they \
             were, or start a new run, with `init = \"{}\"` if its words are the same",
            data.display(),
            weights.display()
        );
        Err(Error::setting("data", message))
    }
}
