//! Kernels with the types of their parameters, and their launch.

use super::{Cuda, Driver, Function, Image, failure};
use crate::error::{Error, Result};
use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{DriverError, result};
use std::ffi::c_void;
use std::marker::PhantomData;

/// A kernel of a file; `A` is the tuple of its parameters. Build.rs writes them from the kernels' declarations.
pub struct Kernel<A> {
    image: &'static Image,
    name: &'static str,
    /// The most threads of a block, from `__launch_bounds__`.
    threads: u32,
    arguments: PhantomData<fn(A)>,
}

impl<A> Kernel<A> {
    pub const fn new(image: &'static Image, name: &'static str, threads: u32) -> Self {
        Kernel {
            image,
            name,
            threads,
            arguments: PhantomData,
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// A device address that a kernel reads from; 0 where there is no tensor.
#[repr(transparent)]
pub struct Read<T> {
    pub address: u64,
    pointee: PhantomData<*const T>,
}

/// A device address that a kernel writes to.
#[repr(transparent)]
pub struct Write<T> {
    pub address: u64,
    pointee: PhantomData<*mut T>,
}

macro_rules! pointer {
    ($name:ident) => {
        impl<T> $name<T> {
            pub fn at(address: u64) -> Self {
                let pointee = PhantomData;
                $name { address, pointee }
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        // SAFETY: one 64-bit address, as the kernel's parameter is.
        unsafe impl<T> KernelParameter for $name<T> {}
    };
}
pointer!(Read);
pointer!(Write);

/// A value that can be a kernel's parameter.
///
/// # Safety
/// The type has the layout of the parameter in CUDA C++.
pub unsafe trait KernelParameter: Copy {}

macro_rules! scalar {
    ($($type:ty),*) => {
        $(
            // SAFETY: CUDA C++ and Rust agree on the layout of numbers.
            unsafe impl KernelParameter for $type {}
        )*
    };
}
scalar!(i32, u32, i64, u64, f32, f64);

/// A struct that kernels take by value: its fields in the order of the CUDA C++ struct of the same name.
macro_rules! kernel_struct {
    ($(#[$attribute:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty),* $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct $name { $($(#[$doc])* pub $field: $type),* }

        // SAFETY: repr(C), and the fields are declared in the same order in CUDA C++.
        unsafe impl $crate::device::cuda::KernelParameter for $name {}
    };
}
pub(crate) use kernel_struct;

/// The arguments of a launch: a tuple of parameters.
pub trait Arguments {
    /// Calls `body` with the address of every argument.
    fn with_addresses<R>(&mut self, body: impl FnOnce(&mut [*mut c_void]) -> R) -> R;
}

macro_rules! arguments {
    ($($name:ident)*) => {
        impl<$($name: KernelParameter),*> Arguments for ($($name,)*) {
            #[allow(non_snake_case)] // the fields have the names of their types
            fn with_addresses<R>(&mut self, body: impl FnOnce(&mut [*mut c_void]) -> R) -> R {
                let ($($name,)*) = self;
                body(&mut [$(std::ptr::from_mut($name).cast()),*])
            }
        }
    };
}

macro_rules! arguments_up_to {
    ($first:ident $($rest:ident)*) => {
        arguments!($first $($rest)*);
        arguments_up_to!($($rest)*);
    };
    () => {};
}
arguments_up_to!(A B C D E F G H I J K L M N O P Q S T U V W X Y);

/// How many blocks of how many threads, with how much dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    blocks: [usize; 3],
    threads: u32,
    shared: usize,
}

impl Grid {
    pub fn blocks(blocks: [usize; 3], threads: u32) -> Self {
        let shared = 0;
        Grid {
            blocks,
            threads,
            shared,
        }
    }

    /// As many blocks of `threads` as `count` threads need.
    pub fn threads_for(count: usize, threads: u32) -> Self {
        Grid::blocks([count.div_ceil(threads as usize), 1, 1], threads)
    }

    /// With so many bytes of dynamic shared memory for every block.
    pub fn shared(self, bytes: usize) -> Self {
        let shared = bytes;
        Grid { shared, ..self }
    }
}

/// The most blocks along x, y and z.
const MOST_BLOCKS: [usize; 3] = [0x7FFF_FFFF, 65_535, 65_535];

impl Cuda {
    /// Queues a kernel.
    ///
    /// # Errors
    /// When the kernel is not there, the grid is none, the block has more threads than the kernel allows or
    /// more shared memory than the GPU has, or the driver refuses. The message names kernel, grid and block.
    ///
    /// # Safety
    /// The addresses among the arguments, and what the kernel does with the sizes that it is given, stay inside
    /// live memory of this device.
    pub unsafe fn launch<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        grid: Grid,
        arguments: &mut A,
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
            return check_shared(name, grid, self.facts.shared);
        };
        driver.bind()?;
        let function = driver.function(kernel.image, name, grid, self.facts.shared)?;
        let [x, y, z] = grid.blocks.map(|n| n as u32);
        let (block, shared) = ((grid.threads, 1, 1), grid.shared as u32);
        let (function, stream) = (function.function.cu_function(), driver.compute.cu_stream());
        let launched = arguments.with_addresses(|addresses| {
            // SAFETY: the addresses are of as many values as the kernel has parameters, of their types, by the
            // types of `Kernel`; what the values lead to is the caller's promise.
            unsafe { result::launch_kernel(function, (x, y, z), block, shared, stream, addresses) }
        });
        driver.last.set(name);
        launched.map_err(|e| driver.launch_failure(name, grid, e))
    }
}

impl Driver {
    fn launch_failure(&self, name: &str, grid: Grid, error: DriverError) -> Error {
        self.failure(&described(name, grid), error)
    }

    /// The kernel on this GPU, with leave to use all of a block's shared memory: devices of one process share the
    /// limit, so that none may lower it.
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
        function
            .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, room as i32)
            .map_err(|e| self.launch_failure(name, grid, e))?;
        let shared = room;
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
