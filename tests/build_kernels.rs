//! The build of the kernels: which compiler and architectures it takes, what it writes for Rust about a declaration, and what it
//! refuses. Where there is no nvcc, the tests that need it say that they are skipped.

#[path = "../build/expression.rs"]
mod expression;
#[path = "../build/nvcc.rs"]
#[allow(dead_code)] // the build uses the rest
mod nvcc;
#[path = "../build/source.rs"]
mod source;
#[path = "../build/table.rs"]
mod table;
#[path = "../build/tokens.rs"]
mod tokens;

use std::fs;
use std::path::Path;
use std::process::Command;

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

/// What is written for Rust about a folder with these files.
fn table_of_files(files: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let files = source::read_all(folder.path()).map_err(|e| relative(&e, folder.path()))?;
    table::write(&files, &[]).map_err(|e| relative(&e, folder.path()))
}

fn relative(message: &str, folder: &Path) -> String {
    message.replace(&format!("{}/", folder.display()), "")
}

fn table_of(text: &str) -> Result<String, String> {
    table_of_files(&[("some.cu", text)])
}

const BOUNDED: &str = "extern \"C\" __global__ void __launch_bounds__(128) ";

#[test]
fn the_arguments_have_the_names_and_types_of_the_declaration() {
    let text = r#"
        // extern "C" __global__ void not_this(int n) {}
        /* extern "C" __global__ void nor_this(int n) {} */
        struct Shape { int m; };
        extern "C" __global__ void __launch_bounds__(128, 2)
        some_step_f32(const float* x, __nv_bfloat16* __restrict__ y, const unsigned char *z, Shape shape,
                      const long long n, unsigned seed, float scale) { }
    "#;
    let table = table_of(text).unwrap();
    let arguments = "pub struct SomeStep<'a> { pub x: Input<'a>, pub y: Output<'a>, pub z: Input<'a>, \
                     pub shape: Shape, pub n: i64, pub seed: u32, pub scale: f32, }";
    assert!(table.contains(arguments), "{table}");
    let kernel = "Member { key: &[], kernel: Kernel::new(&IMAGE, \"some_step_f32\", (128) as u32), \
                  elements: &[DType::F32, DType::Bf16, DType::U8, ] }";
    assert!(table.contains(kernel), "{table}");
    assert_eq!(table.matches("Kernel::new").count(), 1, "{table}");
}

#[test]
fn a_macro_makes_a_family_of_kernels() {
    let text = r#"
        constexpr int THREADS = 256;
        using f32x4 = Vector<f32, 4>;
        using bf16x8 = Vector<bf16, 8>;
        #define SOME_STEP(V, CUT) \
            extern "C" __global__ void __launch_bounds__(THREADS) some_step_##V##_##CUT(const V::Element* x) { \
                step<V, CUT>(x); \
            }
        SOME_STEP(f32x4, large)
        SOME_STEP(bf16x8, small)
    "#;
    let table = table_of(text).unwrap();
    for kernel in [
        "impl Arguments for SomeStep<'_>",
        "VECTORS: &[(&str, DType, usize)] = &[(\"f32x4\", DType::F32, 4), (\"bf16x8\", DType::Bf16, 8), ];",
        "key: &[\"f32x4\", \"large\"], kernel: Kernel::new(&IMAGE, \"some_step_f32x4_large\", (THREADS) as u32), \
         elements: &[DType::F32, ]",
        "key: &[\"bf16x8\", \"small\"], kernel: Kernel::new(&IMAGE, \"some_step_bf16x8_small\", (THREADS) as u32), \
         elements: &[DType::Bf16, ]",
    ] {
        assert!(table.contains(kernel), "{kernel}\n{table}");
    }
}

#[test]
fn constants_and_functions_are_those_of_cuda() {
    let header = r#"
        namespace tile {
        constexpr int WARP = 32, THREADS = 4 * WARP;
        constexpr float EPSILON = 1e-5f;
        __host__ __device__ constexpr int shared_bytes(int rows, int Cols) {
            return (rows * Cols + THREADS / WARP) * sizeof(float);
        }
        template <int M_, int N_>
        struct Cut { static constexpr int M = M_, AREA = M * N_; };
        using large = Cut<128, 2 * WARP>;
        }
    "#;
    let user = format!(
        "#include \"some.cuh\"\n{}",
        BOUNDED.replace("128", "tile::large::AREA") + "one_f32(float* x) {}"
    );
    let table = table_of_files(&[("other.cu", &user), ("some.cuh", header)]).unwrap();
    for line in [
        "pub const THREADS: usize = 4 * WARP;",
        "pub const EPSILON: f32 = 1e-5;",
        "pub const fn shared_bytes(rows: usize, cols: usize) -> usize",
        "rows * cols + THREADS / WARP",
        "let m = m_; let area = m * n_; Cut { key, m, area, }",
        "pub const LARGE: Cut = Cut::new(\"large\", 128, 2 * WARP);",
        "pub use super::some::*;",
        "Kernel::new(&IMAGE, \"one_f32\", (LARGE.area) as u32)",
    ] {
        assert!(table.contains(line), "{line}\n{table}");
    }
}

/// The generated struct of that name.
fn struct_of(table: &str, name: &str) -> String {
    let start = format!("pub struct {name} {{");
    let line = table.lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {name} in {table}"))
        .into()
}

/// Whether rustc takes the struct and this function that uses it.
fn compiles(declared: &str, user: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.rs");
    fs::write(&path, format!("{declared}\n{user}\n")).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--crate-type", "lib", "--emit", "metadata", "--out-dir"]);
    let output = rustc.arg(folder.path()).arg(path).output().unwrap();
    output.status.success()
}

#[test]
fn a_field_that_moves_or_gets_another_name_does_so_in_rust() {
    let with = |fields: &str| {
        let text =
            format!("struct Shape {{ {fields} }};\n{BOUNDED} one_f32(Shape at, float* x) {{}}");
        struct_of(&table_of(&text).unwrap(), "Shape")
    };
    let before = with("int rows, ld; float mean[3];");
    let user = "pub fn f(s: &Shape) -> i32 { s.rows + s.ld }";
    assert_eq!(
        before,
        "pub struct Shape { pub rows: i32, pub ld: i32, pub mean: [f32; 3], }"
    );
    assert!(compiles(&before, user));
    let moved = with("float mean[3]; int ld; int rows;");
    assert_eq!(
        moved,
        "pub struct Shape { pub mean: [f32; 3], pub ld: i32, pub rows: i32, }"
    );
    assert!(compiles(&moved, user));
    let renamed = with("int rows, x_ld; float mean[3];");
    assert!(renamed.contains("pub x_ld: i32"), "{renamed}");
    assert!(!compiles(&renamed, user));
}

#[test]
fn what_is_not_understood_is_refused_with_its_name_and_line() {
    let refused = |text: &str| table_of(text).unwrap_err();
    let declared = |rest: &str| refused(&format!("\n\nextern \"C\" __global__ {rest}"));
    let unbounded = declared("void f_f32(int n) {}");
    assert!(
        unbounded.starts_with("some.cu:3: not understood"),
        "{unbounded}"
    );
    assert!(
        unbounded.contains("__launch_bounds__ are missing"),
        "{unbounded}"
    );
    for (text, message) in [
        (
            "f_f32(const Thing* x) {}",
            "some.cu:1: f_f32: not understood: the parameter `const Thing * x`",
        ),
        (
            "f_f32(Thing x) {}",
            "some.cu:1: f_f32: not understood: the parameter `Thing x`",
        ),
    ] {
        assert_eq!(refused(&format!("{BOUNDED}{text}")), message);
    }
    for (text, message) in [
        (
            "\nconstexpr int A = B;",
            "some.cu:2: A: B is not understood in an expression",
        ),
        (
            "constexpr int A = 1 ? 2 : 3;",
            "some.cu:1: A: ? is not understood in an expression",
        ),
        (
            "constexpr bool A = true;",
            "some.cu:1: not understood: constexpr A",
        ),
        (
            "constexpr float A = 1.0f / 3.0f;",
            "some.cu:1: A: a float constant is to be one number",
        ),
        (
            "__host__ __device__ constexpr int f(int a) { if (a) return 1; return 2; }",
            "some.cu:1: not understood: constexpr f",
        ),
    ] {
        assert_eq!(refused(text), message);
    }
    let symbolic = refused(&(BOUNDED.replace("128", "MANY") + "f_f32(float* x) {}"));
    assert_eq!(
        symbolic,
        "some.cu:1: f_f32: MANY is not understood in an expression"
    );
    let unread =
        format!("struct Shape {{\n int a;\n Other b;\n}};\n{BOUNDED}f_f32(Shape s, float* x) {{}}");
    assert_eq!(
        refused(&unread),
        "some.cu:3: Shape: a kernel takes this struct, and its member at `Other` is not understood"
    );
    let twin =
        format!("struct SomeStep {{ int a; }};\n{BOUNDED}some_step_f32(SomeStep s, float* x) {{}}");
    assert!(refused(&twin).contains("the name that its arguments get"));
    let unlike = format!("{BOUNDED}step_f32(float* x) {{}}\n{BOUNDED}step_bf16(float* y) {{}}");
    assert_eq!(
        refused(&unlike),
        "some.cu:2: step_bf16: its parameters are not those of step_f32"
    );
}

#[test]
fn a_header_changes_only_what_includes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    write("deep.cuh", "// deep\n");
    write("middle.cuh", "#include \"deep.cuh\"\n");
    write("one.cu", "#include \"middle.cuh\"\n");
    write("other.cu", "// #include \"deep.cuh\"\n");
    let headers = |name: &str| source::headers(&path(name)).unwrap();
    assert_eq!(headers("one.cu"), [path("deep.cuh"), path("middle.cuh")]);
    assert!(headers("other.cu").is_empty());
    let Some(toolkit) = toolkit() else { return };
    let states = || ["one.cu", "other.cu"].map(|name| toolkit.state(&path(name)).unwrap());
    let before = states();
    assert_eq!(states(), before);
    write("deep.cuh", "// deeper\n");
    let after = states();
    assert!(after[0] != before[0] && after[1] == before[1]);
}

/// The compiler that built this crate's kernels; `None` without one.
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

#[test]
fn ptx_says_the_lowest_version_that_will_do() {
    let text = "// .version in a comment\n.version 9.0\n.target sm_80\n";
    assert_eq!(nvcc::ptx_version(text), Some(90));
    assert_eq!(nvcc::ptx_version("nothing"), None);
    let lower = nvcc::with_ptx_version(text, 72);
    assert_eq!(lower, text.replace("9.0", "7.2"));
    // The release notes of the PTX ISA.
    let drivers = [
        (70, 11_000),
        (78, 11_080),
        (80, 12_000),
        (85, 12_050),
        (86, 12_070),
        (88, 12_090),
        (90, 13_000),
    ];
    for (version, driver) in drivers {
        assert_eq!(nvcc::driver_of_ptx(version), driver, "{version}");
    }
    let Some(toolkit) = toolkit() else { return };
    let kernel = |body: &str| format!("extern \"C\" __global__ void f(int* x) {{ {body} }}");
    assert_eq!(compile(&toolkit, &kernel("x[threadIdx.x] += 1;")), Ok(70));
    // An instruction that came with PTX 7.5.
    let newer = kernel("asm volatile(\"fence.proxy.alias;\" ::: \"memory\");");
    assert!(compile(&toolkit, &newer).unwrap() > 70);
}

/// Compiles a file with this text. Returns the version of its PTX.
fn compile(toolkit: &nvcc::Toolkit, text: &str) -> Result<u32, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.cu");
    fs::write(&path, text).unwrap();
    let compiled = toolkit.compile(&path, folder.path())?;
    let ptx = fs::read_to_string(compiled.ptx).unwrap();
    assert!(ptx.contains(".target sm_80"), "{ptx}");
    assert!(!compiled.cubins.is_empty());
    Ok(nvcc::ptx_version(&ptx).unwrap())
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
