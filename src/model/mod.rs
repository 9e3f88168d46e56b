//! The decoders: one folder each, and one line each in [`MODELS`].

pub mod attend;
pub mod show_tell;

use crate::settings::Recipe;

/// A kind of captioner, named by the decoder that makes it.
pub type Model = &'static Recipe;

/// The decoders that showtell has.
pub const MODELS: &[Model] = &[SHOW_TELL, ATTEND];

/// CNN + LSTM.
pub const SHOW_TELL: Model = &show_tell::RECIPE;
/// CNN + LSTM with attention.
pub const ATTEND: Model = &attend::RECIPE;
