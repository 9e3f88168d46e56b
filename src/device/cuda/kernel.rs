//! Kernels and their launch.

use super::super::profile::{Noted, Timing, Work};
use super::{Cuda, Driver, Emulator, Function, Image, failure};
use crate::error::{Error, Result};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{DriverError, result};
use std::ffi::c_void;

/// A kernel of a file. Build.rs writes them from the kernels' declarations.
pub struct Kernel {
    image: &'static Image,
    name: &'static str,
    /// The most threads of a block, from `__launch_bounds__`.
    threads: u32,
}

impl Kernel {
    /// The kernel `name` of an image, made for blocks of at most `threads` threads.
    pub const fn new(image: &'static Image, name: &'static str, threads: u32) -> Self {
        Kernel {
            image,
            name,
            threads,
        }
    }

    /// The most threads of a block.
    pub fn threads(&self) -> u32 {
        self.threads
    }
}

/// How many blocks of how many threads, with how much dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    blocks: [usize; 3],
    threads: u32,
    shared: usize,
}

impl Grid {
    /// `blocks` along x, y and z, of `threads` threads each.
    pub fn blocks(blocks: [usize; 3], threads: u32) -> Self {
        let shared = 0;
        Grid {
            blocks,
            threads,
            shared,
        }
    }

    /// As many blocks of `threads` threads as `count` threads need.
    pub fn threads_for(count: usize, threads: u32) -> Self {
        Grid::blocks([count.div_ceil(threads as usize), 1, 1], threads)
    }

    /// With this many bytes of dynamic shared memory for every block.
    pub fn shared(self, bytes: usize) -> Self {
        let shared = bytes;
        Grid { shared, ..self }
    }
}

/// Bytes of shared memory that a block may have without the kernel being allowed more.
const WITHOUT_ASKING: usize = 48 << 10;

/// The most blocks along x, y and z.
const MOST_BLOCKS: [usize; 3] = [0x7FFF_FFFF, 65_535, 65_535];

impl Cuda {
    /// Queues a kernel, which has at least `work` to do. `arguments` are the addresses of the values of its parameters.
    ///
    /// # Errors
    /// When the kernel is not there, the grid has no block or too many, the block has more threads than the kernel allows or
    /// more shared memory than the GPU has, or the driver refuses. The message names kernel, grid and block.
    ///
    /// # Safety
    /// There is one value for each parameter of the kernel, of its type. The device addresses among the values, and what the
    /// kernel does with the sizes that it is given, stay inside live memory of this device.
    pub unsafe fn launch(
        &self,
        kernel: &Kernel,
        grid: Grid,
        work: Work,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let name = kernel.name;
        let blocks = grid.blocks.iter().zip(MOST_BLOCKS);
        if blocks.clone().any(|(&n, most)| n == 0 || n > most) {
            return Err(refuse(
                name,
                grid,
                format!("a grid has 1 to {MOST_BLOCKS:?} blocks"),
            ));
        }
        if grid.threads == 0 || grid.threads > kernel.threads {
            let message = format!("a block of this kernel has 1 to {} threads", kernel.threads);
            return Err(refuse(name, grid, message));
        }
        let Some(driver) = self.driver() else {
            self.note(name, work, Timing::None);
            return check_shared(name, grid, self.facts.shared);
        };
        driver.bind()?;
        let function = driver.function(kernel.image, name, grid, self.facts.shared)?;
        let [x, y, z] = grid.blocks.map(|n| n as u32);
        let (block, shared) = ((grid.threads, 1, 1), grid.shared as u32);
        let (function, stream) = (function.function.cu_function(), driver.compute.cu_stream());
        let mut launch = || {
            // SAFETY: the caller's promise.
            unsafe { result::launch_kernel(function, (x, y, z), block, shared, stream, arguments) }
        };
        driver.last.set(name);
        let launched = match self.recorder.is_on() && !self.recording.get() {
            true => driver
                .timed(&mut launch)
                .map(|timing| self.note(name, work, timing)),
            false => launch(),
        };
        launched.map_err(|e| driver.launch_failure(name, grid, e))
    }

    fn note(&self, name: &str, work: Work, timing: Timing) {
        if self.recorder.is_on() {
            let name = name.to_string();
            self.recorder.note(Noted { name, work, timing });
        }
    }
}

/// So many times a kernel runs to be timed: events are exact to half a microsecond.
const TIMES: u32 = 8;

impl Driver {
    /// The time of a launch; in an emulator there is none.
    fn timed(
        &self,
        launch: &mut impl FnMut() -> std::result::Result<(), DriverError>,
    ) -> std::result::Result<Timing, DriverError> {
        if Emulator::find().is_some() {
            return launch().map(|()| Timing::None);
        }
        let event = || {
            let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
            self.context.new_event(flags)
        };
        let (start, end) = (event()?, event()?);
        start.record(&self.compute)?;
        (0..TIMES).try_for_each(|_| launch())?;
        end.record(&self.compute)?;
        Ok(Timing::Events(start, end, TIMES))
    }

    fn launch_failure(&self, name: &str, grid: Grid, error: DriverError) -> Error {
        self.failure(&described(name, grid), error)
    }

    /// The kernel on this GPU. One that asks for more shared memory than every kernel has is allowed all of a block's: devices
    /// of one process share the limit, so that none may lower it.
    fn function(
        &self,
        image: &'static Image,
        name: &'static str,
        grid: Grid,
        shared: usize,
    ) -> Result<Function> {
        let mut functions = self.functions.borrow_mut();
        if let Some(function) = functions.get(name)
            && function.shared >= grid.shared
        {
            return Ok(function.clone());
        }
        let module = image.load(&self.context)?;
        let function = module
            .load_function(name)
            .map_err(|e| failure(&format!("kernel {name} cannot be found"), e))?;
        let fixed = function.shared_size_bytes().map_err(|e| failure(name, e))? as usize;
        let room = shared.saturating_sub(fixed);
        check_shared(name, grid, room)?;
        let mut shared = WITHOUT_ASKING.saturating_sub(fixed);
        if grid.shared > shared {
            function
                .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, room as i32)
                .map_err(|e| self.launch_failure(name, grid, e))?;
            shared = room;
        }
        let function = Function { function, shared };
        functions.insert(name, function.clone());
        Ok(function)
    }
}

/// `room`: the bytes of dynamic shared memory that a block may have.
fn check_shared(name: &str, grid: Grid, room: usize) -> Result<()> {
    if grid.shared > room {
        let message = format!("this GPU has {room} bytes of shared memory for a block of it");
        return Err(refuse(name, grid, message));
    }
    Ok(())
}

fn described(name: &str, grid: Grid) -> String {
    let Grid {
        blocks: [x, y, z],
        threads,
        shared,
    } = grid;
    format!(
        "kernel {name}, grid {x}x{y}x{z}, block {threads}, {shared} bytes of dynamic shared memory"
    )
}

fn refuse(name: &str, grid: Grid, message: String) -> Error {
    Error::Device(format!("{}: {message}", described(name, grid)))
}
