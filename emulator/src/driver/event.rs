//! Events: points in a stream, and the times at which they were reached.

use std::ffi::c_uint;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::capture::{self, Mark};
use super::context::{self, Context};
use super::handle::{Handle, Table, lock};
use super::result::Error;
use super::stream;
use super::{Answer, Status, call, put};

const BLOCKING_SYNC: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;
const INTERPROCESS: c_uint = 4;

struct Event {
    context: Arc<Context>,
    timed: bool,
    recorded: Mutex<Recorded>,
}

/// The state of the event's last recording.
enum Recorded {
    Never,
    /// Recorded at this time, when all earlier work was done.
    At(Instant),
    /// In a captured stream.
    In(Mark),
}

static EVENTS: Table<Event> = Table::new();

fn get(event: Handle) -> Answer<Arc<Event>> {
    let event = EVENTS.get(event)?;
    event.context.check()?;
    Ok(event)
}

/// Removes the events of a destroyed context.
pub fn forget(context: &Arc<Context>) {
    EVENTS.retain(|event| !Arc::ptr_eq(&event.context, context));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, flags: c_uint) -> Status {
    call(|_| {
        let context = context::current()?;
        if event.is_null() || flags & !(BLOCKING_SYNC | DISABLE_TIMING) != 0 {
            let supported = flags & INTERPROCESS == 0;
            return Err(if supported {
                Error::INVALID_VALUE
            } else {
                Error::NOT_SUPPORTED
            });
        }
        let handle = EVENTS.insert(Event {
            context,
            timed: flags & DISABLE_TIMING == 0,
            recorded: Mutex::new(Recorded::Never),
        });
        // SAFETY: not null, and writable, as the driver API requires.
        unsafe { put(event, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: Handle) -> Status {
    call(|_| EVENTS.remove(event)?.context.check())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Status {
    call(|_| {
        let (event, stream) = (get(event)?, stream::get(stream)?);
        if !Arc::ptr_eq(&event.context, &stream.context) {
            return Err(Error::INVALID_HANDLE);
        }
        let mark = capture::mark(&stream)?;
        *lock(&event.recorded) = mark.map_or_else(|| Recorded::At(Instant::now()), Recorded::In);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(
    stream: Handle,
    event: Handle,
    _flags: c_uint,
) -> Status {
    call(|_| {
        let (event, stream) = (get(event)?, stream::get(stream)?);
        match &*lock(&event.recorded) {
            Recorded::Never => Ok(()),
            Recorded::At(_) => capture::wait(&stream, None),
            Recorded::In(mark) => capture::wait(&stream, Some(mark)),
        }
    })
}

/// The event is reached when it is recorded, because all earlier work is done by then.
fn reached(event: Handle) -> Answer {
    match *lock(&get(event)?.recorded) {
        Recorded::In(_) => Err(Error::CAPTURED_EVENT),
        Recorded::Never | Recorded::At(_) => Ok(()),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: Handle) -> Status {
    call(|_| reached(event))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: Handle) -> Status {
    call(|_| reached(event))
}

/// When a timed event was reached.
fn time(event: Handle) -> Answer<Instant> {
    let event = get(event)?;
    match *lock(&event.recorded) {
        Recorded::At(time) if event.timed => Ok(time),
        Recorded::In(_) => Err(Error::CAPTURED_EVENT),
        _ => Err(Error::INVALID_HANDLE),
    }
}

/// The time of the emulator between the events, in milliseconds. It says nothing about the time on a GPU.
fn put_elapsed(milliseconds: *mut f32, start: Handle, end: Handle) -> Status {
    call(|_| {
        let (start, end) = (time(start)?, time(end)?);
        let elapsed = match end.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f64(),
            None => -(start - end).as_secs_f64(),
        };
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(milliseconds, (elapsed * 1e3) as f32) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: *mut f32,
    start: Handle,
    end: Handle,
) -> Status {
    put_elapsed(milliseconds, start, end)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: Handle,
    end: Handle,
) -> Status {
    put_elapsed(milliseconds, start, end)
}
