//! `ldmatrix`, plain and transposed, compared with its definition.

mod support;
use support::run_kernel;

fn load(count: usize, trans: bool) {
    // Rows of 16 bytes hold 8 halves that count up. Lane 8j + r has the address of row r of matrix j; the matrices are in
    // reverse order, to distinguish them.
    let names: Vec<String> = (0..count).map(|j| format!("%r{}", 20 + j)).collect();
    let stores: String = (0..count)
        .map(|j| format!("st.global.u32 [%rd10+{}], %r{};", 4 * j, 20 + j))
        .collect();
    let body = format!(
        "setp.ge.u32 %p1, %r1, 32; @%p1 ret; mov.u32 %r10, sh; shl.b32 %r11, %r1, 4; add.u32 %r12, %r10, %r11;
         shl.b32 %r13, %r1, 3; mov.u32 %r14, 0;
         $fill: shl.b32 %r15, %r14, 1; add.u32 %r15, %r12, %r15; add.u32 %r16, %r13, %r14;
         st.shared.u16 [%r15], %r16; add.u32 %r14, %r14, 1; setp.lt.u32 %p2, %r14, 8; @%p2 bra $fill;
         bar.warp.sync -1; xor.b32 %r17, %r11, 384; add.u32 %r17, %r10, %r17;
         ldmatrix.sync.aligned.m8n8.x{count}{}.shared.b16 {{{}}}, [%r17];
         mul.wide.u32 %rd9, %r1, {}; add.s64 %rd10, %rd1, %rd9; {stores}",
        if trans { ".trans" } else { "" },
        names.join(", "),
        4 * count
    );
    let (out, _) = run_kernel(&body, 1, 128).unwrap();
    for lane in 0..32 {
        for j in 0..count {
            let half = |h: usize| {
                let (row, column) = if trans {
                    (2 * (lane % 4) + h, lane / 4)
                } else {
                    (lane / 4, 2 * (lane % 4) + h)
                };
                // Row r of matrix j is where lane (8j + r) ^ 24 wrote.
                (((8 * j + row) ^ 24) * 8 + column) as u32
            };
            assert_eq!(
                out[lane * count + j],
                half(0) | half(1) << 16,
                "x{count} lane {lane} register {j}"
            );
        }
    }
}

#[test]
fn every_count_both_ways() {
    for count in [1, 2, 4] {
        load(count, false);
        load(count, true);
    }
}
