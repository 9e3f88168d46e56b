//! Training steps as recordings, on devices that can record: all launches of a step are queued as one.
//!
//! The steps of each shape (B, T) of batch are recorded once: the first step of a shape runs launch by launch, which loads
//! kernels; the second is recorded and replayed; all later ones are replayed. What changes from step to step is
//! therefore read from device memory and written there before the step: the batch, Philox's step, the optimiser's
//! schedule. A recording has the addresses of the step arena in it: when the arena moves, all recordings are dropped.

use crate::device::Recording;
use crate::error::Result;
use crate::tensor::Context;
use std::collections::HashMap;

/// The recorded steps of a run.
#[derive(Default)]
pub struct StepGraphs {
    /// By (B, T); `None` for shapes that have run once.
    recordings: HashMap<[usize; 2], Option<Recording>>,
    /// The arena's generation when they were made.
    generation: u64,
}

impl StepGraphs {
    /// Runs `step`, which begins where the arena now stands and is the same for every batch of this shape. Devices
    /// that record nothing run it every time.
    pub fn run(
        &mut self,
        ctx: &Context,
        shape: [usize; 2],
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if !ctx.device().records() {
            return step();
        }
        if self.generation != ctx.generation() {
            self.recordings.clear();
            self.generation = ctx.generation();
        }
        match self.recordings.get(&shape) {
            None => {
                step()?;
                self.recordings.insert(shape, None);
                Ok(())
            }
            Some(None) => {
                let recording = ctx.device().record(step)?;
                recording.replay()?;
                self.recordings.insert(shape, Some(recording));
                Ok(())
            }
            Some(Some(recording)) => recording.replay(),
        }
    }
}
