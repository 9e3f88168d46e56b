//! An NVIDIA GPU through the driver API: one stream that computes, one that copies, memory from a pool.
//!
//! Operations are queued on the compute stream and return at once; reading memory waits for all before it. Copies
//! between host and device go through pinned buffers on a stream of their own, ordered by events.
//!
//! Nothing of it is linked: the driver is looked for when a device is opened.

mod graph;
mod image;
mod kernel;
mod memory;
mod staging;

use super::{Precision, Usage};
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub use graph::Graph;
pub use image::Image;
pub(crate) use kernel::kernel_struct;
pub use kernel::{Arguments, Grid, Kernel, KernelParameter, Read, Write};
pub(super) use memory::DeviceBlock;
pub(super) use staging::Pending;

/// The oldest GPUs that the kernels run on: NVIDIA's Ampere.
const CAPABILITY: (i32, i32) = (8, 0);

/// What a GPU is, as the driver tells.
#[derive(Clone, Debug)]
pub struct Facts {
    pub ordinal: usize,
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Bytes of shared memory that a block may ask for.
    pub shared: usize,
}

pub struct Cuda {
    usage: Usage,
    precision: Precision,
    facts: Facts,
    pool: memory::Pool,
    staging: RefCell<staging::Staging>,
    functions: RefCell<HashMap<&'static str, Function>>,
    /// What was queued last: where an error that comes later may be from.
    last: Cell<&'static str>,
    /// Whether a graph is being recorded.
    recording: Cell<bool>,
    compute: Arc<CudaStream>,
    copy: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// A kernel that was looked up, and the dynamic shared memory that it was allowed.
#[derive(Clone)]
struct Function {
    function: CudaFunction,
    shared: usize,
}

/// The CUDA release that compiled the kernels, 13.0 as 13000; none when there was no nvcc.
pub fn toolkit() -> Option<u32> {
    option_env!("SHOWTELL_CUDA_TOOLKIT")?.parse().ok()
}

/// How many GPUs there are.
///
/// # Errors
/// When there is no driver, or it cannot run what this build holds. The message says what to do.
pub fn count() -> Result<usize> {
    let Some(toolkit) = toolkit() else {
        return Err(Error::Device(
            "this showtell was built without nvcc and has no kernels: install the CUDA toolkit, or run \
             scripts/cuda-toolkit, and build again with NVCC=/path/to/nvcc"
                .into(),
        ));
    };
    // SAFETY: only looks whether a library can be opened; NVIDIA's has no conditions for that.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(Error::Device(
            "there is no NVIDIA driver here (libcuda was not found): install one, or compute on the CPU".into(),
        ));
    }
    match CudaContext::device_count() {
        Ok(0) => Err(no_device()),
        Ok(count) => {
            check_driver(toolkit)?;
            Ok(count as usize)
        }
        Err(error) if code(error) == "CUDA_ERROR_NO_DEVICE" => Err(no_device()),
        Err(error) => Err(failure("the NVIDIA driver does not start", error)),
    }
}

fn no_device() -> Error {
    Error::Device(
        "the NVIDIA driver finds no GPU (look at nvidia-smi, and at CUDA_VISIBLE_DEVICES)".into(),
    )
}

/// A driver runs what toolkits of its own major release and before have made.
fn check_driver(toolkit: u32) -> Result<()> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|e| failure("the driver does not tell its version", e))?;
    let shown = |version: u32| format!("{}.{}", version / 1000, version % 1000 / 10);
    if version as u32 / 1000 >= toolkit / 1000 {
        return Ok(());
    }
    Err(Error::Device(format!(
        "the NVIDIA driver is too old: it runs CUDA {}, the kernels were compiled by CUDA {}. Update the \
         driver, or build with an older toolkit",
        shown(version as u32),
        shown(toolkit)
    )))
}

/// All GPUs.
///
/// # Errors
/// As [`count`].
pub fn devices() -> Result<Vec<Facts>> {
    let count = count()?;
    (0..count).map(facts).collect()
}

/// What the driver tells about a GPU, without making use of it.
fn facts(ordinal: usize) -> Result<Facts> {
    let told = || -> std::result::Result<Facts, DriverError> {
        let device = result::device::get(ordinal as i32)?;
        // SAFETY: the driver has just given this device.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        Ok(Facts {
            ordinal,
            name: result::device::get_name(device)?,
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            // SAFETY: as above.
            memory: unsafe { result::device::total_mem(device) }?,
            shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
        })
    };
    told().map_err(|e| failure(&format!("GPU {ordinal}"), e))
}

impl Cuda {
    /// Opens GPU `ordinal`. The context is the device's primary one, which other code in the process shares.
    pub(super) fn open(ordinal: usize, precision: Precision) -> Result<Self> {
        let count = count()?;
        if ordinal >= count {
            let message = format!(
                "there is no GPU {ordinal}: they are numbered from 0, and there are {count}"
            );
            return Err(Error::Device(message));
        }
        let facts = facts(ordinal)?;
        if facts.capability < CAPABILITY {
            let ((major, minor), name) = (facts.capability, &facts.name);
            return Err(Error::Device(format!(
                "{name} has compute capability {major}.{minor}; the kernels need {}.{} or newer",
                CAPABILITY.0, CAPABILITY.1
            )));
        }
        let open = || -> std::result::Result<_, DriverError> {
            let context = CudaContext::new(ordinal)?;
            let staging = staging::Staging::new(&context)?;
            Ok((
                context.new_stream()?,
                context.new_stream()?,
                staging,
                context,
            ))
        };
        let what = format!("{} cannot be opened", facts.name);
        let (compute, copy, staging, context) = open().map_err(|e| failure(&what, e))?;
        Ok(Cuda {
            usage: Usage::default(),
            precision,
            facts,
            pool: memory::Pool::new(&context)?,
            staging: RefCell::new(staging),
            functions: RefCell::default(),
            last: Cell::new("nothing"),
            recording: Cell::new(false),
            compute,
            copy,
            context,
        })
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn allocate(self: &Rc<Self>, bytes: usize) -> Result<DeviceBlock> {
        let block = DeviceBlock::new(self.clone(), bytes)?;
        self.usage.add(bytes);
        Ok(block)
    }

    /// Makes the context the thread's current one: another device may have been used in between.
    fn bind(&self) -> Result<()> {
        self.context
            .bind_to_thread()
            .map_err(|e| self.failure("the device cannot be used", e))
    }

    /// Makes the context current for something that a graph cannot hold.
    fn bind_outside_graph(&self, doing: &str) -> Result<()> {
        match self.recording.get() {
            false => self.bind(),
            true => Err(Error::Device(format!(
                "{doing}: not while a graph is being recorded"
            ))),
        }
    }

    /// Waits until all that was queued is done.
    pub fn synchronise(&self) -> Result<()> {
        self.bind_outside_graph("waiting for the device")?;
        let done = self
            .compute
            .synchronize()
            .and_then(|()| self.copy.synchronize());
        done.map_err(|e| self.failure("waiting for the device", e))
    }

    /// An error of the driver while `doing` something. Kernels fail after their launch has succeeded: what the
    /// driver reports then is of something before.
    fn failure(&self, doing: &str, error: DriverError) -> Error {
        let queued_before = [
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "CUDA_ERROR_ASSERT",
        ];
        match queued_before.contains(&code(error).as_str()) {
            false => failure(doing, error),
            true => {
                let last = self.last.get();
                let told = failure(doing, error);
                Error::Device(format!(
                    "{told}; a kernel has failed, {last} or one launched before it \
                     (CUDA_LAUNCH_BLOCKING=1 tells which)"
                ))
            }
        }
    }
}

/// The driver's name of an error.
fn code(error: DriverError) -> String {
    let name = error
        .error_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("error {}", error.0 as u32))
}

/// The driver's words for an error, behind what was being done.
fn failure(doing: &str, error: DriverError) -> Error {
    let text = error
        .error_string()
        .map(|text| text.to_string_lossy().into_owned());
    let text = text.unwrap_or_else(|_| "an error that the driver does not know".into());
    Error::Device(format!("{doing}: {text} ({})", code(error)))
}
