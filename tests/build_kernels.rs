//! The build of the kernels: which compiler and architectures, what the table says of a declaration, and that what must
//! not be built is not. Tests that need nvcc say that they are skipped where there is none.

#[path = "../build/nvcc.rs"]
#[allow(dead_code)] // the build uses the rest
mod nvcc;
#[path = "../build/table.rs"]
mod table;

use std::fs;
use std::path::Path;

#[test]
fn architectures_are_clamped_to_what_the_compiler_knows() {
    let known = [75, 80, 86, 90, 103];
    assert_eq!(nvcc::chosen(None, &known).unwrap(), [80, 86, 90]);
    assert_eq!(nvcc::chosen(Some("90, sm_80"), &known).unwrap(), [90, 80]);
    assert_eq!(nvcc::chosen(Some(""), &known).unwrap(), [0; 0]);
    for unknown in ["75", "45", "sm_89", "ampere"] {
        let message = nvcc::chosen(Some(unknown), &known).unwrap_err();
        assert!(
            message.starts_with(&format!(
                "SHOWTELL_CUDA_ARCHS: {unknown} is no architecture"
            )),
            "{message}"
        );
        assert!(message.contains("[75, 80, 86, 90, 103]"), "{message}");
    }
}

#[test]
fn the_release_is_read_from_what_nvcc_prints() {
    let printed = "Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0";
    assert_eq!(nvcc::release(printed), Some(13_000));
    assert_eq!(nvcc::release("release 12.8, V12.8.61"), Some(12_080));
    assert_eq!(nvcc::release("nothing"), None);
}

#[test]
fn spills_are_refused_with_the_kernels_name() {
    let told = |stores: u32, loads: u32| {
        format!(
            "ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
             ptxas info    : Function properties for one\n    \
             0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
             ptxas info    : Compiling entry function 'two' for 'sm_80'\n    \
             40 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads\n"
        )
    };
    let source = Path::new("kernels/x.cu");
    assert_eq!(nvcc::refuse_spills(source, 80, &told(0, 0)), Ok(()));
    for (stores, loads) in [(4, 8), (0, 4), (100, 0), (4, 0)] {
        let message = nvcc::refuse_spills(source, 80, &told(stores, loads)).unwrap_err();
        assert!(
            message.starts_with("kernels/x.cu: two spills registers on sm_80: "),
            "{message}"
        );
    }
}

/// The table for a file with this text.
fn table_of(text: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.cu");
    fs::write(&path, text).unwrap();
    table::module(&path, None)
}

#[test]
fn the_table_has_the_types_of_the_declarations() {
    let text = r#"
        // extern "C" __global__ void not_this(int n) {}
        /* extern "C" __global__ void nor_this(int n) {} */
        struct Shape { int m; };
        extern "C" __global__ void __launch_bounds__(128, 2)
        some_step_f32(const float* x, __nv_bfloat16* __restrict__ y, const unsigned char *z, Shape shape,
                      const long long n, unsigned seed, float scale) { }
    "#;
    let table = table_of(text).unwrap();
    let expected = "pub const SOME_STEP_F32: Kernel<(Read<f32>, Write<half::bf16>, Read<u8>, \
                    crate::ops::some::cuda::Shape, i64, u32, f32,)> = Kernel::new(&IMAGE, \"some_step_f32\", 128);";
    assert!(table.contains(expected), "{table}");
    assert_eq!(table.matches("Kernel::new").count(), 1, "{table}");
}

#[test]
fn declarations_that_are_not_understood_are_errors() {
    let declared = |rest: &str| table_of(&format!("extern \"C\" __global__ {rest}")).unwrap_err();
    let unbounded = declared("void f(int n) {}");
    assert!(
        unbounded.contains("__launch_bounds__ are missing"),
        "{unbounded}"
    );
    let pointer = declared("void __launch_bounds__(32) f(const Thing* x) {}");
    assert!(pointer.contains("some.cu: not understood"), "{pointer}");
    let symbolic = declared("void __launch_bounds__(THREADS) f(int n) {}");
    assert!(symbolic.contains("bounds are to be a number"), "{symbolic}");
}

/// The compiler that built this crate's kernels, or none.
fn toolkit() -> Option<nvcc::Toolkit> {
    let found = nvcc::find(&std::env::current_exe().unwrap()).ok();
    if found.is_none() {
        let expected = std::env::var_os("SHOWTELL_TEST_KERNELS").is_some();
        assert!(
            !expected,
            "kernels must be tested here, but there is no nvcc"
        );
        eprintln!("skipped: there is no nvcc (scripts/cuda-toolkit installs it)");
    }
    found.map(|nvcc| nvcc.toolkit().unwrap())
}

/// Compiles a file with this text.
fn compile(toolkit: &nvcc::Toolkit, text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.cu");
    fs::write(&path, text).unwrap();
    let compiled = toolkit.compile(&path, folder.path())?;
    let ptx = fs::read_to_string(compiled.ptx).unwrap();
    assert!(ptx.contains(".target sm_80"), "{ptx}");
    assert!(!compiled.cubins.is_empty());
    Ok(())
}

#[test]
fn a_kernel_that_spills_or_does_not_compile_fails_the_build() {
    let Some(toolkit) = toolkit() else { return };
    let kernel = |body: &str| {
        format!(
            "extern \"C\" __global__ void __launch_bounds__(1024, 2) greedy(float* x) {{ {body} }}"
        )
    };
    compile(&toolkit, &kernel("x[threadIdx.x] += 1;")).unwrap();
    // 200 values live at once, and the bounds leave 32 registers.
    let greedy = kernel(
        "float v[200];\n#pragma unroll\nfor (int i = 0; i < 200; i++) v[i] = x[i * 1024 + threadIdx.x];\n\
         #pragma unroll\nfor (int i = 0; i < 200; i++) x[i * 1024 + threadIdx.x] = v[199 - i] * v[(i * 7) % 200];",
    );
    let message = compile(&toolkit, &greedy).unwrap_err();
    assert!(
        message.contains("some.cu: greedy spills registers on sm_"),
        "{message}"
    );
    let message = compile(&toolkit, &kernel("x[threadIdx.x] = nonsense;")).unwrap_err();
    assert!(
        message.contains("some.cu(1): error") && message.contains("nonsense"),
        "{message}"
    );
}
