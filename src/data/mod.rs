//! The data set: captions and splits, vocabulary, decoded and augmented images, batches.
//!
//! Nothing here keeps state between epochs. A sample is a pure function of (seed, epoch, index), and the
//! batches of an epoch are a pure function of (seed, epoch). The number of threads does not matter.

pub mod augment;
pub mod batches;
pub mod check;
pub mod digest;
pub mod flickr8k;
pub mod image;
mod layout;
pub mod loader;
pub mod named_captions;
mod photos;
pub mod random;
pub mod resize;
pub mod samples;
pub mod scenes;
pub mod statistics;
mod table;
pub mod vocabulary;
