//! Stream capture: work that captured streams receive becomes the nodes of a graph.
//!
//! A capture begins in one stream, its origin. Another stream joins it by waiting for an event that was recorded in
//! it. Before the capture ends, the origin must wait for an event of that stream. The rules and error codes are those
//! of the section "Stream capture" in the documentation of the driver API.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use super::context::Context;
use super::graph;
use super::handle::{Handle, lock};
use super::result::Error;
use super::stream::{self, Stream};
use super::work::Work;
use super::{Answer, Status, call, put};

/// Work in a graph, and the earlier nodes that it waits for.
#[derive(Clone)]
pub struct Node {
    pub work: Work,
    pub after: Vec<usize>,
}

/// A point in a capture, which an event recorded in it stores: all work up to these nodes.
#[derive(Clone)]
pub struct Mark {
    capture: u64,
    after: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

struct Capture {
    origin: Handle,
    context: Arc<Context>,
    /// A blocking stream is part of it. The legacy stream would have to wait for that stream.
    blocking: bool,
    mode: Mode,
    thread: ThreadId,
    nodes: Vec<Node>,
    invalid: bool,
}

/// A stream's place in its capture: the nodes that its next work waits for.
struct Joined {
    capture: u64,
    last: Vec<usize>,
}

struct Captures {
    begun: u64,
    active: BTreeMap<u64, Capture>,
    streams: BTreeMap<Handle, Joined>,
}

static CAPTURES: Mutex<Captures> = Mutex::new(Captures {
    begun: 0,
    active: BTreeMap::new(),
    streams: BTreeMap::new(),
});

impl Captures {
    /// The number of the capture that the stream is part of.
    fn of(&self, stream: &Stream) -> Option<u64> {
        self.streams
            .get(&stream.handle)
            .map(|joined| joined.capture)
    }

    fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.active.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    /// The legacy stream waits for all blocking streams, so it cannot be used while one of them is captured.
    fn check_legacy(&mut self, stream: &Stream) -> Answer {
        if !stream.is_legacy() {
            return Ok(());
        }
        let mut result = Ok(());
        for capture in self.active.values_mut() {
            if capture.blocking && Arc::ptr_eq(&capture.context, &stream.context) {
                capture.invalid = true;
                result = Err(Error::STREAM_CAPTURE_IMPLICIT);
            }
        }
        result
    }

    /// Whether the origin waits for the last work of every stream of the capture.
    fn is_joined(&self, number: u64, capture: &Capture) -> bool {
        let mut reached = vec![false; capture.nodes.len()];
        let mut open = match self.streams.get(&capture.origin) {
            Some(joined) => joined.last.clone(),
            None => Vec::new(),
        };
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut reached[node], true) {
                open.extend(&capture.nodes[node].after);
            }
        }
        let mut of_capture = self.streams.values().filter(|j| j.capture == number);
        of_capture.all(|joined| joined.last.iter().all(|&node| reached[node]))
    }

    fn remove(&mut self, number: u64) -> Option<Capture> {
        let capture = self.active.remove(&number);
        self.streams.retain(|_, joined| joined.capture != number);
        capture
    }
}

/// Records the work if the stream is captured. Otherwise returns it, to be executed.
pub fn record(stream: &Stream, work: Work) -> Answer<Option<Work>> {
    let captures = &mut *lock(&CAPTURES);
    let Some(joined) = captures.streams.get_mut(&stream.handle) else {
        captures.check_legacy(stream)?;
        return Ok(Some(work));
    };
    let capture = captures.active.get_mut(&joined.capture);
    let capture = capture.ok_or(Error::ILLEGAL_STATE)?;
    if capture.invalid {
        return Err(Error::STREAM_CAPTURE_INVALIDATED);
    }
    let after = std::mem::replace(&mut joined.last, vec![capture.nodes.len()]);
    capture.nodes.push(Node { work, after });
    Ok(None)
}

/// Whether work that the stream receives is recorded instead of executed.
pub fn is_captured(stream: &Stream) -> bool {
    lock(&CAPTURES).streams.contains_key(&stream.handle)
}

/// For calls that a captured stream does not accept, such as waiting for it: they invalidate the capture.
pub fn refuse(stream: &Stream) -> Answer {
    let mut captures = lock(&CAPTURES);
    captures.check_legacy(stream)?;
    match captures.of(stream) {
        Some(capture) => {
            captures.invalidate(capture);
            Err(Error::STREAM_CAPTURE_UNSUPPORTED)
        }
        None => Ok(()),
    }
}

/// For calls of the whole context that might wait for the device, such as an allocation. A capture forbids them to
/// all threads or to its own thread, unless its mode is relaxed.
pub fn forbid(context: &Arc<Context>) -> Answer {
    invalidate_where(context, |capture| match capture.mode {
        Mode::Global => true,
        Mode::ThreadLocal => capture.thread == thread::current().id(),
        Mode::Relaxed => false,
    })
}

/// For calls that wait for all work of the context. They would wait for captured streams too, so every capture forbids
/// them to all threads.
pub fn forbid_in_every_mode(context: &Arc<Context>) -> Answer {
    invalidate_where(context, |_| true)
}

fn invalidate_where(context: &Arc<Context>, forbids: impl Fn(&Capture) -> bool) -> Answer {
    let mut result = Ok(());
    for capture in lock(&CAPTURES).active.values_mut() {
        if forbids(capture) && Arc::ptr_eq(&capture.context, context) {
            capture.invalid = true;
            result = Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
    }
    result
}

/// The point that an event stores when it is recorded in the stream; `None` outside captures.
pub fn mark(stream: &Stream) -> Answer<Option<Mark>> {
    let mut captures = lock(&CAPTURES);
    captures.check_legacy(stream)?;
    let Some(joined) = captures.streams.get(&stream.handle) else {
        return Ok(None);
    };
    match captures.active.get(&joined.capture) {
        Some(capture) if !capture.invalid => Ok(Some(Mark {
            capture: joined.capture,
            after: joined.last.clone(),
        })),
        _ => Err(Error::STREAM_CAPTURE_INVALIDATED),
    }
}

/// Lets the stream wait for an event; `mark` is `None` if that was recorded outside captures.
pub fn wait(stream: &Stream, mark: Option<&Mark>) -> Answer {
    let mut captures = lock(&CAPTURES);
    let Some(mark) = mark else {
        captures.check_legacy(stream)?;
        return match captures.of(stream) {
            Some(capture) => {
                captures.invalidate(capture);
                Err(Error::STREAM_CAPTURE_ISOLATION)
            }
            None => Ok(()),
        };
    };
    let captures = &mut *captures;
    let capture = captures.active.get_mut(&mark.capture);
    let capture = capture.ok_or(Error::CAPTURED_EVENT)?;
    if capture.invalid {
        return Err(Error::STREAM_CAPTURE_INVALIDATED);
    }
    if stream.is_legacy() {
        capture.invalid = true;
        return Err(Error::STREAM_CAPTURE_IMPLICIT);
    }
    if !Arc::ptr_eq(&capture.context, &stream.context) {
        return Err(Error::INVALID_CONTEXT);
    }
    let joined = captures.streams.entry(stream.handle).or_insert(Joined {
        capture: mark.capture,
        last: Vec::new(),
    });
    if joined.capture != mark.capture {
        capture.invalid = true;
        let other = joined.capture;
        captures.invalidate(other);
        return Err(Error::STREAM_CAPTURE_MERGE);
    }
    capture.blocking |= stream.blocking;
    for node in &mark.after {
        if !joined.last.contains(node) {
            joined.last.push(*node);
        }
    }
    Ok(())
}

/// The stream is destroyed, which invalidates a capture that it is part of.
pub fn abandon(stream: &Stream) {
    let mut captures = lock(&CAPTURES);
    if let Some(capture) = captures.of(stream) {
        captures.invalidate(capture);
        captures.streams.remove(&stream.handle);
    }
}

/// Ends the captures of a destroyed context.
pub fn forget(context: &Arc<Context>) {
    let mut captures = lock(&CAPTURES);
    let gone = captures.active.iter();
    let gone = gone.filter(|(_, capture)| Arc::ptr_eq(&capture.context, context));
    let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
    for number in gone {
        captures.remove(number);
    }
}

fn begin(stream: &Stream, mode: c_uint) -> Answer {
    let mode = match mode {
        0 => Mode::Global,
        1 => Mode::ThreadLocal,
        2 => Mode::Relaxed,
        _ => return Err(Error::INVALID_VALUE),
    };
    if stream.is_legacy() {
        return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
    }
    let mut captures = lock(&CAPTURES);
    if captures.of(stream).is_some() {
        return Err(Error::ILLEGAL_STATE);
    }
    captures.begun += 1;
    let number = captures.begun;
    captures.active.insert(
        number,
        Capture {
            origin: stream.handle,
            context: stream.context.clone(),
            blocking: stream.blocking,
            mode,
            thread: thread::current().id(),
            nodes: Vec::new(),
            invalid: false,
        },
    );
    let joined = Joined {
        capture: number,
        last: Vec::new(),
    };
    captures.streams.insert(stream.handle, joined);
    Ok(())
}

/// Ends the capture that began in the stream, and returns its nodes. Each node is after those it waits for.
fn end(stream: &Stream) -> Answer<Vec<Node>> {
    let mut captures = lock(&CAPTURES);
    let number = captures.of(stream).ok_or(Error::ILLEGAL_STATE)?;
    let capture = captures.active.get(&number).ok_or(Error::ILLEGAL_STATE)?;
    if capture.origin != stream.handle {
        captures.invalidate(number);
        return Err(Error::STREAM_CAPTURE_UNMATCHED);
    }
    if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
        return Err(Error::STREAM_CAPTURE_WRONG_THREAD);
    }
    let joined = captures.is_joined(number, capture);
    let capture = captures.remove(number).ok_or(Error::ILLEGAL_STATE)?;
    match (capture.invalid, joined) {
        (true, _) => Err(Error::STREAM_CAPTURE_INVALIDATED),
        (_, false) => Err(Error::STREAM_CAPTURE_UNJOINED),
        _ => Ok(capture.nodes),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> Status {
    call(|_| begin(&*stream::get(stream)?, mode))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> Status {
    call(|_| {
        let stream = stream::get(stream)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(graph, 0)? };
        let handle = graph::insert(stream.context.clone(), end(&stream)?);
        // SAFETY: as above.
        unsafe { put(graph, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) -> Status {
    call(|_| {
        let stream = stream::get(stream)?;
        let captures = lock(&CAPTURES);
        let number = captures.of(&stream);
        let capture = number.and_then(|number| captures.active.get(&number));
        let found = match capture {
            None => 0,
            Some(capture) if !capture.invalid => 1,
            Some(_) => 2,
        };
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(status, found) }
    })
}
