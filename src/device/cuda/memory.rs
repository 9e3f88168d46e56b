//! Device memory: blocks from a pool of the device's own, in the order of the compute stream.

use super::{Cuda, code, failure};
use crate::error::{Error, Result};
use cudarc::driver::sys::{
    CUdeviceptr, CUmemAllocationHandleType_enum, CUmemAllocationType_enum, CUmemLocation,
    CUmemLocationType_enum, CUmemPool_attribute_enum, CUmemPoolProps, CUmemoryPool,
};
use cudarc::driver::{CudaContext, result};
use std::rc::Rc;
use std::sync::Arc;

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
        // SAFETY: made in `new`. Blocks hold the device that holds the pool, so all of them are gone. Who is
        // dropped cannot report, and the process's end frees what is left.
        let _ = unsafe { result::mem_pool::destroy(self.0) };
    }
}

impl Cuda {
    /// Bytes of the GPU's memory that nobody uses.
    pub(in crate::device) fn free_memory(&self) -> Result<usize> {
        self.bind()?;
        let told = result::mem_get_info();
        told.map(|(free, _)| free)
            .map_err(|e| self.failure("asking for free memory", e))
    }
}

/// A block of device memory.
pub struct DeviceBlock {
    address: CUdeviceptr,
    cuda: Rc<Cuda>,
}

impl DeviceBlock {
    pub(super) fn new(cuda: Rc<Cuda>, bytes: usize) -> Result<Self> {
        cuda.bind_outside_graph("allocating device memory")?;
        let (pool, stream) = (cuda.pool.0, cuda.compute.cu_stream());
        let take = || {
            // SAFETY: pool and stream are the device's own and live.
            unsafe { result::mem_pool::alloc_async(pool, bytes.max(1), stream) }
        };
        let address = take().or_else(|error| {
            if code(error) != "CUDA_ERROR_OUT_OF_MEMORY" {
                return Err(failure("device memory cannot be allocated", error));
            }
            // What was freed but is still in use by queued work counts as taken until it is done.
            cuda.synchronise()?;
            // SAFETY: the pool is live.
            let _ = unsafe { result::mem_pool::trim_to(pool, 0) };
            take().map_err(|_| exhausted(&cuda, bytes))
        })?;
        Ok(DeviceBlock { address, cuda })
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// Sets `bytes` bytes from `offset` on. The caller has checked that they lie inside the block.
    pub fn fill(&self, offset: usize, bytes: usize, value: u8) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.cuda.bind()?;
        let (address, stream) = (self.address + offset as u64, self.cuda.compute.cu_stream());
        // SAFETY: inside the block by the caller's check.
        unsafe { result::memset_d8_async(address, value, bytes, stream) }
            .map_err(|e| self.cuda.failure("device memory cannot be set", e))
    }

    /// The caller has checked that the range lies inside the block.
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.cuda.upload(self.address + offset as u64, source)
    }

    /// The caller has checked that the range lies inside the block.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        self.cuda.download(self.address + offset as u64, target)
    }

    /// As `read`, without waiting.
    pub fn read_later(&self, offset: usize, bytes: usize) -> Result<super::Pending> {
        self.cuda
            .download_later(self.address + offset as u64, bytes)
    }
}

impl Drop for DeviceBlock {
    fn drop(&mut self) {
        if self.cuda.bind().is_ok() {
            // SAFETY: allocated in `new`. Freed in the order of the stream: work queued before still has it.
            // After a fault the driver frees nothing, and has told so before.
            let _ = unsafe { result::free_async(self.address, self.cuda.compute.cu_stream()) };
        }
    }
}

fn exhausted(cuda: &Cuda, bytes: usize) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let (name, total) = (&cuda.facts.name, mib(cuda.facts.memory));
    let free = result::mem_get_info().map_or(0, |(free, _)| mib(free));
    let used = mib(cuda.usage.bytes.get());
    Error::Device(format!(
        "{name} is out of memory: {} MiB asked for, {free} of {total} MiB free, {used} MiB used by this run; \
         a smaller --batch needs less",
        mib(bytes)
    ))
}
