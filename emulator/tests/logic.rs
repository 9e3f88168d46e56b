//! Logic, shifts and bit fields, compared with the host.

mod support;
use support::{LONGS, WORDS, check, longs, pairs, words};

#[test]
fn shifts_clamp_at_the_width() {
    let w = words();
    check("shl.b32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as u32).checked_shl(b as u32).unwrap_or(0).into()
    });
    check("shr.u32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        (a as u32).checked_shr(b as u32).unwrap_or(0).into()
    });
    check("shr.s32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| {
        ((a as i32) >> (b as u32).min(31)) as u32 as u64
    });
    let l = pairs(&LONGS, &WORDS, &WORDS);
    check("shl.b64 {d}, {a}, {b};", "ddrr", &l, |a, b, _| {
        a.checked_shl(b as u32).unwrap_or(0)
    });
    check("shr.s64 {d}, {a}, {b};", "ddrr", &l, |a, b, _| {
        ((a as i64) >> (b as u32).min(63)) as u64
    });
    check("shl.b16 {d}, {a}, {b};", "hhrr", &w, |a, b, _| {
        if b < 16 { a << b & 0xffff } else { 0 }
    });
    check("shr.s16 {d}, {a}, {b};", "hhrr", &w, |a, b, _| {
        (i32::from(a as i16) >> b.min(15)) as u16 as u64
    });
}

#[test]
fn funnel_shifts_wrap_or_clamp() {
    let w = words();
    let pair = |a: u64, b: u64| b << 32 | a;
    check(
        "shf.l.wrap.b32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| pair(a, b) << (c & 31) >> 32,
    );
    check(
        "shf.r.wrap.b32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| pair(a, b) >> (c & 31) & 0xffff_ffff,
    );
    check(
        "shf.l.clamp.b32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| {
            if c >= 32 { a } else { pair(a, b) << c >> 32 }
        },
    );
    check(
        "shf.r.clamp.b32 {d}, {a}, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| {
            if c >= 32 {
                b
            } else {
                pair(a, b) >> c & 0xffff_ffff
            }
        },
    );
}

#[test]
fn logic_of_two_and_three() {
    let w = words();
    check("and.b32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a & b);
    check("or.b32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a | b);
    check("xor.b32 {d}, {a}, {b};", "rrrr", &w, |a, b, _| a ^ b);
    check("not.b32 {d}, {a};", "rrrr", &w, |a, _, _| !a & 0xffff_ffff);
    check("not.b16 {d}, {a};", "hhhh", &w, |a, _, _| !a & 0xffff);
    check("cnot.b32 {d}, {a};", "rrrr", &w, |a, _, _| {
        u64::from(a == 0)
    });
    for table in [0x80u32, 0xfe, 0x96, 0xca, 0x1d] {
        check(
            &format!("lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table};"),
            "rrrr",
            &w,
            |a, b, c| {
                (0..32).fold(0, |out, bit| {
                    let index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
                    out | u64::from(table >> index & 1) << bit
                })
            },
        );
    }
    check("xor.b64 {d}, {a}, {b};", "dddd", &longs(), |a, b, _| a ^ b);
}

#[test]
fn counting_and_finding_bits() {
    let w = words();
    check("popc.b32 {d}, {a};", "rrrr", &w, |a, _, _| {
        a.count_ones().into()
    });
    check("clz.b32 {d}, {a};", "rrrr", &w, |a, _, _| {
        (a as u32).leading_zeros().into()
    });
    check("brev.b32 {d}, {a};", "rrrr", &w, |a, _, _| {
        (a as u32).reverse_bits().into()
    });
    check("bfind.u32 {d}, {a};", "rrrr", &w, |a, _, _| {
        if a == 0 {
            0xffff_ffff
        } else {
            31 - u64::from((a as u32).leading_zeros())
        }
    });
    check("bfind.s32 {d}, {a};", "rrrr", &w, |a, _, _| {
        let a = if (a as i32) < 0 {
            !(a as u32)
        } else {
            a as u32
        };
        if a == 0 {
            0xffff_ffff
        } else {
            31 - u64::from(a.leading_zeros())
        }
    });
    check("bfind.shiftamt.u32 {d}, {a};", "rrrr", &w, |a, _, _| {
        if a == 0 {
            0xffff_ffff
        } else {
            (a as u32).leading_zeros().into()
        }
    });
    check("popc.b64 {d}, {a};", "rddd", &longs(), |a, _, _| {
        a.count_ones().into()
    });
    check("clz.b64 {d}, {a};", "rddd", &longs(), |a, _, _| {
        a.leading_zeros().into()
    });
    check("brev.b64 {d}, {a};", "dddd", &longs(), |a, _, _| {
        a.reverse_bits()
    });
}

/// The definition in the PTX manual, bit by bit.
fn field(a: u64, at: u64, length: u64, bits: u64, signed: bool) -> u64 {
    let (at, length) = (at & 0xff, length & 0xff);
    let sign = if signed && length > 0 {
        a >> (at + length - 1).min(bits - 1) & 1
    } else {
        0
    };
    (0..bits).fold(0, |out, i| {
        let bit = if i < length && at + i < bits {
            a >> (at + i) & 1
        } else {
            sign
        };
        out | bit << i
    })
}

#[test]
fn bit_fields() {
    let w = words();
    check("bfe.u32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        field(a, b, c, 32, false)
    });
    check("bfe.s32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        field(a, b, c, 32, true)
    });
    let l = pairs(&LONGS, &WORDS, &WORDS);
    check("bfe.s64 {d}, {a}, {b}, {c};", "ddrr", &l, |a, b, c| {
        field(a, b, c, 64, true)
    });
    check(
        "bfi.b32 {d}, {a}, 0x5555aaaa, {b}, {c};",
        "rrrr",
        &w,
        |a, b, c| {
            let (at, length) = (b & 0xff, c & 0xff);
            (0..32).fold(0x5555_aaaa, |out: u64, i| {
                let inside = i >= at && i < at + length;
                if inside {
                    out & !(1 << i) | (a >> (i - at) & 1) << i
                } else {
                    out
                }
            })
        },
    );
}

#[test]
fn byte_permutations() {
    let w = words();
    check("prmt.b32 {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        let bytes = (b << 32 | a).to_le_bytes();
        (0..4).fold(0, |out, i| {
            let selector = c >> (4 * i) & 15;
            let byte = bytes[selector as usize & 7];
            let byte = if selector & 8 == 0 {
                byte
            } else {
                (byte as i8 >> 7) as u8
            };
            out | u64::from(byte) << (8 * i)
        })
    });
    check("prmt.b32.f4e {d}, {a}, {b}, {c};", "rrrr", &w, |a, b, c| {
        (b << 32 | a) >> (8 * (c & 3)) & 0xffff_ffff
    });
}
