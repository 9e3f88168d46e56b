//! Counters are exact, and the same for any number of worker threads.

mod support;
use cuda_emulator::machine::{Counters, Module};
use support::{Device, Params, kernel, run_kernel};

fn count(body: &str, ctas: u32, threads: u32) -> Counters {
    run_kernel(body, ctas, threads).unwrap().1.counters
}

fn class(counters: &Counters, name: &str) -> u64 {
    counters
        .entries()
        .into_iter()
        .find(|entry| entry.0 == name)
        .unwrap()
        .1
}

#[test]
fn sectors_and_bytes_of_requests() {
    let memory = count("ld.global.u32 %r10, [%rd2];", 2, 64).memory;
    assert_eq!(
        (
            memory.global_loads,
            memory.global_load_bytes,
            memory.global_load_sectors
        ),
        (4, 512, 16)
    );
    let strided = "shl.b32 %r10, %r1, 5; cvt.u64.u32 %rd10, %r10; add.s64 %rd10, %rd1, %rd10; ld.global.u32 %r11, [%rd10];";
    let device = Device::new(&kernel(strided));
    let out = device.upload(&[0; 4096]);
    let params = Params::new().pointer(out).int(0);
    let counters = device
        .launch("k", [1, 1, 1], [32, 1, 1], &params)
        .unwrap()
        .counters;
    assert_eq!(
        (
            counters.memory.global_load_sectors,
            counters.memory.global_load_bytes
        ),
        (32, 128)
    );
    // Two CTAs read the same bytes: they are loaded twice, and distinct once.
    let counters = device
        .launch("k", [2, 1, 1], [32, 1, 1], &params)
        .unwrap()
        .counters;
    assert_eq!(
        (
            counters.memory.global_load_sectors,
            counters.distinct_sectors
        ),
        (64, 32)
    );
}

#[test]
fn bank_conflicts() {
    let store = |stride: u32| {
        let body = format!(
            "mov.u32 %r10, sh; mul.lo.u32 %r11, %r1, {stride}; and.b32 %r11, %r11, 1020; add.u32 %r10, %r10, %r11; ld.volatile.shared.u32 %r12, [%r10];"
        );
        count(&body, 1, 32).memory.bank_conflicts
    };
    assert_eq!(
        (store(0), store(4), store(8), store(16), store(32)),
        (0, 0, 1, 3, 7)
    );
    let wide = "mov.u32 %r10, sh; mad.lo.u32 %r10, %r1, 16, %r10; st.shared.v4.u32 [%r10], {%r1, %r1, %r1, %r1};";
    let memory = count(wide, 1, 32).memory;
    assert_eq!((memory.shared_accesses, memory.bank_conflicts), (1, 0));
}

#[test]
fn instructions_by_class() {
    let counters = count(
        "bar.sync 0; fma.rn.f32 %f1, %f2, %f3, %f4; add.u32 %r10, %r1, 1;",
        3,
        64,
    );
    assert_eq!(
        (
            class(&counters, "class_float"),
            counters.barriers,
            counters.launches
        ),
        (6, 6, 1)
    );
    assert_eq!(
        counters.classes.iter().sum::<u64>(),
        counters.warp_instructions
    );
    assert_eq!(counters.warp_instructions * 32, counters.lane_instructions);
}

#[test]
fn the_same_for_any_number_of_threads() {
    let text = include_str!("ptx/sgemm.ptx");
    let counters = |threads| {
        let mut device = Device::new(text);
        device.options.threads = threads;
        let (a, b) = (
            device.upload_f32(&[1.0; 256 * 64]),
            device.upload_f32(&[2.0; 64 * 128]),
        );
        let c = device.room(256 * 128 * 4);
        let params = Params::new()
            .pointer(a)
            .pointer(b)
            .pointer(c)
            .int(256)
            .int(128)
            .int(64);
        let report = device
            .launch("sgemm", [1, 2, 1], [256, 1, 1], &params)
            .unwrap();
        assert_eq!(device.download_f32(c, 256 * 128), vec![128.0; 256 * 128]);
        assert_eq!(report.written, vec![c]);
        assert_eq!(report.touched.len(), 3);
        report.counters
    };
    let one = counters(1);
    assert_eq!(one, counters(2));
    assert_eq!(
        one.distinct_sectors,
        (256 * 64 + 64 * 128 + 256 * 128) * 4 / 32
    );
    assert!(
        Module::load(text)
            .unwrap()
            .kernel("sgemm")
            .unwrap()
            .registers
            > 64
    );
}
