//! The host's processors: aligned blocks of memory; threads come from rayon's current pool.

use super::Usage;
use super::profile::Recorder;
use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Cache line and widest vector register.
const ALIGNMENT: usize = 64;

/// The host's processors, or a dry run of them: then operations do nothing, and memory is counted but not taken.
#[derive(Default)]
pub struct Cpu {
    usage: Usage,
    recorder: Recorder,
    dry: bool,
}

impl Cpu {
    pub(super) fn dry() -> Self {
        Cpu {
            dry: true,
            ..Cpu::default()
        }
    }

    /// Whether nothing is computed here.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// `None` on a dry run.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Option<HostBlock>> {
        let block = (!self.dry).then(|| HostBlock::new(bytes)).transpose()?;
        self.usage.add(bytes);
        Ok(block)
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Runs a function of an operation, which a profile notes.
    pub fn run<R>(&self, operation: &str, function: &str, body: impl FnOnce() -> R) -> R {
        match self.recorder.is_on() {
            true => self.recorder.time(operation, function, body),
            false => body(),
        }
    }
}

/// Threads that operations on the CPU device use: those of rayon's current pool.
pub fn cpu_threads() -> usize {
    rayon::current_num_threads()
}

/// Zeroed host memory at a fixed address.
pub(super) struct HostBlock {
    pointer: NonNull<u8>,
    layout: Layout,
}

impl HostBlock {
    fn new(bytes: usize) -> Result<Self> {
        let refuse = || Error::Device(format!("the host has no room for {bytes} bytes"));
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| refuse())?;
        // SAFETY: the layout has a size above zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refuse)?;
        Ok(HostBlock { pointer, layout })
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Sets every byte of a range. The caller has checked that it lies inside the block.
    #[cfg(debug_assertions)]
    pub(super) fn fill(&self, offset: usize, bytes: usize, value: u8) {
        assert!(offset + bytes <= self.layout.size());
        // SAFETY: inside the block by the assertion; nothing else refers to it, as for `write`.
        unsafe { self.as_ptr().add(offset).write_bytes(value, bytes) }
    }

    /// The caller has checked that the range lies inside the block.
    pub(super) fn write(&self, offset: usize, source: &[u8]) {
        assert!(offset + source.len() <= self.layout.size());
        // SAFETY: inside the block by the assertion; a device lives on one thread and slices of its
        // memory exist only within an operation, so nothing else refers to the block now.
        unsafe {
            let target = self.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
        }
    }

    /// The caller has checked that the range lies inside the block.
    pub(super) fn read(&self, offset: usize, target: &mut [u8]) {
        assert!(offset + target.len() <= self.layout.size());
        // SAFETY: as for `write`.
        unsafe {
            let source = self.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(source, target.as_mut_ptr(), target.len());
        }
    }
}

impl Drop for HostBlock {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.as_ptr(), self.layout) }
    }
}
