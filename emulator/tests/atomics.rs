//! Atomics in global and shared memory.

mod support;
use support::{Device, Params, kernel, run_kernel};

#[test]
fn sums_from_all_threads() {
    let body = "red.global.add.u32 [%rd1], 1; atom.global.add.f32 %f1, [%rd1+4], 0f3F800000;
        atom.global.max.s32 %r10, [%rd1+8], %r3; red.global.or.b32 [%rd1+12], %r3;
        atom.global.inc.u32 %r11, [%rd1+16], 6; red.global.xor.b32 [%rd1+20], %r3;";
    let (out, _) = run_kernel(body, 4, 64).unwrap();
    assert_eq!(out[0], 256);
    assert_eq!(f32::from_bits(out[1]), 256.0);
    assert_eq!((out[2], out[3]), (255, 255));
    assert_eq!((out[4], out[5]), (256 % 7, 0));
}

#[test]
fn old_values_come_back() {
    let body = "setp.ne.u32 %p1, %r1, 0; @%p1 ret; st.shared.u32 [sh], 5;
        atom.shared.exch.b32 %r10, [sh], 9; atom.shared.cas.b32 %r11, [sh], 9, 11;
        atom.shared.cas.b32 %r12, [sh], 9, 12; atom.shared.min.u32 %r13, [sh], 3;
        ld.shared.u32 %r14, [sh]; st.global.v4.u32 [%rd1], {%r10, %r11, %r12, %r13};
        st.global.u32 [%rd1+16], %r14;";
    let (out, _) = run_kernel(body, 1, 8).unwrap();
    assert_eq!(out[..5], [5, 9, 11, 11, 3]);
}

#[test]
fn longs_and_halves() {
    let body = "setp.ne.u32 %p1, %r1, 0; @%p1 ret; mov.u64 %rd10, 0x100000000;
        atom.global.add.u64 %rd11, [%rd1], %rd10; mov.u32 %r10, 0x3f803f80;
        red.global.add.noftz.bf16x2 [%rd1+8], %r10; red.global.add.noftz.bf16x2 [%rd1+8], %r10;";
    let (out, _) = run_kernel(body, 1, 8).unwrap();
    assert_eq!(out[..3], [0, 1, 0x4000_4000]);
}

#[test]
fn the_last_cta_sees_what_all_wrote() {
    // Each CTA writes, executes a fence and counts. The last one to count sums what the others wrote.
    let body = "setp.ne.u32 %p1, %r1, 0; @%p1 ret; mul.wide.u32 %rd10, %r2, 4;
        add.s64 %rd11, %rd1, %rd10; add.u32 %r10, %r2, 1; st.global.u32 [%rd11+64], %r10;
        membar.gl; atom.global.add.u32 %r11, [%rd1], 1; mov.u32 %r12, %nctaid.x; sub.u32 %r12, %r12, 1;
        setp.ne.u32 %p2, %r11, %r12; @%p2 ret; mov.u32 %r13, 0; mov.u32 %r14, 0; mov.u64 %rd12, %rd1;
        $next: ld.global.u32 %r15, [%rd12+64]; add.u32 %r13, %r13, %r15; add.s64 %rd12, %rd12, 4;
        add.u32 %r14, %r14, 1; setp.le.u32 %p3, %r14, %r12; @%p3 bra $next; st.global.u32 [%rd1+4], %r13;";
    let device = Device::new(&kernel(body));
    let out = device.upload(&[0; 512]);
    let params = Params::new().pointer(out).int(0);
    device.launch("k", [40, 1, 1], [32, 1, 1], &params).unwrap();
    assert_eq!(device.download_u32(out, 2), [40, 820]);
}
