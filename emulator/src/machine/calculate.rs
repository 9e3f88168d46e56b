//! Instructions that only read and write registers.

use super::cta::Warp;
use super::engine::{Engine, LOCAL, PARAM, SHARED, WINDOW};
use super::lanes::{FULL, File, LANES, Lane, lanes};
use super::op::{Clock, Comparison, Inst, Int2, Int3, Op, Place, Type};
use super::{compare, convert, float, integer};

/// Integer operations that have a loop of their own in [`often`].
#[inline(always)]
fn hot(op: Int2) -> bool {
    matches!(
        op,
        Int2::Sub | Int2::Mul | Int2::And | Int2::Or | Int2::Xor | Int2::Shl
    )
}

/// Executes an instruction that only reads and writes registers. Frequent ones are inlined into
/// the instruction loop.
#[inline(always)]
pub fn calculate(engine: &Engine, warp: &mut Warp, mask: u32, inst: &Inst) {
    let file = &mut warp.file;
    let Inst { d, a, b, c, .. } = *inst;
    let more = |count: usize| &engine.field.code.more[d as usize..][..count];
    match inst.op {
        Op::Mov32 => file.map1(mask, d, a, |x: u32| x),
        Op::Mov64 => file.map1(mask, d, a, |x: u64| x),
        Op::Add32 => file.map2(mask, [d, a, b], |a: u32, b: u32| a.wrapping_add(b)),
        Op::FmaF32 => file.map3(mask, [d, a, b, c], |a: f32, b: f32, c: f32| a.mul_add(b, c)),
        Op::AddF32 => file.map2(mask, [d, a, b], |a: f32, b: f32| a + b),
        Op::MulF32 => file.map2(mask, [d, a, b], |a: f32, b: f32| a * b),
        Op::Int32(op, Type::U32 | Type::S32) if hot(op) => often(file, mask, [d, a, b], op),
        Op::Int64(Int2::Add, _) => {
            file.map2(mask, [d, a, b], |a: u64, b: u64| a.wrapping_add(b));
        }
        Op::Int32Tern(Int3::Mad, Type::U32 | Type::S32) => {
            file.map3(mask, [d, a, b, c], |a: u32, b: u32, c: u32| {
                a.wrapping_mul(b).wrapping_add(c)
            });
        }
        Op::MulWide(Type::S32) => {
            file.map2(mask, [d, a, b], |a: i32, b: i32| {
                i64::from(a) * i64::from(b)
            });
        }
        Op::SignExtend32 => file.map1(mask, d, a, |x: i32| i64::from(x)),
        Op::ZeroExtend32 => file.map1(mask, d, a, |x: u32| u64::from(x)),
        Op::Truncate64 => file.map1(mask, d, a, |x: u64| x as u32),
        Op::Selp32 => select::<u32>(file, mask, inst),
        Op::Selp64 => select::<u64>(file, mask, inst),
        Op::Setp(how, false) => set_one(file, mask, inst, how),
        Op::PredLogic(logic) => {
            let (a, b) = (file.predicates[a as usize], file.predicates[b as usize]);
            file.put_predicate(d, mask, compare::combine(a, b, logic));
        }
        Op::PredNot => file.put_predicate(d, mask, !file.predicates[a as usize]),
        Op::PredMov => file.put_predicate(d, mask, file.predicates[a as usize]),
        Op::Pack { bits: 16, count: 2 } => {
            let slots = more(3);
            file.map2(mask, [slots[0], slots[1], slots[2]], |a: u32, b: u32| {
                a & 0xffff | b << 16
            });
        }
        Op::Unpack { bits: 16, count: 2 } => {
            let slots = more(3);
            let x = *file.get::<u32>(slots[2]);
            file.put::<u32>(slots[0], mask, &x.map(|x| x & 0xffff));
            file.put::<u32>(slots[1], mask, &x.map(|x| x >> 16));
        }
        _ => seldom(engine, warp, mask, inst),
    }
}

/// The operations of [`hot`] on 32 bits.
#[inline(always)]
fn often(file: &mut File, mask: u32, to: [u32; 3], op: Int2) {
    match op {
        Int2::Sub => file.map2(mask, to, |a: u32, b: u32| a.wrapping_sub(b)),
        Int2::Mul => file.map2(mask, to, |a: u32, b: u32| a.wrapping_mul(b)),
        Int2::And => file.map2(mask, to, |a: u32, b: u32| a & b),
        Int2::Or => file.map2(mask, to, |a: u32, b: u32| a | b),
        Int2::Xor => file.map2(mask, to, |a: u32, b: u32| a ^ b),
        Int2::Shl => file.map2(mask, to, |a: u32, b: u32| if b < 32 { a << b } else { 0 }),
        Int2::Add
        | Int2::MulHi
        | Int2::Div
        | Int2::Rem
        | Int2::Min
        | Int2::Max
        | Int2::Shr
        | Int2::AddSat
        | Int2::SubSat => unreachable!("{op:?} is not a frequent operation"),
    }
}

/// `selp`.
#[inline(always)]
fn select<T: Lane>(file: &mut File, mask: u32, inst: &Inst) {
    let chosen = file.predicates[inst.c as usize];
    let (x, y) = (file.get::<T>(inst.a), file.get::<T>(inst.b));
    let mut out = [T::default(); LANES];
    for lane in 0..LANES {
        out[lane] = if chosen >> lane & 1 == 1 {
            x[lane]
        } else {
            y[lane]
        };
    }
    file.put::<T>(inst.d, mask, &out);
}

/// `setp` with one predicate as its result.
#[inline(always)]
fn set_one(file: &mut File, mask: u32, inst: &Inst, how: Comparison) {
    let holds = compare::compare(file, inst.a, inst.b, how);
    let holds = match how.logic {
        Some(logic) => compare::combine(holds, file.predicates[inst.c as usize], logic),
        None => holds,
    };
    file.put_predicate(inst.d, mask, holds);
}

/// `setp` with two predicates: the comparison and its opposite.
fn set_two(file: &mut File, mask: u32, how: Comparison, slots: &[u32]) {
    let holds = compare::compare(file, slots[2], slots[3], how);
    let with = how
        .logic
        .map(|logic| (logic, file.predicates[slots[4] as usize]));
    let join = |holds| match with {
        Some((logic, with)) => compare::combine(holds, with, logic),
        None => holds,
    };
    file.put_predicate(slots[0], mask, join(holds));
    file.put_predicate(slots[1], mask, join(!holds));
}

/// The less frequent instructions.
#[inline(never)]
fn seldom(engine: &Engine, warp: &mut Warp, mask: u32, inst: &Inst) {
    let file = &mut warp.file;
    let Inst { d, a, .. } = *inst;
    let more = |count: usize| &engine.field.code.more[d as usize..][..count];
    match inst.op {
        Op::Nop => {}
        Op::Int32(op, ty) => integer::int32(file, mask, inst, op, ty),
        Op::Int64(op, ty) => integer::int64(file, mask, inst, op, ty),
        Op::Int32Tern(op, ty) => integer::int32_ternary(file, mask, inst, op, ty),
        Op::MulWide(ty) => integer::mul_wide(file, mask, inst, ty),
        Op::MadWide(ty) => integer::mad_wide(file, mask, inst, ty),
        Op::Lop3(table) => integer::lop3(file, mask, inst, table),
        Op::Float32(op, mods) => float::float32(file, mask, inst, op, mods),
        Op::Fma32(mods) => float::fma32(file, mask, inst, mods),
        Op::Int32Un(op, ty) => integer::int32_unary(file, mask, inst, op, ty),
        Op::Int64Un(op, ty) => integer::int64_unary(file, mask, inst, op, ty),
        Op::Int64Tern(op, ty) => integer::int64_ternary(file, mask, inst, op, ty),
        Op::Prmt(mode) => integer::prmt(file, mask, inst, mode),
        Op::Bfi(ty) => integer::bfi(file, mask, more(5), ty),
        Op::Carry(how) => integer::carry(file, mask, more(5), how),
        Op::CarryMad(how) => integer::carry_mad(file, mask, more(6), how),
        Op::Float64(op, mods) => float::float64(file, mask, inst, op, mods),
        Op::Float32Un(op, mods) => float::float32_unary(file, mask, inst, op, mods),
        Op::Float64Un(op, mods) => float::float64_unary(file, mask, inst, op, mods),
        Op::Fma64(_) => float::fma64(file, mask, inst),
        Op::Half2(op, ty, mods) => float::half2(file, mask, inst, op, ty, mods),
        Op::Half1(op, ty, mods) => float::half1(file, mask, inst, op, ty, mods),
        Op::HalfFma(ty, mods) => float::half_fma(file, mask, inst, ty, mods),
        Op::Testp(kind, ty) => {
            let holds = compare::classify(file, a, kind, ty);
            file.put_predicate(d, mask, holds);
        }
        Op::Convert { to, from, mods } => convert::convert(file, mask, inst, to, from, mods),
        Op::ConvertPair { to, mods } => convert::convert_pair(file, mask, inst, to, mods),
        Op::Slct { ty, float } if ty.bytes() == 8 => select_by_sign::<u64>(file, mask, inst, float),
        Op::Slct { float, .. } => select_by_sign::<u32>(file, mask, inst, float),
        Op::Setp(how, _) => set_two(file, mask, how, more(4 + usize::from(how.logic.is_some()))),
        Op::Set(how, to) => compare::set(file, mask, inst, how, to),
        Op::Pack { bits, count } => pack(warp, mask, bits, more(1 + count as usize)),
        Op::Unpack { bits, count } => unpack(warp, mask, bits, more(1 + count as usize)),
        Op::ToGeneric(place) => {
            let window = window(place);
            file.map1(mask, d, a, |x: u64| x | window);
        }
        Op::FromGeneric(_) => file.map1(mask, d, a, |x: u64| x & !WINDOW),
        Op::IsSpace(place) => is_space(file, mask, inst, window(place)),
        Op::Activemask => file.put::<u32>(d, mask, &[mask; LANES]),
        Op::ReadClock(clock) => read_clock(engine, file, mask, d, clock),
        op => refuse(op),
    }
}

/// An operation that no function executes is an error of the emulator, never skipped.
#[cold]
fn refuse(op: Op) -> ! {
    unreachable!("the emulator has no code that executes {op:?}")
}

/// `slct`: the first value where the third operand is not negative, else the second.
fn select_by_sign<T: Lane>(file: &mut File, mask: u32, inst: &Inst, float: bool) {
    let first: [bool; LANES] = if float {
        file.get::<f32>(inst.c).map(|x| x >= 0.0)
    } else {
        file.get::<i32>(inst.c).map(|x| x >= 0)
    };
    let (x, y) = (file.get::<T>(inst.a), file.get::<T>(inst.b));
    let out = std::array::from_fn(|lane| if first[lane] { x[lane] } else { y[lane] });
    file.put::<T>(inst.d, mask, &out);
}

/// `isspacep`: whether a generic address lies in a window; `wanted` 0 means global memory.
fn is_space(file: &mut File, mask: u32, inst: &Inst, wanted: u64) {
    let is = file.get::<u64>(inst.a).map(|x| match x & WINDOW {
        found @ (SHARED | LOCAL | PARAM) => found == wanted,
        _ => wanted == 0,
    });
    let holds = lanes(FULL)
        .filter(|&lane| is[lane])
        .fold(0, |holds, lane| holds | 1 << lane);
    file.put_predicate(inst.d, mask, holds);
}

fn read_clock(engine: &Engine, file: &mut File, mask: u32, d: u32, clock: Clock) {
    let now = engine.field.started.elapsed().as_nanos() as u64;
    match clock {
        Clock::Cycles32 => file.put::<u32>(d, mask, &[now as u32; LANES]),
        Clock::Cycles64 | Clock::Nanoseconds => file.put::<u64>(d, mask, &[now; LANES]),
    }
}

/// The window of generic addresses that a space lies in.
fn window(place: Place) -> u64 {
    match place {
        Place::Shared => SHARED,
        Place::Local => LOCAL,
        Place::Param => PARAM,
        Place::Global | Place::Generic => 0,
    }
}

/// Slots: the whole, then its parts, lowest first.
fn pack(warp: &mut Warp, mask: u32, bits: u8, slots: &[u32]) {
    let (d, parts) = (slots[0], &slots[1..]);
    let mut out = [0u64; LANES];
    for (at, &slot) in parts.iter().enumerate() {
        let part = warp.file.get::<u32>(slot);
        for lane in 0..LANES {
            let value = u64::from(part[lane]) & (u64::MAX >> (64 - u32::from(bits)));
            out[lane] |= value << (u32::from(bits) * at as u32);
        }
    }
    if bits as usize * parts.len() == 64 {
        warp.file.put::<u64>(d, mask, &out);
    } else {
        warp.file.put::<u32>(d, mask, &out.map(|x| x as u32));
    }
}

/// Slots: the parts, lowest first, then the whole.
fn unpack(warp: &mut Warp, mask: u32, bits: u8, slots: &[u32]) {
    let (whole, parts) = (slots[slots.len() - 1], &slots[..slots.len() - 1]);
    let whole: [u64; LANES] = if bits as usize * parts.len() == 64 {
        *warp.file.get::<u64>(whole)
    } else {
        warp.file.get::<u32>(whole).map(u64::from)
    };
    let low = (u64::MAX >> (64 - u32::from(bits))) as u32;
    for (at, &slot) in parts.iter().enumerate() {
        let out = whole.map(|x| (x >> (u32::from(bits) * at as u32)) as u32 & low);
        warp.file.put::<u32>(slot, mask, &out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no code that executes Fence")]
    fn an_operation_without_code_is_refused_by_name() {
        refuse(Op::Fence);
    }
}
