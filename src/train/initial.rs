//! The weights that a run begins with.

use super::Observer;
use super::checkpoint::{self, EncoderSource, Subset};
use super::config::{Config, EncoderWeights};
use crate::error::{Error, Result};
use crate::model::Engine;
use std::path::Path;

/// Where the weights that a run begins with came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Initial {
    /// The encoder is random: its batch-norm has to be calibrated.
    pub random_encoder: bool,
    /// The file of a frozen encoder; `None` when the encoder's weights belong to the checkpoints.
    pub encoder: Option<EncoderSource>,
}

impl Initial {
    /// Initialises the decoder, then reads what the settings name: an encoder, initial weights. Tells the observer when
    /// the encoder's names have a prefix that was left out.
    ///
    /// # Errors
    /// When the settings name no encoder, a file cannot be read, or does not have the tensors that are wanted.
    pub fn load(engine: &Engine, config: &Config, observer: &mut dyn Observer) -> Result<Self> {
        let (params, encoder) = (&engine.params, engine.captioner.encoder.ids());
        let decoder = params.ids().filter(|id| !encoder.contains(id));
        params.initialise_only(decoder, config.seed)?;
        let mut initial = Initial::default();
        match &config.encoder_weights {
            Some(EncoderWeights::Random) => {
                params.initialise_only(encoder.iter().copied(), config.seed)?;
                initial.random_encoder = true;
            }
            Some(EncoderWeights::File(path)) => {
                let prefix = engine.load_encoder(path)?;
                note_prefix(path, "encoder's tensors", &prefix, observer);
                initial.encoder = source(config, path)?;
            }
            None if config.init.is_none() => {
                let message = "is not given; expected a file, or the word random to try things out";
                return Err(Error::setting("encoder-weights", message));
            }
            None => {}
        }
        if let Some(init) = &config.init {
            let subset = checkpoint::load_subset(init, &engine.params, &engine.vocabulary)?;
            note_prefix(init, "tensors", &subset.prefix, observer);
            initial.overwritten(engine, init, &subset, config.encoder_weights.is_some())?;
        }
        Ok(initial)
    }

    /// Takes note that a file gave these initial weights.
    fn overwritten(
        &mut self,
        engine: &Engine,
        init: &Path,
        subset: &Subset,
        has_encoder: bool,
    ) -> Result<()> {
        let encoder = engine.captioner.encoder.ids();
        let is_missing = |id| {
            let name = engine.params.name(id);
            subset.missing.iter().any(|missing| missing == name)
        };
        let given = encoder.iter().filter(|&&id| !is_missing(id)).count();
        if given > 0 {
            *self = Initial::default();
        }
        if !has_encoder && given < encoder.len() {
            let message = format!(
                "has {given} of the encoder's {} tensors: give the others by `encoder-weights`",
                encoder.len()
            );
            return Err(Error::file(init, message));
        }
        Ok(())
    }
}

/// Tells of a prefix of a file's names that was left out.
fn note_prefix(file: &Path, whose: &str, prefix: &str, observer: &mut dyn Observer) {
    if !prefix.is_empty() {
        observer.note(&format!(
            "{}: the names of the {whose} begin with \"{prefix}\", which is left out",
            file.display()
        ));
    }
}

/// The file to name in checkpoints instead of storing the encoder in them: when the encoder stays as it is, and the
/// checkpoints need not stand alone.
fn source(config: &Config, path: &Path) -> Result<Option<EncoderSource>> {
    if !config.encoder_changes() && !config.standalone {
        EncoderSource::new(path).map(Some)
    } else {
        Ok(None)
    }
}
