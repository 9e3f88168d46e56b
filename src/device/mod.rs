//! What a device is: memory that tensors live in, and where operations run.
//!
//! A device and all that lives on it belong to one thread (`Rc` inside): that is what makes handing
//! out slices of its memory sound. Several devices mean several threads, one each.

mod cpu;
pub mod cuda;
mod plan;

use crate::error::{Error, Result};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use cpu::{Cpu, cpu_threads};
pub use cuda::Cuda;
pub use plan::Plan;

/// How products of matrices and convolutions compute; all else is f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 throughout: what the CPU does.
    #[default]
    F32,
    /// Tensor cores, factors rounded to 10 bits of mantissa, sums in f32: what PyTorch's convolutions do on a GPU.
    Tf32,
    /// Tensor cores, factors and activations in bf16 (7 bits of mantissa), sums, weights and gradients in f32.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// How much of a batch best goes through a network of convolutions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// In the last layers they are enough pixels to be worth reading the filters, and to keep all units busy.
    pub images: usize,
    /// Of an activation, so that the next layer finds it in the caches: in the first layers fewer images go together.
    pub bytes: usize,
}

/// A handle; clones are the same device.
#[derive(Clone)]
pub enum Device {
    /// An NVIDIA GPU.
    Cuda(Rc<Cuda>),
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

    /// Plans for the CPU.
    pub fn plan() -> Self {
        Device::cpu().planning()
    }

    /// A planning device on which work takes the room that it would take here.
    pub fn planning(&self) -> Self {
        Device::Plan(Rc::new(Plan::new(self.precision(), self.portion())))
    }

    /// GPU `ordinal`, counted from 0.
    ///
    /// # Errors
    /// When there is no driver or no such GPU, it or its driver is too old, or this build holds no kernels.
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Self> {
        Ok(Device::Cuda(Rc::new(Cuda::open(ordinal, precision)?)))
    }

    pub fn precision(&self) -> Precision {
        match self {
            Device::Cuda(cuda) => cuda.precision(),
            Device::Cpu(_) => Precision::F32,
            Device::Plan(plan) => plan.precision(),
        }
    }

    /// Whether operations return before they are done: waiting for one's result too early leaves the device idle.
    pub fn is_asynchronous(&self) -> bool {
        matches!(self, Device::Cuda(_))
    }

    pub fn portion(&self) -> Portion {
        match self {
            // Most of the L2 cache of an A100 (40 MB) or H100 (50 MB).
            Device::Cuda(_) => Portion {
                images: 64,
                bytes: 32 << 20,
            },
            Device::Cpu(_) => Portion {
                images: 8,
                bytes: 8 << 20,
            },
            Device::Plan(plan) => plan.portion(),
        }
    }

    /// What people call the device.
    pub fn name(&self) -> String {
        match self {
            Device::Cuda(cuda) => format!("{}, {}", cuda.facts().name, cuda.precision()),
            Device::Cpu(_) => format!("the CPU, {} threads", cpu_threads()),
            Device::Plan(_) => "the planning device".into(),
        }
    }

    /// A block of zeroed memory, 64-byte aligned.
    pub fn allocate(&self, bytes: usize) -> Result<Memory> {
        let memory = self.allocate_undefined(bytes)?;
        match &memory.block {
            Block::Cuda(block) => block.fill(0, bytes, 0)?,
            Block::Host(_) | Block::Planned => {}
        }
        Ok(memory)
    }

    /// As [`Device::allocate`], for memory that is written before it is read.
    pub fn allocate_undefined(&self, bytes: usize) -> Result<Memory> {
        let block = match self {
            Device::Cuda(cuda) => Block::Cuda(cuda.allocate(bytes)?),
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
            Device::Cuda(cuda) => cuda.usage(),
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

    /// Bytes that can still be allocated, where the device has memory of its own.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        match self {
            Device::Cuda(cuda) => cuda.free_memory().map(Some),
            Device::Cpu(_) | Device::Plan(_) => Ok(None),
        }
    }

    pub fn same(&self, other: &Device) -> bool {
        std::ptr::eq(self.usage(), other.usage())
    }

    /// Waits until everything that was asked of the device is done.
    pub fn synchronise(&self) -> Result<()> {
        match self {
            Device::Cuda(cuda) => cuda.synchronise(),
            Device::Cpu(_) | Device::Plan(_) => Ok(()),
        }
    }

    /// How long the device takes for what `body` asks of it; on a GPU between two events on its stream.
    pub fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        match self {
            Device::Cuda(cuda) => cuda.time(body),
            Device::Cpu(_) | Device::Plan(_) => {
                let start = Instant::now();
                body()?;
                Ok(start.elapsed())
            }
        }
    }

    /// Whether [`Device::record`] can be used.
    pub fn records(&self) -> bool {
        matches!(self, Device::Cuda(_))
    }

    /// Records what `body` asks of a GPU instead of doing it, to be replayed as one launch; see [`cuda::Graph`].
    ///
    /// # Errors
    /// When the device records nothing, or `body` waits, copies, allocates or fails.
    pub fn record(&self, body: impl FnOnce() -> Result<()>) -> Result<cuda::Graph> {
        match self {
            Device::Cuda(cuda) => cuda.record(body),
            Device::Cpu(_) | Device::Plan(_) => {
                Err(Error::Device(format!("{} records no graphs", self.name())))
            }
        }
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
    Cuda(cuda::DeviceBlock),
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
            Block::Cuda(_) | Block::Planned => None,
        }
    }

    /// Where the block lies in a GPU's memory; none on other devices.
    pub(crate) fn address(&self) -> Option<u64> {
        match &self.block {
            Block::Cuda(block) => Some(block.address()),
            Block::Host(_) | Block::Planned => None,
        }
    }

    /// Makes every value of the block a NaN, so that reading before writing shows.
    #[cfg(debug_assertions)]
    pub(crate) fn poison(&self) -> Result<()> {
        match &self.block {
            Block::Cuda(block) => block.fill(0, self.bytes, 0xFF),
            Block::Host(block) => {
                block.poison();
                Ok(())
            }
            Block::Planned => Ok(()),
        }
    }

    /// Copies host bytes into the block. Nothing happens on the planning device.
    pub fn upload(&self, offset: usize, source: &[u8]) -> Result<()> {
        if source.is_empty() {
            return Ok(());
        }
        self.check_range(offset, source.len())?;
        match &self.block {
            Block::Cuda(block) => block.write(offset, source)?,
            Block::Host(block) => block.write(offset, source),
            Block::Planned => {}
        }
        Ok(())
    }

    /// Copies bytes of the block to the host. The planning device gives zeros.
    pub fn download(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        if target.is_empty() {
            return Ok(());
        }
        self.check_range(offset, target.len())?;
        match &self.block {
            Block::Cuda(block) => block.read(offset, target)?,
            Block::Host(block) => block.read(offset, target),
            Block::Planned => target.fill(0),
        }
        Ok(())
    }

    /// Begins to copy bytes of the block to the host. A GPU goes on meanwhile with what is asked of it.
    pub fn download_later(&self, offset: usize, bytes: usize) -> Result<Pending> {
        self.check_range(offset, bytes)?;
        if let Block::Cuda(block) = &self.block {
            return Ok(Pending(Arrival::Awaited(block.read_later(offset, bytes)?)));
        }
        let mut here = vec![0; bytes];
        self.download(offset, &mut here)?;
        Ok(Pending(Arrival::Here(here)))
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

/// Bytes on their way to the host.
pub struct Pending(Arrival);

enum Arrival {
    Here(Vec<u8>),
    Awaited(cuda::Pending),
}

impl Pending {
    /// Waits for the bytes. `target` is as long as what was asked for.
    pub fn wait(self, target: &mut [u8]) -> Result<()> {
        match self.0 {
            Arrival::Here(bytes) => target.copy_from_slice(&bytes),
            Arrival::Awaited(pending) => pending.wait(target)?,
        }
        Ok(())
    }
}
