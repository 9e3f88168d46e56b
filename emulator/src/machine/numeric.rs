//! Float formats and directed rounding, exact to the bit.

use super::op::{Round, Type};

/// A binary float format of at most 32 bits: explicit mantissa bits and exponent bits.
#[derive(Clone, Copy)]
pub struct Format {
    mantissa: u32,
    exponent: u32,
}

pub const F16: Format = Format {
    mantissa: 10,
    exponent: 5,
};
pub const BF16: Format = Format {
    mantissa: 7,
    exponent: 8,
};
pub const F32: Format = Format {
    mantissa: 23,
    exponent: 8,
};
pub const TF32: Format = Format {
    mantissa: 10,
    exponent: 8,
};

/// The NaN that arithmetic returns.
pub const NAN32: f32 = f32::from_bits(0x7fff_ffff);

impl Format {
    pub fn of(ty: Type) -> Format {
        match ty {
            Type::F16 | Type::F16x2 => F16,
            Type::Bf16 | Type::Bf16x2 => BF16,
            Type::Tf32 => TF32,
            _ => F32,
        }
    }

    /// The bits of `x` in this format.
    pub fn narrow(self, x: f64, round: Round) -> u32 {
        let (m, e) = (self.mantissa, self.exponent);
        let sign = u32::from(x.is_sign_negative()) << (m + e);
        let infinity = ((1 << e) - 1) << m;
        if x.is_nan() {
            return (1 << (m + e)) - 1;
        }
        if x.is_infinite() {
            return sign | infinity;
        }
        if x == 0.0 {
            return sign;
        }
        let bits = x.to_bits() & !(1 << 63);
        let biased = (bits >> 52) as i32;
        let significand = bits & ((1 << 52) - 1) | u64::from(biased != 0) << 52;
        let scale = biased.max(1) - 1023;
        let lowest = 2 - (1 << (e - 1));
        let drop = (scale.max(lowest) - m as i32 - (scale - 52)) as u32;
        let (kept, half, rest) = if drop > 60 {
            (0, false, true)
        } else {
            let rest = significand & ((1 << (drop - 1)) - 1);
            (
                significand >> drop,
                significand >> (drop - 1) & 1 == 1,
                rest != 0,
            )
        };
        let up = match round {
            Round::Near => half && (rest || kept & 1 == 1),
            Round::Away => half,
            Round::Zero => false,
            Round::Down => sign != 0 && (half || rest),
            Round::Up => sign == 0 && (half || rest),
        };
        let above = (scale.max(lowest) - lowest) as u64;
        let magnitude = (above << m) + kept + u64::from(up);
        if magnitude < u64::from(infinity) {
            return sign | magnitude as u32;
        }
        let finite = match round {
            Round::Near | Round::Away => false,
            Round::Zero => true,
            Round::Down => sign == 0,
            Round::Up => sign != 0,
        };
        sign | (infinity - u32::from(finite))
    }

    /// The value of bits in this format.
    #[inline(always)]
    pub fn widen(self, bits: u32) -> f32 {
        match self.mantissa {
            7 => f32::from_bits(bits << 16),
            10 if self.exponent == 5 => half_to_f32(bits),
            _ => f32::from_bits(bits),
        }
    }
}

/// An f16 as f32, exact.
#[inline(always)]
pub fn half_to_f32(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    let rest = bits & 0x7fff;
    // Rebias by a product: right for subnormals too.
    let scaled = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
    let magnitude = if rest >= 0x7c00 {
        0x7f80_0000 | rest << 13
    } else {
        scaled.to_bits()
    };
    f32::from_bits(sign | magnitude)
}

/// An f32 rounded to the nearest bf16, ties to even.
#[inline(always)]
pub fn bf16_near(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fff } else { rounded }
}

/// A rounded result, made odd if it is not exact. Rounding it to any narrower format then gives the same as rounding the
/// exact value once.
#[inline(always)]
fn odd(rounded: f64, error: f64) -> f64 {
    let bits = rounded.to_bits();
    if error == 0.0 || bits & 1 == 1 || !rounded.is_finite() || error.is_nan() {
        return rounded;
    }
    let outward = (error > 0.0) == (rounded > 0.0);
    f64::from_bits(if outward { bits + 1 } else { bits - 1 })
}

/// The error of rounding `a + b` to `sum`.
#[inline(always)]
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let back = sum - a;
    (a - (sum - back)) + (b - back)
}

/// `a·b + c`, rounded to odd; the product must be exact in f64.
#[inline(always)]
pub fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    odd(sum, sum_error(product, c, sum))
}

pub fn div_odd(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if b == 0.0 || !b.is_finite() || !quotient.is_finite() {
        return quotient;
    }
    let rest = quotient.mul_add(-b, a);
    odd(quotient, if b < 0.0 { -rest } else { rest })
}

pub fn sqrt_odd(a: f64) -> f64 {
    let root = a.sqrt();
    if !root.is_finite() || root == 0.0 {
        return root;
    }
    odd(root, (-root).mul_add(root, a))
}

/// The f64 result of another rounding, from the one rounded to nearest and its error.
pub fn direct(near: f64, error: f64, round: Round) -> f64 {
    if error == 0.0 || error.is_nan() || !near.is_finite() {
        return near;
    }
    match round {
        Round::Down if error < 0.0 => near.next_down(),
        Round::Up if error > 0.0 => near.next_up(),
        Round::Zero if near > 0.0 && error < 0.0 => near.next_down(),
        Round::Zero if near < 0.0 && error > 0.0 => near.next_up(),
        _ => near,
    }
}

pub fn add64(a: f64, b: f64, round: Round) -> f64 {
    let sum = a + b;
    if sum == 0.0 && round == Round::Down && a != 0.0 {
        return -0.0;
    }
    direct(sum, sum_error(a, b, sum), round)
}

pub fn mul64(a: f64, b: f64, round: Round) -> f64 {
    let product = a * b;
    direct(product, a.mul_add(b, -product), round)
}

pub fn div64(a: f64, b: f64, round: Round) -> f64 {
    let quotient = a / b;
    if b == 0.0 || !b.is_finite() {
        return quotient;
    }
    let rest = quotient.mul_add(-b, a);
    direct(quotient, if b < 0.0 { -rest } else { rest }, round)
}

pub fn sqrt64(a: f64, round: Round) -> f64 {
    let root = a.sqrt();
    direct(root, (-root).mul_add(root, a), round)
}

/// Rounds to an integral value.
pub fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Near => x.round_ties_even(),
        Round::Away => x.round(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// Replaces subnormals by zero with the same sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    if bits & 0x7f80_0000 == 0 {
        f32::from_bits(bits & 0x8000_0000)
    } else {
        x
    }
}

/// Limits to [0, 1]; NaN becomes 0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 {
        if x < 1.0 { x } else { 1.0 }
    } else {
        0.0
    }
}

/// The smaller of two values by the rules of PTX: the other operand if one is NaN, or NaN if `nan` is set; -0 is less
/// than +0.
#[inline(always)]
pub fn min(a: f32, b: f32, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return pick_nan(a, b, nan);
    }
    if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

#[inline(always)]
pub fn max(a: f32, b: f32, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return pick_nan(a, b, nan);
    }
    if a > b || (a == b && a.is_sign_positive()) {
        a
    } else {
        b
    }
}

#[inline(always)]
fn pick_nan(a: f32, b: f32, nan: bool) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        _ if nan => NAN32,
        (true, false) => b,
        (false, true) => a,
        _ => NAN32,
    }
}
