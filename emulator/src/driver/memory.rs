//! Device memory, and pinned host memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::{c_uint, c_void};
use std::sync::Mutex;

use super::context::{self, Context};
use super::handle::{Handle, lock};
use super::result::Error;
use super::{Address, Answer, Status, call, capture, failing, put, stream};

/// Reserves device memory and writes its address to `address`.
pub fn allocate(address: *mut Address, bytes: usize, context: &Context) -> Answer {
    if address.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    failing::allocation(context)?;
    let found = context.heap.allocate(bytes as u64);
    // SAFETY: not null, and writable, as the driver API requires.
    unsafe { put(address, found.ok_or(Error::OUT_OF_MEMORY)?) }
}

/// Frees device memory after the work that may use it is done. A null address is not an error.
fn free(address: Address, context: &Context) -> Answer {
    let _busy = lock(&context.busy);
    if address == 0 || context.heap.free(address) {
        Ok(())
    } else {
        Err(Error::INVALID_VALUE)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut Address, bytes: usize) -> Status {
    call(|_| {
        let context = context::current()?;
        capture::forbid(&context)?;
        match bytes {
            0 => Err(Error::INVALID_VALUE),
            _ => allocate(address, bytes, &context),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: Address) -> Status {
    call(|_| {
        let context = context::current()?;
        capture::forbid(&context)?;
        free(address, &context)
    })
}

/// As with NVIDIA's driver, the address of 0 bytes is null. A captured stream is refused: see the limits in the
/// README.
pub fn allocate_async(address: *mut Address, bytes: usize, stream: Handle) -> Answer {
    let stream = stream::get(stream)?;
    capture::refuse(&stream)?;
    match bytes {
        // SAFETY: null or writable, as the driver API requires.
        0 => unsafe { put(address, 0) },
        _ => allocate(address, bytes, &stream.context),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(
    address: *mut Address,
    bytes: usize,
    stream: Handle,
) -> Status {
    call(|_| allocate_async(address, bytes, stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: Address, stream: Handle) -> Status {
    call(|_| {
        let stream = stream::get(stream)?;
        capture::refuse(&stream)?;
        free(address, &stream.context)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status {
    call(|_| {
        let heap = &context::current()?.heap;
        // SAFETY: null or writable, as the driver API requires.
        unsafe {
            put(free, heap.capacity().saturating_sub(heap.used()) as usize)?;
            put(total, heap.capacity() as usize)
        }
    })
}

/// Pinned host memory: address and layout.
static PINNED: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

const PAGE: usize = 4096;
/// Portable, mapped, write-combined. Kernels cannot access host memory, mapped or not.
const HOST_FLAGS: c_uint = 1 | 2 | 4;

fn allocate_host(address: *mut *mut c_void, bytes: usize, flags: c_uint) -> Answer {
    let context = context::current()?;
    capture::forbid(&context)?;
    if address.is_null() || bytes == 0 || flags & !HOST_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Error::OUT_OF_MEMORY)?;
    // SAFETY: the layout has a size.
    let host = unsafe { alloc_zeroed(layout) };
    if host.is_null() {
        return Err(Error::OUT_OF_MEMORY);
    }
    lock(&PINNED).insert(host as usize, layout);
    // SAFETY: not null, and writable, as the driver API requires.
    unsafe { put(address, host.cast()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    address: *mut *mut c_void,
    bytes: usize,
    flags: c_uint,
) -> Status {
    call(|_| allocate_host(address, bytes, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(address: *mut *mut c_void, bytes: usize) -> Status {
    call(|_| allocate_host(address, bytes, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: *mut c_void) -> Status {
    call(|_| {
        let context = context::current_unchecked()?;
        let _busy = lock(&context.busy);
        let layout = lock(&PINNED).remove(&(address as usize));
        let layout = layout.ok_or(Error::INVALID_VALUE)?;
        // SAFETY: allocated here with this layout, and no longer in the table: freed once.
        unsafe { dealloc(address.cast(), layout) };
        context.check()
    })
}
