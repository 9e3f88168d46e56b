//! Float arithmetic over lanes: f32, f64, and the half formats through f64.

use super::lanes::File;
use super::numeric::{
    F32, Format, add64, div_odd, div64, flush, fma_odd, max, min, mul64, saturate, sqrt_odd, sqrt64,
};
use super::op::{Float1, Float2, Inst, Mods, Round, Type};

/// Applies the modifiers to an f32 result.
#[inline(always)]
fn finish(x: f32, mods: Mods) -> f32 {
    let x = if mods.ftz { flush(x) } else { x };
    if mods.sat { saturate(x) } else { x }
}

#[inline(always)]
fn prepare(x: f32, mods: Mods) -> f32 {
    if mods.ftz { flush(x) } else { x }
}

fn directed(x: f64, round: Round) -> f32 {
    f32::from_bits(F32.narrow(x, round))
}

/// The sum a · b + c with directed rounding. If the values cancel, it is -0 when rounding down.
fn directed_sum(a: f64, b: f64, c: f64, round: Round) -> f32 {
    let sum = fma_odd(a, b, c);
    let signs_differ = (a * b).is_sign_negative() != c.is_sign_negative();
    if sum == 0.0 && round == Round::Down && signs_differ {
        return -0.0;
    }
    directed(sum, round)
}

pub fn float32(file: &mut File, mask: u32, inst: &Inst, op: Float2, mods: Mods) {
    let to = [inst.d, inst.a, inst.b];
    macro_rules! each {
        ($f:expr) => {
            file.map2::<f32, f32, f32>(mask, to, |a, b| {
                finish($f(prepare(a, mods), prepare(b, mods)), mods)
            })
        };
    }
    let round = mods.round;
    if round != Round::Near {
        return match op {
            Float2::Add => each!(|a, b| directed_sum(f64::from(a), 1.0, f64::from(b), round)),
            Float2::Sub => each!(|a, b: f32| directed_sum(f64::from(a), 1.0, f64::from(-b), round)),
            Float2::Mul => each!(|a, b| directed(f64::from(a) * f64::from(b), round)),
            Float2::Div => each!(|a, b| directed(div_odd(f64::from(a), f64::from(b)), round)),
            Float2::Min | Float2::Max | Float2::CopySign => {
                unreachable!("the decoder accepts no rounding of {op:?}")
            }
        };
    }
    match op {
        Float2::Add => each!(|a: f32, b: f32| a + b),
        Float2::Sub => each!(|a: f32, b: f32| a - b),
        Float2::Mul => each!(|a: f32, b: f32| a * b),
        Float2::Div => each!(|a: f32, b: f32| a / b),
        Float2::Min if mods.xor_sign => {
            each!(|a: f32, b: f32| { min(a.abs(), b.abs(), mods.nan).copysign(signs(a, b)) })
        }
        Float2::Max if mods.xor_sign => {
            each!(|a: f32, b: f32| { max(a.abs(), b.abs(), mods.nan).copysign(signs(a, b)) })
        }
        Float2::Min => each!(|a, b| min(a, b, mods.nan)),
        Float2::Max => each!(|a, b| max(a, b, mods.nan)),
        // The second operand with the sign of the first.
        Float2::CopySign => file.map2::<f32, f32, f32>(mask, to, |a, b| b.copysign(a)),
    }
}

fn signs(a: f32, b: f32) -> f32 {
    f32::from_bits(a.to_bits() ^ b.to_bits() | 0x3f80_0000)
}

pub fn fma32(file: &mut File, mask: u32, inst: &Inst, mods: Mods) {
    let to = [inst.d, inst.a, inst.b, inst.c];
    if mods.round == Round::Near {
        file.map3::<f32, f32, f32, f32>(mask, to, |a, b, c| {
            finish(
                prepare(a, mods).mul_add(prepare(b, mods), prepare(c, mods)),
                mods,
            )
        });
    } else {
        file.map3::<f32, f32, f32, f32>(mask, to, |a, b, c| {
            let [a, b, c] = [a, b, c].map(|x| f64::from(prepare(x, mods)));
            finish(directed_sum(a, b, c, mods.round), mods)
        });
    }
}

pub fn float32_unary(file: &mut File, mask: u32, inst: &Inst, op: Float1, mods: Mods) {
    let Inst { d, a, .. } = *inst;
    let round = mods.round;
    // Functions that the hardware approximates are computed in f64 and rounded once.
    macro_rules! wide {
        ($f:expr) => {
            file.map1(mask, d, a, |x: f32| {
                let y: f64 = $f(f64::from(prepare(x, mods)));
                finish(directed(y, round), mods)
            })
        };
    }
    match op {
        Float1::Abs => file.map1(mask, d, a, |x: f32| finish(prepare(x, mods).abs(), mods)),
        Float1::Neg => file.map1(mask, d, a, |x: f32| finish(-prepare(x, mods), mods)),
        Float1::Rcp if round == Round::Near => {
            file.map1(mask, d, a, |x: f32| finish(1.0 / prepare(x, mods), mods))
        }
        Float1::Sqrt if round == Round::Near => {
            file.map1(mask, d, a, |x: f32| finish(prepare(x, mods).sqrt(), mods))
        }
        Float1::Rcp => wide!(|x| div_odd(1.0, x)),
        Float1::Sqrt => wide!(sqrt_odd),
        Float1::Rsqrt => wide!(|x: f64| 1.0 / x.sqrt()),
        Float1::Sin => wide!(f64::sin),
        Float1::Cos => wide!(f64::cos),
        Float1::Lg2 => wide!(f64::log2),
        Float1::Ex2 => wide!(f64::exp2),
        Float1::Tanh => wide!(f64::tanh),
    }
}

pub fn float64(file: &mut File, mask: u32, inst: &Inst, op: Float2, mods: Mods) {
    let to = [inst.d, inst.a, inst.b];
    let round = mods.round;
    macro_rules! each {
        ($f:expr) => {
            file.map2::<f64, f64, f64>(mask, to, $f)
        };
    }
    match op {
        Float2::Add => each!(|a, b| add64(a, b, round)),
        Float2::Sub => each!(|a, b| add64(a, -b, round)),
        Float2::Mul => each!(|a, b| mul64(a, b, round)),
        Float2::Div => each!(|a, b| div64(a, b, round)),
        Float2::Min => each!(|a, b| extreme64(a, b, a < b || (a == b && a.is_sign_negative()))),
        Float2::Max => each!(|a, b| extreme64(a, b, a > b || (a == b && a.is_sign_positive()))),
        Float2::CopySign => each!(|a, b| b.copysign(a)),
    }
}

fn extreme64(a: f64, b: f64, first: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, false) => b,
        (false, false) if !first => b,
        _ => a,
    }
}

pub fn fma64(file: &mut File, mask: u32, inst: &Inst) {
    file.map3::<f64, f64, f64, f64>(mask, [inst.d, inst.a, inst.b, inst.c], f64::mul_add);
}

pub fn float64_unary(file: &mut File, mask: u32, inst: &Inst, op: Float1, mods: Mods) {
    let Inst { d, a, .. } = *inst;
    let round = mods.round;
    match op {
        Float1::Abs => file.map1(mask, d, a, f64::abs),
        Float1::Neg => file.map1(mask, d, a, |x: f64| -x),
        Float1::Rcp => file.map1(mask, d, a, |x: f64| div64(1.0, x, round)),
        Float1::Sqrt => file.map1(mask, d, a, |x: f64| sqrt64(x, round)),
        Float1::Rsqrt => file.map1(mask, d, a, |x: f64| 1.0 / x.sqrt()),
        Float1::Sin => file.map1(mask, d, a, f64::sin),
        Float1::Cos => file.map1(mask, d, a, f64::cos),
        Float1::Lg2 => file.map1(mask, d, a, f64::log2),
        Float1::Ex2 => file.map1(mask, d, a, f64::exp2),
        Float1::Tanh => file.map1(mask, d, a, f64::tanh),
    }
}

/// An operation on one half, or on both halves of a pair.
fn halves(ty: Type, operands: [u32; 3], f: impl Fn([u32; 3]) -> u32) -> u32 {
    let low = f(operands.map(|x| x & 0xffff));
    match ty {
        Type::F16x2 | Type::Bf16x2 => low | f(operands.map(|x| x >> 16)) << 16,
        _ => low,
    }
}

/// An exact result, or one rounded to odd, in a half format and with the modifiers applied.
fn half(x: f64, format: Format, mods: Mods) -> u32 {
    let x = match x {
        _ if mods.sat && x.is_nan() => 0.0,
        _ if mods.sat => x.clamp(0.0, 1.0),
        _ if mods.relu && x < 0.0 => 0.0,
        _ => x,
    };
    format.narrow(x, mods.round)
}

pub fn half2(file: &mut File, mask: u32, inst: &Inst, op: Float2, ty: Type, mods: Mods) {
    let format = Format::of(ty);
    file.map2::<u32, u32, u32>(mask, [inst.d, inst.a, inst.b], |a, b| {
        halves(ty, [a, b, 0], |[a, b, _]| {
            let (x, y) = (format.widen(a), format.widen(b));
            let (x64, y64) = (f64::from(x), f64::from(y));
            match op {
                Float2::Add => half(fma_odd(x64, 1.0, y64), format, mods),
                Float2::Sub => half(fma_odd(x64, 1.0, -y64), format, mods),
                Float2::Mul => half(x64 * y64, format, mods),
                Float2::Div => half(div_odd(x64, y64), format, mods),
                Float2::Min => half(f64::from(min(x, y, mods.nan)), format, mods),
                Float2::Max => half(f64::from(max(x, y, mods.nan)), format, mods),
                Float2::CopySign => b & 0x7fff | a & 0x8000,
            }
        })
    });
}

pub fn half_fma(file: &mut File, mask: u32, inst: &Inst, ty: Type, mods: Mods) {
    let format = Format::of(ty);
    file.map3::<u32, u32, u32, u32>(mask, [inst.d, inst.a, inst.b, inst.c], |a, b, c| {
        halves(ty, [a, b, c], |operands| {
            let [a, b, c] = operands.map(|x| f64::from(format.widen(x)));
            half(fma_odd(a, b, c), format, mods)
        })
    });
}

pub fn half1(file: &mut File, mask: u32, inst: &Inst, op: Float1, ty: Type, mods: Mods) {
    let format = Format::of(ty);
    file.map1(mask, inst.d, inst.a, |a: u32| {
        halves(ty, [a, 0, 0], |[a, ..]| {
            let x = f64::from(format.widen(a));
            match op {
                Float1::Abs => a & 0x7fff,
                Float1::Neg => a ^ 0x8000,
                Float1::Tanh => half(x.tanh(), format, mods),
                Float1::Ex2 => half(x.exp2(), format, mods),
                Float1::Rcp => half(1.0 / x, format, mods),
                Float1::Sqrt => half(x.sqrt(), format, mods),
                Float1::Rsqrt => half(1.0 / x.sqrt(), format, mods),
                Float1::Sin => half(x.sin(), format, mods),
                Float1::Cos => half(x.cos(), format, mods),
                Float1::Lg2 => half(x.log2(), format, mods),
            }
        })
    });
}
