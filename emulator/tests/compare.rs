//! Comparison, selection and predicates.

mod support;
use support::{check, floats, longs, words};

#[test]
fn integers_compare_by_their_sign() {
    let w = words();
    check("setp.lt.s32 {d}, {a}, {b};", "prrr", &w, |a, b, _| {
        ((a as i32) < b as i32).into()
    });
    check("setp.lt.u32 {d}, {a}, {b};", "prrr", &w, |a, b, _| {
        (a < b).into()
    });
    check("setp.hs.u32 {d}, {a}, {b};", "prrr", &w, |a, b, _| {
        (a >= b).into()
    });
    check("setp.ge.s64 {d}, {a}, {b};", "pddd", &longs(), |a, b, _| {
        (a as i64 >= b as i64).into()
    });
    check("setp.gt.s16 {d}, {a}, {b};", "phhh", &w, |a, b, _| {
        (a as i16 > b as i16).into()
    });
    check("setp.ne.b32 {d}, {a}, {b};", "prrr", &w, |a, b, _| {
        (a != b).into()
    });
}

#[test]
fn floats_compare_ordered_and_unordered() {
    let t = floats();
    let f = |x: u64| f32::from_bits(x as u32);
    check("setp.lt.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        (f(a) < f(b)).into()
    });
    check("setp.ne.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        (f(a) < f(b) || f(a) > f(b)).into()
    });
    check("setp.neu.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        (f(a) != f(b)).into()
    });
    check("setp.ltu.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        let nan = f(a).is_nan() || f(b).is_nan();
        (nan || f(a) < f(b)).into()
    });
    check("setp.num.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        (!f(a).is_nan() && !f(b).is_nan()).into()
    });
    check("setp.nan.f32 {d}, {a}, {b};", "prrr", &t, |a, b, _| {
        (f(a).is_nan() || f(b).is_nan()).into()
    });
    check(
        "setp.eq.ftz.f32 {d}, {a}, 0f00000000;",
        "prrr",
        &t,
        |a, _, _| (f(a) == 0.0 || f(a).is_subnormal()).into(),
    );
    check("testp.subnormal.f32 {d}, {a};", "prrr", &t, |a, _, _| {
        f(a).is_subnormal().into()
    });
    check("testp.infinite.f32 {d}, {a};", "prrr", &t, |a, _, _| {
        f(a).is_infinite().into()
    });
}

#[test]
fn comparisons_join_with_a_predicate_and_have_two_results() {
    let w = words();
    let second = "setp.lt.and.u32 %p20|{d}, {a}, {b}, {c};";
    check(second, "prrp", &w, |a, b, c| (a >= b && c != 0).into());
    let first = "setp.lt.or.u32 {d}|%p20, {a}, {b}, !{c};";
    check(first, "prrp", &w, |a, b, c| (a < b || c == 0).into());
    check("xor.pred {d}, {a}, {b};", "pppp", &w, |a, b, _| {
        ((a != 0) != (b != 0)).into()
    });
    check("not.pred {d}, {a};", "pppp", &w, |a, _, _| (a == 0).into());
}

#[test]
fn selection() {
    let w = words();
    check("selp.b32 {d}, {a}, {b}, {c};", "rrrp", &w, |a, b, c| {
        if c != 0 { a } else { b }
    });
    check(
        "selp.b64 {d}, {a}, {b}, {c};",
        "dddp",
        &longs(),
        |a, b, c| if c != 0 { a } else { b },
    );
    check("slct.b32.s32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        if c as i32 >= 0 { a } else { b }
    });
    check("set.lt.u32.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        if (a as i32) < b as i32 {
            0xffff_ffff
        } else {
            0
        }
    });
    check("set.gt.f32.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        if a > b { 0x3f80_0000 } else { 0 }
    });
}

#[test]
fn moves_pack_and_unpack() {
    let w = words();
    check("mov.b64 {d}, {{a}, {b}};", "drrr", &w, |a, b, _| {
        b << 32 | a
    });
    check("mov.b32 {d}, {{a}, {b}};", "rhhh", &w, |a, b, _| {
        (b & 0xffff) << 16 | a & 0xffff
    });
    check("mov.b64 {%r20, {d}}, {a};", "rddd", &longs(), |a, _, _| {
        a >> 32
    });
    check("mov.b32 {%h20, {d}}, {a};", "hrrr", &w, |a, _, _| {
        a >> 16 & 0xffff
    });
    check("mov.b32 {_, {d}}, {a};", "hrrr", &w, |a, _, _| {
        a >> 16 & 0xffff
    });
    check(
        "mov.b64 {%h20, %h21, {d}, %h22}, {a};",
        "hddd",
        &longs(),
        |a, _, _| a >> 32 & 0xffff,
    );
}
