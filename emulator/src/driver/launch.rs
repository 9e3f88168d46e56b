//! Kernel launches.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use crate::machine::{self, Kernel};

use super::context::Context;
use super::function::{self, Function};
use super::handle::Handle;
use super::module::Loaded;
use super::result::Error;
use super::work::{self, Work};
use super::{
    Answer, Status, call, capture, counters, device, failing, log, occupancy, stream, trace,
};

/// A launch with the values of its parameters, which were copied when the stream received it.
pub struct KernelLaunch {
    pub module: Arc<Loaded>,
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub cooperative: bool,
    pub params: Vec<u8>,
}

impl KernelLaunch {
    /// Runs the kernel to its end. A fault is logged and stored in the context.
    pub fn execute(&self, context: &Context) -> Answer {
        let environment = context.environment;
        let traced = trace::before(self, context);
        let launch = machine::Launch {
            module: &self.module.module,
            kernel: &self.kernel,
            globals: &self.module.globals,
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            cooperative: self.cooperative,
            params: &self.params,
        };
        match machine::run(&launch, &context.heap, &environment.options) {
            Ok(report) => {
                counters::count(&self.kernel, &report.counters);
                if let Some(traced) = traced {
                    traced.after(self, context, &report);
                }
                Ok(())
            }
            Err(fault) => {
                log::line(&fault);
                context.fail(fault.kind);
                if environment.blocking {
                    context.check()
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// The size of a launch that the caller requests.
#[derive(Clone, Copy)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    cooperative: bool,
}

impl Shape {
    /// The checks of the driver before it accepts a launch.
    fn check(&self, function: &Function, kernel: &Kernel) -> Answer {
        let within = |size: [u32; 3], most: [u32; 3]| {
            size.iter()
                .zip(most)
                .all(|(&size, most)| (1..=most).contains(&size))
        };
        let threads = self.block.iter().map(|&n| u64::from(n)).product::<u64>();
        if !within(self.grid, device::MAX_GRID)
            || !within(self.block, device::MAX_BLOCK)
            || threads > u64::from(device::MAX_THREADS)
            || self.dynamic_shared > function.max_dynamic()
        {
            return Err(Error::INVALID_VALUE);
        }
        let threads = threads as u32;
        if threads > kernel.max_threads {
            return Err(Error::LAUNCH_OUT_OF_RESOURCES);
        }
        if self.cooperative {
            let blocks = self.grid.iter().map(|&n| u128::from(n)).product::<u128>();
            let resident = occupancy::blocks(function, threads, self.dynamic_shared as usize)?;
            let multiprocessors = function.context().environment.options.sm_count;
            if blocks > u128::from(resident) * u128::from(multiprocessors) {
                return Err(Error::COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }
}

/// The keys of `extra`: its end, a buffer, and the size of the buffer (CU_LAUNCH_PARAM_*).
const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_BYTES: usize = 2;

/// The parameter block from the packed buffer that `extra` names.
///
/// # Safety
/// `extra` is a list as `cuLaunchKernel` requires it.
unsafe fn packed(kernel: &Kernel, mut extra: *const *const c_void) -> Answer<Vec<u8>> {
    let (mut buffer, mut bytes) = (std::ptr::null::<u8>(), 0);
    // SAFETY: the list has an end, and a value after each key, as the caller promises.
    unsafe {
        loop {
            match *extra as usize {
                EXTRA_END => break,
                EXTRA_BUFFER => buffer = (*extra.add(1)).cast(),
                EXTRA_BYTES => {
                    let size = (*extra.add(1)).cast::<usize>();
                    if size.is_null() {
                        return Err(Error::INVALID_VALUE);
                    }
                    bytes = size.read_unaligned();
                }
                _ => return Err(Error::INVALID_VALUE),
            }
            extra = extra.add(2);
        }
    }
    if kernel.param_bytes > bytes || (buffer.is_null() && kernel.param_bytes > 0) {
        return Err(Error::INVALID_VALUE);
    }
    let mut params = vec![0; kernel.param_bytes];
    if kernel.param_bytes > 0 {
        // SAFETY: the buffer has `bytes` bytes, as the caller promises, and these are no more.
        unsafe { buffer.copy_to_nonoverlapping(params.as_mut_ptr(), kernel.param_bytes) };
    }
    Ok(params)
}

/// The parameter block from pointers to the values, whose sizes the kernel knows.
///
/// # Safety
/// `values` holds one pointer per parameter of the kernel, and each points to a value of the size of its parameter.
unsafe fn gathered(kernel: &Kernel, values: *const *const c_void) -> Answer<Vec<u8>> {
    let mut params = vec![0; kernel.param_bytes];
    for (i, param) in kernel.params.iter().enumerate() {
        // SAFETY: there is one pointer per parameter, as the caller promises.
        let value = unsafe { *values.add(i) };
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let to = &mut params[param.offset..param.offset + param.size];
        // SAFETY: the value has the size of the parameter, as the caller promises.
        unsafe {
            value
                .cast::<u8>()
                .copy_to_nonoverlapping(to.as_mut_ptr(), param.size)
        };
    }
    Ok(params)
}

/// Checks a launch, copies its parameters and gives it to the stream.
///
/// # Safety
/// `values` and `extra` are null or as `cuLaunchKernel` requires them.
unsafe fn launch(
    function: Handle,
    shape: Shape,
    stream: Handle,
    values: *const *const c_void,
    extra: *const *const c_void,
) -> Answer {
    let function = function::get(function)?;
    let stream = stream::get(stream)?;
    if !Arc::ptr_eq(function.context(), &stream.context) {
        return Err(Error::INVALID_CONTEXT);
    }
    let kernel = function.kernel()?;
    shape.check(&function, kernel)?;
    if !capture::is_captured(&stream) {
        failing::launch(&stream.context)?;
    }
    let params = match (values.is_null(), extra.is_null()) {
        (false, false) => return Err(Error::INVALID_VALUE),
        (true, true) if kernel.params.is_empty() => Vec::new(),
        (true, true) => return Err(Error::INVALID_VALUE),
        // SAFETY: the caller promises it.
        (false, true) => unsafe { gathered(kernel, values)? },
        // SAFETY: the caller promises it.
        (true, false) => unsafe { packed(kernel, extra)? },
    };
    let launch = KernelLaunch {
        module: function.module.clone(),
        kernel: function.name.clone(),
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        cooperative: shape.cooperative,
        params,
    };
    // SAFETY: a launch names no host memory.
    unsafe { work::submit(&stream, Work::Kernel(Arc::new(launch))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: Handle,
    values: *const *const c_void,
    extra: *const *const c_void,
) -> Status {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
        cooperative: false,
    };
    // SAFETY: parameters as the driver API wants them, as the driver API requires.
    call(|_| unsafe { launch(function, shape, stream, values, extra) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: Handle,
    values: *const *const c_void,
) -> Status {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
        cooperative: true,
    };
    // SAFETY: parameters as the driver API wants them, as the driver API requires.
    call(|_| unsafe { launch(function, shape, stream, values, std::ptr::null()) })
}

/// CUlaunchAttribute: a key, and a union of 64 bytes, of which at most the first three words are read.
#[repr(C)]
pub struct Attribute {
    key: c_uint,
    padding: [u8; 4],
    value: [c_uint; 16],
}

/// CUlaunchConfig.
#[repr(C)]
pub struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: Handle,
    attributes: *const Attribute,
    attribute_count: c_uint,
}

impl Config {
    /// # Safety
    /// `attributes` holds `attribute_count` attributes.
    unsafe fn shape(&self) -> Answer<Shape> {
        const COOPERATIVE: c_uint = 2;
        const CLUSTER_DIMENSION: c_uint = 4;
        let attributes = match self.attribute_count {
            0 => &[],
            _ if self.attributes.is_null() => return Err(Error::INVALID_VALUE),
            // SAFETY: not null, and of this length, as the caller promises.
            count => unsafe { std::slice::from_raw_parts(self.attributes, count as usize) },
        };
        let mut cooperative = false;
        for attribute in attributes {
            let value = &attribute.value;
            match attribute.key {
                COOPERATIVE => cooperative = value[0] as c_int != 0,
                CLUSTER_DIMENSION if value[..3] != [1, 1, 1] => return Err(Error::NOT_SUPPORTED),
                // The others do not change the result: priorities, cache policy, overlap with the previous launch.
                _ => {}
            }
        }
        Ok(Shape {
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            cooperative,
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: Handle,
    values: *const *const c_void,
    extra: *const *const c_void,
) -> Status {
    call(|_| {
        if config.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: not null; the caller gives a whole CUlaunchConfig and its attributes.
        let (config, shape) = unsafe { (&*config, (*config).shape()?) };
        // SAFETY: parameters as the driver API wants them, as the driver API requires.
        unsafe { launch(function, shape, config.stream, values, extra) }
    })
}
