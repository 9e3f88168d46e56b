//! The configuration of a run.
//!
//! Its settings are declared in `declared`, those of a decoder in the decoder's folder. A run's `config.toml` holds all of
//! them; the keys are also the flags of `showtell train`.

mod declared;

pub use declared::{
    Config, EncoderBatchNorm, EncoderWeights, FeatureType, Monitor, OptimiserKind, Schedule,
};

use crate::error::{Error, Result};
use crate::model::{MODELS, Model};
use crate::settings::{self, Setting, Table, Value, any_of};
use crate::words;
use std::path::{Path, PathBuf};

/// Stages of an encoder; a ResNet has four. With more, the sizes of the last ones could not be counted.
const MOST_STAGES: usize = 8;

/// The key that names the decoder.
pub const MODEL: &str = "model";

impl Config {
    /// The recipe of a model, as published.
    ///
    /// # Panics
    /// When the model's declaration is wrong: a default is missing, or is not a value that its setting takes.
    pub fn recipe(model: Model) -> Self {
        let config = Config::from_complete(model, &model.table(Config::SETTINGS));
        config.unwrap_or_else(|error| panic!("the recipe of {}: {error}", model.name))
    }

    /// The recipe of the model that `given` names, with all that `given` says put in its place. A feature cache turns
    /// augmentation off: cached features are those of images as they are. Settings of another decoder are checked, and
    /// have no effect.
    ///
    /// # Errors
    /// When a key is unknown, a value is not one that its setting takes, or the whole cannot work.
    pub fn from_settings(given: Table) -> Result<Self> {
        Config::from_settings_of(MODELS, given)
    }

    /// [`from_settings`](Config::from_settings) where `models` are the decoders that there are.
    ///
    /// # Errors
    /// As there.
    pub fn from_settings_of(models: &[Model], mut given: Table) -> Result<Self> {
        let model = named(models, given.remove(MODEL).as_ref())?;
        let known = known(models);
        for (key, value) in &given {
            check(key, value, &known)?;
        }
        let mut table = model.table(Config::SETTINGS);
        let cache: Option<PathBuf> = settings::read(Config::SETTINGS, "feature-cache", &given)?;
        if cache.is_some() {
            table.insert("augment".into(), false.into());
        }
        table.extend(given);
        let config = Config::from_complete(model, &table)?;
        config.check()?;
        Ok(config)
    }

    fn from_complete(model: Model, table: &Table) -> Result<Self> {
        Config::read(model, model.own(table)?, table)
    }

    /// Reads settings from a TOML file: any of the keys of a configuration, with `models` as the decoders that there are, and any
    /// of the settings `more`.
    ///
    /// # Errors
    /// When a key is unknown or a value is not one that its setting takes; the message names the file and the key.
    pub fn read_settings(models: &[Model], path: &Path, more: &[&Setting]) -> Result<Table> {
        let mut known = known(models);
        known.extend(more);
        settings::read_file(path, |key, value| {
            if key == MODEL {
                named(models, Some(value)).map(|_| ())
            } else {
                check(key, value, &known)
            }
        })
    }

    /// Every setting with its value, as they stand in `config.toml`.
    pub fn to_settings(&self) -> Table {
        let mut table = self.own.clone();
        table.insert(MODEL.into(), self.model.name.into());
        self.write(&mut table);
        table
    }

    /// The text of `config.toml`: a line for each setting, in the order of their declarations.
    pub fn to_toml(&self) -> String {
        let table = self.to_settings();
        let declared = Config::SETTINGS.iter().chain(self.model.settings);
        let keys = [MODEL]
            .into_iter()
            .chain(declared.map(|setting| setting.key));
        let lines = keys.filter_map(|key| Some(format!("{key} = {}\n", table.get(key)?)));
        lines.collect()
    }

    /// Gives one setting another value, that of a decoder too.
    ///
    /// # Errors
    /// When the model has no such setting, or the setting does not take the value.
    pub fn with(self, key: &str, value: impl Into<Value>) -> Result<Self> {
        let value = value.into();
        check(key, &value, &known(&[self.model]))?;
        let mut table = self.to_settings();
        table.insert(key.into(), value);
        Config::from_complete(self.model, &table)
    }

    /// The configuration with which a run goes on that was started with this one: what was given and may change is put
    /// in its place.
    ///
    /// # Errors
    /// When something was given that may not change, or the whole cannot work.
    pub fn resumed(&self, given: Table) -> Result<Self> {
        let mut settings = self.to_settings();
        settings.extend(given);
        let config = Config::from_settings_of(&[&[self.model], MODELS].concat(), settings)?;
        config.check_continues(self)?;
        Ok(config)
    }

    /// Checks that a run that was started with another configuration can go on with this one.
    ///
    /// # Errors
    /// When the value of a setting that may not change is another one. The model is looked at first: it decides which
    /// settings there are.
    pub fn check_continues(&self, started: &Config) -> Result<()> {
        let (settings, before) = (self.to_settings(), started.to_settings());
        let shapes_rates = |key: &str| key == "max-steps" && self.schedule == Schedule::Linear;
        let model = settings.get_key_value(MODEL);
        for (key, found) in model.into_iter().chain(&settings) {
            if before.get(key) != Some(found) && (shapes_rates(key) || !may_change(key)) {
                // A switch is named as it was given: by the one or the other of its two flags.
                let shown = |value: &Value| match value {
                    Value::Boolean(_) => format!("`{key} = {value}`"),
                    value => value.to_string(),
                };
                let found = shown(found);
                let started = match before.get(key) {
                    Some(before) => format!("with {}", shown(before)),
                    None => "without it".into(),
                };
                let changeable = Config::SETTINGS.iter().filter(|setting| setting.may_change);
                let changeable: Vec<_> = changeable.map(|s| format!("`{}`", s.key)).collect();
                let message = format!(
                    "found {found}, but this run was started {started}; what may change is {}",
                    changeable.join(", ")
                );
                return Err(Error::setting(key, message));
            }
        }
        Ok(())
    }

    /// What one setting alone cannot show: whether they go together.
    pub(super) fn check(&self) -> Result<()> {
        if self.clip_norm.is_some() && self.clip_value.is_some() {
            let message = "cannot be used together with `clip-value`; set one of them to 0";
            return Err(Error::setting("clip-norm", message));
        }
        if self.schedule == Schedule::Linear && self.max_steps.is_none() {
            let message =
                "is needed by `schedule = \"linear\"`: the step at which the schedule ends";
            return Err(Error::setting("max-steps", message));
        }
        let stages = self.encoder_blocks.len();
        if stages > MOST_STAGES {
            let message = format!(
                "found {stages} stages, expected at most {MOST_STAGES}: each has twice as many channels as the one before"
            );
            return Err(Error::setting("encoder-blocks", message));
        }
        if self.fine_tune && self.fine_tune_from > stages {
            let message = format!(
                "found {}, but the encoder has {}",
                self.fine_tune_from,
                words::count(stages, "stage")
            );
            return Err(Error::setting("fine-tune-from", message));
        }
        if self.monitor == Monitor::Bleu4 && !self.validate {
            let message = "`bleu4` is measured on the validation images, and `validate` is off";
            return Err(Error::setting("monitor", message));
        }
        if self.feature_cache.is_some() && !self.features_are_fixed() {
            let message = "needs features that stay the same during training, and so cannot be used together with \
                           `augment`, `fine-tune` or `encoder-batch-norm = \"batch\"`";
            return Err(Error::setting("feature-cache", message));
        }
        Ok(())
    }

    /// The first stage that is trained, when any is.
    pub fn trained_from(&self) -> Option<usize> {
        self.fine_tune.then_some(self.fine_tune_from)
    }

    /// Whether training changes the encoder: its weights, or only its running statistics.
    pub fn encoder_changes(&self) -> bool {
        self.fine_tune || self.encoder_batch_norm == EncoderBatchNorm::Batch
    }

    /// Whether the encoder's output for an image never changes during training.
    pub fn features_are_fixed(&self) -> bool {
        !self.encoder_changes() && !self.augment
    }
}

/// The model that a value names.
fn named(models: &[Model], value: Option<&Value>) -> Result<Model> {
    let found = models
        .iter()
        .find(|model| value.and_then(Value::as_str) == Some(model.name));
    found.copied().ok_or_else(|| {
        let mut names: Vec<&str> = Vec::new();
        for model in models {
            if !names.contains(&model.name) {
                names.push(model.name);
            }
        }
        let expected = any_of(names);
        let found = value.map_or("nothing".into(), |value| value.to_string());
        Error::setting(MODEL, format!("found {found}, expected {expected}"))
    })
}

/// Every setting but the model's name: those of every run and those of these decoders.
fn known(models: &[Model]) -> Vec<&'static Setting> {
    let own = models.iter().flat_map(|model| model.settings);
    Config::SETTINGS.iter().chain(own).collect()
}

/// Checks a value against the settings among `known` that have its key. Decoders of different programs may have settings of
/// the same key; one that takes the value is enough until the model is known.
fn check(key: &str, value: &Value, known: &[&Setting]) -> Result<()> {
    let mut of_key = known.iter().filter(|setting| setting.key == key);
    let Some(first) = of_key.next() else {
        let keys = known.iter().map(|setting| setting.key);
        return Err(settings::unknown(key, keys.chain([MODEL])));
    };
    let checked = first.check(value).map(|_| ());
    checked.or_else(|error| {
        let other = of_key.find(|setting| setting.check(value).is_ok());
        other.map(|_| ()).ok_or(error)
    })
}

fn may_change(key: &str) -> bool {
    let found = Config::SETTINGS.iter().find(|setting| setting.key == key);
    found.is_some_and(|setting| setting.may_change)
}
