//! The settings that only show-tell has, and its published recipe.

use super::ShowTell;
use crate::model::architecture::{Architecture, VocabularyOf};
use crate::model::registry::Model;
use crate::settings::{integer, number};

crate::settings! {
    /// The settings that only show-tell has.
    pub struct Settings {}
    "Decoder show-tell" {
        /// Layers of the LSTM
        layers: usize = integer(1).most(1000).default("2");
        /// Dropout of the words' embeddings: the share of elements set to 0
        embed_dropout: f64 = number(0.0, 1.0).default("0.3").value_name("P");
        /// Dropout between the layers of the LSTM: the share of elements set to 0
        lstm_dropout: f64 = number(0.0, 1.0).default("0.3").value_name("P");
    }
}

/// Show-tell as published.
pub const SHOW_TELL: Model = &Architecture {
    name: "show-tell",
    help: "An LSTM that reads the image as its first word",
    settings: Settings::SETTINGS,
    defaults: &[
        ("encoder-blocks", "3,4,6,3"),
        ("embed", "256"),
        ("hidden", "256"),
        ("optimizer", "sgd"),
        ("lr", "0.9"),
        ("weight-decay", "1e-6"),
        ("clip-norm", "0.25"),
        ("schedule-factor", "0.2"),
        ("schedule-from", "1"),
        ("batch-size", "128"),
        ("epochs", "20"),
    ],
    vocabulary: VocabularyOf::TrainingCaptions,
    declare: |own, sizes, declare| {
        let settings = Settings::read(own)?;
        Ok(Box::new(ShowTell::declare(settings, sizes, declare)))
    },
};
