//! The kinds of decoder that the library has. A program that embeds the library adds its own to them:
//! `[MODELS, &[&OWN]].concat()`, which what takes a list of models is given in place of [`MODELS`].

use super::architecture::Architecture;
use super::{attend, show_tell};

/// A kind of captioner, named by the decoder that makes it.
pub type Model = &'static Architecture;

/// The decoders of the library, one line each.
pub const MODELS: &[Model] = &[
    show_tell::SHOW_TELL, //
    attend::ATTEND,
];
