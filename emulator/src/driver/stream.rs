//! Streams.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::context::{self, Context};
use super::handle::{Handle, Table, lock};
use super::result::Error;
use super::work::{self, HostFunction, Work};
use super::{Answer, Status, call, capture, put};

pub const GREATEST_PRIORITY: c_int = -5;

const LEGACY: Handle = 1;
const PER_THREAD: Handle = 2;
const NON_BLOCKING: c_uint = 1;

/// A queue of work, which is always empty: work is done when it is given.
pub struct Stream {
    /// Names the stream in captures.
    pub handle: Handle,
    pub context: Arc<Context>,
    /// Waits for the legacy stream, and is waited for.
    pub blocking: bool,
    flags: c_uint,
    priority: c_int,
}

impl Stream {
    /// The default stream with which every blocking stream is in order.
    pub fn is_legacy(&self) -> bool {
        self.handle == LEGACY
    }

    fn default(context: Arc<Context>, handle: Handle) -> Stream {
        Stream {
            handle,
            context,
            blocking: handle != LEGACY,
            flags: 0,
            priority: 0,
        }
    }
}

static STREAMS: Table<Stream> = Table::new();

/// The stream, also in a context where a kernel has failed.
fn get_unchecked(handle: Handle) -> Answer<Arc<Stream>> {
    match handle {
        0 | LEGACY => Ok(Arc::new(Stream::default(
            context::current_unchecked()?,
            LEGACY,
        ))),
        PER_THREAD => {
            let context = context::current_unchecked()?;
            let handle = context.per_thread;
            Ok(Arc::new(Stream::default(context, handle)))
        }
        _ => STREAMS.get(handle),
    }
}

/// The stream; the error of an earlier kernel, if one failed in its context.
pub fn get(handle: Handle) -> Answer<Arc<Stream>> {
    let stream = get_unchecked(handle)?;
    stream.context.check()?;
    Ok(stream)
}

/// Ends the streams of a context that is gone.
pub fn forget(context: &Arc<Context>) {
    STREAMS.retain(|stream| !Arc::ptr_eq(&stream.context, context));
}

fn create(stream: *mut Handle, flags: c_uint, priority: c_int) -> Answer {
    let context = context::current()?;
    if flags & !NON_BLOCKING != 0 || stream.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let handle = STREAMS.insert_with(|handle| Stream {
        handle,
        context,
        blocking: flags & NON_BLOCKING == 0,
        flags,
        priority: priority.clamp(GREATEST_PRIORITY, 0),
    });
    // SAFETY: not null, and writable, says the module.
    unsafe { put(stream, handle) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> Status {
    call(|_| create(stream, flags, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut Handle,
    flags: c_uint,
    priority: c_int,
) -> Status {
    call(|_| create(stream, flags, priority))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Status {
    call(|_| {
        let stream = STREAMS.remove(stream)?;
        capture::abandon(&stream);
        stream.context.check()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: Handle, flags: *mut c_uint) -> Status {
    // SAFETY: null or writable, says the module.
    call(|_| unsafe { put(flags, get(stream)?.flags) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) -> Status {
    // SAFETY: null or writable, says the module.
    call(|_| unsafe { put(priority, get(stream)?.priority) })
}

/// Waits until no work of another thread is left to do.
fn wait(stream: Handle) -> Answer {
    let stream = get(stream)?;
    capture::refuse(&stream)?;
    drop(lock(&stream.context.busy));
    stream.context.check()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: Handle) -> Status {
    call(|_| wait(stream))
}

/// Never `NOT_READY`: by the time it is asked, the work is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: Handle) -> Status {
    call(|_| wait(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<HostFunction>,
    data: *mut c_void,
) -> Status {
    call(|_| {
        let function = function.ok_or(Error::INVALID_VALUE)?;
        let data = data as usize;
        // SAFETY: the caller gives a function to be called with `data`.
        unsafe { work::submit(&*get(stream)?, Work::Host { function, data }) }
    })
}
