//! Shared by the tests of the driver: the emulator, loaded as a program finds the driver; a compiler for CUDA C++; tests
//! in a process of their own; and a few kernels.

#![allow(dead_code)] // every test file uses its own part

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Once, OnceLock};

use cudarc::driver::{CudaContext, CudaModule, sys};
use cudarc::nvrtc::Ptx;
use libloading::Library;

/// Loads the emulator, which cargo has built in the directory of this executable. Everything that opens libcuda.so later
/// gets it, because that is its SONAME.
pub fn emulator() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let executable = std::env::current_exe().unwrap();
        let path = executable.with_file_name("libcuda_emulator.so");
        // SAFETY: the initialisers of the library have no requirements.
        unsafe { Library::new(&path) }.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    })
}

pub fn context() -> Arc<CudaContext> {
    emulator();
    CudaContext::new(0).unwrap()
}

/// The code of a driver call, which may fail.
pub type Code = sys::CUresult;

/// Runs a test in a process of its own, with additional environment variables, and returns `true` in that process. For
/// tests that break the context, or that need another device.
pub fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    const MARK: &str = "CUDA_EMULATOR_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{test}: {}\n{stdout}\n{stderr}",
        output.status
    );
    assert!(
        stdout.contains("1 passed"),
        "{test} is not the test's name\n{stdout}"
    );
    print!("{stdout}");
    eprint!("{stderr}");
    false
}

/// nvcc: `$NVCC`, or the one that scripts/cuda-toolkit has installed. `None`, with one message, if there is none.
fn nvcc() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NVCC") {
        return Some(path.into());
    }
    // target/<profile>/deps/<test>
    let executable = std::env::current_exe().unwrap();
    let target = executable.ancestors().nth(3).unwrap();
    let path = target.join("cuda-toolkit/nvidia/cu13/bin/nvcc");
    if path.exists() {
        return Some(path);
    }
    let expected = std::env::var_os("SHOWTELL_TEST_KERNELS").is_some();
    assert!(
        !expected,
        "kernels must be tested here, but there is no nvcc"
    );
    static ONCE: Once = Once::new();
    ONCE.call_once(|| eprintln!("skipped: no nvcc; scripts/cuda-toolkit installs it"));
    None
}

/// CUDA C++ as PTX for sm_80; `None` without a compiler.
pub fn compile(source: &str) -> Option<String> {
    let nvcc = nvcc()?;
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (
        folder.path().join("kernel.cu"),
        folder.path().join("kernel.ptx"),
    );
    std::fs::write(&input, source).unwrap();
    let result = Command::new(nvcc)
        .args(["-ptx", "-arch=compute_80", "-lineinfo", "-o"])
        .args([&output, &input])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "nvcc: {errors}");
    Some(std::fs::read_to_string(output).unwrap())
}

/// The module of the kernels below.
pub fn kernels(context: &Arc<CudaContext>) -> Arc<CudaModule> {
    context.load_module(Ptx::from_src(KERNELS)).unwrap()
}

/// `append(log, value)`: log is a length, followed by a list. `scale(x, a, n)`: x[i] *= a. `wild(x, i)`: x[i] = 1
/// without a check. `bump(n)` adds n to the variable `total`.
pub const KERNELS: &str = r"
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 total = 7;

.visible .entry append(.param .u64 append_log, .param .u32 append_value)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [append_log];
    ld.param.u32 %r1, [append_value];
    cvta.to.global.u64 %rd2, %rd1;
    ld.global.u32 %r2, [%rd2];
    add.s32 %r3, %r2, 1;
    st.global.u32 [%rd2], %r3;
    mul.wide.u32 %rd3, %r3, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.u32 [%rd4], %r1;
    ret;
}

.visible .entry scale(.param .u64 scale_x, .param .f32 scale_a, .param .u32 scale_n)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [scale_x];
    ld.param.f32 %f1, [scale_a];
    ld.param.u32 %r1, [scale_n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra $done;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.f32 %f2, [%rd4];
    mul.f32 %f3, %f2, %f1;
    st.global.f32 [%rd4], %f3;
$done:
    ret;
}

.visible .entry wild(.param .u64 wild_x, .param .u64 wild_i)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [wild_x];
    ld.param.u64 %rd2, [wild_i];
    cvta.to.global.u64 %rd3, %rd1;
    shl.b64 %rd4, %rd2, 2;
    add.s64 %rd5, %rd3, %rd4;
    mov.u32 %r1, 1;
    st.global.u32 [%rd5], %r1;
    ret;
}

.visible .entry bump(.param .u32 bump_n)
{
    .reg .b32 %r<4>;
    ld.param.u32 %r1, [bump_n];
    ld.global.u32 %r2, [total];
    add.s32 %r3, %r2, %r1;
    st.global.u32 [total], %r3;
    ret;
}
";
