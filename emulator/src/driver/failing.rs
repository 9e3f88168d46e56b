//! Failures on purpose, to test how programs handle them: `CUDA_EMULATOR_FAIL`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::FaultKind;

use super::Answer;
use super::context::Context;
use super::result::Error;

/// The kind of call that fails, and its number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This launch of a kernel or graph fails as if it needed too many resources. Later launches do not fail.
    Launch(u64),
    /// This launch fails as if its kernel had accessed memory out of bounds, so that the context is lost.
    Fault(u64),
    /// This allocation and every later one fail.
    Allocation(u64),
}

impl Failure {
    /// `launch:N`, `fault:N` or `allocation:N`.
    pub fn parse(text: &str) -> Option<Failure> {
        let (kind, number) = text.split_once(':')?;
        let number = number.parse().ok().filter(|&n| n > 0)?;
        match kind {
            "launch" => Some(Failure::Launch(number)),
            "fault" => Some(Failure::Fault(number)),
            "allocation" => Some(Failure::Allocation(number)),
            _ => None,
        }
    }
}

static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts a launch, and fails if it is the chosen one.
pub fn launch(context: &Context) -> Answer {
    let number = LAUNCHES.fetch_add(1, Ordering::Relaxed) + 1;
    match context.environment.fail {
        Some(Failure::Launch(at)) if at == number => Err(Error::LAUNCH_OUT_OF_RESOURCES),
        Some(Failure::Fault(at)) if at == number => {
            context.fail(FaultKind::OutOfBounds);
            context.check()
        }
        _ => Ok(()),
    }
}

/// Counts an allocation of device memory, and fails if it is the chosen one or a later one.
pub fn allocation(context: &Context) -> Answer {
    let number = ALLOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match context.environment.fail {
        Some(Failure::Allocation(from)) if number >= from => Err(Error::OUT_OF_MEMORY),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_a_kind_and_a_number() {
        assert_eq!(Failure::parse("launch:7"), Some(Failure::Launch(7)));
        assert_eq!(Failure::parse("fault:1"), Some(Failure::Fault(1)));
        assert_eq!(
            Failure::parse("allocation:30"),
            Some(Failure::Allocation(30))
        );
        for wrong in ["launch", "launch:0", "launch:-1", "copy:1", "launch:x", ""] {
            assert_eq!(Failure::parse(wrong), None, "{wrong}");
        }
    }
}
