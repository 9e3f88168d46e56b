//! Show and Tell: an LSTM that reads the image as its first word.

mod settings;

pub use settings::{RECIPE, Settings};
