//! Recorded work, and the time that work takes.

use super::{Cuda, Driver};
use crate::error::{Error, Result};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Launches that were recorded, to be queued again as one; `None` on a dry run.
pub struct Graph(Option<Launches>);

struct Launches {
    graph: CudaGraph,
    driver: Rc<Driver>,
}

impl Drop for Launches {
    /// Waits for the graph's last replay: a driver may still read a graph that runs. A destructor cannot report an error, and
    /// the next call on the device reports it again.
    fn drop(&mut self) {
        let _ = self.driver.synchronise();
    }
}

impl Graph {
    /// Queues the recorded work.
    pub fn replay(&self) -> Result<()> {
        let Some(Launches { graph, driver }) = &self.0 else {
            return Ok(());
        };
        driver.last.set("a recorded graph");
        graph
            .launch()
            .map_err(|e| driver.failure("replaying a recorded graph", e))
    }
}

impl Cuda {
    /// Records what `body` queues instead of running it.
    pub(in crate::device) fn record(&self, body: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.refuse_in_recording("recording a graph")?;
        let run = || {
            self.recording.set(true);
            let done = body();
            self.recording.set(false);
            done
        };
        match self.driver() {
            Some(driver) => driver.record(run),
            None => run().map(|()| Graph(None)),
        }
    }

    /// How long the device takes for what `body` queues.
    pub(in crate::device) fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let Some(driver) = self.driver() else {
            let start = Instant::now();
            body()?;
            return Ok(start.elapsed());
        };
        let refuse = |e| driver.failure("timing", e);
        let event = || {
            let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
            driver.context.new_event(flags).map_err(refuse)
        };
        let (start, end) = (event()?, event()?);
        start.record(&driver.compute).map_err(refuse)?;
        body()?;
        end.record(&driver.compute).map_err(refuse)?;
        end.synchronize().map_err(refuse)?;
        let milliseconds = start.elapsed_ms(&end).map_err(refuse)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1000.0))
    }
}

impl Driver {
    /// A kernel that is launched for the first time is loaded, which a recording cannot hold: `body` must have run
    /// before.
    fn record(self: &Rc<Self>, body: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let refuse = |e| self.failure("recording a graph", e);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.compute.begin_capture(mode).map_err(refuse)?;
        let done = body();
        // The stream records until it is told to stop, so also after an error.
        let graph = self.compute.end_capture(CUgraphInstantiate_flags(0));
        self.free_deferred();
        done?;
        let nothing = || Error::Device("recording a graph: nothing was queued".into());
        let graph = graph.map_err(refuse)?.ok_or_else(nothing)?;
        let driver = self.clone();
        Ok(Graph(Some(Launches { graph, driver })))
    }
}
