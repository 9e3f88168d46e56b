//! Copies and fills. Calls without a stream use the legacy stream.

use std::ffi::{c_uchar, c_uint, c_ushort, c_void};

use super::handle::{Handle, lock};
use super::result::Error;
use super::work::{self, Work};
use super::{Address, Answer, Status, call, capture, context, stream};

const LEGACY: Handle = 0;

/// Gives the work to a stream.
fn submit(stream: Handle, work: impl FnOnce() -> Answer<Work>) -> Status {
    // SAFETY: the buffers are as long as the call says, and exist as long as the work, as the driver API requires.
    call(|_| unsafe { work::submit(&*stream::get(stream)?, work()?) })
}

/// Executes the work for a call that returns after it is done. A capture forbids such calls.
fn submit_now(work: impl FnOnce() -> Answer<Work>) -> Status {
    call(|_| {
        let stream = stream::get(LEGACY)?;
        capture::forbid(&stream.context)?;
        // SAFETY: as above.
        unsafe { work::submit(&stream, work()?) }
    })
}

fn to_device(to: Address, from: *const c_void, bytes: usize) -> impl FnOnce() -> Answer<Work> {
    let from = from as usize;
    move || Ok(Work::ToDevice { to, from, bytes })
}

fn to_host(to: *mut c_void, from: Address, bytes: usize) -> impl FnOnce() -> Answer<Work> {
    let to = to as usize;
    move || Ok(Work::ToHost { to, from, bytes })
}

fn inside(to: Address, from: Address, bytes: usize) -> impl FnOnce() -> Answer<Work> {
    move || Ok(Work::Inside { to, from, bytes })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: Address, from: *const c_void, bytes: usize) -> Status {
    submit_now(to_device(to, from, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: Address,
    from: *const c_void,
    bytes: usize,
    stream: Handle,
) -> Status {
    submit(stream, to_device(to, from, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: Address, bytes: usize) -> Status {
    submit_now(to_host(to, from, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: Address,
    bytes: usize,
    stream: Handle,
) -> Status {
    submit(stream, to_host(to, from, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: Address, from: Address, bytes: usize) -> Status {
    submit_now(inside(to, from, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: Address,
    from: Address,
    bytes: usize,
    stream: Handle,
) -> Status {
    submit(stream, inside(to, from, bytes))
}

/// A copy whose kind is known by its addresses: an address inside an allocation is one of the device.
fn any_kind(to: Address, from: Address, bytes: usize, stream: Handle) -> Answer<Work> {
    let stream = stream::get(stream)?;
    let allocations = stream.context.heap.allocations();
    let on_device = |address: Address| {
        let after = allocations.partition_point(|(base, _)| *base <= address);
        after > 0 && address - allocations[after - 1].0 < allocations[after - 1].1
    };
    match (on_device(to), on_device(from)) {
        (true, true) => inside(to, from, bytes)(),
        (true, false) => to_device(to, from as *const c_void, bytes)(),
        (false, true) => to_host(to as *mut c_void, from, bytes)(),
        (false, false) => Err(Error::INVALID_VALUE),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy(to: Address, from: Address, bytes: usize) -> Status {
    submit_now(|| any_kind(to, from, bytes, LEGACY))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyAsync(
    to: Address,
    from: Address,
    bytes: usize,
    stream: Handle,
) -> Status {
    submit(stream, || any_kind(to, from, bytes, stream))
}

/// A copy between the memories of two contexts, which have separate addresses. It goes through the host.
fn copy_peer(
    to: (Address, Handle),
    from: (Address, Handle),
    bytes: usize,
    stream: Handle,
) -> Answer {
    let stream = stream::get(stream)?;
    let (to_context, from_context) = (context::get(to.1)?, context::get(from.1)?);
    if to.1 == from.1 {
        let (to, from) = (to.0, from.0);
        // SAFETY: no host memory is named.
        return unsafe { work::submit(&stream, Work::Inside { to, from, bytes }) };
    }
    capture::refuse(&stream)?;
    to_context.check()?;
    from_context.check()?;
    // Checked first, because a buffer of an impossible length could not be allocated.
    if bytes as u64 > from_context.heap.capacity() {
        return Err(Error::INVALID_VALUE);
    }
    let mut staging = vec![0; bytes];
    {
        let _busy = lock(&from_context.busy);
        from_context.heap.read(from.0, &mut staging)?;
    }
    let _busy = lock(&to_context.busy);
    Ok(to_context.heap.write(to.0, &staging)?)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeerAsync(
    to: Address,
    to_context: Handle,
    from: Address,
    from_context: Handle,
    bytes: usize,
    stream: Handle,
) -> Status {
    call(|_| copy_peer((to, to_context), (from, from_context), bytes, stream))
}

/// A fill of `count` elements of `width` bytes. A misaligned address and an overflow of the size are errors.
fn fill(to: Address, element: u32, width: usize, count: usize) -> impl FnOnce() -> Answer<Work> {
    move || {
        let bytes = count.checked_mul(width).ok_or(Error::INVALID_VALUE)?;
        if !to.is_multiple_of(width as u64) {
            return Err(Error::INVALID_VALUE);
        }
        let pattern = element.to_le_bytes();
        Ok(Work::Fill {
            to,
            pattern,
            width,
            bytes,
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(to: Address, value: c_uchar, count: usize) -> Status {
    submit_now(fill(to, value.into(), 1, count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16_v2(to: Address, value: c_ushort, count: usize) -> Status {
    submit_now(fill(to, value.into(), 2, count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32_v2(to: Address, value: c_uint, count: usize) -> Status {
    submit_now(fill(to, value, 4, count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(
    to: Address,
    value: c_uchar,
    count: usize,
    stream: Handle,
) -> Status {
    submit(stream, fill(to, value.into(), 1, count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16Async(
    to: Address,
    value: c_ushort,
    count: usize,
    stream: Handle,
) -> Status {
    submit(stream, fill(to, value.into(), 2, count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32Async(
    to: Address,
    value: c_uint,
    count: usize,
    stream: Handle,
) -> Status {
    submit(stream, fill(to, value, 4, count))
}
