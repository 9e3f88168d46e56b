//! The counters of the driver's emulator: see `emulator/README.md`.

use crate::error::{Error, Result};
use libloading::Library;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::sync::LazyLock;

/// The emulator that stands in for the driver of this process.
#[derive(Clone, Copy)]
pub struct Emulator {
    read: ReadCounters,
    reset: ResetCounters,
}

type ReadCounters = unsafe extern "C" fn(*mut c_char, usize, *mut usize) -> c_int;
type ResetCounters = unsafe extern "C" fn() -> c_int;

/// What the launches of a kernel did.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Counts {
    /// How many there were.
    pub launches: u64,
    /// Sectors of 32 bytes that their loads asked for.
    pub global_load_sectors: u64,
    /// Sectors of 32 bytes that their stores asked for.
    pub global_store_sectors: u64,
    /// Different sectors that each launch asked for, added up over the launches.
    pub distinct_sectors: u64,
    /// Instructions of tensor cores, of a warp each.
    pub mma: u64,
}

const SECTOR: u64 = 32;

impl Counts {
    /// Bytes that the launches asked for, in whole sectors.
    pub fn requested_bytes(&self) -> u64 {
        SECTOR * (self.global_load_sectors + self.global_store_sectors)
    }

    /// Bytes that a launch has to move at least, if what it asks for again comes out of a cache; added up over the launches.
    pub fn distinct_bytes(&self) -> u64 {
        SECTOR * self.distinct_sectors
    }
}

/// The names under which cudarc loads the driver.
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

static EMULATOR: LazyLock<Option<Emulator>> = LazyLock::new(|| NAMES.into_iter().find_map(open));

/// The emulator, if that is the library of this name.
fn open(name: &str) -> Option<Emulator> {
    // SAFETY: the driver, or what stands in for it, is loaded already, and its constructors have run.
    let library = unsafe { Library::new(name) }.ok()?;
    // SAFETY: the emulator declares them so, and no driver has symbols of these names. The library stays loaded.
    let emulator = unsafe {
        Emulator {
            read: *library.get::<ReadCounters>(b"cuEmulatorCounters").ok()?,
            reset: *library
                .get::<ResetCounters>(b"cuEmulatorResetCounters")
                .ok()?,
        }
    };
    std::mem::forget(library);
    Some(emulator)
}

impl Emulator {
    pub(in crate::device) fn find() -> Option<Self> {
        *EMULATOR
    }

    /// Sets all counters to zero.
    ///
    /// # Errors
    /// When the emulator refuses.
    pub fn reset(&self) -> Result<()> {
        // SAFETY: it takes nothing.
        checked(unsafe { (self.reset)() })
    }

    /// What each kernel did since the last reset, by its name.
    ///
    /// # Errors
    /// When the emulator refuses, or says what is not understood.
    pub fn counts(&self) -> Result<BTreeMap<String, Counts>> {
        let mut needed = 0;
        // SAFETY: with no room, only the size is written.
        unsafe { (self.read)(std::ptr::null_mut(), 0, &raw mut needed) };
        let mut text = vec![0_u8; needed];
        // SAFETY: there is room for so many bytes.
        checked(unsafe { (self.read)(text.as_mut_ptr().cast(), text.len(), &raw mut needed) })?;
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        serde_json::from_slice(text)
            .map_err(|e| Error::Device(format!("the emulator's counters: {e}")))
    }
}

fn checked(status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        code => Err(Error::Device(format!(
            "the emulator's counters: error {code}"
        ))),
    }
}
