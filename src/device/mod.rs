//! What a device is: memory that tensors live in, and where operations run.
//!
//! Every device has a dry twin, [`Device::planning`]. Work on it takes the same path as on the device itself, with all
//! its checks and all its scratch, but nothing is computed and no memory is taken: [`Device::peak_bytes`] then says what
//! the work will take. What a driver or a library allocates for itself is not seen and not counted.
//!
//! A device and all that lives on it belong to one thread (`Rc` inside): that is what makes handing
//! out slices of its memory sound. Several devices mean several threads, one each.

mod cpu;
pub mod cuda;
mod profile;

use crate::error::{Error, Result};
use crate::words;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use cpu::{Cpu, cpu_threads};
pub use cuda::Cuda;
pub use profile::{Call, Work};

words! {
    /// How products of matrices and convolutions compute, and the type of what they read.
    #[derive(Default)]
    pub enum Precision {
        /// f32 throughout: what the CPU does.
        #[default]
        F32 = "f32",
        /// Tensor cores, factors rounded to 10 bits of mantissa, sums in f32: what PyTorch's convolutions do on a GPU.
        Tf32 = "tf32",
        /// Tensor cores, factors and activations in bf16 (7 bits of mantissa); sums, weights and the gradients of weights in f32.
        Bf16 = "bf16",
    }
}

/// A handle; clones are the same device.
#[derive(Clone)]
pub enum Device {
    /// An NVIDIA GPU.
    Cuda(Rc<Cuda>),
    /// The host's processors, threads from rayon's current pool.
    Cpu(Rc<Cpu>),
}

impl Device {
    /// The host's processors.
    pub fn cpu() -> Self {
        Device::Cpu(Rc::new(Cpu::default()))
    }

    /// A dry twin of this device, on which nothing was allocated yet.
    pub fn planning(&self) -> Self {
        match self {
            Device::Cuda(cuda) => Device::planning_cuda(cuda.facts().clone(), cuda.precision()),
            Device::Cpu(_) => Device::Cpu(Rc::new(Cpu::dry())),
        }
    }

    /// A dry run of a GPU that need not be here. Neither a driver nor compiled kernels are needed.
    pub fn planning_cuda(facts: cuda::Facts, precision: Precision) -> Self {
        Device::Cuda(Rc::new(Cuda::dry(facts, precision)))
    }

    /// Whether nothing is computed here: see [`Device::planning`].
    pub fn is_planning(&self) -> bool {
        match self {
            Device::Cuda(cuda) => cuda.is_dry(),
            Device::Cpu(cpu) => cpu.is_dry(),
        }
    }

    /// GPU `ordinal`, counted from 0.
    ///
    /// # Errors
    /// When there is no driver or no such GPU, it or its driver is too old, or this build holds no kernels.
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Self> {
        Ok(Device::Cuda(Rc::new(Cuda::open(ordinal, precision)?)))
    }

    /// What the GPU is, if the device is one.
    pub fn gpu(&self) -> Option<&cuda::Facts> {
        match self {
            Device::Cuda(cuda) => Some(cuda.facts()),
            Device::Cpu(_) => None,
        }
    }

    /// How products of matrices and convolutions compute here.
    pub fn precision(&self) -> Precision {
        match self {
            Device::Cuda(cuda) => cuda.precision(),
            Device::Cpu(_) => Precision::F32,
        }
    }

    /// Whether operations return before they are done: waiting for one's result too early leaves the device idle.
    pub fn is_asynchronous(&self) -> bool {
        matches!(self, Device::Cuda(_))
    }

    /// Bytes that stay in the device's caches from one operation to the next.
    pub fn cache_bytes(&self) -> usize {
        match self {
            // Most of the second-level cache of an A100 (40 MB) or H100 (50 MB).
            Device::Cuda(_) => 32 << 20,
            Device::Cpu(_) => 8 << 20,
        }
    }

    /// Rows of a matrix product that keep all of the device's units busy.
    pub fn busy_rows(&self) -> usize {
        match self {
            Device::Cuda(_) => 4096,
            Device::Cpu(_) => 512,
        }
    }

    /// What people call the device.
    pub fn name(&self) -> String {
        let name = match self {
            Device::Cuda(cuda) => format!("{}, {}", cuda.facts().name, cuda.precision()),
            Device::Cpu(_) => format!("the CPU, {}", words::count(cpu_threads(), "thread")),
        };
        if self.is_planning() {
            return format!("a dry run of {name}");
        }
        name
    }

    /// A block of zeroed memory, 64-byte aligned.
    pub fn allocate(&self, bytes: usize) -> Result<Memory> {
        let memory = self.allocate_undefined(bytes)?;
        match &memory.block {
            Block::Cuda(block) => block.fill(0, bytes, 0)?,
            // The host's allocator gives zeroed memory.
            Block::Host(_) => {}
        }
        Ok(memory)
    }

    /// As [`Device::allocate`], for memory that is written before it is read.
    pub fn allocate_undefined(&self, bytes: usize) -> Result<Memory> {
        let block = match self {
            Device::Cuda(cuda) => Block::Cuda(cuda.allocate(bytes)?),
            Device::Cpu(cpu) => Block::Host(cpu.allocate(bytes)?),
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
        }
    }

    /// How many blocks were ever allocated: constant while a training step is in steady state.
    pub fn allocations(&self) -> u64 {
        self.usage().allocations.get()
    }

    /// How much was ever copied from the host.
    pub fn uploads(&self) -> Uploads {
        self.usage().uploads.get()
    }

    /// Bytes allocated now.
    pub fn bytes_in_use(&self) -> usize {
        self.usage().bytes.get()
    }

    /// The largest `bytes_in_use` so far.
    pub fn peak_bytes(&self) -> usize {
        self.usage().peak.get()
    }

    /// Bytes that can still be allocated, where the device has memory of its own. On a dry run of a GPU, those of its
    /// memory that are not planned yet.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        match self {
            Device::Cuda(cuda) => cuda.free_memory().map(Some),
            Device::Cpu(_) => Ok(None),
        }
    }

    /// Whether both are handles to one device.
    pub fn same(&self, other: &Device) -> bool {
        std::ptr::eq(self.usage(), other.usage())
    }

    /// Waits until everything that was asked of the device is done.
    pub fn synchronise(&self) -> Result<()> {
        match self {
            Device::Cuda(cuda) => cuda.synchronise(),
            Device::Cpu(_) => Ok(()),
        }
    }

    /// How long the device takes for what `body` asks of it; on a GPU between two events on its stream.
    pub fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        match self {
            Device::Cuda(cuda) => cuda.time(body),
            Device::Cpu(_) => {
                let start = Instant::now();
                body()?;
                Ok(start.elapsed())
            }
        }
    }

    /// Every kernel that `body` asks a GPU for, or every operation that it asks the CPU for, in order. On a GPU each kernel runs
    /// several times over, so that what `body` computes is worth nothing, and its time is the mean; the caches have what the
    /// kernel left in them.
    ///
    /// # Errors
    /// When `body` fails, or the device does.
    pub fn profile(&self, body: impl FnOnce() -> Result<()>) -> Result<Vec<Call>> {
        let recorder = match self {
            Device::Cuda(cuda) => cuda.recorder(),
            Device::Cpu(cpu) => cpu.recorder(),
        };
        recorder.begin();
        let done = body();
        let noted = recorder.end();
        done?;
        self.synchronise()?;
        profile::calls(noted)
    }

    /// The emulator, if one stands in for the driver; see `emulator/README.md`.
    pub fn emulator(&self) -> Option<cuda::Emulator> {
        match self {
            Device::Cuda(cuda) if !cuda.is_dry() => cuda::Emulator::find(),
            _ => None,
        }
    }

    /// Whether [`Device::record`] can be used.
    pub fn records(&self) -> bool {
        matches!(self, Device::Cuda(_))
    }

    /// Whether a [`Device::record`] is under way.
    pub fn is_recording(&self) -> bool {
        match self {
            Device::Cuda(cuda) => cuda.is_recording(),
            Device::Cpu(_) => false,
        }
    }

    /// Records what `body` asks of the device instead of doing it.
    ///
    /// # Errors
    /// When the device records nothing, or `body` waits, copies to or from the host, allocates device memory, launches a
    /// kernel for the first time (run it once before), or fails.
    pub fn record(&self, body: impl FnOnce() -> Result<()>) -> Result<Recording> {
        match self {
            Device::Cuda(cuda) => cuda.record(body).map(Recording),
            Device::Cpu(_) => Err(Error::Device(format!("{} records no graphs", self.name()))),
        }
    }
}

/// Recorded work, to be asked for again as one.
///
/// It has the addresses of the recording in it: all memory that it used, scratch included, has to live as long as it is
/// replayed, and what changes from one replay to the next has to be in device memory.
pub struct Recording(cuda::Graph);

impl Recording {
    /// Asks the device for the recorded work.
    pub fn replay(&self) -> Result<()> {
        self.0.replay()
    }
}

/// Copies from the host to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploads {
    /// How many.
    pub copies: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// What every device counts about its memory.
#[derive(Default)]
struct Usage {
    allocations: std::cell::Cell<u64>,
    uploads: std::cell::Cell<Uploads>,
    bytes: std::cell::Cell<usize>,
    peak: std::cell::Cell<usize>,
}

impl Usage {
    fn add(&self, bytes: usize) {
        self.allocations.set(self.allocations.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.peak.set(self.peak.get().max(self.bytes.get()));
    }

    fn upload(&self, bytes: usize) {
        let Uploads { copies, bytes: sum } = self.uploads.get();
        self.uploads.set(Uploads {
            copies: copies + 1,
            bytes: sum + bytes as u64,
        });
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
    /// `None` on a dry run.
    Host(Option<cpu::HostBlock>),
}

impl Memory {
    /// The size of the block.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device that the block lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where the block lies in host memory; `None` on other devices, and on a dry run.
    pub(crate) fn host(&self) -> Option<*mut u8> {
        match &self.block {
            Block::Host(block) => block.as_ref().map(cpu::HostBlock::as_ptr),
            Block::Cuda(_) => None,
        }
    }

    /// Where the block lies in a GPU's memory; `None` on other devices.
    pub(crate) fn address(&self) -> Option<u64> {
        match &self.block {
            Block::Cuda(block) => Some(block.address()),
            Block::Host(_) => None,
        }
    }

    /// Makes every value of a range a NaN, so that reading it before it is written shows.
    #[cfg(debug_assertions)]
    pub(crate) fn poison(&self, range: std::ops::Range<usize>) -> Result<()> {
        self.check_range(range.start, range.len())?;
        match &self.block {
            Block::Cuda(block) => block.fill(range.start, range.len(), 0xFF),
            Block::Host(Some(block)) => {
                block.fill(range.start, range.len(), 0xFF);
                Ok(())
            }
            Block::Host(None) => Ok(()),
        }
    }

    /// Copies host bytes into the block. Nothing happens on a dry run.
    pub fn upload(&self, offset: usize, source: &[u8]) -> Result<()> {
        if source.is_empty() {
            return Ok(());
        }
        self.check_range(offset, source.len())?;
        self.device.usage().upload(source.len());
        match &self.block {
            Block::Cuda(block) => block.write(offset, source)?,
            Block::Host(Some(block)) => block.write(offset, source),
            Block::Host(None) => {}
        }
        Ok(())
    }

    /// Copies bytes of the block to the host. A dry run gives zeros.
    pub fn download(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        if target.is_empty() {
            return Ok(());
        }
        self.check_range(offset, target.len())?;
        match &self.block {
            Block::Cuda(block) => block.read(offset, target)?,
            Block::Host(Some(block)) => block.read(offset, target),
            Block::Host(None) => target.fill(0),
        }
        Ok(())
    }

    /// Begins to copy bytes of the block to the host. A GPU goes on meanwhile with what is asked of it.
    pub fn download_later(&self, offset: usize, bytes: usize) -> Result<Pending> {
        self.check_range(offset, bytes)?;
        if let Block::Cuda(block) = &self.block
            && let Some(pending) = block.read_later(offset, bytes)?
        {
            return Ok(Pending(Arrival::Awaited(pending)));
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
