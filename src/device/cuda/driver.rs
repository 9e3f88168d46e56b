//! What NVIDIA's driver is asked for: which GPUs there are, and the streams, memory and kernels of one of them.

use super::{CAPABILITY, Facts, memory, staging};
use crate::error::{Error, Result};
use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, CUdeviceptr};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

/// The CUDA release of the first driver that has all functions which are called here: memory pools came with 11.2, flags for the
/// making of graphs with 11.4.
const OLDEST_DRIVER: u32 = 11_040;

/// Errors of a kernel, which the driver reports after its launch has succeeded, and again at every later call.
const OF_KERNELS: [&str; 9] = [
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
];

/// An open GPU.
pub(super) struct Driver {
    pub(super) pool: memory::Pool,
    pub(super) staging: RefCell<staging::Staging>,
    pub(super) functions: RefCell<HashMap<&'static str, Function>>,
    /// Memory that was dropped while work was being recorded, to be freed afterwards.
    pub(super) deferred: RefCell<Vec<CUdeviceptr>>,
    /// What was queued last: an error that is reported later may come from it.
    pub(super) last: Cell<&'static str>,
    pub(super) compute: Arc<CudaStream>,
    pub(super) copy: Arc<CudaStream>,
    pub(super) context: Arc<CudaContext>,
}

/// A kernel that was looked up, and the dynamic shared memory that it may have.
#[derive(Clone)]
pub(super) struct Function {
    pub(super) function: CudaFunction,
    pub(super) shared: usize,
}

impl Driver {
    /// Opens GPU `ordinal`. The context is the device's primary one, which other code in the process shares.
    pub(super) fn open(ordinal: usize) -> Result<(Self, Facts)> {
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
            // With tracking on, the first stream would wait for everything that the process has queued on this GPU.
            // SAFETY: tracking orders the uses of cudarc's own slices of memory, and this crate makes none.
            unsafe { context.disable_event_tracking() };
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
        let driver = Driver {
            pool: memory::Pool::new(&context)?,
            staging: RefCell::new(staging),
            functions: RefCell::default(),
            deferred: RefCell::default(),
            last: Cell::new("nothing"),
            compute,
            copy,
            context,
        };
        Ok((driver, facts))
    }

    /// Makes the context the thread's current one: another device may have been used in between.
    pub(super) fn bind(&self) -> Result<()> {
        self.context
            .bind_to_thread()
            .map_err(|e| self.failure("the device cannot be used", e))
    }

    /// Waits until all that was queued is done.
    pub(super) fn synchronise(&self) -> Result<()> {
        self.bind()?;
        let done = self
            .compute
            .synchronize()
            .and_then(|()| self.copy.synchronize());
        done.map_err(|e| self.failure("waiting for the device", e))
    }

    /// An error of the driver while `doing` something. A kernel fails after its launch has succeeded, so that
    /// the driver may report the failure of something that was queued before.
    pub(super) fn failure(&self, doing: &str, error: DriverError) -> Error {
        let told = failure(doing, error);
        if !OF_KERNELS.contains(&code(error).as_str()) {
            return told;
        }
        let last = self.last.get();
        Error::Device(format!(
            "{told}; a kernel has failed, {last} or one launched before it \
             (CUDA_LAUNCH_BLOCKING=1 tells which)"
        ))
    }
}

/// The CUDA release that compiled the kernels, 13.0 as 13000. `None` when there was no nvcc.
pub fn toolkit() -> Option<u32> {
    option_env!("SHOWTELL_CUDA_TOOLKIT")?.parse().ok()
}

/// The CUDA release of the oldest driver that runs the kernels.
fn oldest_driver() -> u32 {
    let of_ptx = option_env!("SHOWTELL_CUDA_DRIVER").and_then(|release| release.parse().ok());
    of_ptx.unwrap_or(0).max(OLDEST_DRIVER)
}

/// The CUDA release of the driver.
fn release() -> Result<u32> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    let told = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result();
    told.map_err(|e| failure("the driver does not tell its version", e))?;
    Ok(version as u32)
}

/// Whether the driver takes the machine code of the toolkit that compiled the kernels: a driver takes that of its own major
/// release and of those before.
pub(super) fn takes_machine_code() -> Result<bool> {
    let driver = release()?;
    Ok(toolkit().is_some_and(|toolkit| toolkit / 1000 <= driver / 1000))
}

/// How many GPUs there are.
///
/// # Errors
/// When there is no driver, or it cannot run what this build holds. The message says what to do.
pub fn count() -> Result<usize> {
    if toolkit().is_none() {
        return Err(Error::Device(
            "this showtell was built without nvcc and has no kernels: install the CUDA toolkit, or run \
             scripts/cuda-toolkit, and build again with NVCC=/path/to/nvcc"
                .into(),
        ));
    }
    // SAFETY: only looks whether a library can be opened; NVIDIA's has no conditions for that.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(Error::Device(
            "there is no NVIDIA driver here (libcuda was not found): install one, or compute on the CPU".into(),
        ));
    }
    match CudaContext::device_count() {
        Ok(0) => Err(no_device()),
        Ok(count) => {
            check_driver()?;
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

/// A driver must have the functions that this program calls, and compile the kernels' PTX.
fn check_driver() -> Result<()> {
    let (driver, needed) = (release()?, oldest_driver());
    let shown = |release: u32| format!("{}.{}", release / 1000, release % 1000 / 10);
    if driver >= needed {
        return Ok(());
    }
    Err(Error::Device(format!(
        "the NVIDIA driver is too old: it runs CUDA {}, the kernels need one that runs CUDA {} or newer. Update the driver",
        shown(driver),
        shown(needed)
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

/// The driver's name of an error.
pub(super) fn code(error: DriverError) -> String {
    let name = error
        .error_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("error {}", error.0 as u32))
}

/// What was being done, followed by the driver's words for the error.
pub(super) fn failure(doing: &str, error: DriverError) -> Error {
    let text = error
        .error_string()
        .map(|text| text.to_string_lossy().into_owned());
    let text = text.unwrap_or_else(|_| "an error that the driver does not know".into());
    Error::Device(format!("{doing}: {text} ({})", code(error)))
}
