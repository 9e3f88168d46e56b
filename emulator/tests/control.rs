//! Branches, loops, divergence, tables of targets, exits.

mod support;
use support::run_kernel;

#[test]
fn lanes_part_and_meet_again() {
    // The warp counts the lanes that have converged after a divergent branch.
    let body = "and.b32 %r10, %r1, 3; setp.eq.u32 %p1, %r10, 0; @%p1 bra $four; mul.lo.u32 %r11, %r1, 2;
        bra.uni $join; $four: mul.lo.u32 %r11, %r1, 100; $join: activemask.b32 %r12; popc.b32 %r12, %r12;
        mad.lo.u32 %r11, %r11, 64, %r12; st.global.u32 [%rd2], %r11;";
    let (out, _) = run_kernel(body, 1, 64).unwrap();
    for (i, &found) in out.iter().enumerate() {
        let i = i as u32;
        assert_eq!(
            found,
            if i.is_multiple_of(4) { i * 100 } else { i * 2 } * 64 + 32
        );
    }
}

#[test]
fn loops_of_different_lengths() {
    let body = "mov.u32 %r10, 0; mov.u32 %r11, 0;
        $top: setp.ge.u32 %p1, %r10, %r1; @%p1 bra $out; add.u32 %r11, %r11, %r10; add.u32 %r10, %r10, 1;
        bra $top; $out: st.global.u32 [%rd2], %r11;";
    let (out, _) = run_kernel(body, 1, 96).unwrap();
    assert!(
        out.iter()
            .enumerate()
            .all(|(i, &sum)| sum as usize == i * i.saturating_sub(1) / 2)
    );
}

#[test]
fn tables_of_targets() {
    let body = "and.b32 %r10, %r1, 3; mov.u32 %r11, 9; $table: .branchtargets $a, $b, $c, $c;
        brx.idx %r10, $table; $a: mov.u32 %r11, 10; bra $out; $b: mov.u32 %r11, 11; bra $out;
        $c: mov.u32 %r11, 12; $out: st.global.u32 [%rd2], %r11;";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert!(
        out.iter()
            .enumerate()
            .all(|(i, &found)| found == [10, 11, 12, 12][i % 4])
    );
}

#[test]
fn guards_and_exits() {
    let body = "setp.lt.u32 %p1, %r1, 10; @%p1 exit; setp.gt.u32 %p2, %r1, 20; mov.u32 %r10, 1;
        @%p2 mov.u32 %r10, 2; @!%p2 add.u32 %r10, %r10, 10; st.global.u32 [%rd2], %r10;";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert!((0..32).all(|i| out[i]
        == match i {
            0..10 => 0,
            10..=20 => 11,
            _ => 2,
        }));
}

#[test]
fn a_lane_may_wait_for_another_of_its_warp() {
    // Lane 0 spins at a lower address of the code than the store that it waits for.
    let body = "st.volatile.shared.u32 [sh], 0; setp.ne.u32 %p1, %r1, 0; @%p1 bra $set;
        $spin: ld.volatile.shared.u32 %r10, [sh]; setp.eq.u32 %p2, %r10, 0; @%p2 bra $spin; bra $out;
        $set: st.volatile.shared.u32 [sh], 7; mov.u32 %r10, 1; $out: st.global.u32 [%rd2], %r10;";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert_eq!((out[0], out[1]), (7, 1));
}

#[test]
fn special_registers() {
    let body = "mov.u32 %r10, %laneid; mov.u32 %r11, %warpid; mov.u32 %r12, %lanemask_lt; popc.b32 %r12, %r12;
        mov.u32 %r13, %nctaid.x; mad.lo.u32 %r14, %r11, 32, %r10; sub.u32 %r14, %r14, %r12;
        mad.lo.u32 %r14, %r14, 10, %r13; st.global.u32 [%rd2], %r14;";
    let (out, _) = run_kernel(body, 3, 64).unwrap();
    assert!((0..192).all(|i| out[i] as usize == i % 64 / 32 * 320 + 3));
}
