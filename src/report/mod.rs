//! What is left to look at after training: learning curves, attention maps.

pub mod attention;
pub mod curves;
mod picture;

pub use picture::save;
