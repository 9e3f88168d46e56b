//! Functions: the kernels of a module, their attributes and limits.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::Kernel;

use super::context::Context;
use super::handle::{Handle, Table};
use super::module::Loaded;
use super::result::Error;
use super::{Answer, Status, call, device, put};

/// A kernel of a loaded module.
pub struct Function {
    pub module: Arc<Loaded>,
    pub name: String,
    /// Dynamic shared memory that a launch may ask for, in bytes.
    max_dynamic: AtomicU32,
}

static FUNCTIONS: Table<Function> = Table::new();

impl Function {
    pub fn kernel(&self) -> Answer<&Kernel> {
        let kernel = self.module.module.kernel(&self.name);
        kernel.ok_or(Error::INVALID_HANDLE)
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.module.context
    }

    pub fn max_dynamic(&self) -> u32 {
        self.max_dynamic.load(Ordering::Relaxed)
    }
}

pub fn insert(module: Arc<Loaded>, name: &str) -> Handle {
    let static_shared = module.module.kernel(name).map_or(0, |k| k.static_shared);
    FUNCTIONS.insert(Function {
        module,
        name: name.into(),
        max_dynamic: AtomicU32::new(device::SHARED.saturating_sub(static_shared)),
    })
}

pub fn remove(handle: Handle) -> Answer {
    FUNCTIONS.remove(handle).map(|_| ())
}

/// Removes the functions of a destroyed context.
pub fn forget(context: &Arc<Context>) {
    FUNCTIONS.retain(|function| !Arc::ptr_eq(function.context(), context));
}

/// The function, or the error of an earlier kernel of its context that has failed.
pub fn get(handle: Handle) -> Answer<Arc<Function>> {
    let function = FUNCTIONS.get(handle)?;
    function.context().check()?;
    Ok(function)
}

/// Registers per thread: the estimate of the machine, limited as by ptxas, so that a block of the largest size that the
/// kernel allows fits.
pub fn registers(kernel: &Kernel) -> u32 {
    let warps = kernel.max_threads.div_ceil(device::WARP as u32).max(1);
    let room = device::REGISTERS as u32 / (warps * device::WARP as u32) / 8 * 8;
    kernel.registers.clamp(16, room.clamp(16, 255))
}

fn attribute(function: &Function, number: c_uint) -> Answer<i32> {
    let kernel = function.kernel()?;
    let (major, minor) = function.context().environment.capability;
    Ok(match number {
        0 => kernel.max_threads as i32,
        1 => kernel.static_shared as i32,
        3 => kernel.local_bytes as i32,
        4 => registers(kernel) as i32,
        5 | 6 => major * 10 + minor, // versions of PTX and of machine code
        8 => function.max_dynamic() as i32,
        9 => -1,              // carve-out: the default
        2 | 7 | 10..=15 => 0, // constants, cache mode, clusters
        _ => return Err(Error::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    number: c_uint,
    function: Handle,
) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|_| unsafe { put(value, attribute(&*get(function)?, number)?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(
    function: Handle,
    number: c_uint,
    value: c_int,
) -> Status {
    const MAX_DYNAMIC: c_uint = 8;
    const CARVE_OUT: c_uint = 9;
    call(|environment| {
        let function = get(function)?;
        match number {
            MAX_DYNAMIC => {
                let optin = environment.options.max_dynamic_shared;
                let room = optin.saturating_sub(function.kernel()?.static_shared);
                let asked = u32::try_from(value).map_err(|_| Error::INVALID_VALUE)?;
                if asked > room {
                    return Err(Error::INVALID_VALUE);
                }
                function.max_dynamic.store(asked, Ordering::Relaxed);
                Ok(())
            }
            // A hint, which has no effect.
            CARVE_OUT if (-1..=100).contains(&value) => Ok(()),
            _ => Err(Error::INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetCacheConfig(function: Handle, _config: c_uint) -> Status {
    call(|_| get(function).map(|_| ()))
}
