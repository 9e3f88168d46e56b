//! Kernels with a deliberate bug. Each bug is found, with its kernel, line, block and thread, and each check can be
//! turned off.

mod support;
use cuda_emulator::machine::{Checks, Fault, FaultKind};
use support::{Device, Params, kernel, run_kernel};

/// The fault of a kernel. Its body is one line, which the fault must name.
fn fault(body: &str, ctas: u32, threads: u32) -> Fault {
    let fault = run_kernel(body, ctas, threads).expect_err("a planted bug");
    let text = kernel(body);
    let line = text
        .lines()
        .nth(fault.line as usize - 1)
        .unwrap_or_default();
    assert!(body.contains(line.trim()), "{fault} names `{line}`");
    assert_eq!(fault.kernel, "k");
    fault
}

fn without(body: &str, checks: Checks) -> bool {
    let mut device = Device::new(&kernel(body));
    device.options.checks = checks;
    let out = device.upload(&[0; 4096]);
    device
        .launch(
            "k",
            [2, 1, 1],
            [64, 1, 1],
            &Params::new().pointer(out).int(0),
        )
        .is_ok()
}

#[test]
fn out_of_bounds() {
    let global = "st.global.u32 [%rd2+4], %r1;";
    let found = fault(global, 2, 64);
    assert_eq!(
        (found.kind, found.block, found.thread),
        (FaultKind::OutOfBounds, [1, 0, 0], [63, 0, 0])
    );
    assert!(without(
        "st.global.u32 [%rd2+40000], %r1;",
        Checks {
            bounds: false,
            ..Checks::ALL
        }
    ));
    let shared = "mov.u32 %r10, sh; mad.lo.u32 %r10, %r1, 4, %r10; ld.volatile.shared.u32 %r11, [%r10+1000];";
    let found = fault(shared, 1, 64);
    assert_eq!(
        (found.kind, found.thread),
        (FaultKind::OutOfBounds, [6, 0, 0])
    );
    let local = ".local .align 4 .b8 a[8]; mov.u64 %rd10, a; st.local.u32 [%rd10+48], %r1;";
    assert_eq!(fault(local, 1, 32).kind, FaultKind::OutOfBounds);
}

#[test]
fn misaligned() {
    let body = "ld.global.v2.u32 {%r10, %r11}, [%rd1+4];";
    assert_eq!(fault(body, 1, 32).kind, FaultKind::Misaligned);
    assert!(without(
        body,
        Checks {
            alignment: false,
            ..Checks::ALL
        }
    ));
    assert_eq!(
        fault("st.shared.u16 [sh+1], %r1;", 1, 32).kind,
        FaultKind::Misaligned
    );
}

#[test]
fn use_after_free() {
    let device = Device::new(&kernel("ld.global.u32 %r10, [%rd2];"));
    let out = device.upload(&[0; 128]);
    device.heap.free(out);
    let fault = device.launch(
        "k",
        [1, 1, 1],
        [32, 1, 1],
        &Params::new().pointer(out).int(0),
    );
    assert_eq!(fault.unwrap_err().kind, FaultKind::UseAfterFree);
}

#[test]
fn uninitialised_reads() {
    let device = Device::new(&kernel("ld.global.u32 %r10, [%rd2];"));
    let out = device.room(128);
    device.heap.write(out, &[0; 77]).unwrap();
    let fault = device
        .launch(
            "k",
            [1, 1, 1],
            [32, 1, 1],
            &Params::new().pointer(out).int(0),
        )
        .unwrap_err();
    assert_eq!(
        (fault.kind, fault.thread),
        (FaultKind::Uninitialised, [19, 0, 0])
    );
    let shared = "ld.shared.u32 %r10, [sh+4];";
    assert_eq!(fault_kind(shared), FaultKind::Uninitialised);
    assert!(without(
        shared,
        Checks {
            uninitialised: false,
            ..Checks::ALL
        }
    ));
    let local = ".local .align 4 .b8 a[8]; mov.u64 %rd10, a; st.local.u16 [%rd10], %r1; ld.local.u32 %r10, [%rd10];";
    assert_eq!(fault_kind(local), FaultKind::Uninitialised);
}

fn fault_kind(body: &str) -> FaultKind {
    fault(body, 1, 64).kind
}

/// Each thread writes its word and reads that of the thread `%r1 ^ DISTANCE`.
const EXCHANGE: &str =
    "mov.u32 %r10, sh; mad.lo.u32 %r11, %r1, 4, %r10; st.shared.u32 [%r11], %r1; SYNC
    xor.b32 %r12, %r1, DISTANCE; mad.lo.u32 %r12, %r12, 4, %r10; ld.shared.u32 %r13, [%r12];";

fn exchange(sync: &str, distance: u32) -> String {
    EXCHANGE
        .replace("SYNC", sync)
        .replace("DISTANCE", &distance.to_string())
}

#[test]
fn races_in_shared_memory() {
    // Depending on the order of the warps, the word is read too early or written too late.
    let mut device = Device::new(&kernel(&exchange("bar.warp.sync -1;", 32)));
    device.options.checks.uninitialised = false;
    let out = device.upload(&[0; 256]);
    let fault = device.launch(
        "k",
        [1, 1, 1],
        [64, 1, 1],
        &Params::new().pointer(out).int(0),
    );
    assert_eq!(fault.unwrap_err().kind, FaultKind::SharedRace);
    assert!(run_kernel(&exchange("bar.sync 0;", 32), 1, 64).is_ok());
    assert!(without(
        &exchange("bar.warp.sync -1;", 32),
        Checks {
            shared_races: false,
            uninitialised: false,
            ..Checks::ALL
        }
    ));
    // The word is written again while others may still read it.
    let again = format!(
        "{} st.shared.u32 [%r11], %r13;",
        exchange("bar.sync 0;", 32)
    );
    assert_eq!(fault_kind(&again), FaultKind::SharedRace);
}

#[test]
fn races_between_bytes_are_told_apart() {
    let body = "mov.u32 %r10, sh; add.u32 %r10, %r10, %r1; st.shared.u8 [%r10], %r1; ld.shared.u8 %r11, [%r10];";
    assert!(run_kernel(body, 1, 64).is_ok());
}

#[test]
fn missing_warp_barriers() {
    assert_eq!(fault_kind(&exchange("", 1)), FaultKind::MissingWarpSync);
    assert!(run_kernel(&exchange("bar.warp.sync -1;", 1), 1, 64).is_ok());
    assert!(
        run_kernel(
            &exchange("shfl.sync.bfly.b32 %r20, %r1, 1, 31, -1;", 1),
            1,
            64
        )
        .is_ok()
    );
}

#[test]
fn races_between_ctas() {
    let write = "st.global.u32 [%rd1], %r2;";
    assert_eq!(fault(write, 2, 1).kind, FaultKind::GlobalRace);
    let read = "setp.eq.u32 %p1, %r2, 1; @%p1 bra $read; st.global.u32 [%rd1], 1; ret;
        $read: ld.global.u32 %r10, [%rd1];";
    assert_eq!(fault(read, 2, 1).kind, FaultKind::GlobalRace);
    assert!(run_kernel("red.global.add.u32 [%rd1], 1;", 8, 32).is_ok());
    let mut device = Device::new(&kernel(write));
    device.options.checks.global_races = false;
    let out = device.upload(&[0; 64]);
    assert!(
        device
            .launch(
                "k",
                [2, 1, 1],
                [1, 1, 1],
                &Params::new().pointer(out).int(0)
            )
            .is_ok()
    );
}

/// Each thread writes its word and reads that of the thread `%r1 ^ DISTANCE`, in global memory.
const GLOBAL_EXCHANGE: &str = "mad.wide.u32 %rd10, %r1, 4, %rd1; st.global.u32 [%rd10], %r1; SYNC
    xor.b32 %r12, %r1, 32; mad.wide.u32 %rd10, %r12, 4, %rd1; ld.global.u32 %r13, [%rd10];";

#[test]
fn races_between_warps_in_global_memory() {
    let exchange = |sync| GLOBAL_EXCHANGE.replace("SYNC", sync);
    let found = fault(&exchange("bar.warp.sync -1;"), 1, 64);
    assert_eq!(found.kind, FaultKind::GlobalRace);
    assert!(
        found
            .message
            .ends_with("warp 0 of its CTA: a barrier is missing"),
        "{found}"
    );
    assert!(run_kernel(&exchange("bar.sync 0;"), 1, 64).is_ok());
    assert!(without(
        &exchange(""),
        Checks {
            global_races: false,
            ..Checks::ALL
        }
    ));
    // All warps read the word that the last thread then writes.
    let late =
        "ld.global.u32 %r10, [%rd1]; SYNC setp.eq.u32 %p1, %r1, 63; @%p1 st.global.u32 [%rd1], 1;";
    assert_eq!(
        fault(&late.replace("SYNC", ""), 1, 64).kind,
        FaultKind::GlobalRace
    );
    assert!(run_kernel(&late.replace("SYNC", "bar.sync 0;"), 1, 64).is_ok());
    // A flag that one warp raises and another one waits for.
    let flag = "setp.ge.u32 %p1, %r1, 32; @%p1 bra $wait; st.global.u32 [%rd1+64], 7; membar.gl;
        st.volatile.global.u32 [%rd1], 1; ret;
        $wait: ld.volatile.global.u32 %r10, [%rd1]; setp.ne.u32 %p1, %r10, 1; @%p1 bra $wait;
        ld.global.u32 %r11, [%rd1+64];";
    assert!(run_kernel(flag, 1, 64).is_ok());
    // Each warp has its own bytes of a word.
    let own = "shr.u32 %r10, %r1, 5; cvt.u64.u32 %rd10, %r10; add.u64 %rd10, %rd1, %rd10;
        st.global.u8 [%rd10], %r10; ld.global.u8 %r11, [%rd10]; bar.sync 0; st.global.u8 [%rd10], %r10;";
    assert!(run_kernel(own, 1, 128).is_ok());
}

/// CTAs read and then write neighbouring bytes of the same word. No two CTAs access the same byte.
#[test]
fn neighbours_in_a_word_do_not_race() {
    let own = "cvt.u64.u32 %rd10, %r2; add.u64 %rd10, %rd1, %rd10;
        ld.global.u8 %r10, [%rd10]; add.u32 %r10, %r10, 1; st.global.u8 [%rd10], %r10;";
    assert!(run_kernel(own, 8, 1).is_ok());
}

#[test]
fn divergent_barriers() {
    let arms = "setp.lt.u32 %p1, %r1, 16; @%p1 bra $low;\n bar.sync 0; bra $out;\n $low: bar.sync 0;\n $out: mov.u32 %r10, 0;";
    assert_eq!(fault_kind(arms), FaultKind::DivergentBarrier);
    // Half of the warp never arrives: it continues to work, and exits.
    let half = "setp.ge.u32 %p1, %r1, 16; @%p1 bra $past; bar.sync 0; $past: add.u32 %r10, %r1, 1;
        add.u32 %r10, %r10, 1; add.u32 %r10, %r10, 1; add.u32 %r10, %r10, 1; st.global.u32 [%rd2], %r10;";
    let found = run_kernel(half, 1, 64).unwrap_err();
    assert_eq!(
        (found.kind, found.thread),
        (FaultKind::DivergentBarrier, [16, 0, 0])
    );
    assert!(without(
        half,
        Checks {
            barriers: false,
            ..Checks::ALL
        }
    ));
    // An early return is allowed.
    let early = "setp.ge.u32 %p1, %r1, 50; @%p1 ret; bar.sync 0; st.global.u32 [%rd2], %r1;";
    assert!(run_kernel(early, 1, 64).is_ok());
}

#[test]
fn missing_async_waits() {
    let copy = "mov.u32 %r10, sh; mad.lo.u32 %r10, %r1, 4, %r10; cp.async.ca.shared.global [%r10], [%rd2], 4;
        cp.async.commit_group; WAIT ld.shared.u32 %r11, [%r10];";
    let missing = copy.replace("WAIT", "");
    let found = run_kernel(&missing, 1, 64).unwrap_err();
    assert_eq!(found.kind, FaultKind::MissingAsyncWait);
    let early = copy.replace("WAIT", "cp.async.wait_group 1;");
    assert_eq!(
        run_kernel(&early, 1, 64).unwrap_err().kind,
        FaultKind::MissingAsyncWait
    );
    assert!(run_kernel(&copy.replace("WAIT", "cp.async.wait_group 0;"), 1, 64).is_ok());
}

#[test]
fn faults_name_the_source_line() {
    let text = kernel("\n .loc 1 42 7\n ld.global.u32 %r10, [%rd1+100000];");
    let device = Device::new(&format!("{text}\n.file 1 \"kernels/gemm.cu\"\n"));
    let out = device.upload(&[0; 4]);
    let fault = device
        .launch(
            "k",
            [1, 1, 1],
            [32, 1, 1],
            &Params::new().pointer(out).int(0),
        )
        .unwrap_err();
    assert_eq!(fault.source, Some(("kernels/gemm.cu".into(), 42)));
    let text = fault.to_string();
    assert!(
        text.contains("gemm.cu:42") && text.contains("thread (0,0,0)"),
        "{text}"
    );
}

#[test]
fn launches_that_cannot_be() {
    let device = Device::new(&kernel(""));
    let launch = |block, params: &Params| device.launch("k", [1, 1, 1], block, params).map(|_| ());
    let good = Params::new().pointer(0).int(0);
    assert!(launch([32, 1, 1], &good).is_ok());
    assert_eq!(
        launch([2048, 1, 1], &good).unwrap_err().kind,
        FaultKind::Launch
    );
    assert_eq!(
        launch([32, 1, 1], &Params::new()).unwrap_err().kind,
        FaultKind::Launch
    );
}
