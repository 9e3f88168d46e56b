//! The part of the CUDA driver API that cudarc uses: the functions that the cdylib exports as `libcuda.so`.
//!
//! Work on a stream is executed before the call that enqueues it returns, which a driver may do, and one piece at a
//! time on a device. Work on a stream that is captured is recorded instead. As on a GPU, the fault of a kernel is not
//! the result of its launch but of every later call in its context, unless `CUDA_LAUNCH_BLOCKING=1` is set.
//!
//! Handles are numbers in tables, never addresses: for a null, foreign or destroyed handle, a call returns an error
//! code. No entry point unwinds into its caller or aborts the process.
//!
//! # Safety
//!
//! The requirements of the driver API hold for every exported function: a pointer to a result is null or writable, a
//! text is null or ends with a NUL, a host buffer is null or as long as the call says, and `kernelParams` points to one
//! value per parameter of the kernel, each with the size of its parameter.

mod capture;
mod context;
mod copy;
mod counters;
mod device;
mod event;
mod failing;
mod function;
mod graph;
mod handle;
mod launch;
mod log;
mod memory;
mod module;
mod occupancy;
mod options;
mod pool;
mod result;
mod stream;
mod trace;
mod unsupported;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counters::{counters, counters_json, reset_counters};

use options::Environment;
use result::Error;

/// CUresult.
type Status = u32;
/// CUdeviceptr.
type Address = u64;
/// The result of an entry point before it becomes a CUresult.
type Answer<T = ()> = Result<T, Error>;

const SUCCESS: Status = 0;

/// Runs an entry point that may be called before `cuInit`. An error or a panic becomes a CUresult.
fn entry(body: impl FnOnce() -> Answer) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(Error(code))) => code,
        Err(_) => {
            log::line("internal error: an entry point panicked");
            Error::UNKNOWN.0
        }
    }
}

/// Runs an entry point that may be called only after `cuInit`.
fn call(body: impl FnOnce(&'static Environment) -> Answer) -> Status {
    entry(|| body(options::environment().ok_or(Error::NOT_INITIALIZED)?))
}

/// Writes a result to the place that the caller gave.
///
/// # Safety
/// `to` is null, which is an error, or writable.
unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, and writable, as the caller promises. A caller in C may not have aligned it for T.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// The `bytes` bytes of host memory at `from`; an error if that is null.
///
/// # Safety
/// `from` is null or readable for `bytes` bytes, which are not written meanwhile.
unsafe fn host_bytes<'a>(from: usize, bytes: usize) -> Answer<&'a [u8]> {
    match bytes {
        0 => Ok(&[]),
        _ if from == 0 || bytes > isize::MAX as usize => Err(Error::INVALID_VALUE),
        // SAFETY: not null, not beyond isize::MAX, and readable as the caller promises.
        _ => Ok(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }),
    }
}

/// The `bytes` writable bytes of host memory at `to`; an error if that is null.
///
/// # Safety
/// `to` is null or writable for `bytes` bytes, which are not otherwise used meanwhile.
unsafe fn host_bytes_mut<'a>(to: usize, bytes: usize) -> Answer<&'a mut [u8]> {
    match bytes {
        0 => Ok(&mut []),
        _ if to == 0 || bytes > isize::MAX as usize => Err(Error::INVALID_VALUE),
        // SAFETY: not null, not beyond isize::MAX, and writable as the caller promises.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) }),
    }
}
