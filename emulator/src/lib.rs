//! A CUDA driver that runs PTX on the CPU, so that kernels can be built, launched, checked and
//! measured on machines without a GPU.
//!
//! [`ptx`] reads the text, [`machine`] executes it, [`driver`] exports the driver API in C.

pub mod driver;
pub mod machine;
pub mod ptx;
