//! Conversions: every pair of kinds, saturation, NaN, rounding.

mod support;
use support::{FLOATS, check, check_f32, floats, longs, words};

#[test]
fn between_integers() {
    let w = words();
    check("cvt.s64.s32 {d}, {a};", "drrr", &w, |a, _, _| {
        i64::from(a as i32) as u64
    });
    check("cvt.u64.u32 {d}, {a};", "drrr", &w, |a, _, _| a);
    check("cvt.u32.u64 {d}, {a};", "rddd", &longs(), |a, _, _| {
        a & 0xffff_ffff
    });
    check("cvt.s32.s8 {d}, {a};", "rrrr", &w, |a, _, _| {
        a as i8 as u32 as u64
    });
    check("cvt.u32.u8 {d}, {a};", "rrrr", &w, |a, _, _| a & 0xff);
    check("cvt.s32.s16 {d}, {a};", "rhrr", &w, |a, _, _| {
        a as i16 as u32 as u64
    });
    check("cvt.u16.u32 {d}, {a};", "hrrr", &w, |a, _, _| a & 0xffff);
    check("cvt.s16.s8 {d}, {a};", "hhrr", &w, |a, _, _| {
        u64::from(a as i8 as i16 as u16)
    });
    check("cvt.sat.s8.s32 {d}, {a};", "rrrr", &w, |a, _, _| {
        (a as i32).clamp(-128, 127) as u32 as u64
    });
    check("cvt.sat.u16.s32 {d}, {a};", "hrrr", &w, |a, _, _| {
        (a as i32).clamp(0, 65535) as u64
    });
}

#[test]
fn floats_to_integers_saturate_and_nan_is_zero() {
    let t = floats();
    let f = |a: u64| f32::from_bits(a as u32);
    check("cvt.rzi.s32.f32 {d}, {a};", "rrrr", &t, |a, _, _| {
        f(a) as i32 as u32 as u64
    });
    check("cvt.rzi.u32.f32 {d}, {a};", "rrrr", &t, |a, _, _| {
        u64::from(f(a) as u32)
    });
    check("cvt.rni.s32.f32 {d}, {a};", "rrrr", &t, |a, _, _| {
        f(a).round_ties_even() as i32 as u32 as u64
    });
    check("cvt.rmi.s32.f32 {d}, {a};", "rrrr", &t, |a, _, _| {
        f(a).floor() as i32 as u32 as u64
    });
    check("cvt.rpi.s64.f32 {d}, {a};", "drrr", &t, |a, _, _| {
        f(a).ceil() as i64 as u64
    });
    check("cvt.rzi.u64.f32 {d}, {a};", "drrr", &t, |a, _, _| {
        f(a) as u64
    });
    check("cvt.rzi.u8.f32 {d}, {a};", "rrrr", &t, |a, _, _| {
        u64::from(f(a) as u8)
    });
    check("cvt.rzi.s16.f32 {d}, {a};", "hrrr", &t, |a, _, _| {
        u64::from(f(a) as i16 as u16)
    });
}

#[test]
fn integers_to_floats() {
    let (w, l) = (words(), longs());
    let bits = |x: f32| u64::from(x.to_bits());
    check("cvt.rn.f32.s32 {d}, {a};", "rrrr", &w, |a, _, _| {
        bits(a as i32 as f32)
    });
    check("cvt.rn.f32.u32 {d}, {a};", "rrrr", &w, |a, _, _| {
        bits(a as u32 as f32)
    });
    check("cvt.rn.f32.s64 {d}, {a};", "rddd", &l, |a, _, _| {
        bits(a as i64 as f32)
    });
    check("cvt.rn.f32.u64 {d}, {a};", "rddd", &l, |a, _, _| {
        bits(a as f32)
    });
    check("cvt.rn.f64.s64 {d}, {a};", "dddd", &l, |a, _, _| {
        (a as i64 as f64).to_bits()
    });
    check("cvt.rn.f64.u64 {d}, {a};", "dddd", &l, |a, _, _| {
        (a as f64).to_bits()
    });
    check("cvt.rz.f32.u32 {d}, {a};", "rrrr", &w, |a, _, _| {
        let near = a as f32;
        bits(if f64::from(near) > a as f64 {
            near.next_down()
        } else {
            near
        })
    });
}

#[test]
fn to_whole_floats_and_saturated_ones() {
    let t = floats();
    check_f32("cvt.rni.f32.f32 {d}, {a};", &t, |a, _, _| {
        a.round_ties_even()
    });
    check_f32("cvt.rmi.f32.f32 {d}, {a};", &t, |a, _, _| a.floor());
    check_f32("cvt.rpi.f32.f32 {d}, {a};", &t, |a, _, _| a.ceil());
    check_f32("cvt.rzi.f32.f32 {d}, {a};", &t, |a, _, _| a.trunc());
    check_f32("cvt.sat.f32.f32 {d}, {a};", &t, |a, _, _| {
        if a > 0.0 { a.min(1.0) } else { 0.0 }
    });
    check_f32("cvt.ftz.f32.f32 {d}, {a};", &t, |a, _, _| {
        if a.is_subnormal() {
            0f32.copysign(a)
        } else {
            a
        }
    });
}

#[test]
fn between_float_widths() {
    let t = floats();
    let f = |a: u64| f32::from_bits(a as u32);
    check(
        "cvt.f64.f32 {d}, {a};",
        "drrr",
        &t[..FLOATS.len() * 24],
        |a, _, _| f64::from(f(a)).to_bits(),
    );
    let wide: Vec<[u64; 3]> = [
        0.0,
        1.0 + 2f64.powi(-24),
        1.0 + 3.0 * 2f64.powi(-24),
        1e-46,
        1e300,
        -1e-320,
        1e-40,
    ]
    .map(|x: f64| [x.to_bits(), 0, 0])
    .to_vec();
    check("cvt.rn.f32.f64 {d}, {a};", "rddd", &wide, |a, _, _| {
        u64::from((f64::from_bits(a) as f32).to_bits())
    });
    check("cvt.rz.f32.f64 {d}, {a};", "rddd", &wide, |a, _, _| {
        let (x, near) = (f64::from_bits(a), f64::from_bits(a) as f32);
        let over = f64::from(near).abs() > x.abs();
        u64::from(
            match near {
                _ if over && near > 0.0 => near.next_down(),
                _ if over => near.next_up(),
                _ => near,
            }
            .to_bits(),
        )
    });
}

#[test]
fn halves_and_pairs() {
    // Known values: 1.0, the largest f16, a tie to even, overflow, the smallest subnormal, NaN.
    let table: [(f32, u64, u64); 8] = [
        (1.0, 0x3c00, 0x3f80),
        (65504.0, 0x7bff, 0x4780),
        (65520.0, 0x7c00, 0x4780),
        (1.0 + 1.0 / 2048.0, 0x3c00, 0x3f80),
        (1.0 + 3.0 / 2048.0, 0x3c02, 0x3f80),
        (5.9604645e-8, 0x0001, 0x3380),
        (f32::NAN, 0x7fff, 0x7fff),
        (-0.0, 0x8000, 0x8000),
    ];
    for (x, half, brain) in table {
        let row = [[u64::from(x.to_bits()), 0, 0]];
        check("cvt.rn.f16.f32 {d}, {a};", "hrrr", &row, |_, _, _| half);
        check("cvt.rn.bf16.f32 {d}, {a};", "hrrr", &row, |_, _, _| brain);
        check(
            "cvt.rn.bf16x2.f32 {d}, {a}, 0f40000000;",
            "rrrr",
            &row,
            |_, _, _| brain << 16 | 0x4000,
        );
        check(
            "cvt.rn.f16x2.f32 {d}, 0f40000000, {a};",
            "rrrr",
            &row,
            |_, _, _| 0x4000 << 16 | half,
        );
    }
    let row = [[u64::from((1.0f32 + 1.9 / 256.0).to_bits()), 0, 0]];
    check("cvt.rz.bf16.f32 {d}, {a};", "hrrr", &row, |_, _, _| 0x3f80);
    check(
        "cvt.rn.relu.bf16.f32 {d}, 0fC0000000;",
        "hrrr",
        &row,
        |_, _, _| 0,
    );
    // Every f16 is the same after a conversion to f32 and back.
    let all: Vec<[u64; 3]> = (0..0x1_0000u64).step_by(7).map(|x| [x, 0, 0]).collect();
    check(
        "{ .reg .f32 %x; cvt.f32.f16 %x, {a}; cvt.rn.f16.f32 {d}, %x; }",
        "hhhh",
        &all,
        |a, _, _| {
            if a & 0x7fff > 0x7c00 { 0x7fff } else { a }
        },
    );
    // tf32 keeps ten bits, and rounds ties away from zero.
    let row = [
        [0x3f80_1000, 0, 0],
        [0x3f80_0fff, 0, 0],
        [0xbf80_1000, 0, 0],
    ];
    check(
        "cvt.rna.tf32.f32 {d}, {a};",
        "rrrr",
        &row,
        |a, _, _| match a {
            0x3f80_0fff => 0x3f80_0000,
            _ => a + 0x1000,
        },
    );
}
