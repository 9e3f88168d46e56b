//! Operations: forward and backward by hand, destination-passing, one folder each.
//!
//! `ops/<op>/mod.rs` opens with the equations and checks the shapes and element types of the arguments; the halves beside
//! it compute, `cpu.rs` on the host's processors and `cuda.rs` on a GPU, and refuse only what their device cannot do. What
//! the halves of a kind share is in `host` and in `launch`, `matrix` and `tile`. An operation takes the context, its
//! inputs, then the tensors it writes. Outputs never overlap inputs, unless the operation says that it works in place.

mod check;
mod given;
mod host;
mod kernels;
mod launch;
mod matrix;
mod tile;

pub mod add;
pub mod attention;
pub mod augment;
pub mod batch_norm;
pub mod clip;
pub mod conv;
pub mod copy;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod fill;
pub mod gate;
pub mod gemm;
pub mod linear;
pub mod lstm;
pub mod optimiser;
pub mod pool;
pub mod preprocess;
pub mod regulariser;
pub mod top_k;
pub mod window;

pub use gemm::Accumulate;
pub use host::Float;

/// Runs the device's half of an operation. `dispatch!(ctx, dtype, function(arguments))` calls
/// `cpu::function::<T>(ctx, arguments)`, with T the Rust type of `dtype`, or `cuda::function(ctx, arguments)`.
/// `dispatch!(ctx, function(arguments))` is for halves that look at the element types themselves.
///
/// There is an arm for each kind of device and none for the rest, so that a new kind compiles only once every operation
/// has a half for it. A dry run is not a kind: it takes the same half as the device itself, for its checks and its scratch.
macro_rules! dispatch {
    ($ctx:expr, $dtype:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $ctx.device() {
            $crate::device::Device::Cuda(_) => cuda::$function($ctx, $($argument),*),
            $crate::device::Device::Cpu(host) => host.run(OP, stringify!($function), || {
                $crate::ops::compute!($ctx, $dtype, $function($($argument),*))
            }),
        }
    };
    ($ctx:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $ctx.device() {
            $crate::device::Device::Cuda(_) => cuda::$function($ctx, $($argument),*),
            $crate::device::Device::Cpu(host) => {
                host.run(OP, stringify!($function), || cpu::$function($ctx, $($argument),*))
            }
        }
    };
}

/// `compute!(ctx, dtype, function(arguments))` calls `cpu::function::<T>(ctx, arguments)`, with T the Rust type of
/// `dtype`. A dry run has no memory to compute in, and leaves it out: such a function takes no scratch.
macro_rules! compute {
    ($ctx:expr, $dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            $crate::tensor::DType::F32 | $crate::tensor::DType::F64
                if $ctx.device().is_planning() =>
            {
                Ok(())
            }
            $crate::tensor::DType::F32 => cpu::$function::<f32>($ctx, $($argument),*),
            $crate::tensor::DType::F64 => cpu::$function::<f64>($ctx, $($argument),*),
            other => Err($crate::error::Error::operation(
                OP,
                format!("the CPU device computes in f32 or f64, not {other}"),
            )),
        }
    };
}
use {compute, dispatch};
