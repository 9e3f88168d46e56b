//! The machine: modules decoded for execution, device memory, and launches.

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
mod lanes;
mod launch;
mod matrix;
mod memory;
mod module;
mod numeric;
mod op;
mod races;
mod report;
mod shadow;
mod warp_wide;

pub use heap::{Heap, MemoryFault};
pub use launch::{Checks, Launch, Options, run};
pub use module::{GlobalVariable, Kernel, LoadError, Module, Param};
pub use report::{Counters, Fault, FaultKind, Report, Tally};
