//! Decodes a syntax tree to instructions: resolves names, replaces calls by the bodies of device functions, and gives
//! slots to virtual registers.

mod allocate;
mod builder;
mod names;
mod opcodes;
mod opcodes_arithmetic;
mod opcodes_memory;
mod opcodes_warp;
mod words;

pub use builder::function;

use super::module::LoadError;

type Result<T> = std::result::Result<T, LoadError>;

fn fail<T>(line: u32, message: impl Into<String>) -> Result<T> {
    Err(LoadError::new(line, message))
}
