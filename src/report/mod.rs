//! Pictures of the results of training: learning curves and attention maps.

pub mod attention;
pub mod curves;
mod picture;

pub use picture::save;
