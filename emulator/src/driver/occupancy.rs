//! Occupancy: how many blocks of a kernel are resident on a multiprocessor.

use std::ffi::{c_int, c_uint};

use super::device;
use super::function::{self, Function};
use super::handle::Handle;
use super::result::Error;
use super::{Answer, Status, call, put};

/// CUoccupancyB2DSize: the dynamic shared memory for a block of this number of threads.
type SharedOfBlock = unsafe extern "C" fn(c_int) -> usize;

/// Warps receive registers in units of this size, from four files of equal size.
const REGISTER_PORTION: u32 = 256;
const REGISTER_FILES: u32 = 4;

/// The number of blocks of `threads` threads that fit on a multiprocessor, limited by threads, blocks, registers (an
/// estimate) and shared memory. It is 0 for a block that cannot be launched.
pub fn blocks(function: &Function, threads: u32, dynamic_shared: usize) -> Answer<u32> {
    let kernel = function.kernel()?;
    let environment = function.context().environment;
    if threads > kernel.max_threads || dynamic_shared > function.max_dynamic() as usize {
        return Ok(0);
    }
    let warp = device::WARP as u32;
    let warps = threads.div_ceil(warp);
    let (most_threads, most_blocks) = device::residency(environment.capability);
    let by_threads = most_threads as u32 / (warps * warp);
    let portion = (function::registers(kernel) * warp).next_multiple_of(REGISTER_PORTION);
    let file = device::REGISTERS as u32 / REGISTER_FILES;
    let by_registers = file / portion * REGISTER_FILES / warps;
    let shared = kernel.static_shared + dynamic_shared as u32 + device::RESERVED_SHARED;
    let all_shared = environment.options.max_dynamic_shared + device::RESERVED_SHARED;
    let by_shared = all_shared / shared;
    Ok(by_threads
        .min(most_blocks as u32)
        .min(by_registers.max(1))
        .min(by_shared))
}

fn put_blocks(
    count: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic_shared: usize,
) -> Status {
    call(|_| {
        let threads = u32::try_from(threads).map_err(|_| Error::INVALID_VALUE)?;
        if threads == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let found = blocks(&*function::get(function)?, threads, dynamic_shared)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(count, found as c_int) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic_shared: usize,
) -> Status {
    put_blocks(count, function, threads, dynamic_shared)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    count: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic_shared: usize,
    _flags: c_uint,
) -> Status {
    put_blocks(count, function, threads, dynamic_shared)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: *mut usize,
    function: Handle,
    count: c_int,
    threads: c_int,
) -> Status {
    call(|environment| {
        let function = function::get(function)?;
        if count <= 0 || threads <= 0 {
            return Err(Error::INVALID_VALUE);
        }
        let optin = environment.options.max_dynamic_shared;
        let share = (optin + device::RESERVED_SHARED) / count as u32;
        let block = share.saturating_sub(device::RESERVED_SHARED).min(optin);
        let found = block.saturating_sub(function.kernel()?.static_shared);
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(bytes, found as usize) }
    })
}

/// The number of blocks that fills the device, and the block size for it: the multiple of a warp with the most resident
/// threads, and the largest of several.
fn potential(
    function: &Function,
    shared_of_block: Option<SharedOfBlock>,
    dynamic_shared: usize,
    limit: c_int,
) -> Answer<(u32, u32)> {
    let most = function.kernel()?.max_threads;
    let most = match u32::try_from(limit).map_err(|_| Error::INVALID_VALUE)? {
        0 => most,
        limit => most.min(limit),
    };
    let (mut best, mut best_blocks) = (0, 0);
    for threads in (device::WARP as u32..=most).step_by(device::WARP as usize) {
        let shared = match shared_of_block {
            // SAFETY: the caller gives a function of the block size.
            Some(shared) => unsafe { shared(threads as c_int) },
            None => dynamic_shared,
        };
        let blocks = blocks(function, threads, shared)?;
        if blocks * threads >= best * best_blocks && blocks > 0 {
            (best, best_blocks) = (threads, blocks);
        }
    }
    let multiprocessors = function.context().environment.options.sm_count;
    Ok((best_blocks * multiprocessors, best))
}

fn put_potential(
    grid: *mut c_int,
    block: *mut c_int,
    function: Handle,
    shared_of_block: Option<SharedOfBlock>,
    dynamic_shared: usize,
    limit: c_int,
) -> Status {
    call(|_| {
        let function = function::get(function)?;
        let (blocks, threads) = potential(&function, shared_of_block, dynamic_shared, limit)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe {
            put(grid, blocks as c_int)?;
            put(block, threads as c_int)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut c_int,
    block: *mut c_int,
    function: Handle,
    shared_of_block: Option<SharedOfBlock>,
    dynamic_shared: usize,
    limit: c_int,
) -> Status {
    put_potential(
        grid,
        block,
        function,
        shared_of_block,
        dynamic_shared,
        limit,
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: *mut c_int,
    block: *mut c_int,
    function: Handle,
    shared_of_block: Option<SharedOfBlock>,
    dynamic_shared: usize,
    limit: c_int,
    _flags: c_uint,
) -> Status {
    put_potential(
        grid,
        block,
        function,
        shared_of_block,
        dynamic_shared,
        limit,
    )
}
