//! Copies between host and device, through pinned buffers on the copy stream.
//!
//! The driver copies asynchronously only from and to pinned memory. An upload goes through buffers in turn: while
//! one is on its way, the next is filled, and there are enough of them that a step's batch is queued while the step
//! before it runs. Events order the two streams: a copy begins when all that was queued before is done, since that may
//! use the memory, and what is queued after waits for the copy. Small uploads go in the compute stream itself.

use super::{Driver, failure};
use crate::error::Result;
use cudarc::driver::sys::{CU_MEMHOSTALLOC_PORTABLE, CUdeviceptr};
use cudarc::driver::{CudaContext, CudaEvent, DriverError, result};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a buffer: a copy of this size takes far longer than its launch.
const BUFFER: usize = 4 << 20;
/// The most such buffers, for uploads that are on their way at the same time.
const MOST_BUFFERS: usize = 8;
/// Bytes of the buffers for reading single numbers later.
const SMALL: usize = 64;
/// Bytes up to which an upload is small, and the most of them on their way at the same time.
const SMALL_UPLOAD: usize = 64 << 10;
const MOST_SMALL_UPLOADS: usize = 32;

pub(super) struct Staging {
    context: Arc<CudaContext>,
    /// Made at first use.
    buffers: Vec<Buffer>,
    next: usize,
    /// Where queued work is at the beginning of a copy.
    reached: CudaEvent,
    /// Small buffers that no pending read holds.
    small: Vec<Buffer>,
    /// The buffers of small uploads, the oldest first.
    uploads: VecDeque<Buffer>,
}

/// Pinned host memory and the copy that last used it.
struct Buffer {
    address: *mut u8,
    bytes: usize,
    done: CudaEvent,
}

impl Buffer {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> std::result::Result<Self, DriverError> {
        let done = context.new_event(None)?;
        // SAFETY: the context is current; the memory is used through `Buffer` alone.
        let address: *mut u8 =
            unsafe { result::malloc_host(bytes, CU_MEMHOSTALLOC_PORTABLE) }?.cast();
        // SAFETY: it has so many bytes. The driver does not say that they have values.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Buffer {
            address,
            bytes,
            done,
        })
    }

    /// The buffer's first bytes, when its last copy is done.
    fn bytes(&mut self, bytes: usize) -> std::result::Result<&mut [u8], DriverError> {
        assert!(bytes <= self.bytes);
        self.done.synchronize()?;
        // SAFETY: pinned memory of at least so many bytes, which the device no longer uses; all of them were written in `new`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.address, bytes) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.done.synchronize();
        // SAFETY: allocated in `new`, and no copy uses it any more.
        let _ = unsafe { result::free_host(self.address.cast()) };
    }
}

impl Staging {
    pub(super) fn new(context: &Arc<CudaContext>) -> std::result::Result<Self, DriverError> {
        Ok(Staging {
            context: context.clone(),
            buffers: Vec::new(),
            next: 0,
            reached: context.new_event(None)?,
            small: Vec::new(),
            uploads: VecDeque::new(),
        })
    }

    /// A large buffer to use next, never the one of the turn before: one more, as long as there may be more and the
    /// next in turn is not free.
    fn turn(&mut self) -> std::result::Result<&mut Buffer, DriverError> {
        while self.buffers.len() < 2 {
            self.buffers.push(Buffer::new(&self.context, BUFFER)?);
        }
        self.next = (self.next + 1) % self.buffers.len();
        if self.buffers.len() < MOST_BUFFERS && !self.buffers[self.next].done.is_complete() {
            self.next = self.buffers.len();
            self.buffers.push(Buffer::new(&self.context, BUFFER)?);
        }
        Ok(&mut self.buffers[self.next])
    }

    /// A free buffer of at least so many bytes for a pending read.
    fn small_download(&mut self, bytes: usize) -> Option<Buffer> {
        let enough = self.small.iter().position(|b| b.bytes >= bytes);
        enough.map(|i| self.small.swap_remove(i))
    }

    /// A buffer for a small upload.
    fn small_upload(&mut self) -> std::result::Result<Buffer, DriverError> {
        let full = self.uploads.len() == MOST_SMALL_UPLOADS;
        let oldest = self.uploads.front();
        let free = oldest.is_some_and(|buffer| full || buffer.done.is_complete());
        match free.then(|| self.uploads.pop_front()).flatten() {
            Some(buffer) => Ok(buffer),
            None => Buffer::new(&self.context, SMALL_UPLOAD),
        }
    }

    /// Makes the copy stream wait for what is queued on the compute stream.
    fn begin(&self, driver: &Driver) -> std::result::Result<(), DriverError> {
        self.reached.record(&driver.compute)?;
        driver.copy.wait(&self.reached)
    }

    /// Moves what buffer number `i` was given to its place.
    fn deliver(
        &mut self,
        part: Option<(usize, &mut [u8])>,
    ) -> std::result::Result<(), DriverError> {
        if let Some((i, part)) = part {
            part.copy_from_slice(self.buffers[i].bytes(part.len())?);
        }
        Ok(())
    }
}

impl Driver {
    /// Copies host bytes to the device; returns when `source` may be changed again.
    pub(super) fn upload(&self, address: CUdeviceptr, source: &[u8]) -> Result<()> {
        self.bind()?;
        let staging = &mut *self.staging.borrow_mut();
        if source.len() <= SMALL_UPLOAD {
            return (self.upload_small(staging, address, source))
                .map_err(|e| self.failure("copying to the device", e));
        }
        let mut copy = || -> std::result::Result<(), DriverError> {
            staging.begin(self)?;
            for (i, part) in source.chunks(BUFFER).enumerate() {
                let buffer = staging.turn()?;
                let bytes = buffer.bytes(part.len())?;
                bytes.copy_from_slice(part);
                let to = address + (i * BUFFER) as u64;
                // SAFETY: the caller's range lies in a block of this device; the buffer stays as it is until its
                // event has passed.
                unsafe { result::memcpy_htod_async(to, bytes, self.copy.cu_stream()) }?;
                buffer.done.record(&self.copy)?;
                self.compute.wait(&buffer.done)?;
            }
            Ok(())
        };
        copy().map_err(|e| self.failure("copying to the device", e))
    }

    fn upload_small(
        &self,
        staging: &mut Staging,
        address: CUdeviceptr,
        source: &[u8],
    ) -> std::result::Result<(), DriverError> {
        let mut buffer = staging.small_upload()?;
        let bytes = buffer.bytes(source.len())?;
        bytes.copy_from_slice(source);
        // SAFETY: as for `upload`.
        unsafe { result::memcpy_htod_async(address, bytes, self.compute.cu_stream()) }?;
        buffer.done.record(&self.compute)?;
        staging.uploads.push_back(buffer);
        Ok(())
    }

    /// Copies device bytes to the host, when all that was queued before is done.
    pub(super) fn download(&self, address: CUdeviceptr, target: &mut [u8]) -> Result<()> {
        self.bind()?;
        let staging = &mut *self.staging.borrow_mut();
        let mut copy = || -> std::result::Result<(), DriverError> {
            staging.begin(self)?;
            let mut waiting: Option<(usize, &mut [u8])> = None;
            for (i, part) in target.chunks_mut(BUFFER).enumerate() {
                let buffer = staging.turn()?;
                let bytes = buffer.bytes(part.len())?;
                let from = address + (i * BUFFER) as u64;
                // SAFETY: as for `upload`.
                unsafe { result::memcpy_dtoh_async(bytes, from, self.copy.cu_stream()) }?;
                buffer.done.record(&self.copy)?;
                let before = waiting.replace((staging.next, part));
                staging.deliver(before)?;
            }
            staging.deliver(waiting)
        };
        copy().map_err(|e| self.failure("copying from the device", e))
    }

    /// Begins to copy a few device bytes to the host.
    pub(super) fn download_later(
        self: &Rc<Self>,
        address: CUdeviceptr,
        bytes: usize,
    ) -> Result<Pending> {
        self.bind()?;
        let small = self.staging.borrow_mut().small_download(bytes);
        let begin = || -> std::result::Result<Buffer, DriverError> {
            let mut buffer = match small {
                Some(buffer) => buffer,
                None => Buffer::new(&self.context, bytes.max(SMALL))?,
            };
            let target = buffer.bytes(bytes)?;
            // SAFETY: as for `upload`.
            unsafe { result::memcpy_dtoh_async(target, address, self.compute.cu_stream()) }?;
            buffer.done.record(&self.compute)?;
            Ok(buffer)
        };
        let buffer = begin().map_err(|e| failure("copying from the device", e))?;
        Ok(Pending {
            buffer: Some(buffer),
            bytes,
            driver: self.clone(),
        })
    }
}

/// Bytes on their way to the host.
pub struct Pending {
    /// Given back to the device's list in the end.
    buffer: Option<Buffer>,
    bytes: usize,
    driver: Rc<Driver>,
}

impl Pending {
    /// Waits for the bytes.
    pub fn wait(mut self, target: &mut [u8]) -> Result<()> {
        let bytes = self.bytes;
        if let Some(buffer) = &mut self.buffer {
            let arrived = buffer.bytes(bytes);
            let arrived = arrived.map_err(|e| self.driver.failure("copying from the device", e))?;
            target.copy_from_slice(arrived);
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let buffer = self.buffer.take();
        self.driver.staging.borrow_mut().small.extend(buffer);
    }
}
