//! Integer arithmetic, compared with the host.

mod support;
use support::{check, longs, words};

#[test]
fn sums_and_products_of_32_bits() {
    let w = words();
    check("add.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as u32).wrapping_add(b as u32).into()
    });
    check("sub.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as u32).wrapping_sub(b as u32).into()
    });
    check("mul.lo.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as u32).wrapping_mul(b as u32).into()
    });
    check("mul.hi.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        u64::from(((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32)
    });
    check("mul.hi.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a * b) >> 32
    });
    check("mad.lo.s32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        (a as u32)
            .wrapping_mul(b as u32)
            .wrapping_add(c as u32)
            .into()
    });
    check("mad.hi.u32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        (((a * b) >> 32) as u32).wrapping_add(c as u32).into()
    });
    check("sad.s32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        (a as i32).abs_diff(b as i32).wrapping_add(c as u32).into()
    });
    check("add.sat.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as i32).saturating_add(b as i32) as u32 as u64
    });
}

/// Sums of products of bytes with bytes, and with halves of words.
#[test]
fn dot_products() {
    let w = words();
    let byte = |word: u64, at: u32| u32::from((word >> (8 * at)) as u8);
    let signed_byte = |word: u64, at: u32| i32::from((word >> (8 * at)) as i8);
    let half = |word: u64, at: u32| u32::from((word >> (16 * at)) as u16);
    let signed_half = |word: u64, at: u32| i32::from((word >> (16 * at)) as i16);
    check("dp4a.u32.u32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        let products = (0..4).map(|i| byte(a, i).wrapping_mul(byte(b, i)));
        products.fold(c as u32, u32::wrapping_add).into()
    });
    check("dp4a.s32.s32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        let products = (0..4).map(|i| signed_byte(a, i) * signed_byte(b, i));
        products.fold(c as i32, i32::wrapping_add) as u32 as u64
    });
    check(
        "dp2a.lo.u32.u32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| {
            let products = (0..2).map(|i| half(a, i).wrapping_mul(byte(b, i)));
            products.fold(c as u32, u32::wrapping_add).into()
        },
    );
    check(
        "dp2a.hi.s32.s32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| {
            let products = (0..2).map(|i| signed_half(a, i) * signed_byte(b, i + 2));
            products.fold(c as i32, i32::wrapping_add) as u32 as u64
        },
    );
}

#[test]
fn products_twice_as_wide() {
    let w = words();
    check("mul.wide.s32 {d}, {a}, {b};", "drrr", &w, |a, b, _| {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    });
    check("mul.wide.u32 {d}, {a}, {b};", "drrr", &w, |a, b, _| a * b);
    check("mad.wide.u32 {d}, {a}, {b}, {c};", "drrd", &w, |a, b, c| {
        (a * b).wrapping_add(c)
    });
    check("mad.wide.s32 {d}, {a}, {b}, {c};", "drrd", &w, |a, b, c| {
        ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
    });
    check("mul.wide.s16 {d}, {a}, {b};", "rhhr", &w, |a, b, _| {
        (i32::from(a as i16) * i32::from(b as i16)) as u32 as u64
    });
    check("mul.wide.u16 {d}, {a}, {b};", "rhhr", &w, |a, b, _| {
        (a & 0xffff) * (b & 0xffff)
    });
}

#[test]
fn quotients_and_remainders() {
    let w: Vec<_> = words().into_iter().filter(|row| row[1] != 0).collect();
    check("div.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as i32).wrapping_div(b as i32) as u32 as u64
    });
    check("rem.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as i32).wrapping_rem(b as i32) as u32 as u64
    });
    check("div.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a / b);
    check("rem.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a % b);
    let l: Vec<_> = longs().into_iter().filter(|row| row[1] != 0).collect();
    check("div.s64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        (a as i64).wrapping_div(b as i64) as u64
    });
    check("rem.u64 {d}, {a}, {b};", "dddd", &l, |a, b, _| a % b);
}

#[test]
fn sixteen_bits_wrap_and_keep_their_sign() {
    let w = words();
    let s = |x: u64| x as i16;
    check("add.s16 {d}, {a}, {b};", "hhhh", &w, |a, b, _| {
        s(a).wrapping_add(s(b)) as u16 as u64
    });
    check("mul.lo.s16 {d}, {a}, {b};", "hhhh", &w, |a, b, _| {
        s(a).wrapping_mul(s(b)) as u16 as u64
    });
    check("min.s16 {d}, {a}, {b};", "hhhh", &w, |a, b, _| {
        s(a).min(s(b)) as u16 as u64
    });
    check("max.u16 {d}, {a}, {b};", "hhhh", &w, |a, b, _| {
        (a & 0xffff).max(b & 0xffff)
    });
    check("neg.s16 {d}, {a};", "hhhh", &w, |a, _, _| {
        s(a).wrapping_neg() as u16 as u64
    });
    check("abs.s16 {d}, {a};", "hhhh", &w, |a, _, _| {
        s(a).wrapping_abs() as u16 as u64
    });
}

#[test]
fn sixty_four_bits() {
    let l = longs();
    check("add.s64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        a.wrapping_add(b)
    });
    check("mul.lo.s64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        a.wrapping_mul(b)
    });
    check("mul.hi.u64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        ((u128::from(a) * u128::from(b)) >> 64) as u64
    });
    check("mul.hi.s64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    });
    check("min.s64 {d}, {a}, {b};", "dddd", &l, |a, b, _| {
        (a as i64).min(b as i64) as u64
    });
    check("mad.lo.s64 {d}, {a}, {b}, {c};", "dddd", &l, |a, b, c| {
        a.wrapping_mul(b).wrapping_add(c)
    });
    check("abs.s64 {d}, {a};", "dddd", &l, |a, _, _| {
        (a as i64).wrapping_abs() as u64
    });
}

#[test]
fn carries_run_through_a_sum_of_two_words() {
    let snippet = "mov.b64 {%r20, %r21}, {a}; mov.b64 {%r22, %r23}, {b};
        add.cc.u32 %r24, %r20, %r22; addc.u32 %r25, %r21, %r23; mov.b64 {d}, {%r24, %r25};";
    check(snippet, "dddd", &longs(), |a, b, _| a.wrapping_add(b));
    let snippet = "mov.b64 {%r20, %r21}, {a}; mov.b64 {%r22, %r23}, {b};
        sub.cc.u32 %r24, %r20, %r22; subc.u32 %r25, %r21, %r23; mov.b64 {d}, {%r24, %r25};";
    check(snippet, "dddd", &longs(), |a, b, _| a.wrapping_sub(b));
}

#[test]
fn extremes_of_32_bits() {
    let w = words();
    check("min.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as i32).min(b as i32) as u32 as u64
    });
    check("max.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as i32).max(b as i32) as u32 as u64
    });
    check("min.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a.min(b));
    check("abs.s32 {d}, {a};", "rrrr", &w, |a, _, _| {
        (a as i32).wrapping_abs() as u32 as u64
    });
}
