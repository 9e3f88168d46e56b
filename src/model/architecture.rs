//! What a decoder says about itself: its name, its settings and recipe, and how one is made.

use super::decoder::Decoder;
use crate::error::Result;
use crate::nn::params::Declarations;
use crate::settings::{Setting, Table};

/// The sizes that a decoder does not choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// D, channels of the encoder's map.
    pub features: usize,
    /// Height and width of the encoder's map.
    pub map: [usize; 2],
    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    /// V, words.
    pub vocabulary: usize,
}

/// Makes a decoder from the settings that only it has, and declares its parameters.
///
/// # Errors
/// When a setting cannot work.
pub type Declare = fn(&Table, Sizes, &mut Declarations) -> Result<Box<dyn Decoder>>;

/// A kind of decoder: its name, the settings that only it has, its published recipe, and how one is made.
#[derive(Debug)]
pub struct Architecture {
    /// The value of the setting `model`.
    pub name: &'static str,
    /// What kind of captioner it is, in one line.
    pub help: &'static str,
    /// The settings that only this decoder has.
    pub settings: &'static [Setting],
    /// Defaults of the settings that every run has, by key, as flags would give them: those that have no default of their
    /// own, and those where this recipe has another.
    pub defaults: &'static [(&'static str, &'static str)],
    /// The captions whose words make the vocabulary.
    pub vocabulary: VocabularyOf,
    /// Makes one.
    pub declare: Declare,
}

/// The captions whose words make a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularyOf {
    /// Those of the training images.
    TrainingCaptions,
    /// All captions of the data set, as some published recipes have it.
    AllCaptions,
}

/// Decoders are told apart by their names.
impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Architecture {
    /// The default of a setting as a flag would give it, if it has one.
    pub fn default_of(&self, setting: &Setting) -> Option<&'static str> {
        let own = self.defaults.iter().find(|(key, _)| *key == setting.key);
        own.map(|&(_, text)| text).or(setting.default)
    }

    /// All defaults, those of the decoder's own settings and of `common`.
    ///
    /// # Panics
    /// When a default has not the form of a value: the declaration is wrong.
    pub fn table(&self, common: &[Setting]) -> Table {
        let all = common.iter().chain(self.settings);
        let defaults = all.filter_map(|setting| {
            let text = self.default_of(setting)?;
            Some((setting.key.to_string(), setting.declared(text)))
        });
        defaults.collect()
    }

    /// The part of a table that holds this decoder's own settings, each with a value that it takes.
    ///
    /// # Errors
    /// When a value is not one that its setting takes.
    pub fn own(&self, table: &Table) -> Result<Table> {
        let mut own = Table::new();
        for setting in self.settings {
            if let Some(value) = table.get(setting.key) {
                let value = setting.check(value)?.or_else(|| setting.none_value());
                own.extend(value.map(|value| (setting.key.to_string(), value)));
            }
        }
        Ok(own)
    }
}
