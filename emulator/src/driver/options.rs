//! The settings in environment variables. They are read once, by the first call that needs them.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::machine::{Checks, Options};

use super::Answer;
use super::failing::Failure;
use super::log;
use super::result::Error;

/// The emulated machine, and what is recorded about it.
pub struct Environment {
    pub devices: i32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Major, minor.
    pub capability: (i32, i32),
    /// The version that `cuDriverGetVersion` returns: 13000 is CUDA 13.0.
    pub driver_version: i32,
    /// How kernels run: checks, threads, SMs, shared memory.
    pub options: Options,
    /// The file for the counters at exit.
    pub counters: Option<PathBuf>,
    /// The directory for traces of launches.
    pub trace: Option<PathBuf>,
    /// The number of launches of each kernel that are traced.
    pub trace_limit: u64,
    /// A launch returns its own fault, as with a driver that waits for each kernel.
    pub blocking: bool,
    /// The call that fails on purpose.
    pub fail: Option<Failure>,
}

/// The text of an environment variable; `None` if it is not set or empty.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The value of a variable, read by `parse`, or `default` if it is not set.
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

/// A number of at least 1.
fn positive<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number >= T::from(1))
}

/// A number of bytes: `4096`, `64K`, `512M`, `40G`.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A compute capability: `8.0`.
fn capability(text: &str) -> Option<(i32, i32)> {
    let (major, minor) = text.split_once('.')?;
    Some((positive(major)?, minor.parse().ok().filter(|n| *n >= 0)?))
}

/// A CUDA release: `13.0` is 13000.
fn version(text: &str) -> Option<i32> {
    let (major, minor) = capability(text)?;
    Some(major.checked_mul(1000)? + minor.checked_mul(10)?)
}

/// `on`, `off`, or a list of the checks to run.
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

/// How kernels run.
fn options(counters: bool) -> Result<Options, String> {
    let a100 = Options::default();
    let shared = value(
        "CUDA_EMULATOR_SHARED",
        "bytes of shared memory per block, from 48K to 2G",
        u64::from(a100.max_dynamic_shared),
        |text| bytes(text).filter(|bytes| (48 << 10..2 << 30).contains(bytes)),
    )?;
    Ok(Options {
        counters,
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
    })
}

impl Environment {
    fn read() -> Result<Environment, String> {
        let counters = text("CUDA_EMULATOR_COUNTERS");
        let counting = counters.as_deref() != Some("off");
        Ok(Environment {
            devices: value(
                "CUDA_EMULATOR_DEVICES",
                "a number from 0 to 64",
                1,
                |text| text.parse().ok().filter(|count| (0..=64).contains(count)),
            )?,
            memory: value("CUDA_EMULATOR_MEMORY", "a number of bytes", 40 << 30, bytes)?,
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
            options: options(counting)?,
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

/// Reads the environment for `cuInit`. After it, `environment` returns it.
pub fn initialise() -> Answer<&'static Environment> {
    let environment = read_once()?;
    INITIALISED.store(true, Ordering::Release);
    Ok(environment)
}

/// The environment; `None` until `cuInit` has succeeded.
pub fn environment() -> Option<&'static Environment> {
    let initialised = INITIALISED.load(Ordering::Acquire);
    initialised.then(|| ENVIRONMENT.get()?.as_ref().ok())?
}

/// The version of the driver, which is available before `cuInit`.
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
