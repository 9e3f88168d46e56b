//! The CUDA driver API, as far as cudarc uses it: the functions that the cdylib exports as `libcuda.so`.
//!
//! Work on a stream is executed where it is enqueued, before the call returns (the driver may do that), one
//! piece at a time on a device; work on a stream that is being captured is recorded. A kernel's fault is not
//! the launch's result but that of every later call in its context, as on a GPU, unless
//! `CUDA_LAUNCH_BLOCKING=1`.
//!
//! Handles are numbers looked up in tables, never addresses: a null, foreign or destroyed handle is an error
//! code. No entry point unwinds into its caller, and none aborts.
//!
//! # Safety
//!
//! What the driver API asks of its callers holds for every exported function: a pointer to a result is null or
//! writable, a text is null or ends with a NUL, a host buffer is null or as long as the call says, and
//! `kernelParams` points to as many values as the kernel has parameters, each of its parameter's size.

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
/// What an entry point does before its result becomes a CUresult.
type Answer<T = ()> = Result<T, Error>;

const SUCCESS: Status = 0;

/// Runs an entry point that works before `cuInit`: its error, and a panic, become a CUresult.
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

/// Runs an entry point that needs `cuInit` to have been called.
fn call(body: impl FnOnce(&'static Environment) -> Answer) -> Status {
    entry(|| body(options::environment().ok_or(Error::NOT_INITIALIZED)?))
}

/// Writes a result where the caller wants it.
///
/// # Safety
/// `to` is null, which is an error, or writable.
unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, and writable as the caller promises; C callers may not have aligned it for T.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// The host's `bytes` bytes at `from`; an error where that is null.
///
/// # Safety
/// `from` is null or readable for `bytes` bytes, which nobody writes meanwhile.
unsafe fn host_bytes<'a>(from: usize, bytes: usize) -> Answer<&'a [u8]> {
    match bytes {
        0 => Ok(&[]),
        _ if from == 0 || bytes > isize::MAX as usize => Err(Error::INVALID_VALUE),
        // SAFETY: not null, not beyond isize::MAX, and readable as the caller promises.
        _ => Ok(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }),
    }
}

/// The host's `bytes` writable bytes at `to`; an error where that is null.
///
/// # Safety
/// `to` is null or writable for `bytes` bytes, which nobody else uses meanwhile.
unsafe fn host_bytes_mut<'a>(to: usize, bytes: usize) -> Answer<&'a mut [u8]> {
    match bytes {
        0 => Ok(&mut []),
        _ if to == 0 || bytes > isize::MAX as usize => Err(Error::INVALID_VALUE),
        // SAFETY: not null, not beyond isize::MAX, and writable as the caller promises.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) }),
    }
}
