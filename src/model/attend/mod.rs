//! Show, Attend and Tell: an LSTM that attends to the image for every word.

mod settings;

pub use settings::{RECIPE, Settings};
