//! The settings that only attend has, and its published recipe.

use super::Attend;
use crate::model::architecture::{Architecture, VocabularyOf};
use crate::model::registry::Model;
use crate::settings::{integer, number};

crate::settings! {
    /// The settings that only attend has.
    pub struct Settings {}
    "Decoder attend" {
        /// Size of the layer in which attention scores the places of the image (A)
        attention: usize = integer(1).most(65536).default("256");
        /// Side of the square grid of places that attention looks at
        ///
        /// The encoder's output is pooled, or spread out, to this grid: 14 means 14 x 14 places.
        positions: usize = integer(1).most(1024).default("14");
        /// Dropout of the state before words are scored: the share of elements set to 0
        dropout: f64 = number(0.0, 1.0).default("0.5").value_name("P");
        /// Weight of the doubly stochastic regulariser in the loss
        ///
        /// The regulariser asks that over a whole caption every place of the image gets about the same attention.
        regulariser: f64 = number(0.0, f64::INFINITY).default("1");
    }
}

/// Attend as published.
pub const ATTEND: Model = &Architecture {
    name: "attend",
    help: "An LSTM that looks at a part of the image for every word",
    settings: Settings::SETTINGS,
    defaults: &[
        ("encoder-blocks", "3,4,23,3"),
        ("embed", "512"),
        ("hidden", "512"),
        ("optimizer", "adam"),
        ("lr", "4e-4"),
        ("weight-decay", "1e-5"),
        ("clip-value", "5"),
        ("schedule-factor", "0.8"),
        ("schedule-from", "11"),
        ("batch-size", "32"),
        ("epochs", "15"),
    ],
    vocabulary: VocabularyOf::AllCaptions,
    declare: |own, sizes, declare| {
        let settings = Settings::read(own)?;
        Ok(Box::new(Attend::declare(settings, sizes, declare)?))
    },
};
