//! `cvt` over lanes.

use super::lanes::File;
use super::numeric::{Format, add64, bf16_near, flush, integral};
use super::op::{Inst, Mods, Round, Type};

/// A value between its decoding and its encoding.
#[derive(Clone, Copy)]
enum Value {
    Int(i128),
    Float(f64),
}

pub fn convert(file: &mut File, mask: u32, inst: &Inst, to: Type, from: Type, mods: Mods) {
    let Inst { d, a, .. } = *inst;
    match (from, to) {
        (Type::S32, Type::F32) if mods.round == Round::Near && !mods.sat => {
            return file.map1(mask, d, a, |x: i32| x as f32);
        }
        (Type::U32, Type::F32) if mods.round == Round::Near && !mods.sat => {
            return file.map1(mask, d, a, |x: u32| x as f32);
        }
        (Type::F32, Type::Bf16) if mods.round == Round::Near && !mods.sat && !mods.relu => {
            return file.map1(mask, d, a, bf16_near);
        }
        (Type::Bf16 | Type::F16, Type::F32) if mods == Mods::default() => {
            let format = Format::of(from);
            return file.map1(mask, d, a, |x: u32| format.widen(x & 0xffff));
        }
        _ => {}
    }
    let one = |bits: u64| encode(prepare(decode(bits, from), from, to, mods), to, mods);
    match (from.bytes(), to.bytes()) {
        (8, 8) => file.map1(mask, d, a, |x: u64| one(x)),
        (8, _) => file.map1(mask, d, a, |x: u64| one(x) as u32),
        (_, 8) => file.map1(mask, d, a, |x: u32| one(u64::from(x))),
        _ => file.map1(mask, d, a, |x: u32| one(u64::from(x)) as u32),
    }
}

/// Converts two f32 to a pair of halves. The first operand becomes the high half.
pub fn convert_pair(file: &mut File, mask: u32, inst: &Inst, to: Type, mods: Mods) {
    let slots = [inst.d, inst.a, inst.b];
    if to == Type::Bf16x2 && mods == Mods::default() {
        return file.map2::<f32, f32, u32>(mask, slots, |a, b| bf16_near(a) << 16 | bf16_near(b));
    }
    let element = if to == Type::Bf16x2 {
        Type::Bf16
    } else {
        Type::F16
    };
    let one = |x: f32| encode(Value::Float(f64::from(x)), element, mods) as u32;
    file.map2::<f32, f32, u32>(mask, slots, |a, b| one(a) << 16 | one(b));
}

fn decode(bits: u64, from: Type) -> Value {
    match from {
        Type::U8 => Value::Int(i128::from(bits as u8)),
        Type::S8 => Value::Int(i128::from(bits as i8)),
        Type::U16 => Value::Int(i128::from(bits as u16)),
        Type::S16 => Value::Int(i128::from(bits as i16)),
        Type::U32 => Value::Int(i128::from(bits as u32)),
        Type::S32 => Value::Int(i128::from(bits as i32)),
        Type::U64 => Value::Int(i128::from(bits)),
        Type::S64 => Value::Int(i128::from(bits as i64)),
        Type::F64 => Value::Float(f64::from_bits(bits)),
        Type::F16 | Type::Bf16 => {
            Value::Float(f64::from(Format::of(from).widen(bits as u32 & 0xffff)))
        }
        _ => Value::Float(f64::from(f32::from_bits(bits as u32))),
    }
}

/// Flushes subnormals and rounds to an integral value, where the instruction requires it.
fn prepare(value: Value, from: Type, to: Type, mods: Mods) -> Value {
    let Value::Float(x) = value else { return value };
    let x = if mods.ftz && from == Type::F32 {
        f64::from(flush(x as f32))
    } else {
        x
    };
    let whole = mods.integral || !to.is_float();
    Value::Float(if whole { integral(x, mods.round) } else { x })
}

fn encode(value: Value, to: Type, mods: Mods) -> u64 {
    if to.is_float() {
        encode_float(value, to, mods)
    } else {
        encode_int(value, to, mods.sat)
    }
}

fn encode_int(value: Value, to: Type, sat: bool) -> u64 {
    let bits = to.bytes() * 8;
    let (low, high) = if to.is_signed() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    let value = match value {
        // `as` saturates and converts NaN to zero, like `cvt`.
        Value::Float(x) => (x as i128).clamp(low, high),
        Value::Int(value) if sat => value.clamp(low, high),
        Value::Int(value) => value,
    };
    match to {
        Type::U8 => u64::from(value as u8),
        Type::S8 => value as i8 as u32 as u64,
        Type::U16 => u64::from(value as u16),
        Type::S16 => value as i16 as u32 as u64,
        Type::U32 | Type::S32 => u64::from(value as u32),
        _ => value as u64,
    }
}

fn encode_float(value: Value, to: Type, mods: Mods) -> u64 {
    let round = if mods.integral {
        Round::Near
    } else {
        mods.round
    };
    if to == Type::F64 {
        let x = match value {
            Value::Float(x) => x,
            // Both halves are exact, and their sum is rounded once.
            Value::Int(value) => add64(
                (value >> 32) as f64 * 4_294_967_296.0,
                (value & 0xffff_ffff) as f64,
                round,
            ),
        };
        return if mods.sat { clamp(x) } else { x }.to_bits();
    }
    let x = match value {
        Value::Float(x) => x,
        Value::Int(value) => sticky(value),
    };
    let x = if mods.sat { clamp(x) } else { x };
    let x = if mods.relu && x < 0.0 { 0.0 } else { x };
    let bits = Format::of(to).narrow(x, round);
    match to {
        Type::Tf32 => u64::from(bits << 13),
        Type::F32 if mods.ftz => u64::from(flush(f32::from_bits(bits)).to_bits()),
        _ => u64::from(bits),
    }
}

fn clamp(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// An integer as f64, rounded to odd, so that a second rounding gives the same result as a single one.
fn sticky(value: i128) -> f64 {
    let magnitude = value.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let kept = magnitude >> excess;
    let lost = magnitude != kept << excess;
    let x = (kept | u128::from(lost)) as f64 * 2f64.powi(excess as i32);
    if value < 0 { -x } else { x }
}
