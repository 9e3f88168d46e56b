//! Failures on purpose: the chosen call fails as on a GPU, and no other call fails.

mod driver_support;

use cudarc::driver::result;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::Ptx;
use driver_support::{alone, context};

const NOTHING: &str =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing()\n{\nret;\n}\n";

/// Launches a kernel of one thread that does nothing.
fn launch() -> Result<(), CUresult> {
    let context = context();
    let module = context.load_module(Ptx::from_src(NOTHING)).unwrap();
    let function = module.load_function("nothing").unwrap();
    let stream = context.default_stream();
    // SAFETY: the kernel has no parameters.
    let launched = unsafe {
        result::launch_kernel(
            function.cu_function(),
            (1, 1, 1),
            (1, 1, 1),
            0,
            stream.cu_stream(),
            &mut [],
        )
    };
    launched.map_err(|error| error.0)
}

#[test]
fn one_launch_is_refused() {
    if !alone(
        "one_launch_is_refused",
        &[("CUDA_EMULATOR_FAIL", "launch:2")],
    ) {
        return;
    }
    assert_eq!(launch(), Ok(()));
    assert_eq!(launch(), Err(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES));
    assert_eq!(launch(), Ok(()));
}

#[test]
fn a_fault_breaks_the_context() {
    if !alone(
        "a_fault_breaks_the_context",
        &[("CUDA_EMULATOR_FAIL", "fault:2")],
    ) {
        return;
    }
    let held = context();
    assert_eq!(launch(), Ok(()));
    assert_eq!(launch(), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    assert_eq!(
        held.synchronize().unwrap_err().0,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
    );
}

#[test]
fn allocations_end() {
    if !alone("allocations_end", &[("CUDA_EMULATOR_FAIL", "allocation:3")]) {
        return;
    }
    let stream = context().default_stream();
    let held: Vec<_> = (0..2)
        .map(|_| stream.alloc_zeros::<u8>(16).unwrap())
        .collect();
    for _ in 0..2 {
        let error = stream.alloc_zeros::<u8>(16).unwrap_err();
        assert_eq!(error.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    }
    drop(held);
}
