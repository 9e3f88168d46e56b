//! The CUDA device of tests: the emulator that cargo built beside the test's executable, with all its checks on, or a real GPU
//! when SHOWTELL_TEST_GPU is set (`./scripts/test --gpu`).

use libloading::{Library, Symbol};
use showtell::device::{Precision, cuda};
use showtell::{Context, Device};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Set in the environment of tests that are to use a real GPU.
const GPU: &str = "SHOWTELL_TEST_GPU";

/// Set in the environment where kernels must be tested, as `scripts/test` and `.ci/run` do.
const KERNELS: &str = "SHOWTELL_TEST_KERNELS";

/// Set in the environment of a test that runs in a process of its own.
const ALONE: &str = "SHOWTELL_TEST_ALONE";

/// Whether the crate was built with nvcc and so has kernels. Without them, tests of kernels are skipped, which they say;
/// where SHOWTELL_TEST_KERNELS is set they fail.
pub fn kernels() -> bool {
    let built = cuda::toolkit().is_some();
    if !built {
        let missing = "the crate was built without nvcc (scripts/cuda-toolkit installs it)";
        assert!(
            std::env::var_os(KERNELS).is_none(),
            "kernels must be tested here ({KERNELS} is set), but {missing}"
        );
        eprintln!("skipped: {missing}");
    }
    built
}

/// The emulator, loaded so that everything that asks for libcuda.so gets it; `None` on a real GPU.
pub fn emulator() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let open = || {
        if std::env::var_os(GPU).is_some() {
            return None;
        }
        let executable = std::env::current_exe().unwrap();
        let path = executable.with_file_name("libcuda_emulator.so");
        // SAFETY: the library's initialisers have no conditions.
        Some(unsafe { Library::new(&path) }.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };
    LIBRARY.get_or_init(open).as_ref()
}

/// Whether the crate has [`kernels`] and they run in the emulator. Tests of faults, or of other devices, are skipped on a real
/// GPU, which they say.
pub fn in_emulator() -> bool {
    let emulated = emulator().is_some();
    if !emulated {
        eprintln!("skipped: needs the emulator, and {GPU} is set");
    }
    emulated && kernels()
}

/// A context on the CUDA device, computing in f32; `None` when the crate has no [`kernels`].
pub fn cuda() -> Option<Context> {
    cuda_with(Precision::F32)
}

/// A context on the CUDA device, computing in this precision; `None` when the crate has no [`kernels`].
pub fn cuda_with(precision: Precision) -> Option<Context> {
    if !kernels() {
        return None;
    }
    emulator();
    let ctx = Context::new(&Device::cuda(0, precision).unwrap());
    announce(&ctx);
    Some(ctx)
}

/// A context on every device, each computing in f32.
pub fn contexts() -> impl Iterator<Item = Context> {
    let on_cpu = || {
        let ctx = super::cpu();
        announce(&ctx);
        Some(ctx)
    };
    // Each is opened when its turn comes, so that what a test prints stands below the name of its device.
    let devices: [fn() -> Option<Context>; 2] = [on_cpu, cuda];
    devices.into_iter().filter_map(|open| open())
}

/// Prints the device on which the test goes on. The line is shown when the test fails, and with --nocapture.
pub fn announce(ctx: &Context) {
    println!("on {}", ctx.device().name());
}

/// What the emulator counted while `body` ran, by kernel. For tests that run [`alone`]: other tests of the process
/// are counted too. `None` on a real GPU.
pub fn counters(body: impl FnOnce()) -> Option<serde_json::Value> {
    type Counters = unsafe extern "C" fn(*mut u8, usize, *mut usize) -> u32;
    type Reset = unsafe extern "C" fn() -> u32;
    let Some(library) = emulator() else {
        body();
        return None;
    };
    // SAFETY: the emulator exports both functions with these types, as its README says.
    let (counters, reset): (Symbol<Counters>, Symbol<Reset>) = unsafe {
        (
            library.get(b"cuEmulatorCounters").unwrap(),
            library.get(b"cuEmulatorResetCounters").unwrap(),
        )
    };
    // SAFETY: no conditions.
    assert_eq!(unsafe { reset() }, 0);
    body();
    let mut needed = 0;
    // SAFETY: no room is given, so that only the size is written.
    unsafe { counters(std::ptr::null_mut(), 0, &mut needed) };
    let mut text = vec![0; needed];
    // SAFETY: as much room as was just asked for.
    assert_eq!(
        unsafe { counters(text.as_mut_ptr(), text.len(), &mut needed) },
        0
    );
    let text = text.split(|&byte| byte == 0).next().unwrap();
    Some(serde_json::from_slice(text).unwrap())
}

/// Runs a test of the calling file in a process of its own, with more environment variables: `true` in that process. For
/// tests that count, that leave the device unusable, or that set up another one. `if !alone("name", &[]) { return; }`
#[track_caller]
pub fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    // A test's name begins with that of its module, which is the file's.
    let file = Path::new(std::panic::Location::caller().file());
    let module = file.file_stem().unwrap().to_str().unwrap();
    let test = &format!("{module}::{test}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--nocapture",
            "--include-ignored",
            "--test-threads=1",
        ])
        .env(ALONE, "1")
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

/// A folder in which a program finds the emulator as the driver: for the `LD_LIBRARY_PATH` of a command. `None` on a real
/// GPU, or without [`kernels`].
pub fn driver_folder() -> Option<tempfile::TempDir> {
    if !in_emulator() {
        return None;
    }
    let library = std::env::current_exe()
        .unwrap()
        .with_file_name("libcuda_emulator.so");
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).unwrap();
    }
    Some(folder)
}
