//! showtell: an image-captioning engine.
//!
//! Layers, each using only those to its right: `cli → report → train → decode → model → nn → ops →
//! tensor → device`. One alphabet of dimensions throughout: B batch, T steps, P attention positions, D feature
//! channels, A attention, E embedding, H hidden, V vocabulary; N H W C images and R S K for
//! convolution filters. Activations are NHWC, filters KRSC, sequences time-major (T, B, ·).

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
pub mod report;
pub mod settings;
pub mod tensor;
pub mod train;
pub mod weights;

pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{Context, DType, Shape, Tensor};
