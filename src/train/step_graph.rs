//! Training steps on a GPU as recorded graphs: all launches of a step are queued as one.
//!
//! A step is recorded for each shape (B, T) of batch that comes again: the first runs launch by launch, which loads
//! kernels and finds the size of the arena; the second is recorded; from then on it is replayed. What changes from
//! step to step is therefore read from device memory and written there before: the batch, Philox's step, the
//! optimiser's schedule. A graph has the addresses of the step arena in it: when that moves, all graphs go.

use crate::device::cuda::Graph;
use crate::error::Result;
use crate::tensor::Context;
use std::collections::HashMap;

#[derive(Default)]
pub struct StepGraphs {
    /// By (B, T); none for shapes that have run once.
    graphs: HashMap<[usize; 2], Option<Graph>>,
    /// Which arena the addresses are of.
    arena: u64,
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
        if self.arena != ctx.generation() {
            self.graphs.clear();
            self.arena = ctx.generation();
        }
        match self.graphs.get(&shape) {
            None => {
                self.graphs.insert(shape, None);
                step()
            }
            Some(None) => {
                let graph = ctx.device().record(step)?;
                graph.replay()?;
                self.graphs.insert(shape, Some(graph));
                Ok(())
            }
            Some(Some(graph)) => graph.replay(),
        }
    }
}
