//! Mistakes of callers and kernels. Each one results in the error code that the driver has for it, never in a crash.

mod driver_support;

use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult as Code};
use cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use driver_support::{KERNELS, alone, context, emulator, kernels};

/// Every function that the driver layer of cudarc 0.19.10 looks up. A missing one would be a panic in its caller.
const USED_BY_CUDARC: &str = "
cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit cuCtxGetStreamPriorityRange
cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit cuCtxSynchronize cuDestroyExternalMemory
cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceGetName
cuDeviceGetUuid cuDeviceGetUuid_v2 cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceSetMemPool
cuDeviceTotalMem_v2 cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery
cuEventRecord cuEventSynchronize cuExternalMemoryGetMappedBuffer cuFuncGetAttribute cuFuncSetAttribute
cuFuncSetCacheConfig cuGetErrorName cuGetErrorString cuGraphDestroy cuGraphExecDestroy
cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload cuImportExternalMemory cuInit cuLaunchCooperativeKernel
cuLaunchHostFunc cuLaunchKernel cuMemAdvise_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocManaged
cuMemAlloc_v2 cuMemFreeAsync cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolCreate
cuMemPoolDestroy cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo cuMemPrefetchAsync_v2
cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2
cuMemcpyPeerAsync cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad
cuModuleLoadData cuModuleUnload cuOccupancyAvailableDynamicSMemPerBlock
cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags
cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop cuStreamAttachMemAsync
cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamEndCapture
cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
cuDriverGetVersion cuLaunchKernelEx cuMemsetD32Async cuModuleLoadDataEx";

#[test]
fn every_function_is_there() {
    for name in USED_BY_CUDARC.split_whitespace() {
        // SAFETY: the symbol is only looked up.
        let found = unsafe { emulator().get::<*const c_void>(name.as_bytes()) };
        assert!(found.is_ok(), "{name}");
    }
}

#[test]
fn nothing_works_before_init() {
    if !alone("nothing_works_before_init", &[]) {
        return;
    }
    emulator();
    let (mut version, mut count) = (0, 0);
    // SAFETY: the results are writable.
    unsafe {
        assert_eq!(sys::cuDriverGetVersion(&mut version), Code::CUDA_SUCCESS);
        assert_eq!(version, 13000);
        // Reading the environment for the version is not the initialisation.
        assert_eq!(
            sys::cuDeviceGetCount(&mut count),
            Code::CUDA_ERROR_NOT_INITIALIZED
        );
        assert_eq!(sys::cuInit(7), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuInit(0), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuDeviceGetCount(&mut count), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuCtxSynchronize(), Code::CUDA_ERROR_INVALID_CONTEXT);
    }
    assert_eq!(count, 1);
}

#[test]
fn errors_have_names_and_texts() {
    emulator();
    let (mut name, mut text) = (null(), null());
    let code = Code::CUDA_ERROR_ILLEGAL_ADDRESS;
    // SAFETY: the results are writable, and then point to texts.
    unsafe {
        assert_eq!(sys::cuGetErrorName(code, &mut name), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuGetErrorString(code, &mut text), Code::CUDA_SUCCESS);
        assert_eq!(CStr::from_ptr(name), c"CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(
            CStr::from_ptr(text),
            c"an illegal memory access was encountered"
        );
        assert_eq!(
            sys::cuGetErrorName(code, null_mut()),
            Code::CUDA_ERROR_INVALID_VALUE
        );
    }
}

#[test]
fn foreign_and_dead_handles_are_refused() {
    let context = context();
    let dead = {
        let stream = context.new_stream().unwrap();
        stream.cu_stream()
    };
    let wrong = Code::CUDA_ERROR_INVALID_HANDLE;
    let local = 0_u64;
    let foreign = (&raw const local) as usize;
    let module = raw_module();
    let function = raw_function(module, c"scale");
    // SAFETY: the driver looks handles up in tables and never dereferences them.
    unsafe {
        assert_eq!(sys::cuStreamSynchronize(dead), wrong);
        assert_eq!(sys::cuStreamDestroy_v2(dead), wrong);
        assert_eq!(sys::cuStreamDestroy_v2(foreign as _), wrong);
        assert_eq!(sys::cuEventRecord(foreign as _, null_mut()), wrong);
        assert_eq!(sys::cuEventDestroy_v2(null_mut()), wrong);
        assert_eq!(
            sys::cuEventQuery(dead.cast()),
            wrong,
            "a handle of another kind"
        );
        assert_eq!(sys::cuModuleUnload(null_mut()), wrong);
        assert_eq!(sys::cuGraphLaunch(foreign as _, null_mut()), wrong);
        assert_eq!(sys::cuGraphDestroy(null_mut()), wrong);
        assert_eq!(sys::cuGraphExecDestroy(foreign as _), wrong);
        assert_eq!(
            sys::cuCtxSetCurrent(foreign as _),
            Code::CUDA_ERROR_INVALID_CONTEXT
        );
        let launch = |function, values| {
            sys::cuLaunchKernel(
                function,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                null_mut(),
                values,
                null_mut(),
            )
        };
        assert_eq!(launch(null_mut(), null_mut()), wrong);
        assert_eq!(launch(foreign as _, null_mut()), wrong);
        let mut nothing = [null_mut::<c_void>(); 3];
        assert_eq!(
            launch(function, nothing.as_mut_ptr()),
            Code::CUDA_ERROR_INVALID_VALUE,
            "null parameters"
        );
        assert_eq!(
            launch(function, null_mut()),
            Code::CUDA_ERROR_INVALID_VALUE,
            "no parameters"
        );
        assert_eq!(sys::cuModuleUnload(module), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuModuleUnload(module), wrong, "twice");
        assert_eq!(
            launch(function, null_mut()),
            wrong,
            "of a module that is gone"
        );
    }
}

/// The module of the kernels, as a handle of the driver.
fn raw_module() -> sys::CUmodule {
    let mut module = null_mut();
    let text = CString::new(KERNELS).unwrap();
    // SAFETY: the result is writable, the image a text.
    let code = unsafe { sys::cuModuleLoadData(&mut module, text.as_ptr().cast()) };
    assert_eq!(code, Code::CUDA_SUCCESS);
    module
}

/// The handle of a kernel.
fn raw_function(module: sys::CUmodule, name: &CStr) -> sys::CUfunction {
    let mut function = null_mut();
    // SAFETY: the result is writable, the name a text.
    let code = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
    assert_eq!(code, Code::CUDA_SUCCESS);
    function
}

/// The result of loading a module, and the log that it wrote.
fn load(image: &[u8]) -> (Code, String) {
    let mut module = null_mut();
    let mut log = [0_u8; 256];
    let option = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
    let (image, mut options) = (image.as_ptr().cast(), option);
    // SAFETY: two options and values; the log buffer has the stated length; the images end with a NUL.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image,
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let text = CStr::from_bytes_until_nul(&log).unwrap();
    let filled = values[1] as usize;
    assert_eq!(
        filled,
        if text.is_empty() {
            0
        } else {
            text.count_bytes() + 1
        }
    );
    (code, text.to_str().unwrap().into())
}

#[test]
fn images_that_are_not_ptx_are_refused() {
    let _context = context();
    let nul = |text: &str| [text.as_bytes(), b"\0"].concat();
    assert_eq!(load(&nul(KERNELS)), (Code::CUDA_SUCCESS, String::new()));
    let cubin = b"\x7fELF\x02\x01\x01\x33\x07\0\0\0";
    assert_eq!(load(cubin).0, Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
    let fatbin = b"\x50\xed\x55\xba\x01\0\x10\0";
    assert_eq!(load(fatbin).0, Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(
        load(b"\xff\xfe\x80garbage\0").0,
        Code::CUDA_ERROR_INVALID_IMAGE
    );
    assert_eq!(load(b"\0").0, Code::CUDA_ERROR_INVALID_IMAGE);
    assert_eq!(
        load(&nul("int main() {}")).0,
        Code::CUDA_ERROR_INVALID_IMAGE
    );

    let newer = load(&nul(&KERNELS.replace(".version 7.0", ".version 99.0")));
    assert_eq!(newer.0, Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    let other = load(&nul(&KERNELS.replace("sm_80", "sm_90")));
    assert_eq!(other.0, Code::CUDA_ERROR_INVALID_PTX);

    let unknown = KERNELS.replace("mul.f32 %f3", "frobnicate.f32 %f3");
    let line = 1 + KERNELS
        .lines()
        .position(|l| l.contains("mul.f32 %f3"))
        .unwrap();
    let (code, log) = load(&nul(&unknown));
    assert_eq!(code, Code::CUDA_ERROR_INVALID_PTX);
    assert!(log.contains(&format!("line {line}")), "{log}");
    // A text that is cut is an error, or a smaller module if it is cut between kernels.
    for end in (0..KERNELS.len()).step_by(97) {
        load(&nul(&KERNELS[..end]));
    }
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let context = context();
    let module = kernels(&context);
    let error = module.load_function("no_such_kernel").unwrap_err();
    assert_eq!(error.0, Code::CUDA_ERROR_NOT_FOUND);
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: the results are writable, the names texts.
    unsafe {
        let raw = raw_module();
        let missing = sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, raw, c"none".as_ptr());
        assert_eq!(missing, Code::CUDA_ERROR_NOT_FOUND);
        let there = sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, raw, c"total".as_ptr());
        assert_eq!((there, bytes), (Code::CUDA_SUCCESS, 4));
    }
    let mut module = null_mut();
    // SAFETY: the result is writable, the path a text.
    let code = unsafe { sys::cuModuleLoad(&mut module, c"/no/such/file.ptx".as_ptr()) };
    assert_eq!(code, Code::CUDA_ERROR_FILE_NOT_FOUND);
}

/// The result of a launch of `scale` with these sizes.
fn launch(
    context: &Arc<CudaContext>,
    scale: &CudaFunction,
    grid: (u32, u32, u32),
    block: (u32, u32, u32),
    shared: u32,
) -> Result<(), Code> {
    let stream = context.default_stream();
    let mut x = stream.alloc_zeros::<f32>(1).unwrap();
    let config = LaunchConfig {
        grid_dim: grid,
        block_dim: block,
        shared_mem_bytes: shared,
    };
    let mut builder = stream.launch_builder(scale);
    // SAFETY: the kernel takes a pointer to n numbers, a factor, and n.
    let result = unsafe { builder.arg(&mut x).arg(&2.0_f32).arg(&1_u32).launch(config) };
    result.map(|_| ()).map_err(|error| error.0)
}

#[test]
fn sizes_of_launches_are_checked() {
    let context = context();
    let scale = kernels(&context).load_function("scale").unwrap();
    let wrong = Err(Code::CUDA_ERROR_INVALID_VALUE);
    let one = (1, 1, 1);
    assert_eq!(launch(&context, &scale, one, one, 0), Ok(()));
    assert_eq!(launch(&context, &scale, (0, 1, 1), one, 0), wrong);
    assert_eq!(launch(&context, &scale, one, (0, 1, 1), 0), wrong);
    assert_eq!(launch(&context, &scale, one, (1025, 1, 1), 0), wrong);
    assert_eq!(launch(&context, &scale, one, (32, 32, 2), 0), wrong);
    assert_eq!(launch(&context, &scale, one, (1, 1, 65), 0), wrong);
    assert_eq!(launch(&context, &scale, (1, 65536, 1), one, 0), wrong);
    assert_eq!(launch(&context, &scale, one, one, 48 << 10), Ok(()));
    assert_eq!(launch(&context, &scale, one, one, (48 << 10) + 1), wrong);

    // More shared memory must be requested, and there is a maximum.
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    scale.set_attribute(attribute, 163 << 10).unwrap();
    assert_eq!(launch(&context, &scale, one, one, 163 << 10), Ok(()));
    assert_eq!(launch(&context, &scale, one, one, (163 << 10) + 1), wrong);
    let error = scale.set_attribute(attribute, (163 << 10) + 1).unwrap_err();
    assert_eq!(error.0, Code::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn cooperative_launches_fit_the_device() {
    if !alone(
        "cooperative_launches_fit_the_device",
        &[("CUDA_EMULATOR_SM_COUNT", "2")],
    ) {
        return;
    }
    let context = context();
    let append = kernels(&context).load_function("append").unwrap();
    let resident = append
        .occupancy_max_active_blocks_per_multiprocessor(1024, 0, None)
        .unwrap();
    assert_eq!(resident, 2, "2048 threads of a multiprocessor");
    let stream = context.default_stream();
    let mut log = stream.alloc_zeros::<u32>(8).unwrap();
    let config = LaunchConfig {
        grid_dim: (5, 1, 1),
        block_dim: (1024, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut builder = stream.launch_builder(&append);
    // SAFETY: the launch is refused before the kernel runs.
    let error = unsafe { builder.arg(&mut log).arg(&1_u32).launch_cooperative(config) };
    assert_eq!(
        error.unwrap_err().0,
        Code::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
    );
}

/// Stores beyond the end of an allocation.
fn store_wild(context: &Arc<CudaContext>) -> Result<(), Code> {
    let stream = context.default_stream();
    let wild = kernels(context).load_function("wild").unwrap();
    let mut x = stream.alloc_zeros::<u32>(4).unwrap();
    let config = LaunchConfig::for_num_elems(1);
    let config = LaunchConfig {
        block_dim: (1, 1, 1),
        ..config
    };
    let mut builder = stream.launch_builder(&wild);
    // SAFETY: the emulator finds the wrong store of the kernel.
    let result = unsafe { builder.arg(&mut x).arg(&4_u64).launch(config) };
    std::mem::forget(x);
    result.map(|_| ()).map_err(|error| error.0)
}

#[test]
fn a_fault_breaks_its_context() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    if !alone(
        "a_fault_breaks_its_context",
        &[("CUDA_EMULATOR_LOG", log.to_str().unwrap())],
    ) {
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("wild") && log.contains("out of bounds"),
            "{log}"
        );
        return;
    }
    let illegal = Code::CUDA_ERROR_ILLEGAL_ADDRESS;
    let context = context();
    assert_eq!(store_wild(&context), Ok(()), "the launch itself is well");
    assert_eq!(context.synchronize().unwrap_err().0, illegal);
    let stream = context.default_stream();
    assert_eq!(stream.alloc_zeros::<u8>(1).unwrap_err().0, illegal);
    assert_eq!(
        context.load_module(Ptx::from_src(KERNELS)).unwrap_err().0,
        illegal
    );
    assert_eq!(stream.synchronize().unwrap_err().0, illegal);
    let mut pointer = null_mut();
    // SAFETY: the result is writable.
    unsafe {
        assert_eq!(sys::cuMemHostAlloc(&mut pointer, 16, 0), illegal);
        assert_eq!(
            sys::cuLaunchHostFunc(null_mut(), None, null_mut()),
            Code::CUDA_ERROR_INVALID_VALUE
        );
    }
    // The device can be used after the context is destroyed.
    context.check_err().ok();
    assert!(context.name().is_ok());
}

#[test]
fn a_blocking_launch_gives_its_fault() {
    if !alone(
        "a_blocking_launch_gives_its_fault",
        &[("CUDA_LAUNCH_BLOCKING", "1")],
    ) {
        return;
    }
    assert_eq!(
        store_wild(&context()),
        Err(Code::CUDA_ERROR_ILLEGAL_ADDRESS)
    );
}

#[test]
fn a_wrong_setting_is_told() {
    if !alone(
        "a_wrong_setting_is_told",
        &[("CUDA_EMULATOR_CHECKS", "everything")],
    ) {
        return;
    }
    emulator();
    // SAFETY: the function has no requirements.
    assert_eq!(unsafe { sys::cuInit(0) }, Code::CUDA_ERROR_INVALID_VALUE);
    let mut count = 0;
    // SAFETY: the result is writable.
    let code = unsafe { sys::cuDeviceGetCount(&mut count) };
    assert_eq!(code, Code::CUDA_ERROR_NOT_INITIALIZED);
}

#[test]
fn the_device_is_what_the_environment_says() {
    let environment = [
        ("CUDA_EMULATOR_COMPUTE_CAPABILITY", "8.9"),
        ("CUDA_EMULATOR_SM_COUNT", "128"),
        ("CUDA_EMULATOR_SHARED", "99K"),
        ("CUDA_EMULATOR_DEVICES", "2"),
        ("CUDA_EMULATOR_DRIVER_VERSION", "12.8"),
    ];
    if !alone("the_device_is_what_the_environment_says", &environment) {
        return;
    }
    use sys::CUdevice_attribute_enum as Attribute;
    let context = context();
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    assert_eq!(context.compute_capability().unwrap(), (8, 9));
    let get = |attribute| context.attribute(attribute).unwrap();
    assert_eq!(
        get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        128
    );
    let optin = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    assert_eq!(get(optin), 99 << 10);
    assert_eq!(
        get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR),
        1536
    );
    let new = KERNELS.replace(".version 7.0", ".version 8.8");
    let error = context.load_module(Ptx::from_src(new)).unwrap_err();
    assert_eq!(error.0, Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    let mut device = 0;
    // SAFETY: the result is writable.
    let code = unsafe { sys::cuDeviceGet(&mut device, 2) };
    assert_eq!(code, Code::CUDA_ERROR_INVALID_DEVICE);
    assert_ne!(
        CudaContext::new(1).unwrap().uuid().unwrap().bytes,
        context.uuid().unwrap().bytes
    );
}
