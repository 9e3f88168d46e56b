//! `mma.sync` compared with a plain matrix product, with the layouts that CuTe of CUTLASS defines.

mod support;
use support::{Device, Params, module};

/// The element of A (row and k) that lane `t` holds at index `i`, with `per` elements per register.
fn a_place(t: usize, i: usize, per: usize) -> (usize, usize) {
    let register = i / per;
    (
        t / 4 + 8 * (register & 1),
        per * (t % 4) + i % per + 4 * per * (register / 2),
    )
}

/// The element of B, n and k.
fn b_place(t: usize, i: usize, per: usize) -> (usize, usize) {
    (t / 4, per * (t % 4) + i % per + 4 * per * (i / per))
}

struct Shape {
    name: &'static str,
    k: usize,
    bits: u32,
    /// The bits of a small integer in the type of the operands.
    encode: fn(i32) -> u32,
    half: bool,
    integer: bool,
}

fn product(shape: &Shape) {
    let per = 32 / shape.bits as usize;
    let (na, nb) = (16 * shape.k / 32 / per, 8 * shape.k / 32 / per);
    let nc = if shape.half { 2 } else { 4 };
    let list = |from: usize, count: usize| {
        (from..from + count)
            .map(|r| format!("%r{r}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let loads: String = (0..na + nb + nc)
        .map(|r| format!("ld.global.u32 %r{}, [%rd3+{}];\n", 10 + r, 4 * r))
        .collect();
    let stores: String = (0..nc)
        .map(|r| format!("st.global.u32 [%rd4+{}], %r{};\n", 4 * r, 40 + r))
        .collect();
    let text =
        module(&format!(
        ".visible .entry k(.param .u64 in, .param .u64 out) {{ .reg .b32 %r<60>; .reg .b64 %rd<9>;
         ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %laneid;
         mad.wide.u32 %rd3, %r1, {}, %rd1; mad.wide.u32 %rd4, %r1, {}, %rd2; {loads}
         mma.sync.aligned.{} {{{}}}, {{{}}}, {{{}}}, {{{}}}; {stores} ret; }}",
        4 * (na + nb + nc), 4 * nc, shape.name,
        list(40, nc), list(10, na), list(10 + na, nb), list(10 + na + nb, nc)
    ));
    let value = |x: usize, y: usize| ((x * 7 + y * 3) % 11) as i32 - 5;
    let (a, b, c) = (
        value,
        |n, k| value(n + 2, k + 5),
        |m, n| value(m + 1, n + 9),
    );
    let c_bits = |x: i32| match () {
        _ if shape.integer => x as u32,
        _ if shape.half => half(x),
        _ => (x as f32).to_bits(),
    };
    let mut input = Vec::new();
    for t in 0..32 {
        let mut registers = vec![0u32; na + nb + nc];
        for i in 0..na * per {
            let (m, k) = a_place(t, i, per);
            registers[i / per] |= (shape.encode)(a(m, k)) << (shape.bits * (i % per) as u32);
        }
        for i in 0..nb * per {
            let (n, k) = b_place(t, i, per);
            registers[na + i / per] |= (shape.encode)(b(n, k)) << (shape.bits * (i % per) as u32);
        }
        for i in 0..4 {
            let (m, n) = (t / 4 + 8 * (i / 2), 2 * (t % 4) + (i & 1));
            let (at, shift) = if shape.half {
                (i / 2, 16 * (i & 1))
            } else {
                (i, 0)
            };
            registers[na + nb + at] |= c_bits(c(m, n)) << shift;
        }
        input.extend(registers);
    }
    let device = Device::new(&text);
    let (from, to) = (device.upload_u32(&input), device.room(32 * 16));
    device
        .launch(
            "k",
            [1, 1, 1],
            [32, 1, 1],
            &Params::new().pointer(from).pointer(to),
        )
        .unwrap();
    let found = device.download_u32(to, 32 * nc);
    for t in 0..32 {
        for i in 0..4 {
            let (m, n) = (t / 4 + 8 * (i / 2), 2 * (t % 4) + (i & 1));
            let expected = c(m, n) + (0..shape.k).map(|k| a(m, k) * b(n, k)).sum::<i32>();
            let bits = if shape.half {
                found[t * 2 + i / 2] >> (16 * (i & 1)) & 0xffff
            } else {
                found[t * 4 + i]
            };
            assert_eq!(bits, c_bits(expected), "{} row {m} column {n}", shape.name);
        }
    }
}

/// Small integers as bf16 (exact in the upper half of f32).
fn brain(x: i32) -> u32 {
    (x as f32).to_bits() >> 16
}

/// Small integers as f16.
fn half(x: i32) -> u32 {
    if x == 0 {
        return 0;
    }
    let exponent = x.unsigned_abs().ilog2();
    let mantissa = (x.unsigned_abs() << 10 >> exponent) & 1023;
    u32::from(x < 0) << 15 | (exponent + 15) << 10 | mantissa
}

#[test]
fn every_shape_multiplies() {
    let float = |x: i32| (x as f32).to_bits();
    let byte = |x: i32| x as u8 as u32;
    let shape = |name, k, bits, encode| Shape {
        name,
        k,
        bits,
        encode,
        half: false,
        integer: false,
    };
    product(&shape("m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, brain));
    product(&shape("m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, brain));
    product(&shape("m16n8k16.row.col.f32.f16.f16.f32", 16, 16, half));
    product(&shape("m16n8k8.row.col.f32.f16.f16.f32", 8, 16, half));
    product(&shape("m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, float));
    product(&shape("m16n8k4.row.col.f32.tf32.tf32.f32", 4, 32, float));
    let name = "m16n8k16.row.col.f16.f16.f16.f16";
    product(&Shape {
        half: true,
        ..shape(name, 16, 16, half)
    });
    let name = "m16n8k32.row.col.s32.s8.s8.s32";
    product(&Shape {
        integer: true,
        ..shape(name, 32, 8, byte)
    });
    let name = "m16n8k16.row.col.s32.s8.s8.s32";
    product(&Shape {
        integer: true,
        ..shape(name, 16, 8, byte)
    });
}
