//! The data set: captions and splits, vocabulary, decoded and augmented images, batches.
//!
//! Nothing here holds state between epochs: a sample is a pure function of (seed, epoch, index), and an
//! epoch's batches of (seed, epoch), whatever the number of threads.

pub mod augment;
pub mod batches;
pub mod check;
pub mod flickr8k;
pub mod image;
pub mod loader;
pub mod random;
pub mod resize;
pub mod samples;
pub mod scenes;
pub mod statistics;
pub mod vocabulary;
