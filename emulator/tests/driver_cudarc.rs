//! The whole path of a program: nvcc compiles CUDA C++, and cudarc loads, launches and replays it. Without nvcc these
//! tests are skipped, with a message.

mod driver_support;

use std::sync::Arc;

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaModule, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use driver_support::{alone, compile, context};

const SOURCE: &str = r#"
struct Shape { int rows; int cols; float factor; long long stride; };

extern "C" __global__ void add(const float *a, const float *b, float *c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

// The struct is passed by value, after a char, so that its alignment matters.
extern "C" __global__ void fill(char first, Shape shape, float *x) {
    int col = threadIdx.x, row = blockIdx.x;
    if (row < shape.rows && col < shape.cols)
        x[row * shape.stride + col] = first + shape.factor * (row * shape.cols + col);
}

// Sums x over the whole grid in two passes: all blocks read in the second pass what the first pass wrote to `partial`.
extern "C" __global__ void grid_sum(const float *x, float *partial, float *total, int n, unsigned *arrived) {
    extern __shared__ float tile[];
    float sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    tile[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = tile[0];
        __threadfence();
        atomicAdd(arrived, 1);
        while (atomicAdd(arrived, 0) < gridDim.x) { }
        __threadfence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0;
        for (int b = 0; b < gridDim.x; b++) all += partial[b];
        total[blockIdx.x] = all;
    }
}
"#;

fn module() -> Option<(Arc<cudarc::driver::CudaContext>, Arc<CudaModule>)> {
    let ptx = compile(SOURCE)?;
    let context = context();
    let module = context.load_module(Ptx::from_src(ptx)).unwrap();
    Some((context, module))
}

#[test]
fn vectors_add() {
    let Some((context, module)) = module() else {
        return;
    };
    let stream = context.default_stream();
    let add = module.load_function("add").unwrap();
    let n = 1000_i32;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let (a, b) = (
        stream.clone_htod(&a).unwrap(),
        stream.clone_htod(&b).unwrap(),
    );
    let mut c = stream.alloc_zeros::<f32>(1000).unwrap();
    let mut builder = stream.launch_builder(&add);
    builder.arg(&a).arg(&b).arg(&mut c).arg(&n);
    // SAFETY: the kernel takes three vectors of n numbers, and n.
    unsafe { builder.launch(LaunchConfig::for_num_elems(1000)) }.unwrap();
    let expected: Vec<f32> = (0..n).map(|i| 1.5 * i as f32).collect();
    assert_eq!(stream.clone_dtoh(&c).unwrap(), expected);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    rows: i32,
    cols: i32,
    factor: f32,
    stride: i64,
}

// SAFETY: plain numbers in the layout of C.
unsafe impl DeviceRepr for Shape {}

#[test]
fn structs_are_passed_by_value() {
    let Some((context, module)) = module() else {
        return;
    };
    let stream = context.default_stream();
    let fill = module.load_function("fill").unwrap();
    let shape = Shape {
        rows: 3,
        cols: 5,
        factor: 2.0,
        stride: 8,
    };
    let mut x = stream.alloc_zeros::<f32>(24).unwrap();
    let config = LaunchConfig {
        grid_dim: (4, 1, 1),
        block_dim: (7, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut builder = stream.launch_builder(&fill);
    // SAFETY: the kernel takes a char, the struct and a matrix of its shape.
    unsafe { builder.arg(&10_i8).arg(&shape).arg(&mut x).launch(config) }.unwrap();
    let x = stream.clone_dtoh(&x).unwrap();
    for (i, &x) in x.iter().enumerate() {
        let (row, col) = (i / 8, i % 8);
        let expected = if col < 5 {
            10.0 + 2.0 * (row * 5 + col) as f32
        } else {
            0.0
        };
        assert_eq!(x, expected, "row {row}, column {col}");
    }
}

#[test]
fn cooperative_blocks_wait_for_each_other() {
    let Some((context, module)) = module() else {
        return;
    };
    let stream = context.default_stream();
    let grid_sum = module.load_function("grid_sum").unwrap();
    let n = 10_000_i32;
    // Small integers, whose sum does not depend on the order.
    let x: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
    let expected: f32 = x.iter().sum();
    let x = stream.clone_htod(&x).unwrap();
    let blocks = 20;
    let mut partial = stream.alloc_zeros::<f32>(blocks).unwrap();
    let mut total = stream.alloc_zeros::<f32>(blocks).unwrap();
    let mut arrived = stream.alloc_zeros::<u32>(1).unwrap();
    let config = LaunchConfig {
        grid_dim: (blocks as u32, 1, 1),
        block_dim: (64, 1, 1),
        shared_mem_bytes: 64 * 4,
    };
    let mut builder = stream.launch_builder(&grid_sum);
    builder
        .arg(&x)
        .arg(&mut partial)
        .arg(&mut total)
        .arg(&n)
        .arg(&mut arrived);
    // SAFETY: the arguments are those of the kernel.
    unsafe { builder.launch_cooperative(config) }.unwrap();
    assert_eq!(stream.clone_dtoh(&total).unwrap(), vec![expected; blocks]);
}

#[test]
fn a_graph_replays_with_pinned_staging() {
    // Other tests allocate on the same device at the same time.
    if !alone("a_graph_replays_with_pinned_staging", &[]) {
        return;
    }
    let Some((context, module)) = module() else {
        return;
    };
    // SAFETY: there is one stream, and events where the host waits.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let add = module.load_function("add").unwrap();
    let n = 256_i32;
    // SAFETY: written before it is read.
    let mut staging = unsafe { context.alloc_pinned::<f32>(256) }.unwrap();
    staging.as_mut_slice().unwrap().fill(0.0);
    let mut a = stream.alloc_zeros::<f32>(256).unwrap();
    let sum = stream.alloc_zeros::<f32>(256).unwrap();

    stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
        .unwrap();
    stream.memcpy_htod(&staging, &mut a).unwrap();
    // sum = a + sum
    let mut builder = stream.launch_builder(&add);
    let sum_view = sum.as_view();
    builder.arg(&a).arg(&sum_view).arg(&sum_view).arg(&n);
    // SAFETY: the kernel takes three vectors of n numbers, and n; each thread reads its number before it writes.
    unsafe { builder.launch(LaunchConfig::for_num_elems(256)) }.unwrap();
    let graph = stream
        .end_capture(CUgraphInstantiate_flags(0))
        .unwrap()
        .unwrap();

    for step in 1..=4 {
        // The host may write after the copy from the buffer, which the event marks.
        staging.as_mut_slice().unwrap().fill(step as f32);
        graph.launch().unwrap();
        let copied = stream
            .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
            .unwrap();
        copied.synchronize().unwrap();
    }
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), vec![10.0; 256]);
}
