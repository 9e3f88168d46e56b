//! Syntax tree to decoded instructions: names resolved, device functions put in the place of
//! their calls, virtual registers given slots.

mod allocate;
mod builder;
mod names;
mod opcodes;
mod opcodes_arithmetic;
mod opcodes_memory;
mod words;

pub use builder::function;

use super::module::LoadError;

type Result<T> = std::result::Result<T, LoadError>;

fn fail<T>(line: u32, message: impl Into<String>) -> Result<T> {
    Err(LoadError::new(line, message))
}
