//! The machine: decoded modules, device memory, and launches.

mod barrier;
mod calculate;
mod compare;
mod convert;
mod cta;
mod decode;
mod engine;
mod exec;
mod float;
mod heap;
mod integer;
mod kind;
mod lanes;
mod launch;
mod matrix;
mod memory;
mod module;
mod numeric;
mod op;
mod options;
mod races;
mod report;
mod shadow;
mod warp_wide;

pub use heap::{Heap, MemoryFault};
pub use launch::{Launch, run};
pub use module::{GlobalVariable, Kernel, LoadError, Module, Param};
pub use options::{Checks, Options};
pub use report::{Counters, Fault, FaultKind, Report, Tally};
