//! Compiles `kernels/*.cu`, and writes for the crate what it has to know of the kernels: see build/table.rs.
//!
//! nvcc is looked for in NVCC, PATH, CUDA_HOME, CUDA_PATH, /usr/local/cuda and target/cuda-toolkit (where
//! scripts/cuda-toolkit puts it). Every file is compiled once, to PTX for the oldest architecture that the kernels
//! are written for, in the lowest version that will do; from the PTX, ptxas makes machine code for newer architectures. SHOWTELL_CUDA_ARCHS says for which, such
//! as `80,90`; without it, machine code is made for those of a fixed list that this nvcc knows. What is built does not depend
//! on the GPU of the machine. A kernel that spills registers fails the build.
//!
//! Without nvcc the table is written too, but without code: the crate builds, and opening a CUDA device is an error that
//! says why.

#[path = "build/expression.rs"]
mod expression;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/source.rs"]
mod source;
#[path = "build/table.rs"]
mod table;
#[path = "build/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;
use std::{env, fs, thread};

fn main() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "SHOWTELL_CUDA_ARCHS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Err(message) = build() {
        for line in message.lines() {
            println!("cargo:warning={line}");
        }
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run through cargo")?);
    let files = source::read_all(Path::new("kernels"))?;
    let sources = files.iter().filter(|file| table::is_compiled(file));
    let sources: Vec<&Path> = sources.map(|file| file.path.as_path()).collect();
    let nvcc = match nvcc::find(&out) {
        Ok(nvcc) => Some(nvcc),
        Err(missing) => {
            println!("cargo:warning={missing}");
            None
        }
    };
    let toolkit = nvcc.as_ref().map(nvcc::Nvcc::toolkit).transpose()?;
    let compiled = match &toolkit {
        Some(toolkit) => compile_all(toolkit, &sources, &out)?,
        None => sources.iter().map(|_| None).collect(),
    };
    if let Some(toolkit) = &toolkit {
        println!("cargo:rustc-env=SHOWTELL_CUDA_TOOLKIT={}", toolkit.release);
        let drivers = compiled.iter().flatten().map(nvcc::Compiled::oldest_driver);
        let oldest = drivers.collect::<Result<Vec<_>, _>>()?.into_iter().max();
        println!(
            "cargo:rustc-env=SHOWTELL_CUDA_DRIVER={}",
            oldest.unwrap_or(0)
        );
    }
    let table = table::write(&files, &compiled)?;
    let path = out.join("kernels.rs");
    fs::write(&path, table).map_err(|e| format!("{}: {e}", path.display()))
}

/// Compiles every file, as many at once as cargo allows. A file that has not changed is not compiled again.
fn compile_all(
    toolkit: &nvcc::Toolkit,
    sources: &[&Path],
    out: &Path,
) -> Result<Vec<Option<nvcc::Compiled>>, String> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok());
    let next = Mutex::new(0..sources.len());
    let results = Mutex::new(sources.iter().map(|_| None).collect::<Vec<_>>());
    let lock = "a compiling thread panicked";
    thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(1_usize).min(sources.len()) {
            scope.spawn(|| {
                loop {
                    let Some(i) = next.lock().expect(lock).next() else {
                        break;
                    };
                    let result = toolkit.compile(sources[i], out);
                    results.lock().expect(lock)[i] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect(lock);
    let mut compiled = Vec::new();
    let mut failures = Vec::new();
    for result in results.into_iter().flatten() {
        match result {
            Ok(files) => compiled.push(Some(files)),
            Err(message) => failures.push(message),
        }
    }
    if failures.is_empty() {
        Ok(compiled)
    } else {
        Err(failures.join("\n"))
    }
}
