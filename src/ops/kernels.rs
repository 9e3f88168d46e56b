//! What Rust has to know of `kernels/`: a module for every file with its constants and structs, and a struct with the
//! arguments of every family of kernels. Written by build.rs: see `build/table.rs`.

// Expressions and parameters are as CUDA C++ has them.
#![allow(clippy::manual_div_ceil, clippy::too_many_arguments)]

/// What the modules are written with.
mod prelude {
    pub use crate::device::cuda::{Image, Kernel};
    pub use crate::error::Result;
    pub use crate::ops::launch::{Arguments, Family, Input, Member, Output, Tensors};
    pub use crate::tensor::DType;
    pub use std::ffi::c_void;
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
