//! Shuffles, votes, matches, reductions over a warp.

mod support;
use support::run_kernel;

#[test]
fn shuffles_in_segments() {
    // Segments of 8 lanes: c = clamp | (32 - 8) << 8.
    let body = "add.u32 %r10, %r1, 100;
        shfl.sync.up.b32 %r11|%p1, %r10, 3, 0x1800, -1; shfl.sync.down.b32 %r12|%p2, %r10, 3, 0x181f, -1;
        shfl.sync.bfly.b32 %r13, %r10, 5, 0x181f, -1; shfl.sync.idx.b32 %r14, %r10, 2, 0x181f, -1;
        selp.u32 %r15, 1, 0, %p1; selp.u32 %r16, 2, 0, %p2; add.u32 %r15, %r15, %r16;
        mul.lo.u32 %r20, %r1, 20; cvt.u64.u32 %rd10, %r20; add.s64 %rd10, %rd1, %rd10;
        setp.ge.u32 %p3, %r1, 32; @%p3 ret;
        st.global.u32 [%rd10], %r11; st.global.u32 [%rd10+4], %r12; st.global.u32 [%rd10+8], %r13;
        st.global.u32 [%rd10+12], %r14; st.global.u32 [%rd10+16], %r15;";
    let (out, _) = run_kernel(body, 1, 160).unwrap();
    for lane in 0..32u32 {
        let (at, first) = (lane % 8, lane & !7);
        let expected = [
            100 + if at >= 3 { lane - 3 } else { lane },
            100 + if at + 3 < 8 { lane + 3 } else { lane },
            100 + (lane ^ 5),
            100 + first + 2,
            u32::from(at >= 3) + 2 * u32::from(at + 3 < 8),
        ];
        assert_eq!(out[lane as usize * 5..][..5], expected, "lane {lane}");
    }
}

#[test]
fn votes_matches_and_reductions() {
    let body = "and.b32 %r10, %r1, 1; setp.eq.u32 %p1, %r10, 1; vote.sync.ballot.b32 %r11, %p1, -1;
        vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1; shr.u32 %r12, %r1, 3;
        match.any.sync.b32 %r13, %r12, -1; match.all.sync.b32 %r14|%p4, %r12, -1;
        redux.sync.add.s32 %r15, %r1, -1; redux.sync.max.u32 %r16, %r10, -1;
        selp.u32 %r17, 1, 0, %p2; selp.u32 %r18, 2, 0, %p3; selp.u32 %r19, 4, 0, %p4;
        add.u32 %r17, %r17, %r18; add.u32 %r17, %r17, %r19; setp.ne.u32 %p5, %r1, 9; @%p5 ret;
        st.global.v4.u32 [%rd1], {%r11, %r13, %r15, %r16}; st.global.v2.u32 [%rd1+16], {%r14, %r17};";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert_eq!(out[..6], [0xaaaa_aaaa, 0xff00, 496, 1, 0, 1]);
}

#[test]
fn a_shuffle_may_be_cloned_into_both_arms() {
    let body = "setp.lt.u32 %p1, %r1, 16; @%p1 bra $low;
        shfl.sync.bfly.b32 %r10, %r1, 16, 31, -1; add.u32 %r10, %r10, 1000; bra $out;
        $low: shfl.sync.bfly.b32 %r10, %r1, 16, 31, -1; $out: st.global.u32 [%rd2], %r10;";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert!((0..32).all(|i| out[i] == (i as u32 ^ 16) + if i < 16 { 0 } else { 1000 }));
}

#[test]
fn halves_of_a_warp_go_their_own_ways() {
    // Each half has its own mask, like the tiles of cooperative groups.
    let body = "and.b32 %r10, %r1, 16; mov.u32 %r11, 0xffff; shl.b32 %r11, %r11, %r10;
        redux.sync.add.u32 %r12, %r1, %r11; setp.eq.u32 %p1, %r10, 0; @%p1 bra $out;
        redux.sync.add.u32 %r12, %r12, %r11; bar.warp.sync %r11; $out: st.global.u32 [%rd2], %r12;";
    let (out, _) = run_kernel(body, 1, 32).unwrap();
    assert!((0..32).all(|i| out[i] == if i < 16 { 120 } else { 376 * 16 }));
}

#[test]
fn exited_lanes_are_not_waited_for() {
    let body = "setp.ge.u32 %p1, %r1, 20; @%p1 exit; vote.sync.ballot.b32 %r10, 1, -1;
        st.global.u32 [%rd2], %r10;";
    let body = body.replace("%r10, 1,", "%r10, !%p1,");
    let (out, _) = run_kernel(&body, 1, 32).unwrap();
    assert_eq!(out[0], 0xf_ffff);
}
