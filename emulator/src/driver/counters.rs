//! Counters: sums over all launches of each kernel. They are available in Rust, through the shared library, and as a
//! file at exit.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::fs;
use std::sync::{Mutex, Once};

use serde_json::{Map, Value};

use crate::machine::Counters;

use super::handle::lock;
use super::options::{self, Environment};
use super::result::Error;
use super::{Status, entry, log, put};

static COUNTS: Mutex<BTreeMap<String, Counters>> = Mutex::new(BTreeMap::new());

/// Adds the counts of a launch to those of its kernel.
pub(super) fn count(kernel: &str, counts: &Counters) {
    let mut all = lock(&COUNTS);
    match all.get_mut(kernel) {
        Some(sum) => sum.add(counts),
        None => _ = all.insert(kernel.into(), counts.clone()),
    }
}

/// The counters of each kernel, summed over its launches since the start or the last [`reset_counters`]. This is for a
/// program that links the crate: a loaded `libcuda.so` has its own counters, which `cuEmulatorCounters` returns.
pub fn counters() -> BTreeMap<String, Counters> {
    lock(&COUNTS).clone()
}

/// Resets all counters to 0.
pub fn reset_counters() {
    lock(&COUNTS).clear();
}

/// The counters as JSON: `{"kernel": {"launches": 3, ...}, ...}`.
pub fn counters_json() -> String {
    let kernels = counters().into_iter().map(|(kernel, counts)| {
        let entries = counts.entries().into_iter();
        let entries = entries.map(|(name, count)| (name.to_string(), Value::from(count)));
        (kernel, Value::Object(entries.collect()))
    });
    Value::Object(kernels.collect::<Map<_, _>>()).to_string()
}

/// Copies the counters as JSON, with a NUL at the end, into `text`, which has `bytes` bytes. The number of bytes that
/// are needed is written to `needed`. If it is more than `bytes`, nothing is copied, and the result is
/// CUDA_ERROR_INVALID_VALUE. `text` may be null if `bytes` is 0, and `needed` may be null.
///
/// # Safety
/// `text` is writable for `bytes` bytes; `needed` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEmulatorCounters(
    text: *mut c_char,
    bytes: usize,
    needed: *mut usize,
) -> Status {
    entry(|| {
        let json = counters_json();
        if !needed.is_null() {
            // SAFETY: not null, and writable, as the caller promises.
            unsafe { put(needed, json.len() + 1)? };
        }
        if text.is_null() || bytes <= json.len() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the text and its NUL are no more than `bytes`.
        unsafe {
            text.cast::<u8>()
                .copy_from_nonoverlapping(json.as_ptr(), json.len());
            text.add(json.len()).write(0);
        }
        Ok(())
    })
}

/// Resets all counters to 0.
///
/// # Safety
/// None needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEmulatorResetCounters() -> Status {
    entry(|| {
        reset_counters();
        Ok(())
    })
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn write_file() {
    entry(|| {
        let path = options::environment().and_then(|environment| environment.counters.as_ref());
        if let Some(path) = path
            && let Err(error) = fs::write(path, counters_json())
        {
            log::line(format_args!("counters: {}: {error}", path.display()));
        }
        Ok(())
    });
}

/// Arranges that the counters are written when the process ends, if a file is set.
pub(super) fn at_exit(environment: &Environment) {
    static ONCE: Once = Once::new();
    if environment.counters.is_some() {
        ONCE.call_once(|| {
            // SAFETY: a C function that takes a function, which exists as long as this library.
            if unsafe { atexit(write_file) } != 0 {
                log::line("counters: atexit failed, so no counters will be written");
            }
        });
    }
}
