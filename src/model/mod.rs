//! Captioners: an encoder, a decoder, and the engine that holds them with the words they speak.
//!
//! A decoder is a folder: equations, backward pass, generation, settings and recipe. The rest of the library knows it
//! as an [`Architecture`], by the traits [`Decoder`] and [`Generation`], and by one line of the [`registry`].

pub mod architecture;
pub mod attend;
pub mod captioner;
pub mod captions;
pub mod decoder;
pub mod engine;
pub mod registry;
pub mod show_tell;

pub use architecture::{Architecture, Sizes, VocabularyOf};
pub use captioner::{Captioner, CaptionerConfig, Input};
pub use captions::{Captions, Losses};
pub use decoder::{Decoder, FeatureKind, Generation};
pub use engine::Engine;
pub use registry::{MODELS, Model};
