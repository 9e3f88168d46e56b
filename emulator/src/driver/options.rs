//! What the environment sets. It is read once, by the first call that needs it.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::machine::{Checks, Options};

use super::Answer;
use super::failing::Failure;
use super::log;
use super::result::Error;

/// The emulated machine and what is recorded of it.
pub struct Environment {
    pub devices: i32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Major, minor.
    pub capability: (i32, i32),
    /// As `cuDriverGetVersion` tells it: 13000 is CUDA 13.0.
    pub driver_version: i32,
    /// How kernels run: checks, threads, SMs, shared memory.
    pub options: Options,
    /// Where the counters go at exit.
    pub counters: Option<PathBuf>,
    /// Where traces of launches go.
    pub trace: Option<PathBuf>,
    /// Launches of each kernel that are traced.
    pub trace_limit: u64,
    /// A launch gives its own fault, as with a driver told to wait for each kernel.
    pub blocking: bool,
    /// What is made to fail.
    pub fail: Option<Failure>,
}

/// The environment variable's text; `None` when it is unset or empty.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variable read by `parse`, or `default` when it is unset.
fn value<T>(
    name: &str,
    expected: &str,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, String> {
    match text(name) {
        None => Ok(default),
        Some(text) => parse(&text).ok_or_else(|| format!("{name}={text:?}: expected {expected}")),
    }
}

/// A number from 1 on.
fn positive<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number >= T::from(1))
}

/// Bytes: `4096`, `64K`, `512M`, `40G`.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `8.0`, as nvcc and nvidia-smi write it.
fn capability(text: &str) -> Option<(i32, i32)> {
    let (major, minor) = text.split_once('.')?;
    Some((positive(major)?, minor.parse().ok().filter(|n| *n >= 0)?))
}

/// `13.0` as 13000.
fn version(text: &str) -> Option<i32> {
    let (major, minor) = capability(text)?;
    Some(major.checked_mul(1000)? + minor.checked_mul(10)?)
}

/// `on`, `off`, or a list of checks to run and no others.
fn checks(text: &str) -> Option<Checks> {
    match text {
        "on" => return Some(Checks::ALL),
        "off" => return Some(Checks::NONE),
        _ => {}
    }
    let mut checks = Checks::NONE;
    for name in text.split(',') {
        *match name.trim() {
            "bounds" => &mut checks.bounds,
            "alignment" => &mut checks.alignment,
            "uninitialised" => &mut checks.uninitialised,
            "shared-races" => &mut checks.shared_races,
            "global-races" => &mut checks.global_races,
            "barriers" => &mut checks.barriers,
            _ => return None,
        } = true;
    }
    Some(checks)
}

const CHECKS: &str =
    "on, off, or a list of bounds, alignment, uninitialised, shared-races, global-races, barriers";

impl Environment {
    fn read() -> Result<Environment, String> {
        let a100 = Options::default();
        let shared = value(
            "CUDA_EMULATOR_SHARED",
            "bytes of shared memory for a block, from 48K to 2G",
            u64::from(a100.max_dynamic_shared),
            |text| bytes(text).filter(|bytes| (48 << 10..2 << 30).contains(bytes)),
        )?;
        let counters = text("CUDA_EMULATOR_COUNTERS");
        let counting = counters.as_deref() != Some("off");
        let options = Options {
            counters: counting,
            threads: value(
                "CUDA_EMULATOR_THREADS",
                "a number of threads",
                a100.threads,
                positive,
            )?,
            checks: value("CUDA_EMULATOR_CHECKS", CHECKS, Checks::ALL, checks)?,
            sm_count: value(
                "CUDA_EMULATOR_SM_COUNT",
                "a number of multiprocessors below 65536",
                a100.sm_count,
                |text| positive(text).filter(|count| *count < 65536),
            )?,
            max_dynamic_shared: shared as u32,
            ..a100
        };
        Ok(Environment {
            devices: value("CUDA_EMULATOR_DEVICES", "a number", 1, |text| {
                text.parse().ok().filter(|count| (0..=64).contains(count))
            })?,
            memory: value("CUDA_EMULATOR_MEMORY", "bytes", 40 << 30, bytes)?,
            capability: value(
                "CUDA_EMULATOR_COMPUTE_CAPABILITY",
                "MAJOR.MINOR",
                (8, 0),
                capability,
            )?,
            driver_version: value(
                "CUDA_EMULATOR_DRIVER_VERSION",
                "MAJOR.MINOR",
                13000,
                version,
            )?,
            options,
            counters: counters.filter(|_| counting).map(PathBuf::from),
            trace: text("CUDA_EMULATOR_TRACE").map(PathBuf::from),
            trace_limit: value(
                "CUDA_EMULATOR_TRACE_LIMIT",
                "a number of launches",
                u64::MAX,
                |text| text.parse().ok(),
            )?,
            fail: value(
                "CUDA_EMULATOR_FAIL",
                "launch:N, fault:N or allocation:N",
                None,
                |text| Failure::parse(text).map(Some),
            )?,
            blocking: text("CUDA_LAUNCH_BLOCKING").is_some_and(|value| value != "0"),
        })
    }
}

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
static INITIALISED: AtomicBool = AtomicBool::new(false);

fn read_once() -> Answer<&'static Environment> {
    let environment = ENVIRONMENT.get_or_init(Environment::read);
    environment.as_ref().map_err(|message| {
        log::line(message);
        Error::INVALID_VALUE
    })
}

/// What `cuInit` does: from then on there is an environment.
pub fn initialise() -> Answer<&'static Environment> {
    let environment = read_once()?;
    INITIALISED.store(true, Ordering::Release);
    Ok(environment)
}

/// What the environment sets, once `cuInit` has succeeded.
pub fn environment() -> Option<&'static Environment> {
    let initialised = INITIALISED.load(Ordering::Acquire);
    initialised.then(|| ENVIRONMENT.get()?.as_ref().ok())?
}

/// The driver's version, which can be asked for before `cuInit`.
pub fn driver_version() -> Answer<i32> {
    Ok(read_once()?.driver_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_binary_suffixes() {
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("64K"), Some(65536));
        assert_eq!(bytes("40g"), Some(40 << 30));
        for wrong in ["", "K", "1.5G", "-1", "12T", "99999999999G"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn checks_are_on_off_or_a_list() {
        assert_eq!(checks("on"), Some(Checks::ALL));
        assert_eq!(checks("off"), Some(Checks::NONE));
        let some = checks("bounds, global-races").unwrap();
        assert!(some.bounds && some.global_races && !some.barriers && !some.alignment);
        assert_eq!(checks("bounds,typo"), None);
    }

    #[test]
    fn versions_are_major_and_minor() {
        assert_eq!(capability("8.0"), Some((8, 0)));
        assert_eq!(capability("12.0"), Some((12, 0)));
        assert_eq!(version("12.8"), Some(12080));
        for wrong in ["8", "8.x", "-8.0", ".0"] {
            assert_eq!(capability(wrong), None, "{wrong}");
        }
    }
}
