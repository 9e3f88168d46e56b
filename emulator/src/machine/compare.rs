//! Comparison over lanes.

use super::lanes::{FULL, File};
use super::numeric::{Format, flush};
use super::op::{Classify, Compare, Comparison, Inst, Logic, Type};

/// The lanes for which `a compare b` holds.
#[inline(always)]
pub fn compare(file: &File, a: u32, b: u32, how: Comparison) -> u32 {
    let Comparison {
        compare, ty, ftz, ..
    } = how;
    match ty {
        Type::U32 | Type::U16 | Type::U8 => integers::<u32>(file, a, b, compare),
        Type::S32 => integers::<i32>(file, a, b, compare),
        Type::F32 => {
            let [lt, eq, gt, unordered] = float_order(compare);
            let prepare = |x| if ftz { flush(x) } else { x };
            file.test2::<f32>(a, b, |a, b| {
                let (a, b) = (prepare(a), prepare(b));
                let nan = unordered & (a.is_nan() | b.is_nan());
                (lt & (a < b)) | (eq & (a == b)) | (gt & (a > b)) | nan
            })
        }
        _ => others(file, a, b, compare, ty),
    }
}

#[inline(never)]
fn others(file: &File, a: u32, b: u32, compare: Compare, ty: Type) -> u32 {
    let [lt, eq, gt, unordered] = float_order(compare);
    let floats = |a: f64, b: f64| {
        let nan = unordered && (a.is_nan() || b.is_nan());
        (lt && a < b) || (eq && a == b) || (gt && a > b) || nan
    };
    match ty {
        Type::U64 => integers::<u64>(file, a, b, compare),
        Type::S64 => integers::<i64>(file, a, b, compare),
        Type::F64 => file.test2::<f64>(a, b, floats),
        Type::F16 | Type::Bf16 => {
            let wide = |x: u32| f64::from(Format::of(ty).widen(x & 0xffff));
            file.test2::<u32>(a, b, |a, b| floats(wide(a), wide(b)))
        }
        Type::S16 | Type::S8 => {
            let wide = |x: u32| f64::from(x as i16);
            file.test2::<u32>(a, b, |a, b| floats(wide(a), wide(b)))
        }
        _ => unreachable!("the decoder accepts no comparison of {ty:?}"),
    }
}

#[inline(always)]
fn integers<T: super::lanes::Lane + PartialOrd>(file: &File, a: u32, b: u32, how: Compare) -> u32 {
    match how {
        Compare::Eq => file.test2::<T>(a, b, |a, b| a == b),
        Compare::Ne => file.test2::<T>(a, b, |a, b| a != b),
        Compare::Lt => file.test2::<T>(a, b, |a, b| a < b),
        Compare::Le => file.test2::<T>(a, b, |a, b| a <= b),
        Compare::Gt => file.test2::<T>(a, b, |a, b| a > b),
        Compare::Ge => file.test2::<T>(a, b, |a, b| a >= b),
        Compare::Equ
        | Compare::Neu
        | Compare::Ltu
        | Compare::Leu
        | Compare::Gtu
        | Compare::Geu
        | Compare::Num
        | Compare::Nan => unreachable!("the decoder accepts {how:?} for floats only"),
    }
}

/// Which of less, equal and greater make a comparison true.
fn order(compare: Compare) -> [bool; 3] {
    match compare {
        Compare::Eq | Compare::Equ => [false, true, false],
        Compare::Ne | Compare::Neu => [true, false, true],
        Compare::Lt | Compare::Ltu => [true, false, false],
        Compare::Le | Compare::Leu => [true, true, false],
        Compare::Gt | Compare::Gtu => [false, false, true],
        Compare::Ge | Compare::Geu => [false, true, true],
        Compare::Num => [true, true, true],
        Compare::Nan => [false, false, false],
    }
}

/// The same, followed by whether unordered operands (at least one is NaN) make it true.
fn float_order(compare: Compare) -> [bool; 4] {
    let [lt, eq, gt] = order(compare);
    let unordered = matches!(
        compare,
        Compare::Equ
            | Compare::Neu
            | Compare::Ltu
            | Compare::Leu
            | Compare::Gtu
            | Compare::Geu
            | Compare::Nan
    );
    [lt, eq, gt, unordered]
}

/// The comparison's result combined with a predicate.
#[inline(always)]
pub fn combine(a: u32, b: u32, logic: Logic) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// `set`: all bits set, or 1.0 for f32, where the comparison holds; 0 elsewhere.
pub fn set(file: &mut File, mask: u32, inst: &Inst, how: Comparison, to: Type) {
    let holds = compare(file, inst.a, inst.b, how);
    let holds = match how.logic {
        Some(logic) => combine(holds, file.predicates[inst.c as usize], logic),
        None => holds,
    };
    let one = if to == Type::F32 {
        1f32.to_bits()
    } else {
        FULL
    };
    let out = std::array::from_fn(|lane| if holds >> lane & 1 == 1 { one } else { 0 });
    file.put::<u32>(inst.d, mask, &out);
}

/// `testp`: the lanes whose value is of a class. Zero counts as normal.
pub fn classify(file: &File, a: u32, kind: Classify, ty: Type) -> u32 {
    let test = |class: std::num::FpCategory| {
        use std::num::FpCategory::*;
        match kind {
            Classify::Finite => !matches!(class, Nan | Infinite),
            Classify::Infinite => class == Infinite,
            Classify::Number => class != Nan,
            Classify::NotANumber => class == Nan,
            Classify::Normal => class == Normal || class == Zero,
            Classify::Subnormal => class == Subnormal,
        }
    };
    if ty == Type::F64 {
        file.test2::<f64>(a, a, |x, _| test(x.classify()))
    } else {
        file.test2::<f32>(a, a, |x, _| test(x.classify()))
    }
}
