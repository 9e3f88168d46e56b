//! Float arithmetic: f32, f64, f16 and bf16 compared with the host, and directed rounding compared with f64.

mod support;
use support::{FLOATS, check, check_f32, compute, floats, pairs};

fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

#[test]
fn f32_rounds_to_nearest_and_keeps_subnormals() {
    let t = floats();
    check_f32("add.f32 {d}, {a}, {b};", &t, |a, b, _| a + b);
    check_f32("sub.f32 {d}, {a}, {b};", &t, |a, b, _| a - b);
    check_f32("mul.f32 {d}, {a}, {b};", &t, |a, b, _| a * b);
    check_f32("div.rn.f32 {d}, {a}, {b};", &t, |a, b, _| a / b);
    check_f32("fma.rn.f32 {d}, {a}, {b}, {c};", &t, |a, b, c| {
        a.mul_add(b, c)
    });
    check_f32("sqrt.rn.f32 {d}, {a};", &t, |a, _, _| a.sqrt());
    check_f32("rcp.rn.f32 {d}, {a};", &t, |a, _, _| 1.0 / a);
    check_f32("neg.f32 {d}, {a};", &t, |a, _, _| -a);
    check_f32("abs.f32 {d}, {a};", &t, |a, _, _| a.abs());
    check_f32("copysign.f32 {d}, {a}, {b};", &t, |a, b, _| b.copysign(a));
}

#[test]
fn flushing_only_where_written() {
    let t = floats();
    check_f32("add.ftz.f32 {d}, {a}, {b};", &t, |a, b, _| {
        flush(flush(a) + flush(b))
    });
    check_f32("mul.ftz.f32 {d}, {a}, {b};", &t, |a, b, _| {
        flush(flush(a) * flush(b))
    });
    check_f32("fma.rn.ftz.f32 {d}, {a}, {b}, {c};", &t, |a, b, c| {
        flush(flush(a).mul_add(flush(b), flush(c)))
    });
    check_f32("add.sat.f32 {d}, {a}, {b};", &t, |a, b, _| {
        let x = a + b;
        if x.is_nan() {
            0.0
        } else {
            x.clamp(0.0, 1.0) + 0.0
        }
    });
}

#[test]
fn minimum_and_maximum_lose_nan_unless_told() {
    let t = floats();
    check_f32("min.f32 {d}, {a}, {b};", &t, |a, b, _| match (a, b) {
        _ if a.is_nan() => b,
        _ if b.is_nan() => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    });
    check_f32("max.NaN.f32 {d}, {a}, {b};", &t, |a, b, _| match (a, b) {
        _ if a.is_nan() || b.is_nan() => f32::NAN,
        _ if a == b => {
            if a.is_sign_positive() {
                a
            } else {
                b
            }
        }
        _ => {
            if a > b {
                a
            } else {
                b
            }
        }
    });
}

/// The neighbours of an exact value: the greatest f32 that is not above it, and the least that is not below it. `near`
/// is the value rounded to nearest, and `error_sign` has the sign of the exact value minus `near`.
fn between(near: f32, error_sign: f64) -> (f32, f32) {
    if error_sign == 0.0 || near.is_nan() {
        (near, near)
    } else if error_sign > 0.0 {
        (near, near.next_up())
    } else {
        (near.next_down(), near)
    }
}

#[test]
fn directed_rounding() {
    let t: Vec<[u64; 3]> = (0..2000u64)
        .map(|i| {
            let bits = |salt: u64| {
                let x = (i * 2_654_435_761 + salt * 40_503) as u32;
                u64::from(f32::from_bits(x % 0x2000_0000 + 0x3000_0000).to_bits())
            };
            [bits(1), bits(2) ^ (i & 1) << 31, bits(3)]
        })
        .collect();
    // A product of two f32 is exact in f64, and so is its rounding error.
    let product = |a: f32, b: f32| {
        let exact = f64::from(a) * f64::from(b);
        between(a * b, exact - f64::from(a * b))
    };
    check_f32("mul.rm.f32 {d}, {a}, {b};", &t, |a, b, _| product(a, b).0);
    check_f32("mul.rp.f32 {d}, {a}, {b};", &t, |a, b, _| product(a, b).1);
    check_f32("mul.rz.f32 {d}, {a}, {b};", &t, |a, b, _| {
        let (low, high) = product(a, b);
        if low >= 0.0 { low } else { high }
    });
    // The remainder, which fma computes exactly, has the sign of the quotient's rounding error.
    let quotient = |a: f32, b: f32| {
        let near = a / b;
        let rest = (-f64::from(near)).mul_add(f64::from(b), f64::from(a));
        between(near, rest * f64::from(b.signum()))
    };
    check_f32("div.rm.f32 {d}, {a}, {b};", &t, |a, b, _| quotient(a, b).0);
    check_f32("div.rp.f32 {d}, {a}, {b};", &t, |a, b, _| quotient(a, b).1);
    // The sum of an exact product and a much smaller addend: only the direction of the rounding matters.
    let tiny = pairs(
        &[1f32.to_bits().into()],
        &[1f32.to_bits().into()],
        &[1e-30f32.to_bits().into()],
    );
    check_f32("fma.rp.f32 {d}, {a}, {b}, {c};", &tiny, |_, _, _| {
        1f32.next_up()
    });
    check_f32("fma.rm.f32 {d}, {a}, {b}, {c};", &tiny, |_, _, _| 1.0);
    check_f32("fma.rz.f32 {d}, {a}, {b}, {c};", &tiny, |_, _, _| 1.0);
    let tiny = pairs(
        &[1f32.to_bits().into()],
        &[1f32.to_bits().into()],
        &[(-1e-30f32).to_bits().into()],
    );
    check_f32("fma.rm.f32 {d}, {a}, {b}, {c};", &tiny, |_, _, _| {
        1f32.next_down()
    });
}

#[test]
fn f64_arithmetic() {
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1e-310,
        1e308,
        f64::INFINITY,
        f64::NAN,
        0.1,
        3.0,
    ];
    let bits = values.map(f64::to_bits);
    let t = pairs(&bits, &bits, &bits);
    let run = |snippet: &str, f: &dyn Fn(f64, f64, f64) -> f64| {
        let found = compute(snippet, "dddd", &t);
        for (row, found) in t.iter().zip(found) {
            let [a, b, c] = row.map(f64::from_bits);
            let (expected, found) = (f(a, b, c), f64::from_bits(found));
            let same = expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan();
            assert!(
                same,
                "{snippet}: {a:e} {b:e} {c:e}: {found:e}, expected {expected:e}"
            );
        }
    };
    run("add.f64 {d}, {a}, {b};", &|a, b, _| a + b);
    run("mul.f64 {d}, {a}, {b};", &|a, b, _| a * b);
    run("div.rn.f64 {d}, {a}, {b};", &|a, b, _| a / b);
    run("fma.rn.f64 {d}, {a}, {b}, {c};", &|a, b, c| a.mul_add(b, c));
    run("sqrt.rn.f64 {d}, {a};", &|a, _, _| a.sqrt());
    run("add.rp.f64 {d}, {a}, 0d3C00000000000000;", &|a, _, _| {
        let added = f64::from_bits(0x3c00_0000_0000_0000);
        let sum = a + added;
        // Rounding up shows whether the smaller operand was lost in the sum.
        let lost = (sum == a && a.is_finite()) || (sum == added && a > 0.0);
        if lost { sum.next_up() } else { sum }
    });
}

/// The nearest value of a format, found among all 65,536 values: independent of how the emulator rounds.
fn nearest(x: f64, widen: fn(u16) -> f64) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = x.abs();
    let top = (0..0x7fffu16)
        .find(|&bits| widen(bits).is_infinite())
        .unwrap();
    let (mut low, mut high) = (0, top);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if widen(middle) <= magnitude {
            low = middle
        } else {
            high = middle
        }
    }
    // Beyond the largest value, the next one counts as infinity.
    let above = if high == top {
        2.0 * widen(top - 1) - widen(top - 2)
    } else {
        widen(high)
    };
    let (down, up) = (magnitude - widen(low), above - magnitude);
    let bits = if magnitude.is_infinite() || down > up || (down == up && low & 1 == 1) {
        high
    } else {
        low
    };
    sign | bits
}

fn bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

fn f16(bits: u16) -> f64 {
    let (sign, e, m) = (bits >> 15, bits >> 10 & 31, f64::from(bits & 1023));
    let magnitude = match e {
        0 => m * 2f64.powi(-24),
        31 if m == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + m) * 2f64.powi(i32::from(e) - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

#[test]
fn halves_round_once() {
    let table: Vec<u64> = (0..40u64)
        .map(|i| (i * 1_637) & 0xffff)
        .chain([0, 0x8000, 0x3c00, 0x3f80, 0x7bff, 0x7f7f, 1])
        .collect();
    let t = pairs(&table, &table, &table);
    for (name, widen) in [("f16", f16 as fn(u16) -> f64), ("bf16", bf16)] {
        let finite: Vec<_> = t
            .iter()
            .filter(|r| r.iter().all(|&x| widen(x as u16).is_finite()))
            .copied()
            .collect();
        let w = |x: u64| widen(x as u16);
        check(
            &format!("add.{name} {{d}}, {{a}}, {{b}};"),
            "hhhh",
            &finite,
            |a, b, _| {
                // The sum is exact in f64 for f16. For bf16, a much smaller operand cannot decide a tie here.
                nearest(w(a) + w(b), widen).into()
            },
        );
        check(
            &format!("mul.{name} {{d}}, {{a}}, {{b}};"),
            "hhhh",
            &finite,
            |a, b, _| nearest(w(a) * w(b), widen).into(),
        );
        check(
            &format!("neg.{name} {{d}}, {{a}};"),
            "hhhh",
            &finite,
            |a, _, _| a ^ 0x8000,
        );
    }
    check(
        "fma.rn.bf16x2 {d}, {a}, {b}, {c};",
        "rrrr",
        &[[0x3f80_4000, 0x4000_4040, 0x3f80_bf80]],
        |_, _, _| {
            // 1·2 + 1 = 3 and 2·3 - 1 = 5.
            0x4040_40a0
        },
    );
    check(
        "add.rn.f16x2 {d}, {a}, {b};",
        "rrrr",
        &[[0x3c00_4000, 0x3c00_bc00, 0]],
        |_, _, _| 0x4000_3c00,
    );
}

#[test]
fn zeros_keep_their_signs() {
    let t = floats();
    check_f32(
        "add.rm.f32 {d}, {a}, {b};",
        &t[..FLOATS.len() * 2],
        |a, b, _| {
            let sum = f64::from(a) + f64::from(b);
            if sum == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) {
                return -0.0;
            }
            sum as f32
        },
    );
}
