//! Device memory: blocks from a pool of the device's own, in the order of the compute stream.

use super::{Backend, Cuda, Driver, Facts, code, failure};
use crate::error::{Error, Result};
use cudarc::driver::sys::{
    CUdeviceptr, CUmemAllocationHandleType_enum, CUmemAllocationType_enum, CUmemLocation,
    CUmemLocationType_enum, CUmemPool_attribute_enum, CUmemPoolProps, CUmemoryPool,
};
use cudarc::driver::{CudaContext, result};
use std::rc::Rc;
use std::sync::Arc;

/// Blocks start at multiples of this many bytes, as the driver's do.
const ALIGNMENT: u64 = 512;
/// Where a dry run puts its first block: any address but 0, which stands for no tensor.
pub(super) const FIRST: u64 = 1 << 32;

/// Keeps what is freed for the next allocation, so that only the first of its size asks the operating system.
pub(super) struct Pool(CUmemoryPool);

impl Pool {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let refuse = |e| failure("the device makes no memory pool", e);
        let properties = CUmemPoolProps {
            allocType: CUmemAllocationType_enum::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: CUmemAllocationHandleType_enum::CU_MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation {
                type_: CUmemLocationType_enum::CU_MEM_LOCATION_TYPE_DEVICE,
                id: context.ordinal() as i32,
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        // SAFETY: the properties are complete: device memory of this device, nothing exported.
        let pool = Pool(unsafe { result::mem_pool::create(&properties) }.map_err(refuse)?);
        let mut keep = u64::MAX;
        let attribute = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a 64-bit number, and the pool has just been made.
        let set =
            unsafe { result::mem_pool::set_attribute(pool.0, attribute, (&raw mut keep).cast()) };
        set.map_err(refuse)?;
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made in `new`. Blocks hold the device that holds the pool, so all of them are gone. A destructor
        // cannot report an error, and the end of the process frees what is left.
        let _ = unsafe { result::mem_pool::destroy(self.0) };
    }
}

impl Driver {
    fn allocate(&self, facts: &Facts, in_use: usize, bytes: usize) -> Result<CUdeviceptr> {
        self.bind()?;
        let take = || {
            // SAFETY: pool and stream are the device's own and live.
            unsafe {
                result::mem_pool::alloc_async(self.pool.0, bytes.max(1), self.compute.cu_stream())
            }
        };
        take().or_else(|error| {
            if code(error) != "CUDA_ERROR_OUT_OF_MEMORY" {
                return Err(failure("device memory cannot be allocated", error));
            }
            // What was freed but is still in use by queued work counts as taken until that work is done.
            self.synchronise()?;
            // SAFETY: the pool is live.
            let _ = unsafe { result::mem_pool::trim_to(self.pool.0, 0) };
            take().map_err(|_| exhausted(facts, in_use, bytes))
        })
    }

    /// Frees in the order of the stream: work that was queued before can still use the memory. After a fault the driver
    /// frees nothing; it has reported the fault before.
    fn free(&self, address: CUdeviceptr) {
        if self.bind().is_ok() {
            // SAFETY: allocated by `allocate`, and its only block is being dropped.
            let _ = unsafe { result::free_async(address, self.compute.cu_stream()) };
        }
    }

    /// Frees what was dropped while work was being recorded.
    pub(super) fn free_deferred(&self) {
        self.deferred
            .take()
            .into_iter()
            .for_each(|address| self.free(address));
    }

    fn free_memory(&self) -> Result<usize> {
        self.bind()?;
        let told = result::mem_get_info();
        told.map(|(free, _)| free)
            .map_err(|e| self.failure("asking for free memory", e))
    }
}

impl Cuda {
    /// Bytes of the GPU's memory that nobody uses; on a dry run those that it has not planned yet.
    pub(in crate::device) fn free_memory(&self) -> Result<usize> {
        match self.driver() {
            Some(driver) => driver.free_memory(),
            None => Ok(self.facts.memory.saturating_sub(self.usage.bytes.get())),
        }
    }
}

/// A block of device memory.
pub struct DeviceBlock {
    address: CUdeviceptr,
    cuda: Rc<Cuda>,
}

impl DeviceBlock {
    pub(super) fn new(cuda: Rc<Cuda>, bytes: usize) -> Result<Self> {
        cuda.refuse_in_recording("allocating device memory")?;
        let address = match &cuda.backend {
            Backend::Gpu(driver) => driver.allocate(&cuda.facts, cuda.usage.bytes.get(), bytes)?,
            Backend::Dry(next) => {
                let end = next.get() + bytes.max(1) as u64;
                next.replace(end.next_multiple_of(ALIGNMENT))
            }
        };
        Ok(DeviceBlock { address, cuda })
    }

    /// The address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Sets `bytes` bytes from `offset` on. The caller has checked that they lie inside the block.
    pub fn fill(&self, offset: usize, bytes: usize, value: u8) -> Result<()> {
        let Some(driver) = self.cuda.driver().filter(|_| bytes > 0) else {
            return Ok(());
        };
        driver.bind()?;
        let (address, stream) = (self.address + offset as u64, driver.compute.cu_stream());
        // SAFETY: inside the block by the caller's check.
        unsafe { result::memset_d8_async(address, value, bytes, stream) }
            .map_err(|e| driver.failure("device memory cannot be set", e))
    }

    /// The caller has checked that the range lies inside the block.
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.cuda.refuse_in_recording("copying to the device")?;
        match self.cuda.driver() {
            Some(driver) => driver.upload(self.address + offset as u64, source),
            None => Ok(()),
        }
    }

    /// The caller has checked that the range lies inside the block. A dry run gives zeros.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        self.cuda.refuse_in_recording("copying from the device")?;
        match self.cuda.driver() {
            Some(driver) => driver.download(self.address + offset as u64, target),
            None => {
                target.fill(0);
                Ok(())
            }
        }
    }

    /// As `read`, without waiting. `None` on a dry run, where there is nothing to wait for.
    pub fn read_later(&self, offset: usize, bytes: usize) -> Result<Option<super::Pending>> {
        self.cuda.refuse_in_recording("copying from the device")?;
        let driver = self.cuda.driver();
        let begin =
            |driver: &Rc<Driver>| driver.download_later(self.address + offset as u64, bytes);
        driver.map(begin).transpose()
    }
}

impl Drop for DeviceBlock {
    fn drop(&mut self) {
        match self.cuda.driver() {
            // A recording would hold the freeing too, and do it at every replay.
            Some(driver) if self.cuda.is_recording() => {
                driver.deferred.borrow_mut().push(self.address);
            }
            Some(driver) => driver.free(self.address),
            None => {}
        }
    }
}

fn exhausted(facts: &Facts, in_use: usize, bytes: usize) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let (name, total) = (&facts.name, mib(facts.memory));
    let free = result::mem_get_info().map_or(0, |(free, _)| mib(free));
    Error::Device(format!(
        "{name} is out of memory: {} MiB asked for, {free} of {total} MiB free, {} MiB used by this run; \
         smaller batches need less",
        mib(bytes),
        mib(in_use)
    ))
}
