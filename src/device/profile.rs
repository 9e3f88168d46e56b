//! What a device was asked for, call by call: kernels of a GPU, operations of the CPU.

use crate::error::{Error, Result};
use cudarc::driver::CudaEvent;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The least that a call has to do, as far as the operation knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes of the tensors that it is given.
    pub bytes: usize,
    /// Multiplications and additions of products and convolutions.
    pub flops: f64,
}

/// One call that a device was asked for.
#[derive(Clone, Debug)]
pub struct Call {
    /// The kernel, or the operation of the CPU and its function.
    pub name: String,
    /// What it has to do; of operations of the CPU nothing is known.
    pub work: Work,
    /// When it began, from the first call on, and how long it took; `None` on a dry run and in an emulator.
    pub time: Option<(Duration, Duration)>,
}

/// Notes calls while it is on.
#[derive(Default)]
pub(super) struct Recorder {
    calls: RefCell<Option<Vec<Noted>>>,
}

/// A call that was noted.
pub(super) struct Noted {
    pub name: String,
    pub work: Work,
    pub timing: Timing,
}

/// How a call is timed.
pub(super) enum Timing {
    None,
    /// On the host: when it began, and how long it took.
    Host(Instant, Duration),
    /// On a GPU, between these events, so many times.
    Events(CudaEvent, CudaEvent, u32),
}

impl Recorder {
    pub fn is_on(&self) -> bool {
        self.calls.borrow().is_some()
    }

    pub fn begin(&self) {
        self.calls.replace(Some(Vec::new()));
    }

    /// What was noted; nothing is noted any more.
    pub fn end(&self) -> Vec<Noted> {
        self.calls.take().unwrap_or_default()
    }

    pub fn note(&self, noted: Noted) {
        if let Some(calls) = &mut *self.calls.borrow_mut() {
            calls.push(noted);
        }
    }

    /// Runs an operation of the host's processors. One that another operation calls is part of that.
    pub fn time<R>(&self, operation: &str, function: &str, body: impl FnOnce() -> R) -> R {
        let Some(outside) = self.calls.take() else {
            return body();
        };
        let start = Instant::now();
        let result = body();
        let timing = Timing::Host(start, start.elapsed());
        self.calls.replace(Some(outside));
        self.note(Noted {
            name: format!("{operation} {function}"),
            work: Work::default(),
            timing,
        });
        result
    }
}

impl Timing {
    /// When it began, from `first` on, and how long one call took.
    fn since(&self, first: &Timing) -> Result<Option<(Duration, Duration)>> {
        let between = |from: &CudaEvent, to: &CudaEvent| {
            let milliseconds = from.elapsed_ms(to);
            let refuse = |e| Error::Device(format!("timing: {e}"));
            let seconds = f64::from(milliseconds.map_err(refuse)?) / 1000.0;
            Ok(Duration::from_secs_f64(seconds.max(0.0)))
        };
        Ok(match (first, self) {
            (Timing::Host(first, _), Timing::Host(start, length)) => {
                Some((start.duration_since(*first), *length))
            }
            (Timing::Events(first, ..), Timing::Events(start, end, times)) => {
                Some((between(first, start)?, between(start, end)? / *times))
            }
            _ => None,
        })
    }
}

/// The calls that were noted, when all of them are done.
pub(super) fn calls(noted: Vec<Noted>) -> Result<Vec<Call>> {
    let time = |noted: &Noted, all: &[Noted]| noted.timing.since(&all[0].timing);
    let times: Result<Vec<_>> = noted.iter().map(|one| time(one, &noted)).collect();
    let calls = noted.into_iter().zip(times?);
    let call = |(noted, time): (Noted, _)| Call {
        name: noted.name,
        work: noted.work,
        time,
    };
    Ok(calls.map(call).collect())
}
