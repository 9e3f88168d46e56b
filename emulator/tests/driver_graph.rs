//! Streams, events, captures and graphs through the driver API.

mod driver_support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::{self, CUresult as Code, CUstreamCaptureMode as Mode};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, PushKernelArg};
use cudarc::driver::{DriverError, LaunchConfig};
use driver_support::{alone, context, kernels};

const THREAD_LOCAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const RELAXED: Mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
const NO_FLAGS: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);

/// A list on the device that `append` writes to. It shows the order of the work.
struct Log {
    context: Arc<CudaContext>,
    append: CudaFunction,
    list: CudaSlice<u32>,
}

impl Log {
    fn new() -> Log {
        let context = context();
        // SAFETY: the tests themselves synchronise their streams.
        unsafe { context.disable_event_tracking() };
        let append = kernels(&context).load_function("append").unwrap();
        let list = context.default_stream().alloc_zeros(64).unwrap();
        Log {
            context,
            append,
            list,
        }
    }

    fn append(&mut self, stream: &CudaStream, value: u32) -> Result<(), DriverError> {
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (1, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = stream.launch_builder(&self.append);
        // SAFETY: the list has room, and the kernel takes it and a number.
        let launched = unsafe { builder.arg(&mut self.list).arg(&value).launch(config) };
        launched.map(|_| ())
    }

    fn read(&self) -> Vec<u32> {
        let all = self
            .context
            .default_stream()
            .clone_dtoh(&self.list)
            .unwrap();
        all[1..=all[0] as usize].to_vec()
    }
}

#[test]
fn a_captured_kernel_runs_at_each_launch_only() {
    let mut log = Log::new();
    let stream = log.context.new_stream().unwrap();
    stream.begin_capture(THREAD_LOCAL).unwrap();
    for mut value in [10, 20, 30] {
        log.append(&stream, value).unwrap();
        // Parameters are copied when they are captured.
        value += 1;
        std::hint::black_box(&value);
    }
    let graph = stream.end_capture(NO_FLAGS).unwrap().unwrap();
    assert!(log.read().is_empty());
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(log.read(), [10, 20, 30, 10, 20, 30]);

    let mut count = 0;
    // SAFETY: the result is writable.
    let code = unsafe { sys::cuGraphGetNodes(graph.cu_graph(), null_mut(), &mut count) };
    assert_eq!((code, count), (Code::CUDA_SUCCESS, 3));
}

#[test]
fn copies_fills_and_callbacks_are_captured() {
    unsafe extern "C" fn count(data: *mut c_void) {
        // SAFETY: one thread launches the graph while the number exists.
        unsafe { *data.cast::<u32>() += 1 };
    }
    let context = context();
    let stream = context.new_stream().unwrap();
    let raw = stream.cu_stream();
    let (mut a, mut b) = (0, 0);
    let mut calls = 0_u32;
    let data = (&raw mut calls).cast::<c_void>();
    let mut staging = [1_u8, 2, 3, 4];
    let mut back = [0_u8; 4];
    let from = staging.as_mut_ptr().cast::<c_void>();
    let to = back.as_mut_ptr().cast::<c_void>();
    // SAFETY: the arrays of the host exist longer than the graph.
    let graph = unsafe {
        assert_eq!(sys::cuMemAlloc_v2(&mut a, 4), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemAlloc_v2(&mut b, 4), Code::CUDA_SUCCESS);
        stream.begin_capture(THREAD_LOCAL).unwrap();
        assert_eq!(sys::cuMemsetD8Async(b, 9, 4, raw), Code::CUDA_SUCCESS);
        assert_eq!(
            sys::cuMemcpyHtoDAsync_v2(a, from, 4, raw),
            Code::CUDA_SUCCESS
        );
        assert_eq!(
            sys::cuMemcpyDtoDAsync_v2(b + 1, a, 2, raw),
            Code::CUDA_SUCCESS
        );
        assert_eq!(
            sys::cuLaunchHostFunc(raw, Some(count), data),
            Code::CUDA_SUCCESS
        );
        assert_eq!(sys::cuMemcpyDtoHAsync_v2(to, b, 4, raw), Code::CUDA_SUCCESS);
        stream.end_capture(NO_FLAGS).unwrap().unwrap()
    };
    graph.launch().unwrap();
    // SAFETY: nothing else uses the arrays between launches.
    unsafe {
        assert_eq!(to.cast::<[u8; 4]>().read(), [9, 1, 2, 9]);
        // A launch reads the content that the staging buffer has at that time.
        from.cast::<[u8; 4]>().write([5, 6, 7, 8]);
    }
    graph.launch().unwrap();
    // SAFETY: as above.
    unsafe {
        assert_eq!(to.cast::<[u8; 4]>().read(), [9, 5, 6, 9]);
        assert_eq!(data.cast::<u32>().read(), 2);
        assert_eq!(sys::cuMemFree_v2(a), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFree_v2(b), Code::CUDA_SUCCESS);
    }
}

#[test]
fn an_event_draws_another_stream_into_the_capture() {
    let mut log = Log::new();
    let one = log.context.new_stream().unwrap();
    let two = log.context.new_stream().unwrap();
    let (fork, join) = (
        log.context.new_event(None).unwrap(),
        log.context.new_event(None).unwrap(),
    );
    one.begin_capture(THREAD_LOCAL).unwrap();
    log.append(&one, 1).unwrap();
    fork.record(&one).unwrap();
    two.wait(&fork).unwrap();
    assert_eq!(
        two.capture_status().unwrap(),
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE
    );
    log.append(&two, 2).unwrap();
    join.record(&two).unwrap();
    one.wait(&join).unwrap();
    log.append(&one, 3).unwrap();
    let graph = one.end_capture(NO_FLAGS).unwrap().unwrap();
    assert_eq!(
        two.capture_status().unwrap(),
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE
    );
    graph.launch().unwrap();
    assert_eq!(log.read(), [1, 2, 3]);
    assert_eq!(
        fork.synchronize().unwrap_err().0,
        Code::CUDA_ERROR_CAPTURED_EVENT
    );
}

#[test]
fn a_stream_left_in_the_capture_is_an_error() {
    let mut log = Log::new();
    let one = log.context.new_stream().unwrap();
    let two = log.context.new_stream().unwrap();
    let fork = log.context.new_event(None).unwrap();
    one.begin_capture(THREAD_LOCAL).unwrap();
    fork.record(&one).unwrap();
    two.wait(&fork).unwrap();
    log.append(&two, 2).unwrap();
    let error = one.end_capture(NO_FLAGS).err().unwrap();
    assert_eq!(error.0, Code::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    // The capture has ended all the same.
    log.append(&one, 7).unwrap();
    assert_eq!(log.read(), [7]);
}

#[test]
fn captures_keep_to_themselves() {
    let mut log = Log::new();
    let one = log.context.new_stream().unwrap();
    let two = log.context.new_stream().unwrap();
    let event = log.context.new_event(None).unwrap();
    let never = log.context.new_event(None).unwrap();

    // A capture cannot wait for work outside it.
    event.record(&two).unwrap();
    one.begin_capture(THREAD_LOCAL).unwrap();
    one.wait(&never).unwrap();
    assert_eq!(
        one.wait(&event).unwrap_err().0,
        Code::CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    );
    let invalidated = Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    assert_eq!(log.append(&one, 1).unwrap_err().0, invalidated);
    assert_eq!(one.end_capture(NO_FLAGS).err().unwrap().0, invalidated);

    // Two captures cannot merge.
    one.begin_capture(THREAD_LOCAL).unwrap();
    two.begin_capture(THREAD_LOCAL).unwrap();
    event.record(&one).unwrap();
    assert_eq!(
        two.wait(&event).unwrap_err().0,
        Code::CUDA_ERROR_STREAM_CAPTURE_MERGE
    );
    assert_eq!(one.end_capture(NO_FLAGS).err().unwrap().0, invalidated);
    assert_eq!(two.end_capture(NO_FLAGS).err().unwrap().0, invalidated);

    // A capture must end in the stream where it began.
    one.begin_capture(THREAD_LOCAL).unwrap();
    event.record(&one).unwrap();
    two.wait(&event).unwrap();
    let unmatched = Code::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    assert_eq!(two.end_capture(NO_FLAGS).err().unwrap().0, unmatched);
    assert_eq!(one.end_capture(NO_FLAGS).err().unwrap().0, invalidated);
    let state = Code::CUDA_ERROR_ILLEGAL_STATE;
    assert_eq!(
        one.end_capture(NO_FLAGS).err().unwrap().0,
        state,
        "none has begun"
    );
    one.begin_capture(THREAD_LOCAL).unwrap();
    assert_eq!(
        one.begin_capture(THREAD_LOCAL).unwrap_err().0,
        state,
        "twice"
    );
    one.end_capture(NO_FLAGS).unwrap();
    let unsupported = Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    let default = log.context.default_stream();
    assert_eq!(
        default.begin_capture(THREAD_LOCAL).unwrap_err().0,
        unsupported
    );
    assert!(log.read().is_empty());
}

#[test]
fn a_captured_stream_is_not_waited_for() {
    // Waiting for the whole context breaks the captures of other tests.
    if !alone("a_captured_stream_is_not_waited_for", &[]) {
        return;
    }
    let context = context();
    let stream = context.new_stream().unwrap();
    let unsupported = Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    let invalidated = Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    stream.begin_capture(RELAXED).unwrap();
    assert_eq!(stream.synchronize().unwrap_err().0, unsupported);
    assert_eq!(stream.end_capture(NO_FLAGS).err().unwrap().0, invalidated);

    stream.begin_capture(THREAD_LOCAL).unwrap();
    assert_eq!(
        context.synchronize().unwrap_err().0,
        unsupported,
        "of this thread"
    );
    assert_eq!(stream.end_capture(NO_FLAGS).err().unwrap().0, invalidated);

    for mode in [THREAD_LOCAL, RELAXED] {
        stream.begin_capture(mode).unwrap();
        let other = context.clone();
        let elsewhere = std::thread::spawn(move || other.synchronize().unwrap_err().0);
        assert_eq!(elsewhere.join().unwrap(), unsupported, "of another thread");
        assert_eq!(stream.end_capture(NO_FLAGS).err().unwrap().0, invalidated);
    }

    stream.begin_capture(THREAD_LOCAL).unwrap();
    let raw = stream.cu_stream() as usize;
    let wrong_thread = std::thread::spawn(move || {
        let mut graph = null_mut();
        // SAFETY: the result is writable.
        unsafe { sys::cuStreamEndCapture(raw as _, &mut graph) }
    });
    assert_eq!(
        wrong_thread.join().unwrap(),
        Code::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    );
    stream
        .end_capture(NO_FLAGS)
        .unwrap()
        .unwrap()
        .launch()
        .unwrap();
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams() {
    // No other test can use the legacy stream during the capture.
    if !alone("the_legacy_stream_waits_for_blocking_streams", &[]) {
        return;
    }
    let context = context();
    let mut blocking = null_mut();
    let mut graph = null_mut();
    // SAFETY: the results are writable.
    unsafe {
        assert_eq!(sys::cuStreamCreate(&mut blocking, 0), Code::CUDA_SUCCESS);
        let begun = sys::cuStreamBeginCapture_v2(blocking, RELAXED);
        assert_eq!(begun, Code::CUDA_SUCCESS);
        let implicit = Code::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        let error = context.default_stream().synchronize().unwrap_err();
        assert_eq!(error.0, implicit);
        let ended = sys::cuStreamEndCapture(blocking, &mut graph);
        assert_eq!(ended, Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        assert!(graph.is_null());
        assert_eq!(sys::cuStreamDestroy_v2(blocking), Code::CUDA_SUCCESS);
    }
}

#[test]
fn instantiation_checks_its_flags() {
    let context = context();
    let stream = context.new_stream().unwrap();
    use sys::CUgraphInstantiate_flags as Flags;
    let both = Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
        | Flags::CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
    for flags in [both, Flags(1 << 20)] {
        stream.begin_capture(THREAD_LOCAL).unwrap();
        let error = stream.end_capture(flags).err().unwrap();
        assert_eq!(error.0, Code::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn events_tell_the_time_between_them() {
    let context = context();
    let stream = context.default_stream();
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(timed).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let end = stream.record_event(timed).unwrap();
    let elapsed = start.elapsed_ms(&end).unwrap();
    assert!((20.0..2000.0).contains(&elapsed), "{elapsed} ms");
    assert_eq!(end.elapsed_ms(&start).unwrap(), -elapsed);
    assert!(end.is_complete());

    let untimed = stream.record_event(None).unwrap();
    let handle = Code::CUDA_ERROR_INVALID_HANDLE;
    assert_eq!(start.elapsed_ms(&untimed).unwrap_err().0, handle);
    let unrecorded = context.new_event(timed).unwrap();
    assert_eq!(start.elapsed_ms(&unrecorded).unwrap_err().0, handle);
}
