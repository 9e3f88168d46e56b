//! `cp.async`: groups, sizes, zeros past the source size.

mod support;
use support::{Device, Params, kernel};

fn run(body: &str) -> Vec<u32> {
    let device = Device::new(&kernel(&format!(
        "shl.b32 %r10, %r1, 4; mov.u32 %r11, sh; add.u32 %r11, %r11, %r10; cvt.u64.u32 %rd10, %r10;
         add.s64 %rd10, %rd1, %rd10; {body}
         ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r11]; add.u32 %r20, %r20, %r21; add.u32 %r22, %r22, %r23;
         add.u32 %r20, %r20, %r22; st.global.u32 [%rd2+2048], %r20;"
    )));
    let input: Vec<u32> = (0..1024).collect();
    let out = device.upload_u32(&input);
    device
        .launch(
            "k",
            [1, 1, 1],
            [32, 1, 1],
            &Params::new().pointer(out).int(0),
        )
        .unwrap();
    device.download_u32(out + 2048, 32)
}

#[test]
fn copies_arrive_at_the_wait() {
    let out = run(
        "cp.async.cg.shared.global.L2::128B [%r11], [%rd10], 16; cp.async.commit_group; cp.async.wait_group 0;",
    );
    assert!((0..32).all(|i| out[i as usize] == 16 * i + 6));
}

#[test]
fn zeros_fill_past_the_source_size() {
    let out = run(
        "mov.u32 %r12, 8; setp.gt.u32 %p1, %r1, 7; selp.u32 %r12, 0, %r12, %p1;
        cp.async.cg.shared.global [%r11], [%rd10], 16, %r12; cp.async.wait_all;",
    );
    assert!((0..32).all(|i| out[i as usize] == if i < 8 { 8 * i + 1 } else { 0 }));
}

#[test]
fn a_source_of_no_bytes_is_not_read() {
    let out = run(
        "mov.u64 %rd11, 64; mov.u32 %r12, 0; cp.async.ca.shared.global [%r11], [%rd11], 16, %r12;
        cp.async.wait_all;",
    );
    assert!(out.iter().all(|&x| x == 0));
}

#[test]
fn groups_complete_in_order_and_small_sizes_copy() {
    // Two groups are pending. After a wait that allows one pending group, the first one is finished.
    let out = run("cp.async.ca.shared.global [%r11], [%rd10], 8; cp.async.ca.shared.global [%r11+8], [%rd10+8], 4;
        cp.async.ca.shared.global [%r11+12], [%rd10+12], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r11+512], [%rd10], 16; cp.async.commit_group; cp.async.wait_group 1;");
    assert!((0..32).all(|i| out[i as usize] == 16 * i + 6));
}
