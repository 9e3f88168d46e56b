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

/// A queue of work. It is always empty, because work is executed when the stream receives it.
pub struct Stream {
    /// The handle of the stream in captures.
    pub handle: Handle,
    pub context: Arc<Context>,
    /// The stream and the legacy stream wait for each other.
    pub blocking: bool,
    flags: c_uint,
    priority: c_int,
}

impl Stream {
    /// Whether it is the legacy default stream, which every blocking stream is synchronised with.
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

/// The stream, even if a kernel of its context has failed.
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

/// The stream, or the error of an earlier kernel of its context that has failed.
pub fn get(handle: Handle) -> Answer<Arc<Stream>> {
    let stream = get_unchecked(handle)?;
    stream.context.check()?;
    Ok(stream)
}

/// Removes the streams of a destroyed context.
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
    // SAFETY: not null, and writable, as the driver API requires.
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
    // SAFETY: null or writable, as the driver API requires.
    call(|_| unsafe { put(flags, get(stream)?.flags) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|_| unsafe { put(priority, get(stream)?.priority) })
}

/// Waits until the work of other threads is done.
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

/// Never `NOT_READY`, because the work is done before the call.
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
        // SAFETY: the caller gives a function that may be called with `data`.
        unsafe { work::submit(&*get(stream)?, Work::Host { function, data }) }
    })
}
