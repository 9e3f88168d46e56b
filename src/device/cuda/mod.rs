//! An NVIDIA GPU through the driver API: one stream that computes, one that copies, memory from a pool.
//!
//! Operations are queued on the compute stream and return at once; reading memory waits for everything before it.
//! Copies between host and device go through pinned buffers on a stream of their own, ordered by events.
//!
//! Nothing is linked: the driver is looked for when a device is opened. A dry run has no driver at all: see [`Cuda`].

mod driver;
mod emulator;
mod graph;
mod image;
mod kernel;
mod memory;
mod staging;

use super::profile::Recorder;
use super::{Precision, Usage};
use crate::error::{Error, Result};
use driver::{Driver, Function, code, failure};
use std::cell::Cell;
use std::rc::Rc;

pub use driver::{count, devices, toolkit};
pub use emulator::{Counts, Emulator};
pub(super) use graph::Graph;
pub use image::Image;
pub use kernel::{Grid, Kernel};
pub(super) use memory::DeviceBlock;
pub(super) use staging::Pending;

/// The oldest GPUs that the kernels run on: NVIDIA's Ampere.
const CAPABILITY: (i32, i32) = (8, 0);

/// What a GPU is. The driver tells it of a GPU that is here; a dry run can be made for any other.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The number of the GPU, from 0.
    pub ordinal: usize,
    /// The product's name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Bytes of shared memory that a block may ask for.
    pub shared: usize,
}

/// A GPU, or a dry run of one.
///
/// A dry run takes the same path through the operations as the GPU that its [`Facts`] describe: the same checks, tiles,
/// scratch and recordings. Its blocks of memory have addresses but no bytes, and what is queued is not done.
pub struct Cuda {
    usage: Usage,
    precision: Precision,
    facts: Facts,
    /// Whether work is being recorded.
    recording: Cell<bool>,
    recorder: Recorder,
    backend: Backend,
}

enum Backend {
    Gpu(Rc<Driver>),
    /// A dry run, with the address of the block that is allocated next.
    Dry(Cell<u64>),
}

impl Cuda {
    pub(super) fn open(ordinal: usize, precision: Precision) -> Result<Self> {
        let (driver, facts) = Driver::open(ordinal)?;
        Ok(Cuda::new(facts, precision, Backend::Gpu(Rc::new(driver))))
    }

    pub(super) fn dry(facts: Facts, precision: Precision) -> Self {
        Cuda::new(facts, precision, Backend::Dry(Cell::new(memory::FIRST)))
    }

    fn new(facts: Facts, precision: Precision, backend: Backend) -> Self {
        Cuda {
            usage: Usage::default(),
            precision,
            facts,
            recording: Cell::new(false),
            recorder: Recorder::default(),
            backend,
        }
    }

    /// `None` on a dry run.
    fn driver(&self) -> Option<&Rc<Driver>> {
        match &self.backend {
            Backend::Gpu(driver) => Some(driver),
            Backend::Dry(_) => None,
        }
    }

    /// What the GPU is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How products of matrices and convolutions compute here.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn is_dry(&self) -> bool {
        self.driver().is_none()
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.get()
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn allocate(self: &Rc<Self>, bytes: usize) -> Result<DeviceBlock> {
        let block = DeviceBlock::new(self.clone(), bytes)?;
        self.usage.add(bytes);
        Ok(block)
    }

    /// An error while work is being recorded, for what a recording cannot hold.
    fn refuse_in_recording(&self, doing: &str) -> Result<()> {
        if self.recording.get() {
            let message = format!("{doing}: not while a graph is being recorded");
            return Err(Error::Device(message));
        }
        Ok(())
    }

    /// Waits until all that was queued is done.
    pub fn synchronise(&self) -> Result<()> {
        self.refuse_in_recording("waiting for the device")?;
        self.driver().map_or(Ok(()), |driver| driver.synchronise())
    }
}
