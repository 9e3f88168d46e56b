//! Loads and stores in every space, with every width and vector size; addresses; variables.

mod support;
use support::{Device, Params, kernel, module, run_kernel};

#[test]
fn widths_extend_by_sign() {
    let body = "mov.u32 %r10, 0x8081fe7f; st.shared.u32 [sh], %r10;
        ld.shared.s8 %r11, [sh+1]; ld.shared.u8 %r12, [sh+1]; ld.shared.s16 %r13, [sh+2];
        ld.shared.u16 %r14, [sh+2]; ld.shared.s8 %rd10, [sh]; cvt.u32.u64 %r15, %rd10;
        st.global.v4.u32 [%rd1], {%r11, %r12, %r13, %r14}; st.global.u32 [%rd1+16], %r15;";
    let out = run_kernel(&format!("setp.ne.u32 %p1, %r1, 0; @%p1 ret; {body}"), 1, 8)
        .unwrap()
        .0;
    assert_eq!(out[..5], [0xffff_fffe, 0xfe, 0xffff_8081, 0x8081, 0x7f]);
}

#[test]
fn vectors_move_whole() {
    let body = "mul.lo.u32 %r10, %r1, 3; add.u32 %r11, %r10, 1; shl.b32 %r12, %r1, 3;
        mov.u32 %r13, sh; add.u32 %r13, %r13, %r12; st.shared.v2.u32 [%r13], {%r10, %r11};
        bar.sync 0; xor.b32 %r14, %r1, 1; shl.b32 %r14, %r14, 3; mov.u32 %r15, sh;
        add.u32 %r15, %r15, %r14; ld.shared.v2.u32 {%r16, %r17}, [%r15];
        mad.lo.u32 %r18, %r16, 1000, %r17; st.global.u32 [%rd2], %r18;";
    let (out, _) = run_kernel(body, 1, 64).unwrap();
    for (thread, &found) in out.iter().enumerate() {
        let other = 3 * (thread as u32 ^ 1);
        assert_eq!(found, other * 1000 + other + 1);
    }
}

#[test]
fn generic_addresses_reach_each_space() {
    let body = ".local .align 8 .b8 depot[16];
        mov.u64 %rd10, depot; cvta.local.u64 %rd11, %rd10; st.u32 [%rd11+4], %r3;
        mov.u32 %r10, sh; cvt.u64.u32 %rd12, %r10; cvta.shared.u64 %rd12, %rd12;
        mul.wide.u32 %rd13, %r1, 4; add.s64 %rd12, %rd12, %rd13;
        ld.local.u32 %r11, [%rd10+4]; st.u32 [%rd12], %r11; cvta.to.shared.u64 %rd14, %rd12;
        ld.shared.u32 %r12, [%rd14];
        isspacep.shared %p1, %rd12; isspacep.global %p2, %rd2; isspacep.local %p3, %rd11;
        isspacep.global %p4, %rd12; and.pred %p5, %p1, %p2; and.pred %p5, %p5, %p3;
        not.pred %p4, %p4; and.pred %p5, %p5, %p4;
        selp.u32 %r13, 1000, 0, %p5; add.u32 %r12, %r12, %r13; st.u32 [%rd2], %r12;";
    let (out, _) = run_kernel(body, 2, 32).unwrap();
    assert_eq!(out, (0..64).map(|i| i + 1000).collect::<Vec<u32>>());
}

#[test]
fn module_variables_and_parameters() {
    let text = module(
        ".const .align 4 .b8 table[8] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
        .global .align 4 .u32 counter = 7;
        .global .align 8 .f64 ratio[2] = {0d3FF8000000000000, 2.0};
        .extern .shared .align 16 .b8 dynamic[];
        .visible .entry k(.param .u8 small, .param .align 8 .b8 block[16], .param .u64 .ptr .global .align 16 out) {
            .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f64 %fd<3>; .shared .align 4 .b8 fixed[20];
            ld.param.u8 %r1, [small]; ld.param.u32 %r2, [block+8]; ld.param.u64 %rd1, [out];
            ld.const.s32 %r3, [table+4]; ld.global.u32 %r4, [counter];
            ld.global.f64 %fd1, [ratio+8]; cvt.rzi.s32.f64 %r5, %fd1;
            mov.u32 %r6, dynamic; mov.u64 %rd2, counter; ld.global.u32 %r7, [%rd2];
            st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4}; st.global.v2.u32 [%rd1+16], {%r5, %r6};
            st.global.u32 [%rd1+24], %r7; ret; }",
    );
    let mut device = Device::new(&text);
    device.shared = 64;
    let out = device.room(32);
    let kernel = device.module.kernel("k").unwrap();
    let offsets: Vec<usize> = kernel.params.iter().map(|param| param.offset).collect();
    assert_eq!((offsets, kernel.static_shared), (vec![0, 8, 24], 20));
    let params = Params::new()
        .int(0x1f05)
        .int(0)
        .int(1)
        .int(2)
        .int(3)
        .int(4)
        .pointer(out);
    device.launch("k", [1, 1, 1], [1, 1, 1], &params).unwrap();
    // Dynamic shared memory starts at the next multiple of 16 bytes after the static shared memory.
    assert_eq!(device.download_u32(out, 7), [5, 3, u32::MAX, 7, 2, 32, 7]);
}

#[test]
fn scopes_shadow_and_functions_are_called() {
    let text = module(
        ".func (.param .b32 result) twice(.param .b32 x, .param .b64 where) {
            .reg .b32 %r<4>; .reg .b64 %rd<2>; .reg .pred %p1;
            ld.param.u32 %r1, [x]; ld.param.u64 %rd1, [where]; setp.gt.u32 %p1, %r1, 2;
            add.u32 %r2, %r1, %r1; @%p1 bra $big; st.global.u32 [%rd1+128], %r2;
            $big: st.param.b32 [result], %r2; ret; }
        .visible .entry k(.param .u64 out) {
            .reg .b32 %r<9>; .reg .b64 %rd<9>;
            ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;
            add.s64 %rd3, %rd1, %rd2;
            { .reg .b32 %r1; mov.u32 %r1, 77; }
            { // callseq
              .param .b32 param0; .param .b64 param1; .param .b32 retval0;
              st.param.b32 [param0], %r1; st.param.b64 [param1], %rd3;
              call.uni (retval0), twice, (param0, param1);
              ld.param.b32 %r2, [retval0]; }
            st.global.u32 [%rd3], %r2; ret; }",
    );
    let device = Device::new(&text);
    let out = device.upload(&[0; 256]);
    device
        .launch("k", [1, 1, 1], [32, 1, 1], &Params::new().pointer(out))
        .unwrap();
    let found = device.download_u32(out, 64);
    assert!((0..32).all(|i| found[i] == 2 * i as u32));
    assert_eq!(found[32..36], [0, 2, 4, 0]);
}

#[test]
fn unknown_instructions_are_named_with_their_line() {
    let text = kernel("\n  frobnicate.b32 %r1, %r2;");
    let error = cuda_emulator::machine::Module::load(&text).err().unwrap();
    assert_eq!(
        text.lines().nth(error.line as usize - 1).unwrap().trim(),
        "frobnicate.b32 %r1, %r2;"
    );
    assert!(error.to_string().contains("frobnicate.b32"), "{error}");
}

#[test]
fn heap_copies_keep_what_was_never_written() {
    let device = Device::new(&kernel(""));
    let (a, b) = (device.room(64), device.upload(&[1; 64]));
    device.heap.write(a, &[9; 32]).unwrap();
    device.heap.copy(b, a, 64).unwrap();
    assert_eq!(device.download(b, 32), [9; 32]);
    assert!(device.heap.read(b + 40, &mut [0; 32]).is_err());
    assert!(device.heap.free(a) && !device.heap.free(a));
    device.heap.fill(b, &[1, 2], 64).unwrap();
    assert_eq!(device.download(b, 4), [1, 2, 1, 2]);
}
