//! Barriers of the CTA, named and counted; barriers of the grid; deadlocks.

mod support;
use cuda_emulator::machine::FaultKind;
use support::{Device, Params, kernel, run_kernel};

#[test]
fn results_of_reducing_barriers() {
    let body =
        "setp.lt.u32 %p1, %r1, 40; bar.red.popc.u32 %r10, 0, %p1; bar.red.or.pred %p2, 0, %p1;
        bar.red.and.pred %p3, 0, %p1; selp.u32 %r11, 100, 0, %p2; selp.u32 %r12, 1000, 0, %p3;
        add.u32 %r10, %r10, %r11; add.u32 %r10, %r10, %r12; st.global.u32 [%rd2], %r10;";
    let (out, _) = run_kernel(body, 1, 96).unwrap();
    assert!(out.iter().all(|&x| x == 140));
}

#[test]
fn a_producer_arrives_and_consumers_wait() {
    // Warp 0 writes and arrives; warp 1 waits for 64 threads at barrier 3.
    let body = "shl.b32 %r10, %r1, 2; and.b32 %r10, %r10, 127; mov.u32 %r11, sh; add.u32 %r11, %r11, %r10;
        setp.ge.u32 %p1, %r1, 32; @%p1 bra $wait; st.shared.u32 [%r11], %r1; bar.arrive 3, 64; ret;
        $wait: bar.sync 3, 64; xor.b32 %r11, %r11, 4; ld.shared.u32 %r12, [%r11]; st.global.u32 [%rd2], %r12;";
    let (out, _) = run_kernel(body, 1, 64).unwrap();
    assert!((32..64).all(|i| out[i] == (i as u32 - 32) ^ 1));
}

#[test]
fn warps_may_meet_at_different_places_and_exited_threads_count() {
    let body = "setp.ge.u32 %p1, %r1, 64; @%p1 ret; setp.ge.u32 %p2, %r1, 32; @%p2 bra $other;
        mov.u32 %r10, sh; mad.lo.u32 %r10, %r1, 4, %r10; st.shared.u32 [%r10], %r1; bar.sync 0; ret;
        $other: bar.sync 0; mov.u32 %r10, sh; mad.lo.u32 %r10, %r1, 4, %r10;
        ld.shared.u32 %r11, [%r10+-128]; st.global.u32 [%rd2], %r11;";
    let (out, _) = run_kernel(body, 1, 96).unwrap();
    assert!((32..64).all(|i| out[i] == i as u32 - 32));
}

/// A grid barrier like that of cooperative groups: one thread counts and polls.
const GRID_BARRIER: &str = "bar.sync 0; setp.ne.u32 %p10, %r1, 0; @%p10 bra $past; membar.gl;
    add.u32 %r30, %r30, 1; mov.u32 %r31, %nctaid.x; mul.lo.u32 %r31, %r31, %r30;
    atom.global.add.u32 %r32, [%rd1], 1;
    $poll: ld.acquire.gpu.global.u32 %r32, [%rd1]; setp.lt.u32 %p11, %r32, %r31; @%p11 bra $poll;
    $past: bar.sync 0;";

#[test]
fn cooperative_ctas_meet_at_a_grid_barrier() {
    let step = |at: u32| {
        let (from, to) = (256 + 4096 * (at % 2), 256 + 4096 * ((at + 1) % 2));
        let barrier = GRID_BARRIER.replace("$p", &format!("$s{at}p"));
        format!(
            "add.u32 %r20, %r3, 1; ld.param.u32 %r21, [n]; rem.u32 %r20, %r20, %r21;
             mul.wide.u32 %rd20, %r20, 4; add.s64 %rd20, %rd1, %rd20; ld.global.u32 %r22, [%rd20+{from}];
             add.u32 %r22, %r22, 1; st.global.u32 [%rd2+{to}], %r22; {barrier}"
        )
    };
    let body = format!("mov.u32 %r30, 0; {}", (0..4).map(step).collect::<String>());
    let mut device = Device::new(&kernel(&body));
    device.cooperative = true;
    let n = 12 * 64;
    let start: Vec<u32> = (0..64)
        .map(|_| 0)
        .chain(0..1024)
        .chain(vec![0; 1024])
        .collect();
    let out = device.upload_u32(&start);
    device
        .launch(
            "k",
            [12, 1, 1],
            [64, 1, 1],
            &Params::new().pointer(out).int(n),
        )
        .unwrap();
    let found = device.download_u32(out + 256, n as usize);
    assert!((0..n).all(|i| found[i as usize] == (i + 4) % n + 4));
}

fn fault(body: &str, threads: u32) -> FaultKind {
    run_kernel(body, 1, threads).unwrap_err().kind
}

#[test]
fn what_cannot_go_on_is_a_deadlock() {
    // Two warps at two barriers.
    let two = "setp.lt.u32 %p1, %r1, 32; @%p1 bra $one; bar.sync 2; ret; $one: bar.sync 1;";
    assert_eq!(fault(two, 64), FaultKind::Deadlock);
    // The others wait for a lane that waits at the barrier of the CTA.
    let lanes =
        "setp.eq.u32 %p1, %r1, 3; @%p1 bra $bar; bar.warp.sync -1; ret; $bar: barrier.sync 0;";
    assert_eq!(fault(lanes, 32), FaultKind::Deadlock);
    // A flag that no thread sets.
    let flag =
        "$top: ld.volatile.global.u32 %r10, [%rd1]; setp.eq.u32 %p1, %r10, 0; @%p1 bra $top;";
    assert_eq!(fault(flag, 32), FaultKind::Deadlock);
}

#[test]
fn endless_loops_meet_their_budget() {
    let mut device = Device::new(&kernel("$top: add.u32 %r10, %r10, 1; bra $top;"));
    device.options.instruction_budget = 100_000;
    let out = device.upload(&[0; 4]);
    let fault = device.launch(
        "k",
        [1, 1, 1],
        [32, 1, 1],
        &Params::new().pointer(out).int(0),
    );
    assert_eq!(fault.unwrap_err().kind, FaultKind::Budget);
}
