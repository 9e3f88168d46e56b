//! What a device is: memory that tensors live in, and where operations run.
//!
//! A device and all that lives on it belong to one thread (`Rc` inside): that is what makes handing
//! out slices of its memory sound. Several devices mean several threads, one each.

mod cpu;
mod plan;

use crate::error::{Error, Result};
use std::rc::Rc;

pub use cpu::{Cpu, cpu_threads};
pub use plan::Plan;

/// A handle; clones are the same device.
#[derive(Clone)]
pub enum Device {
    /// The host's processors, threads from rayon's current pool.
    Cpu(Rc<Cpu>),
    /// Executes nothing: operations check their shapes and memory is only counted. Running a step on
    /// it tells how many bytes the step takes.
    Plan(Rc<Plan>),
}

impl Device {
    pub fn cpu() -> Self {
        Device::Cpu(Rc::new(Cpu::default()))
    }

    pub fn plan() -> Self {
        Device::Plan(Rc::new(Plan::default()))
    }

    /// A block of zeroed memory, 64-byte aligned.
    pub fn allocate(&self, bytes: usize) -> Result<Memory> {
        let block = match self {
            Device::Cpu(cpu) => Block::Host(cpu.allocate(bytes)?),
            Device::Plan(plan) => {
                plan.allocate(bytes);
                Block::Planned
            }
        };
        let device = self.clone();
        Ok(Memory {
            block,
            bytes,
            device,
        })
    }

    fn usage(&self) -> &Usage {
        match self {
            Device::Cpu(cpu) => cpu.usage(),
            Device::Plan(plan) => plan.usage(),
        }
    }

    /// How many blocks were ever allocated: constant while a training step is in steady state.
    pub fn allocations(&self) -> u64 {
        self.usage().allocations.get()
    }

    /// Bytes allocated now.
    pub fn bytes_in_use(&self) -> usize {
        self.usage().bytes.get()
    }

    /// The largest `bytes_in_use` so far.
    pub fn peak_bytes(&self) -> usize {
        self.usage().peak.get()
    }

    pub fn same(&self, other: &Device) -> bool {
        std::ptr::eq(self.usage(), other.usage())
    }
}

/// What every device counts about its memory.
#[derive(Default)]
struct Usage {
    allocations: std::cell::Cell<u64>,
    bytes: std::cell::Cell<usize>,
    peak: std::cell::Cell<usize>,
}

impl Usage {
    fn add(&self, bytes: usize) {
        self.allocations.set(self.allocations.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.peak.set(self.peak.get().max(self.bytes.get()));
    }

    fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }
}

/// A block of device memory, freed on drop.
pub struct Memory {
    block: Block,
    bytes: usize,
    device: Device,
}

enum Block {
    Host(cpu::HostBlock),
    Planned,
}

impl Memory {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where the block lies in host memory; none on other devices.
    pub(crate) fn host(&self) -> Option<*mut u8> {
        match &self.block {
            Block::Host(block) => Some(block.as_ptr()),
            Block::Planned => None,
        }
    }

    /// Copies host bytes into the block. Nothing happens on the planning device.
    pub fn upload(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.check_range(offset, source.len())?;
        match &self.block {
            Block::Host(block) => block.write(offset, source),
            Block::Planned => {}
        }
        Ok(())
    }

    /// Copies bytes of the block to the host. The planning device gives zeros.
    pub fn download(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        self.check_range(offset, target.len())?;
        match &self.block {
            Block::Host(block) => block.read(offset, target),
            Block::Planned => target.fill(0),
        }
        Ok(())
    }

    fn check_range(&self, offset: usize, bytes: usize) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(Error::Device(format!(
                "copy of {bytes} bytes at {offset} leaves a block of {} bytes",
                self.bytes
            ))),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.usage().remove(self.bytes);
    }
}
