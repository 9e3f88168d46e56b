//! Recorded work, and the time that work takes.

use super::Cuda;
use crate::error::{Error, Result};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::rc::Rc;
use std::time::Duration;

/// Launches that were recorded, to be queued again as one. Addresses are those of the recording: what it used has to
/// live, and what changes from one replay to the next has to be in device memory.
pub struct Graph {
    graph: CudaGraph,
    cuda: Rc<Cuda>,
}

impl Graph {
    /// Queues the recorded work.
    pub fn replay(&self) -> Result<()> {
        self.cuda.last.set("a recorded graph");
        self.graph
            .launch()
            .map_err(|e| self.cuda.failure("replaying a recorded graph", e))
    }
}

impl Cuda {
    /// Records what `body` queues instead of running it. In it nothing may wait for the device, copy to or from the
    /// host, allocate device memory, or launch a kernel for the first time, which loads it: run it once before.
    pub(in crate::device) fn record(
        self: &Rc<Self>,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<Graph> {
        let refuse = |e| self.failure("recording a graph", e);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.compute.begin_capture(mode).map_err(refuse)?;
        self.recording.set(true);
        let done = body();
        self.recording.set(false);
        // The stream records until it is told to stop, so also after an error.
        let graph = self.compute.end_capture(CUgraphInstantiate_flags(0));
        done?;
        let nothing = || Error::Device("recording a graph: nothing was queued".into());
        let graph = graph.map_err(refuse)?.ok_or_else(nothing)?;
        Ok(Graph {
            graph,
            cuda: self.clone(),
        })
    }

    /// How long the device takes for what `body` queues.
    pub(in crate::device) fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let refuse = |e| self.failure("timing", e);
        let event = || {
            let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
            self.context.new_event(flags).map_err(refuse)
        };
        let (start, end) = (event()?, event()?);
        start.record(&self.compute).map_err(refuse)?;
        body()?;
        end.record(&self.compute).map_err(refuse)?;
        end.synchronize().map_err(refuse)?;
        let milliseconds = start.elapsed_ms(&end).map_err(refuse)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1000.0))
    }
}
