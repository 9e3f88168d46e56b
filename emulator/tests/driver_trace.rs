//! The output of the driver: traces of launches, and counters in a file and through the library.

mod driver_support;

use std::ffi::{c_char, c_uint};
use std::path::Path;

use cudarc::driver::{LaunchConfig, PushKernelArg};
use driver_support::{alone, context, emulator, kernels};
use serde_json::{Value, json};

const ONE: LaunchConfig = LaunchConfig {
    grid_dim: (1, 1, 1),
    block_dim: (1, 1, 1),
    shared_mem_bytes: 0,
};

/// Launches `append` three times on a list of 8 numbers, and `bump` once.
fn work() {
    let context = context();
    let module = kernels(&context);
    let append = module.load_function("append").unwrap();
    let bump = module.load_function("bump").unwrap();
    let stream = context.default_stream();
    let _unused = stream.alloc_zeros::<u32>(100).unwrap();
    let mut list = stream.alloc_zeros::<u32>(8).unwrap();
    for value in [0x11_u32, 0x22, 0x33] {
        let mut builder = stream.launch_builder(&append);
        // SAFETY: the list has room, and the kernel takes it and a number.
        unsafe { builder.arg(&mut list).arg(&value).launch(ONE) }.unwrap();
    }
    // SAFETY: the kernel takes a number.
    unsafe { stream.launch_builder(&bump).arg(&5_u32).launch(ONE) }.unwrap();
    assert_eq!(
        stream.clone_dtoh(&list).unwrap()[..4],
        [3, 0x11, 0x22, 0x33]
    );
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A raw file of the trace as 32-bit numbers.
fn read_words(folder: &Path, name: &Value) -> Vec<u32> {
    let bytes = std::fs::read(folder.join(name.as_str().unwrap())).unwrap();
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn launches_are_traced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let environment = [
        ("CUDA_EMULATOR_TRACE", path.to_str().unwrap()),
        ("CUDA_EMULATOR_TRACE_LIMIT", "2"),
    ];
    if alone("launches_are_traced", &environment) {
        return work();
    }
    assert_eq!(
        std::fs::read_to_string(path.join("module-0.ptx")).unwrap(),
        driver_support::KERNELS
    );
    // The third launch of `append` is beyond the limit.
    assert!(path.join("0.json").exists() && path.join("1.json").exists());
    assert!(!path.join("2.json").exists());

    let second = read_json(&path.join("1.json"));
    for (key, value) in [
        ("module", json!(0)),
        ("kernel", json!("append")),
        ("grid", json!([1, 1, 1])),
        ("block", json!([1, 1, 1])),
        ("dynamic_shared", json!(0)),
        ("cooperative", json!(false)),
    ] {
        assert_eq!(second[key], value, "{key}");
    }
    let [list] = &second["allocations"].as_array().unwrap()[..] else {
        panic!("one allocation is touched: {second}");
    };
    assert_eq!(list["size"], 32);
    let base = list["base"].as_u64().unwrap();
    assert!(base >= 0x10_0000_0000);
    let params: String = base
        .to_le_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(second["params"], params + "22000000");
    assert_eq!(
        read_words(path, &list["before"]),
        [1, 0x11, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        read_words(path, &list["after"]),
        [2, 0x11, 0x22, 0, 0, 0, 0, 0]
    );

    let bump = read_json(&path.join("3.json"));
    assert_eq!(bump["params"], "05000000");
    let (global, touched) = (&bump["globals"][0], &bump["allocations"][0]);
    assert_eq!(
        (&global["name"], &global["size"]),
        (&json!("total"), &json!(4))
    );
    assert_eq!(global["base"], touched["base"]);
    assert_eq!(read_words(path, &touched["before"]), [7]);
    assert_eq!(read_words(path, &touched["after"]), [12]);

    // Another process continues the numbers.
    alone("launches_are_traced", &environment);
    assert!(path.join("module-1.ptx").exists());
    assert_eq!(read_json(&path.join("4.json"))["module"], 1);
}

#[test]
fn counters_are_written_at_exit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counters.json");
    let environment = [("CUDA_EMULATOR_COUNTERS", path.to_str().unwrap())];
    if alone("counters_are_written_at_exit", &environment) {
        return work();
    }
    let counters = read_json(&path);
    assert_eq!(counters["append"]["launches"], 3);
    assert_eq!(counters["bump"]["launches"], 1);
}

#[test]
fn counters_are_read_across_the_library() {
    if !alone("counters_are_read_across_the_library", &[]) {
        return;
    }
    type Counters = unsafe extern "C" fn(*mut c_char, usize, *mut usize) -> c_uint;
    type Reset = unsafe extern "C" fn() -> c_uint;
    // SAFETY: these are the types of the functions.
    let (counters, reset) = unsafe {
        (
            emulator().get::<Counters>("cuEmulatorCounters").unwrap(),
            emulator().get::<Reset>("cuEmulatorResetCounters").unwrap(),
        )
    };
    let read = || {
        let mut needed = 0;
        // SAFETY: the buffers have the stated lengths.
        unsafe {
            counters(std::ptr::null_mut(), 0, &mut needed);
            let mut text = vec![0_u8; needed];
            assert_eq!(
                counters(text.as_mut_ptr().cast(), needed - 1, &mut needed),
                1
            );
            assert_eq!(counters(text.as_mut_ptr().cast(), needed, &mut needed), 0);
            assert_eq!(text.pop(), Some(0));
            serde_json::from_slice::<Value>(&text).unwrap()
        }
    };
    work();
    assert_eq!(read()["append"]["launches"], 3);
    // SAFETY: the function has no requirements.
    unsafe { reset() };
    assert_eq!(read(), json!({}));
    work();
    let counters = read();
    assert_eq!(
        counters["append"]["launches"], 3,
        "since they were set back"
    );
}
