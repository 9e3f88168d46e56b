//! The CUDA device itself: copies, memory, launches, graphs, and an error in one line for everything that can go
//! wrong. What needs another device, or breaks it, runs in a process of its own.

use crate::support;
use showtell::device::cuda::{Grid, Image, Kernel};
use showtell::device::{Cuda, Precision, Work};
use showtell::ops::add;
use showtell::{Context, DType, Device, Tensor};
use support::{Numbers, alone, cuda, in_emulator};

fn device(ctx: &Context) -> &Cuda {
    match ctx.device() {
        Device::Cuda(cuda) => cuda,
        _ => panic!("not a CUDA device"),
    }
}

fn refusal<T>(result: showtell::Result<T>) -> String {
    result.err().expect("an error").to_string()
}

/// More bytes than all pinned buffers hold together, and odd sizes.
#[test]
fn what_is_uploaded_comes_back() {
    let Some(ctx) = cuda() else { return };
    for len in [0, 1, 7, 4096, (4 << 20) + 3, (37 << 20) + 1] {
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i * 7 + i / 251) as u8).collect();
        let tensor = Tensor::from_slice(ctx.device(), [len], &bytes).unwrap();
        assert!(tensor.to_vec::<u8>().unwrap() == bytes, "{len} bytes");
    }
    let mut numbers = Numbers::new(1);
    let whole = numbers.f32(&ctx, [13, 10]);
    let part = whole.columns(3, 5).unwrap();
    let all = whole.to_vec::<f32>().unwrap();
    let expected: Vec<f32> = all.chunks(10).flat_map(|row| row[3..8].to_vec()).collect();
    assert_eq!(part.to_vec::<f32>().unwrap(), expected);
}

/// More uploads than there are buffers, small and large, and work that reads each before the next overwrites it.
#[test]
fn uploads_and_work_keep_their_order() {
    let Some(ctx) = cuda() else { return };
    for len in [5, 20_000] {
        let mut x = Tensor::zeros(ctx.device(), [len], DType::F32).unwrap();
        let mut sum = Tensor::zeros(ctx.device(), [len], DType::F32).unwrap();
        for i in 0..100 {
            x.copy_from_slice(&vec![i as f32; len]).unwrap();
            add::forward(&ctx, &x, &mut sum).unwrap();
        }
        assert!(sum.to_vec::<f32>().unwrap().iter().all(|&v| v == 4950.0));
    }
    let x = Tensor::from_slice(ctx.device(), [50_000], &[1f32; 50_000]).unwrap();
    x.columns(0, 3)
        .unwrap()
        .copy_from_slice(&[2f32; 3])
        .unwrap();
    x.columns(2, 40_000)
        .unwrap()
        .copy_from_slice(&[3f32; 40_000])
        .unwrap();
    let values = x.to_vec::<f32>().unwrap();
    assert_eq!((values[1], values[2], values[49_999]), (2.0, 3.0, 1.0));
}

#[test]
fn new_memory_is_zero_also_where_it_was_used_before() {
    let Some(ctx) = cuda() else { return };
    for _ in 0..3 {
        let mut tensor = Tensor::zeros(ctx.device(), [100], showtell::DType::F32).unwrap();
        assert_eq!(tensor.to_vec::<f32>().unwrap(), [0.0; 100]);
        tensor.copy_from_slice(&[1.0_f32; 100]).unwrap();
    }
    assert_eq!(ctx.device().bytes_in_use(), 0);
}

/// A value read later is what the work queued before has made, whatever is queued after.
#[test]
fn reading_later_sees_the_work_before_it() {
    let Some(ctx) = cuda() else { return };
    let one = Tensor::from_slice(ctx.device(), [1], &[1.0_f32]).unwrap();
    let mut sum = Tensor::from_slice(ctx.device(), [1], &[0.0_f32]).unwrap();
    let mut pending = Vec::new();
    for _ in 0..5 {
        add::forward(&ctx, &one, &mut sum).unwrap();
        pending.push(sum.download_later::<f32>().unwrap());
    }
    let values = pending.into_iter().map(|p| p.wait().unwrap()[0]);
    assert_eq!(values.collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn a_recorded_graph_does_the_same_again() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(2);
    let (x, mut y) = (numbers.f32(&ctx, [9, 4]), numbers.f32(&ctx, [9, 4]));
    add::forward(&ctx, &x, &mut y).unwrap();
    let [x_values, before] = [&x, &y].map(|t| t.to_vec::<f32>().unwrap());
    let graph = ctx
        .device()
        .record(|| add::forward(&ctx, &x, &mut y))
        .unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), before, "recording runs nothing");
    graph.replay().unwrap();
    graph.replay().unwrap();
    let sums = before.iter().zip(&x_values).map(|(y, x)| (y + x) + x);
    assert_eq!(y.to_vec::<f32>().unwrap(), sums.collect::<Vec<_>>());
}

/// An operation that fails, or waits for the device, ends the recording with its error, and the device goes on.
#[test]
fn a_recording_that_fails_leaves_the_device_usable() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(3);
    let (x, mut y) = (numbers.f32(&ctx, [9, 4]), numbers.f32(&ctx, [9, 4]));
    add::forward(&ctx, &x, &mut y).unwrap();
    let wrong = numbers.f32(&ctx, [9, 5]);
    let message = refusal(ctx.device().record(|| add::forward(&ctx, &wrong, &mut y)));
    assert!(
        message.starts_with("add: x should have 9 rows of 4"),
        "{message}"
    );
    let message = refusal(ctx.device().record(|| {
        add::forward(&ctx, &x, &mut y)?;
        y.to_vec::<f32>().map(drop)
    }));
    assert_eq!(
        message,
        "copying from the device: not while a graph is being recorded"
    );
    add::forward(&ctx, &x, &mut y).unwrap();
    y.to_vec::<f32>().unwrap();
}

#[test]
fn work_can_be_timed() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(4);
    let (x, mut y) = (numbers.f32(&ctx, [64, 64]), numbers.f32(&ctx, [64, 64]));
    let took = ctx
        .device()
        .time(|| add::forward(&ctx, &x, &mut y))
        .unwrap();
    assert!(took.as_nanos() > 0 && took.as_secs() < 60, "{took:?}");
}

const PTX: &[u8] = b".version 7.0\n.target sm_80\n.address_size 64\n\
    .visible .entry store(.param .u64 at)\n.maxntid 64, 1, 1\n{\n.reg .b64 %rd<3>;\n.reg .b32 %r<2>;\n\
    ld.param.u64 %rd1, [at];\ncvta.to.global.u64 %rd2, %rd1;\nmov.u32 %r1, 7;\nst.global.u32 [%rd2], %r1;\nret;\n}\n";
static STORE_IMAGE: Image = Image::new("store", PTX, &[]);
const STORE: Kernel = Kernel::new(&STORE_IMAGE, "store", 64);

/// Launches a kernel that does nothing wrong by itself.
fn store(ctx: &Context, kernel: &Kernel, grid: Grid, mut address: u64) -> showtell::Result<()> {
    let arguments = &mut [(&raw mut address).cast()];
    // SAFETY: the kernel has one parameter, an address. The tests below give that of a live tensor, or one that the emulator
    // is to find at fault.
    unsafe { device(ctx).launch(kernel, grid, Work::default(), arguments) }
}

#[test]
fn impossible_launches_name_kernel_grid_and_block() {
    let Some(ctx) = cuda() else { return };
    let launch = |grid| refusal(store(&ctx, &STORE, grid, 0));
    let empty = launch(Grid::blocks([0, 1, 1], 32));
    assert_eq!(
        empty,
        "kernel store, grid 0x1x1, block 32, 0 bytes of dynamic shared memory: a grid has 1 to \
         [2147483647, 65535, 65535] blocks"
    );
    let wide = launch(Grid::blocks([1, 70_000, 1], 32));
    assert!(
        wide.starts_with("kernel store, grid 1x70000x1, block 32"),
        "{wide}"
    );
    let threads = launch(Grid::blocks([1, 1, 1], 65));
    assert!(
        threads.ends_with("a block of this kernel has 1 to 64 threads"),
        "{threads}"
    );
    let shared = launch(Grid::blocks([1, 1, 1], 32).shared(1 << 20));
    assert!(
        shared.contains("1048576 bytes of dynamic shared memory: this GPU has ")
            && shared.starts_with("kernel store"),
        "{shared}"
    );
    let mut y = Tensor::zeros(ctx.device(), [1], showtell::DType::F32).unwrap();
    let x = Tensor::from_slice(ctx.device(), [1], &[2.0_f32]).unwrap();
    add::forward(&ctx, &x, &mut y).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.0]);
}

#[test]
fn code_that_cannot_be_loaded_is_an_error() {
    static NONSENSE: Image = Image::new("nonsense", b"this is no PTX", &[]);
    static CUT: Image = Image::new("cut", PTX.split_at(200).0, &[]);
    static NOTHING: Image = Image::new("nothing", b"", &[]);
    // Drivers take the sizes of its parts from the header of an ELF file: here there are no parts.
    const HEADER: [u8; 4096] = {
        let mut header = [0; 4096];
        header.split_at_mut(4).0.copy_from_slice(b"\x7fELF");
        header
    };
    static CODE: Image = Image::new("code", b"", &[(80, &HEADER)]);
    let Some(ctx) = cuda() else { return };
    let launch = |image| {
        refusal(store(
            &ctx,
            &Kernel::new(image, "store", 64),
            Grid::threads_for(1, 1),
            0,
        ))
    };
    for (image, name) in [(&NONSENSE, "nonsense"), (&CUT, "cut")] {
        let message = launch(image);
        let expected = format!("the kernels of {name} cannot be loaded: ");
        assert!(
            message.starts_with(&expected) && message.contains("CUDA_ERROR_INVALID_"),
            "{message}"
        );
    }
    for image in [&NOTHING, &CODE] {
        let message = launch(image);
        assert!(
            message.contains("compiled for compute capability")
                || message.contains("cannot be loaded"),
            "{message}"
        );
    }
    let missing = Kernel::new(&STORE_IMAGE, "not_there", 64);
    let message = refusal(store(&ctx, &missing, Grid::threads_for(1, 1), 0));
    assert!(
        message.starts_with("kernel not_there cannot be found: "),
        "{message}"
    );
}

#[test]
fn a_kernel_that_fails_is_named() {
    let name = "a_kernel_that_fails_is_named";
    if !in_emulator() || !alone(name, &[]) {
        return;
    }
    let ctx = cuda().unwrap();
    store(&ctx, &STORE, Grid::threads_for(1, 1), 64).unwrap();
    let message = refusal(ctx.device().synchronise());
    assert_eq!(
        message,
        "waiting for the device: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); a kernel \
         has failed, store or one launched before it (CUDA_LAUNCH_BLOCKING=1 tells which)"
    );
    let message = refusal(Tensor::zeros(ctx.device(), [1], showtell::DType::F32));
    assert!(message.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{message}");
}

#[test]
fn a_blocking_launch_tells_its_own_failure() {
    let name = "a_blocking_launch_tells_its_own_failure";
    let blocking = [("CUDA_LAUNCH_BLOCKING", "1")];
    if !in_emulator() || !alone(name, &blocking) {
        return;
    }
    let ctx = cuda().unwrap();
    let message = refusal(store(&ctx, &STORE, Grid::threads_for(1, 1), 64));
    assert!(
        message.starts_with("kernel store, grid 1x1x1, block 1, "),
        "{message}"
    );
}

#[test]
fn asking_for_too_much_memory_is_an_error_and_leaves_the_rest_usable() {
    let name = "asking_for_too_much_memory_is_an_error_and_leaves_the_rest_usable";
    let small = [("CUDA_EMULATOR_MEMORY", "16M")];
    if !in_emulator() || !alone(name, &small) {
        return;
    }
    let ctx = cuda().unwrap();
    let bytes = |mib: usize| Tensor::zeros(ctx.device(), [mib << 20], showtell::DType::U8);
    let held = bytes(9).unwrap();
    let message = refusal(bytes(9));
    assert!(
        message.contains(
            "is out of memory: 9 MiB asked for, 7 of 16 MiB free, 9 MiB used by this run"
        ),
        "{message}"
    );
    assert_eq!(ctx.device().bytes_in_use(), 9 << 20);
    drop(held);
    bytes(9).unwrap();
}

/// What opening the device says on a machine that is set up in another way; each in a process of its own.
fn opening(test: &str, environment: &[(&str, &str)]) -> Option<showtell::Result<Device>> {
    if !in_emulator() || !alone(test, environment) {
        return None;
    }
    Some(Device::cuda(0, Precision::F32))
}

#[test]
fn no_device() {
    let Some(opened) = opening("no_device", &[("CUDA_EMULATOR_DEVICES", "0")]) else {
        return;
    };
    assert!(refusal(opened).starts_with("the NVIDIA driver finds no GPU"));
}

#[test]
fn an_old_driver() {
    let old = [("CUDA_EMULATOR_DRIVER_VERSION", "11.3")];
    let Some(opened) = opening("an_old_driver", &old) else {
        return;
    };
    let message = refusal(opened);
    assert!(
        message.starts_with(
            "the NVIDIA driver is too old: it runs CUDA 11.3, the kernels need one that runs CUDA 11.4 or newer"
        ),
        "{message}"
    );
}

#[test]
fn an_old_gpu() {
    let old = [("CUDA_EMULATOR_COMPUTE_CAPABILITY", "7.5")];
    let Some(opened) = opening("an_old_gpu", &old) else {
        return;
    };
    let message = refusal(opened);
    assert!(
        message.ends_with("has compute capability 7.5; the kernels need 8.0 or newer"),
        "{message}"
    );
}

/// A GPU that is newer than all architectures with machine code uses the PTX.
#[test]
fn a_newer_gpu_runs_the_ptx() {
    let new = [("CUDA_EMULATOR_COMPUTE_CAPABILITY", "14.0")];
    if let Some(opened) = opening("a_newer_gpu_runs_the_ptx", &new) {
        add_two(&Context::new(&opened.unwrap()));
    }
}

/// A driver that is older than the toolkit compiles the PTX, whose version it knows.
#[test]
fn an_older_driver_runs_the_ptx() {
    let old = [("CUDA_EMULATOR_DRIVER_VERSION", "11.4")];
    if let Some(opened) = opening("an_older_driver_runs_the_ptx", &old) {
        add_two(&Context::new(&opened.unwrap()));
    }
}

/// The development switch takes kernels from a folder: there is none of this one in an empty folder.
#[test]
fn kernels_are_taken_from_a_folder() {
    let built_in = [("SHOWTELL_PTX", "built-in")];
    if let Some(opened) = opening("kernels_are_taken_from_a_folder", &built_in) {
        let ctx = Context::new(&opened.unwrap());
        add_two(&ctx);
        drop(ctx);
        let folder = tempfile::tempdir().unwrap();
        // SAFETY: this process has only this test.
        unsafe { std::env::set_var("SHOWTELL_PTX", folder.path()) };
        let ctx = cuda().unwrap();
        let tensor = || Numbers::new(1).f32(&ctx, [5]);
        let message = refusal(add::forward(&ctx, &tensor(), &mut tensor()));
        let file = folder.path().join("add.ptx");
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }
}

fn add_two(ctx: &Context) {
    let (x, mut y) = (Numbers::new(1).f32(ctx, [5]), Numbers::new(2).f32(ctx, [5]));
    add::forward(ctx, &x, &mut y).unwrap();
    y.to_vec::<f32>().unwrap();
}

#[test]
fn a_missing_gpu_is_an_error() {
    if cuda().is_none() {
        return;
    }
    let message = refusal(Device::cuda(77, Precision::F32));
    assert!(
        message.starts_with("there is no GPU 77: they are numbered from 0, and there are "),
        "{message}"
    );
}

#[test]
fn tensors_of_other_devices_are_refused() {
    let (Some(one), Some(two)) = (cuda(), cuda()) else {
        return;
    };
    let mut numbers = Numbers::new(5);
    let mut y = numbers.f32(&one, [3]);
    let message = refusal(add::forward(&one, &numbers.f32(&two, [3]), &mut y));
    assert_eq!(message, "add: f32[3] is on another device");
    let message = refusal(add::forward(
        &one,
        &numbers.f32(&support::cpu(), [3]),
        &mut y,
    ));
    assert_eq!(message, "add: f32[3] is not in device memory");
    let message = refusal(add::forward(&one, &y.clone(), &mut y));
    assert_eq!(message, "add: f32[3] overlaps another argument");
}
