//! What a stream can be given to do, and doing it.

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

/// One piece of work. Addresses of the host are numbers: who captures a copy keeps its buffer alive.
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
    /// The first `width` bytes of `pattern`, over and over.
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
    /// Does the work. A kernel's fault is left in the context, a wrong address of a copy is the result.
    ///
    /// # Safety
    /// The host's memory that a copy names is still there; a host function may be called.
    pub unsafe fn execute(&self, context: &Context) -> Answer {
        context.check()?;
        if let Work::Host { function, data } = *self {
            // SAFETY: the caller of cuLaunchHostFunc gave a function to be called with this pointer.
            unsafe { function(data as *mut c_void) };
            return Ok(());
        }
        let _busy = lock(&context.busy);
        let heap = &context.heap;
        match *self {
            Work::Kernel(ref launch) => launch.execute(context),
            // SAFETY: the host's memory is there, as the caller of the copy promised.
            Work::ToDevice { to, from, bytes } => unsafe {
                Ok(heap.write(to, host_bytes(from, bytes)?)?)
            },
            // SAFETY: the host's memory is there, as the caller of the copy promised.
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

    /// Does the work as a part of a graph: nobody is there to get an error code, so a wrong address is a fault.
    ///
    /// # Safety
    /// As [`Work::execute`].
    pub unsafe fn execute_in_graph(&self, context: &Context) -> Answer {
        context.check()?;
        // SAFETY: the caller's promise.
        let result = unsafe { self.execute(context) };
        if result == Err(Error::INVALID_VALUE) {
            log::line("graph: a copy or fill touches memory outside any allocation");
            context.fail(FaultKind::OutOfBounds);
            return context.check();
        }
        result
    }
}

/// Gives work to a stream: done at once, or recorded if the stream is being captured.
///
/// # Safety
/// As [`Work::execute`], for as long as a graph made of it is launched.
pub unsafe fn submit(stream: &Stream, work: Work) -> Answer {
    match capture::record(stream, work)? {
        // SAFETY: the caller's promise.
        Some(work) => unsafe { work.execute(&stream.context) },
        None => Ok(()),
    }
}
