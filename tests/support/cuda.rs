//! The CUDA device of tests: the emulator that cargo built beside the test's executable, with all its checks, or
//! a real GPU when SHOWTELL_TEST_GPU is set (`./scripts/test --gpu`).

use libloading::{Library, Symbol};
use showtell::device::{Precision, cuda};
use showtell::{Context, Device};
use std::process::Command;
use std::sync::OnceLock;

/// Set in the environment of tests that are to use a real GPU.
const GPU: &str = "SHOWTELL_TEST_GPU";

/// Set in the environment of a test that runs in a process of its own.
const ALONE: &str = "SHOWTELL_TEST_ALONE";

/// The emulator, loaded so that whoever asks for libcuda.so gets it. None when a real GPU is asked for.
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

/// A context on the CUDA device, computing in f32. None, and a line saying so, when the crate was built without nvcc.
pub fn cuda() -> Option<Context> {
    cuda_with(Precision::F32)
}

pub fn cuda_with(precision: Precision) -> Option<Context> {
    if cuda::toolkit().is_none() {
        eprintln!("skipped: built without nvcc (scripts/cuda-toolkit installs it)");
        return None;
    }
    emulator();
    Some(Context::new(&Device::cuda(0, precision).unwrap()))
}

/// A context on every device, each computing in f32.
pub fn contexts() -> Vec<Context> {
    [Some(super::cpu()), cuda()].into_iter().flatten().collect()
}

/// What the emulator counted while `body` ran, by kernel. For tests that run [`alone`]: other tests of the process
/// are counted too. None on a real GPU.
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

/// Runs a test in a process of its own, with more environment variables: `true` in that process. For tests that
/// count, leave the device broken, or set up another one. `if !alone("name", &[]) { return; }`
pub fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
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

/// A folder in which a program finds the emulator as the driver: for the `LD_LIBRARY_PATH` of a command. None on a real
/// GPU, or without nvcc.
pub fn driver_folder() -> Option<tempfile::TempDir> {
    cuda::toolkit()?;
    emulator()?;
    let library = std::env::current_exe()
        .unwrap()
        .with_file_name("libcuda_emulator.so");
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).unwrap();
    }
    Some(folder)
}
