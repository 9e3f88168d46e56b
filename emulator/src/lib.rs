//! A CUDA driver that runs PTX on the CPU. With it, kernels can be built, launched, checked and measured on
//! machines without a GPU.
//!
//! [`ptx`] parses PTX text, [`machine`] executes it, and [`driver`] exports the driver API in C.

#![deny(missing_docs)]

pub mod driver;
pub mod machine;
pub mod ptx;
