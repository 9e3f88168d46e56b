//! Contexts: the primary context of each device, the current context of a thread, and the state after a fault.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::machine::{FaultKind, Heap};

use super::handle::{self, Handle, Table, lock};
use super::options::Environment;
use super::result::Error;
use super::{Answer, SUCCESS, Status, call, capture, device, entry, put};
use super::{event, graph, module, stream};

/// A device's memory and state.
pub struct Context {
    pub device: c_int,
    pub environment: &'static Environment,
    pub heap: Heap,
    /// Locked while work accesses device memory: one piece of work at a time.
    pub busy: Mutex<()>,
    /// The handle of the per-thread default stream in captures. Work is executed at once, so that one handle is
    /// enough for all threads.
    pub per_thread: Handle,
    /// The code that every call returns after a kernel has failed.
    fault: AtomicU32,
    flags: AtomicU32,
    limits: Mutex<BTreeMap<c_uint, usize>>,
}

static CONTEXTS: Table<Context> = Table::new();
/// For each device, its primary context and the number of references to it.
static PRIMARY: Mutex<BTreeMap<c_int, (Handle, usize)>> = Mutex::new(BTreeMap::new());

thread_local! {
    static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

impl Context {
    fn new(environment: &'static Environment, device: c_int) -> Context {
        Context {
            device,
            environment,
            heap: Heap::new(environment.memory),
            busy: Mutex::new(()),
            per_thread: handle::fresh(),
            fault: AtomicU32::new(SUCCESS),
            flags: AtomicU32::new(0),
            limits: Mutex::new(BTreeMap::new()),
        }
    }

    /// An error if a kernel of this context has failed.
    pub fn check(&self) -> Answer {
        match self.fault.load(Ordering::Acquire) {
            SUCCESS => Ok(()),
            code => Err(Error(code)),
        }
    }

    /// Makes every later call return the code that a GPU gives for this fault. The first fault stays.
    pub fn fail(&self, kind: FaultKind) {
        let code = match kind {
            FaultKind::OutOfBounds | FaultKind::UseAfterFree => Error::ILLEGAL_ADDRESS,
            FaultKind::Misaligned => Error::MISALIGNED_ADDRESS,
            FaultKind::Deadlock | FaultKind::Budget => Error::LAUNCH_TIMEOUT,
            FaultKind::Trap => Error::ILLEGAL_INSTRUCTION,
            _ => Error::LAUNCH_FAILED,
        };
        let _ = self
            .fault
            .compare_exchange(SUCCESS, code.0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The context with this handle.
pub fn get(handle: Handle) -> Answer<Arc<Context>> {
    match handle {
        0 => Err(Error::INVALID_CONTEXT),
        _ => CONTEXTS
            .get(handle)
            .map_err(|_| Error::CONTEXT_IS_DESTROYED),
    }
}

/// The current context of the thread, even if a kernel has failed.
pub fn current_unchecked() -> Answer<Arc<Context>> {
    get(CURRENT.get())
}

/// The current context of the thread, or the error of an earlier kernel that has failed.
pub fn current() -> Answer<Arc<Context>> {
    let context = current_unchecked()?;
    context.check()?;
    Ok(context)
}

/// Destroys a context and everything that was created in it.
fn destroy(handle: Handle) -> Answer {
    let context = CONTEXTS.remove(handle)?;
    stream::forget(&context);
    event::forget(&context);
    module::forget(&context);
    graph::forget(&context);
    capture::forget(&context);
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Status {
    call(|environment| {
        device::check(environment, device)?;
        if context.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let mut primary = lock(&PRIMARY);
        let (handle, references) = primary
            .entry(device)
            .or_insert_with(|| (CONTEXTS.insert(Context::new(environment, device)), 0));
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(context, *handle)? };
        *references += 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Status {
    call(|environment| {
        device::check(environment, device)?;
        let mut primary = lock(&PRIMARY);
        let (handle, references) = primary.get_mut(&device).ok_or(Error::INVALID_CONTEXT)?;
        *references -= 1;
        if *references == 0 {
            let handle = *handle;
            primary.remove(&device);
            destroy(handle)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> Status {
    call(|environment| {
        device::check(environment, device)?;
        let handle = lock(&PRIMARY).get(&device).map(|(handle, _)| *handle);
        let context = handle.map(get).transpose()?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe {
            put(
                flags,
                context
                    .as_ref()
                    .map_or(0, |c| c.flags.load(Ordering::Relaxed)),
            )?;
            put(active, c_int::from(context.is_some()))
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|_| unsafe { put(context, CURRENT.get()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: Handle) -> Status {
    call(|_| {
        if context != 0 {
            get(context).map_err(|_| Error::INVALID_CONTEXT)?;
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|_| unsafe { put(device, current_unchecked()?.device) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> Status {
    call(|_| {
        let context = current()?;
        capture::forbid_in_every_mode(&context)?;
        // Work of another thread may still run.
        drop(lock(&context.busy));
        context.check()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetFlags(flags: c_uint) -> Status {
    call(|_| {
        current()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    })
}

/// CUlimit: stack size, printf buffer, heap, sync depth, pending launches, L2 granularity, persisting L2.
fn default_limit(limit: c_uint) -> Answer<usize> {
    Ok(match limit {
        0 => 1 << 10,
        1 => 1 << 20,
        2 => 8 << 20,
        3 => 2,
        4 => 2048,
        5 => 64,
        6 => 0,
        _ => return Err(Error::UNSUPPORTED_LIMIT),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetLimit(value: *mut usize, limit: c_uint) -> Status {
    call(|_| {
        let context = current()?;
        let default = default_limit(limit)?;
        let found = lock(&context.limits).get(&limit).copied();
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(value, found.unwrap_or(default)) }
    })
}

/// Stored and returned by `cuCtxGetLimit`; the limits do not affect the emulator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetLimit(limit: c_uint, value: usize) -> Status {
    call(|_| {
        default_limit(limit)?;
        lock(&current()?.limits).insert(limit, value);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCacheConfig(config: *mut c_uint) -> Status {
    call(|_| {
        current()?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(config, 0) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCacheConfig(_config: c_uint) -> Status {
    call(|_| current().map(|_| ()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(
    least: *mut c_int,
    greatest: *mut c_int,
) -> Status {
    call(|_| {
        current()?;
        // SAFETY: null or writable, as the driver API requires; either may be left out.
        unsafe {
            if !least.is_null() {
                put(least, 0)?;
            }
            if !greatest.is_null() {
                put(greatest, stream::GREATEST_PRIORITY)?;
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStart() -> Status {
    entry(|| current().map(|_| ()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStop() -> Status {
    entry(|| current().map(|_| ()))
}
