//! The work that a stream can receive, and its execution.

use std::ffi::c_void;
use std::sync::Arc;

use crate::machine::{FaultKind, MemoryFault};

use super::context::Context;
use super::handle::lock;
use super::launch::KernelLaunch;
use super::result::Error;
use super::stream::Stream;
use super::{Address, Answer, capture, host_bytes, host_bytes_mut, log};

/// CUhostFn.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// One piece of work. Host addresses are numbers: a program that captures a copy must keep its buffer alive.
#[derive(Clone)]
pub enum Work {
    Kernel(Arc<KernelLaunch>),
    ToDevice {
        to: Address,
        from: usize,
        bytes: usize,
    },
    ToHost {
        to: usize,
        from: Address,
        bytes: usize,
    },
    Inside {
        to: Address,
        from: Address,
        bytes: usize,
    },
    /// Repeats the first `width` bytes of `pattern`.
    Fill {
        to: Address,
        pattern: [u8; 4],
        width: usize,
        bytes: usize,
    },
    Host {
        function: HostFunction,
        data: usize,
    },
}

impl From<MemoryFault> for Error {
    fn from(_: MemoryFault) -> Error {
        Error::INVALID_VALUE
    }
}

impl Work {
    /// Executes the work. The fault of a kernel is stored in the context; a wrong address of a copy is an error.
    ///
    /// # Safety
    /// The host memory that a copy names still exists, and a host function may be called.
    pub unsafe fn execute(&self, context: &Context) -> Answer {
        context.check()?;
        if let Work::Host { function, data } = *self {
            // SAFETY: the caller of cuLaunchHostFunc gave a function that may be called with this pointer.
            unsafe { function(data as *mut c_void) };
            return Ok(());
        }
        let _busy = lock(&context.busy);
        let heap = &context.heap;
        match *self {
            Work::Kernel(ref launch) => launch.execute(context),
            // SAFETY: the host memory exists, as the caller of the copy promises.
            Work::ToDevice { to, from, bytes } => unsafe {
                Ok(heap.write(to, host_bytes(from, bytes)?)?)
            },
            // SAFETY: the host memory exists, as the caller of the copy promises.
            Work::ToHost { to, from, bytes } => unsafe {
                Ok(heap.read(from, host_bytes_mut(to, bytes)?)?)
            },
            Work::Inside { to, from, bytes } => Ok(heap.copy(to, from, bytes as u64)?),
            Work::Fill {
                to,
                ref pattern,
                width,
                bytes,
            } => Ok(heap.fill(to, &pattern[..width], bytes as u64)?),
            Work::Host { .. } => Ok(()),
        }
    }

    /// Executes the work as a part of a graph. No call returns its error code, so a wrong address is a fault.
    ///
    /// # Safety
    /// The same as for [`Work::execute`].
    pub unsafe fn execute_in_graph(&self, context: &Context) -> Answer {
        context.check()?;
        // SAFETY: the caller promises it.
        let result = unsafe { self.execute(context) };
        if result == Err(Error::INVALID_VALUE) {
            log::line("graph: a copy or fill accesses memory outside any allocation");
            context.fail(FaultKind::OutOfBounds);
            return context.check();
        }
        result
    }
}

/// Gives work to a stream, which executes it at once, or records it if the stream is captured.
///
/// # Safety
/// The same as for [`Work::execute`], as long as a graph that contains the work is launched.
pub unsafe fn submit(stream: &Stream, work: Work) -> Answer {
    match capture::record(stream, work)? {
        // SAFETY: the caller promises it.
        Some(work) => unsafe { work.execute(&stream.context) },
        None => Ok(()),
    }
}
