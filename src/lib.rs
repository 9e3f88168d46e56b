//! showtell: an image-captioning engine.
//!
//! Training, evaluation and captioning of images, on the CPU or on an NVIDIA GPU. The program `showtell` is one
//! user of this library. Another, which opens a run that `showtell train` left and captions a photo:
//!
//! ```no_run
//! use showtell::Device;
//! use showtell::data::image;
//! use showtell::decode::Search;
//! use showtell::train::run::RunDirectory;
//! use std::path::Path;
//!
//! # fn main() -> showtell::Result<()> {
//! let engine = RunDirectory::open("runs/attend")?.engine(&Device::cpu())?;
//! let side = engine.captioner.config().image_size;
//! let photo = image::load(Path::new("photo.jpg"), side)?;
//! let sentences = engine.with_images(&photo.pixels, |images| {
//!     Search::GREEDY.sentences(&engine, &engine.features(images)?)
//! })?;
//! println!("{}", engine.vocabulary.decode(&sentences[0].tokens));
//! # Ok(())
//! # }
//! ```
//!
//! # Concepts, from the bottom up
//!
//! - A [`Device`] holds memory and computes: the CPU, or a GPU. Two devices give the same results up to rounding.
//! - A [`Tensor`] is a view of such memory: a [`Shape`], an element type ([`DType`]), and rows that need not be contiguous.
//! - A [`Context`] is a device with an arena, in which the tensors of one training step lie.
//! - [`ops`] are the operations on tensors, each with a forward and a backward function. There is no tape: whoever calls
//!   a forward function calls the backward function, too.
//! - [`Params`] are the trained tensors of a model with their names and gradients; [`nn`] holds layers and the encoder,
//!   a ResNet.
//! - A [`Captioner`] is an encoder, which makes features of images, and a decoder, which makes sentences of features.
//!   [`model`] holds the traits of decoders, one folder for each decoder, and their registry.
//! - An [`Engine`] is a captioner on a device, with its parameters and its vocabulary: what captions images.
//! - [`decode`] searches for the best sentence, [`metrics`] compares sentences with references (BLEU).
//! - [`data`] reads data sets and images, [`weights`] reads and writes files of parameters.
//! - [`settings`] are what a run can be told: names, defaults of each recipe, ranges, help.
//! - [`train`] trains a captioner and keeps a run: a folder with its settings, vocabulary, logs and checkpoints.
//!
//! Each module uses only those to its right: `cli → report → train → decode → model → nn → ops → tensor → device`.
//!
//! # Names and layouts
//!
//! One alphabet of dimensions throughout: B batch, T steps, P attention positions, D feature channels, A attention,
//! E embedding, H hidden, V vocabulary; N H W C images, and K filters of R x S. Activations are NHWC, filters KRSC,
//! sequences time-major (T, B, ·).
//!
//! # Features
//!
//! Both are on by default. `cli` is the program and its module `cli`; `pictures` is the module `report`, which draws
//! learning curves and attention maps. With `default-features = false` the crate depends on no terminal and draws nothing.

#![deny(missing_docs)]

#[macro_use]
mod words;

#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod decode;
pub mod device;
mod error;
pub mod files;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod ops;
pub mod philox;
#[cfg(feature = "pictures")]
pub mod report;
pub mod settings;
pub mod tensor;
pub mod train;
pub mod weights;

pub use device::Device;
pub use error::{Error, Result};
pub use model::{Captioner, Engine};
pub use nn::params::Params;
pub use tensor::{Context, DType, Shape, Tensor};
