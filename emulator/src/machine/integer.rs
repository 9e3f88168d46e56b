//! Integer arithmetic, logic and operations on bits, over lanes. Registers hold 16-bit values
//! zero-extended to 32 bits.

use super::lanes::File;
use super::op::{Carry, CarryMad, Inst, Int1, Int2, Int3, Type};

#[inline(always)]
fn narrow(ty: Type) -> bool {
    ty.bytes() == 2
}

#[inline(always)]
fn sign16(x: u32) -> i32 {
    i32::from(x as u16 as i16)
}

/// An operation on two integers of at most 32 bits.
pub fn int32(file: &mut File, mask: u32, inst: &Inst, op: Int2, ty: Type) {
    let to = [inst.d, inst.a, inst.b];
    macro_rules! unsigned {
        ($f:expr) => {
            file.map2::<u32, u32, u32>(mask, to, $f)
        };
    }
    // A result that may need more than 16 bits is cut to 16.
    macro_rules! cut {
        ($f:expr) => {
            if narrow(ty) {
                file.map2::<u32, u32, u32>(mask, to, |a, b| $f(a, b) & 0xffff)
            } else {
                file.map2::<u32, u32, u32>(mask, to, $f)
            }
        };
    }
    macro_rules! signed {
        ($f:expr) => {
            if narrow(ty) {
                file.map2::<u32, u32, u32>(mask, to, |a, b| {
                    $f(sign16(a), sign16(b)) as u32 & 0xffff
                })
            } else {
                file.map2::<i32, i32, i32>(mask, to, $f)
            }
        };
    }
    let sign = ty.is_signed();
    let bits = ty.bytes() * 8;
    match op {
        Int2::Add => cut!(|a: u32, b: u32| a.wrapping_add(b)),
        Int2::Sub => cut!(|a: u32, b: u32| a.wrapping_sub(b)),
        Int2::Mul => cut!(|a: u32, b: u32| a.wrapping_mul(b)),
        Int2::MulHi if narrow(ty) && sign => file.map2::<u32, u32, u32>(mask, to, |a, b| {
            ((sign16(a) * sign16(b)) >> 16) as u32 & 0xffff
        }),
        Int2::MulHi if narrow(ty) => unsigned!(|a, b| (a * b) >> 16),
        Int2::MulHi if sign => file.map2::<i32, i32, i32>(mask, to, |a, b| {
            ((i64::from(a) * i64::from(b)) >> 32) as i32
        }),
        Int2::MulHi => unsigned!(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        Int2::Div if sign => signed!(|a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) }),
        Int2::Div => cut!(|a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX)),
        Int2::Rem if sign => signed!(|a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) }),
        Int2::Rem => unsigned!(|a, b| a.checked_rem(b).unwrap_or(a)),
        Int2::Min if sign => signed!(|a: i32, b: i32| a.min(b)),
        Int2::Min => unsigned!(|a, b| a.min(b)),
        Int2::Max if sign => signed!(|a: i32, b: i32| a.max(b)),
        Int2::Max => unsigned!(|a, b| a.max(b)),
        Int2::And => unsigned!(|a, b| a & b),
        Int2::Or => unsigned!(|a, b| a | b),
        Int2::Xor => unsigned!(|a, b| a ^ b),
        Int2::Shl => cut!(|a: u32, b: u32| if b < bits { a << (b & 31) } else { 0 }),
        Int2::Shr if sign && narrow(ty) => {
            file.map2::<u32, u32, u32>(mask, to, |a, b| (sign16(a) >> b.min(15)) as u32 & 0xffff)
        }
        Int2::Shr if sign => file.map2::<i32, u32, i32>(mask, to, |a, b| a >> b.min(31)),
        Int2::Shr => unsigned!(|a, b| if b < bits { a >> (b & 31) } else { 0 }),
        Int2::AddSat => file.map2::<i32, i32, i32>(mask, to, i32::saturating_add),
        Int2::SubSat => file.map2::<i32, i32, i32>(mask, to, i32::saturating_sub),
    }
}

/// An operation on two integers of 64 bits.
pub fn int64(file: &mut File, mask: u32, inst: &Inst, op: Int2, ty: Type) {
    let to = [inst.d, inst.a, inst.b];
    macro_rules! unsigned {
        ($f:expr) => {
            file.map2::<u64, u64, u64>(mask, to, $f)
        };
    }
    macro_rules! signed {
        ($f:expr) => {
            file.map2::<i64, i64, i64>(mask, to, $f)
        };
    }
    let sign = ty.is_signed();
    match op {
        Int2::Add => unsigned!(|a, b| a.wrapping_add(b)),
        Int2::Sub => unsigned!(|a, b| a.wrapping_sub(b)),
        Int2::Mul => unsigned!(|a, b| a.wrapping_mul(b)),
        Int2::MulHi if sign => signed!(|a, b| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        Int2::MulHi => unsigned!(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        Int2::Div if sign => signed!(|a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
        Int2::Div => unsigned!(|a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        Int2::Rem if sign => signed!(|a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
        Int2::Rem => unsigned!(|a, b| a.checked_rem(b).unwrap_or(a)),
        Int2::Min if sign => signed!(|a, b| a.min(b)),
        Int2::Min => unsigned!(|a, b| a.min(b)),
        Int2::Max if sign => signed!(|a, b| a.max(b)),
        Int2::Max => unsigned!(|a, b| a.max(b)),
        Int2::And => unsigned!(|a, b| a & b),
        Int2::Or => unsigned!(|a, b| a | b),
        Int2::Xor => unsigned!(|a, b| a ^ b),
        Int2::Shl => {
            file.map2::<u64, u32, u64>(mask, to, |a, b| if b < 64 { a << (b & 63) } else { 0 })
        }
        Int2::Shr if sign => file.map2::<i64, u32, i64>(mask, to, |a, b| a >> b.min(63)),
        Int2::Shr => {
            file.map2::<u64, u32, u64>(mask, to, |a, b| if b < 64 { a >> (b & 63) } else { 0 })
        }
        Int2::AddSat => signed!(i64::saturating_add),
        Int2::SubSat => signed!(i64::saturating_sub),
    }
}

/// The index of the highest bit that differs from the sign.
fn leading(x: u64, bits: u32, signed: bool) -> Option<u32> {
    let top = x << (64 - bits);
    let value = if signed && (top as i64) < 0 {
        !top >> (64 - bits)
    } else {
        top >> (64 - bits)
    };
    (value != 0).then(|| 63 - value.leading_zeros())
}

fn bfind(x: u64, bits: u32, signed: bool, shift: bool) -> u32 {
    match leading(x, bits, signed) {
        Some(at) if shift => bits - 1 - at,
        Some(at) => at,
        None => u32::MAX,
    }
}

/// An operation on one integer of at most 32 bits.
pub fn int32_unary(file: &mut File, mask: u32, inst: &Inst, op: Int1, ty: Type) {
    let Inst { d, a, .. } = *inst;
    let cut = if narrow(ty) { 0xffff } else { u32::MAX };
    match op {
        Int1::Not => file.map1(mask, d, a, |x: u32| !x & cut),
        Int1::Neg => file.map1(mask, d, a, |x: u32| x.wrapping_neg() & cut),
        Int1::Abs if narrow(ty) => {
            file.map1(mask, d, a, |x: u32| sign16(x).unsigned_abs() & 0xffff)
        }
        Int1::Abs => file.map1(mask, d, a, |x: i32| x.wrapping_abs()),
        Int1::Cnot => file.map1(mask, d, a, |x: u32| u32::from(x == 0)),
        Int1::Clz => file.map1(mask, d, a, |x: u32| x.leading_zeros()),
        Int1::Popc => file.map1(mask, d, a, |x: u32| x.count_ones()),
        Int1::Brev => file.map1(mask, d, a, |x: u32| x.reverse_bits()),
        Int1::Bfind | Int1::BfindShift => file.map1(mask, d, a, |x: u32| {
            bfind(u64::from(x), 32, ty.is_signed(), op == Int1::BfindShift)
        }),
    }
}

/// An operation on one integer of 64 bits.
pub fn int64_unary(file: &mut File, mask: u32, inst: &Inst, op: Int1, ty: Type) {
    let Inst { d, a, .. } = *inst;
    match op {
        Int1::Not => file.map1(mask, d, a, |x: u64| !x),
        Int1::Neg => file.map1(mask, d, a, |x: u64| x.wrapping_neg()),
        Int1::Abs => file.map1(mask, d, a, |x: i64| x.wrapping_abs()),
        Int1::Cnot => file.map1(mask, d, a, |x: u64| u64::from(x == 0)),
        Int1::Clz => file.map1(mask, d, a, |x: u64| x.leading_zeros()),
        Int1::Popc => file.map1(mask, d, a, |x: u64| x.count_ones()),
        Int1::Brev => file.map1(mask, d, a, |x: u64| x.reverse_bits()),
        Int1::Bfind | Int1::BfindShift => file.map1(mask, d, a, |x: u64| {
            bfind(x, 64, ty.is_signed(), op == Int1::BfindShift)
        }),
    }
}

/// A field of `length` bits from `at`; its sign fills the bits above it.
fn extract(x: u64, at: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (at, length) = (at & 0xff, length & 0xff);
    let taken = if at < bits { length.min(bits - at) } else { 0 };
    let field = if taken == 0 {
        0
    } else {
        x >> at & u64::MAX >> (64 - taken)
    };
    let negative = signed && length > 0 && x >> (at + length - 1).min(bits - 1) & 1 == 1;
    if negative && taken < 64 {
        field | u64::MAX << taken
    } else {
        field
    }
}

/// An operation on three integers of at most 32 bits.
pub fn int32_ternary(file: &mut File, mask: u32, inst: &Inst, op: Int3, ty: Type) {
    let to = [inst.d, inst.a, inst.b, inst.c];
    let sign = ty.is_signed();
    macro_rules! unsigned {
        ($f:expr) => {
            file.map3::<u32, u32, u32, u32>(mask, to, $f)
        };
    }
    match op {
        Int3::Mad if narrow(ty) => unsigned!(|a, b, c| (a * b).wrapping_add(c) & 0xffff),
        Int3::Mad => unsigned!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        Int3::MadHi if narrow(ty) => unsigned!(|a, b, c| {
            let high = if sign {
                (sign16(a) * sign16(b)) as u32 >> 16
            } else {
                (a * b) >> 16
            };
            high.wrapping_add(c) & 0xffff
        }),
        Int3::MadHi => unsigned!(|a, b, c| {
            let high = if sign {
                ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
            } else {
                ((u64::from(a) * u64::from(b)) >> 32) as u32
            };
            high.wrapping_add(c)
        }),
        Int3::Sad => unsigned!(|a, b, c| {
            let distance = match (sign, narrow(ty)) {
                (true, true) => sign16(a).abs_diff(sign16(b)),
                (true, false) => (a as i32).abs_diff(b as i32),
                (false, _) => a.abs_diff(b),
            };
            let sum = c.wrapping_add(distance);
            if narrow(ty) { sum & 0xffff } else { sum }
        }),
        Int3::Bfe => unsigned!(|a, b, c| extract(u64::from(a), b, c, 32, sign) as u32),
        Int3::ShfLeftWrap => unsigned!(|a, b, c| (pair(a, b) << (c & 31) >> 32) as u32),
        Int3::ShfLeftClamp => unsigned!(|a, b, c| (pair(a, b) << c.min(32) >> 32) as u32),
        Int3::ShfRightWrap => unsigned!(|a, b, c| (pair(a, b) >> (c & 31)) as u32),
        Int3::ShfRightClamp => unsigned!(|a, b, c| (pair(a, b) >> c.min(32)) as u32),
        Int3::Dp4a => unsigned!(|a: u32, b: u32, c: u32| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            (0..4).fold(c, |sum, at| {
                let product = if sign {
                    i32::from(a[at] as i8) * i32::from(b[at] as i8)
                } else {
                    i32::from(a[at]) * i32::from(b[at])
                };
                sum.wrapping_add(product as u32)
            })
        }),
        Int3::Dp2aLow => unsigned!(|a: u32, b: u32, c: u32| dp2a(a, b, c, sign)),
        Int3::Dp2aHigh => unsigned!(|a: u32, b: u32, c: u32| dp2a(a, b >> 16, c, sign)),
    }
}

/// c and the products of the two halves of a with the two low bytes of b.
fn dp2a(a: u32, b: u32, c: u32, sign: bool) -> u32 {
    (0..2).fold(c, |sum, at| {
        let (half, byte) = ((a >> (16 * at)) as u16, (b >> (8 * at)) as u8);
        sum.wrapping_add(match sign {
            true => (i32::from(half as i16) * i32::from(byte as i8)) as u32,
            false => u32::from(half) * u32::from(byte),
        })
    })
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// An operation on three integers of 64 bits.
pub fn int64_ternary(file: &mut File, mask: u32, inst: &Inst, op: Int3, ty: Type) {
    let to = [inst.d, inst.a, inst.b, inst.c];
    let sign = ty.is_signed();
    match op {
        Int3::Bfe => {
            file.map3::<u64, u32, u32, u64>(mask, to, |a, b, c| extract(a, b, c, 64, sign))
        }
        Int3::Mad => {
            file.map3::<u64, u64, u64, u64>(mask, to, |a, b, c| a.wrapping_mul(b).wrapping_add(c))
        }
        Int3::MadHi => {
            file.map3::<u64, u64, u64, u64>(mask, to, |a, b, c| high64(a, b, sign).wrapping_add(c))
        }
        Int3::Sad => file.map3::<u64, u64, u64, u64>(mask, to, |a, b, c| {
            let distance = if sign {
                (a as i64).abs_diff(b as i64)
            } else {
                a.abs_diff(b)
            };
            c.wrapping_add(distance)
        }),
        Int3::ShfLeftWrap
        | Int3::ShfLeftClamp
        | Int3::ShfRightWrap
        | Int3::ShfRightClamp
        | Int3::Dp4a
        | Int3::Dp2aLow
        | Int3::Dp2aHigh => unreachable!("the decoder accepts {op:?} for 32 bits only"),
    }
}

fn high64(a: u64, b: u64, sign: bool) -> u64 {
    if sign {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    } else {
        ((u128::from(a) * u128::from(b)) >> 64) as u64
    }
}

/// `mul.wide`: the product of two factors, in twice their width.
pub fn mul_wide(file: &mut File, mask: u32, inst: &Inst, ty: Type) {
    let to = [inst.d, inst.a, inst.b];
    match ty {
        Type::S16 => file.map2::<u32, u32, i32>(mask, to, |a, b| sign16(a) * sign16(b)),
        Type::U16 => file.map2::<u32, u32, u32>(mask, to, |a, b| a * b),
        Type::S32 => file.map2::<i32, i32, i64>(mask, to, |a, b| i64::from(a) * i64::from(b)),
        Type::U32 => file.map2::<u32, u32, u64>(mask, to, |a, b| u64::from(a) * u64::from(b)),
        _ => unreachable!("the decoder accepts no mul.wide of {ty:?}"),
    }
}

/// `mad.wide`: the same plus an addend of twice the width.
pub fn mad_wide(file: &mut File, mask: u32, inst: &Inst, ty: Type) {
    let to = [inst.d, inst.a, inst.b, inst.c];
    match ty {
        Type::S16 => file.map3::<u32, u32, i32, i32>(mask, to, |a, b, c| {
            (sign16(a) * sign16(b)).wrapping_add(c)
        }),
        Type::U16 => file.map3::<u32, u32, u32, u32>(mask, to, |a, b, c| (a * b).wrapping_add(c)),
        Type::S32 => file.map3::<i32, i32, i64, i64>(mask, to, |a, b, c| {
            (i64::from(a) * i64::from(b)).wrapping_add(c)
        }),
        Type::U32 => file.map3::<u32, u32, u64, u64>(mask, to, |a, b, c| {
            (u64::from(a) * u64::from(b)).wrapping_add(c)
        }),
        _ => unreachable!("the decoder accepts no mad.wide of {ty:?}"),
    }
}

/// `lop3`: the result's bit is bit `4a + 2b + c` of the table.
pub fn lop3(file: &mut File, mask: u32, inst: &Inst, table: u8) {
    let on = |bit: u8| if table >> bit & 1 == 1 { u32::MAX } else { 0 };
    let t: [u32; 8] = std::array::from_fn(|bit| on(bit as u8));
    file.map3::<u32, u32, u32, u32>(mask, [inst.d, inst.a, inst.b, inst.c], |a, b, c| {
        let low = (!b & !c & t[0]) | (!b & c & t[1]) | (b & !c & t[2]) | (b & c & t[3]);
        let high = (!b & !c & t[4]) | (!b & c & t[5]) | (b & !c & t[6]) | (b & c & t[7]);
        (!a & low) | (a & high)
    });
}

/// `prmt`: bytes of a pair of registers, chosen by the mode of its opcode: default, f4e, b4e,
/// rc8, ecl, ecr, rc16.
pub fn prmt(file: &mut File, mask: u32, inst: &Inst, mode: u8) {
    file.map3::<u32, u32, u32, u32>(mask, [inst.d, inst.a, inst.b, inst.c], |a, b, c| {
        let source = pair(a, b);
        let byte = |selector: u32| {
            let byte = (source >> (8 * (selector & 7))) as u8;
            if selector & 8 == 0 {
                byte
            } else {
                ((byte as i8) >> 7) as u8
            }
        };
        let at = c & 3;
        let select = |lane: u32| match mode {
            0 => c >> (4 * lane) & 15,
            1 => at + lane,
            2 => at.wrapping_sub(lane) & 7,
            3 => at,
            4 => lane.max(at),
            5 => lane.min(at),
            6 => (lane & 1) | (at & 1) << 1,
            _ => unreachable!("the decoder knows modes 0 to 6"),
        };
        u32::from_le_bytes(std::array::from_fn(|lane| byte(select(lane as u32))))
    });
}

/// The slots of an instruction with `N` operands.
fn operands<const N: usize>(slots: &[u32]) -> [u32; N] {
    slots
        .try_into()
        .expect("the decoder gives every operand a slot")
}

/// `bfi`: the low `length` bits of `a` replace those of `b` from bit `at`. Slots are d, a, b, at,
/// length.
pub fn bfi(file: &mut File, mask: u32, slots: &[u32], ty: Type) {
    let [d, a, b, at, length] = operands(slots);
    let (at, length) = (*file.get::<u32>(at), *file.get::<u32>(length));
    let bits = ty.bytes() * 8;
    let insert = |a: u64, b: u64, lane: usize| {
        let (at, length) = (at[lane] & 0xff, length[lane] & 0xff);
        if length == 0 || at >= bits {
            return b;
        }
        let field = (u64::MAX >> (64 - length.min(64))) << at;
        b & !field | a << at & field
    };
    if bits == 64 {
        let (a, b) = (file.get::<u64>(a), file.get::<u64>(b));
        let out = std::array::from_fn(|lane| insert(a[lane], b[lane], lane));
        file.put::<u64>(d, mask, &out);
    } else {
        let (a, b) = (file.get::<u32>(a), file.get::<u32>(b));
        let out =
            std::array::from_fn(|lane| insert(u64::from(a[lane]), u64::from(b[lane]), lane) as u32);
        file.put::<u32>(d, mask, &out);
    }
}

/// `add.cc` and its kind: slots are d, carry out, a, b, carry in.
pub fn carry(file: &mut File, mask: u32, slots: &[u32], how: Carry) {
    let [d, carry_to, a, b, carry_from] = operands(slots);
    let Carry {
        ty,
        subtract,
        carry_in,
        carry_out,
    } = how;
    let carried = if carry_in {
        file.predicates[carry_from as usize]
    } else {
        0
    };
    let (a, b) = (wide(file, a, ty), wide(file, b, ty));
    let bits = ty.bytes() * 8;
    let mut out = [0u64; 32];
    let mut carry = 0;
    for lane in 0..32 {
        let one = u128::from(carried >> lane & 1);
        let (x, y) = (u128::from(a[lane]), u128::from(b[lane]));
        let sum = if subtract {
            x.wrapping_sub(y).wrapping_sub(one)
        } else {
            x + y + one
        };
        out[lane] = sum as u64;
        carry |= ((sum >> bits & 1) as u32) << lane;
    }
    put_wide(file, d, mask, ty, &out);
    if carry_out {
        file.put_predicate(carry_to, mask, carry);
    }
}

/// `mad.lo.cc` and its kind: slots are d, carry out, a, b, c, carry in.
pub fn carry_mad(file: &mut File, mask: u32, slots: &[u32], how: CarryMad) {
    let [d, carry_to, a, b, c, carry_from] = operands(slots);
    let CarryMad {
        ty,
        high,
        carry_in,
        carry_out,
    } = how;
    let carried = if carry_in {
        file.predicates[carry_from as usize]
    } else {
        0
    };
    let (a, b, c) = (wide(file, a, ty), wide(file, b, ty), wide(file, c, ty));
    let bits = ty.bytes() * 8;
    let (mut out, mut carry) = ([0u64; 32], 0);
    for lane in 0..32 {
        let product = match (bits, high) {
            (64, true) => high64(a[lane], b[lane], ty.is_signed()),
            (_, false) => a[lane].wrapping_mul(b[lane]) & (u64::MAX >> (64 - bits)),
            _ if ty.is_signed() => {
                ((i64::from(a[lane] as i32) * i64::from(b[lane] as i32)) >> 32) as u32 as u64
            }
            _ => (a[lane] * b[lane]) >> 32,
        };
        let sum = u128::from(product) + u128::from(c[lane]) + u128::from(carried >> lane & 1);
        out[lane] = sum as u64;
        carry |= ((sum >> bits & 1) as u32) << lane;
    }
    put_wide(file, d, mask, ty, &out);
    if carry_out {
        file.put_predicate(carry_to, mask, carry);
    }
}

fn wide(file: &File, slot: u32, ty: Type) -> [u64; 32] {
    if ty.bytes() == 8 {
        *file.get::<u64>(slot)
    } else {
        file.get::<u32>(slot).map(u64::from)
    }
}

fn put_wide(file: &mut File, slot: u32, mask: u32, ty: Type, values: &[u64; 32]) {
    if ty.bytes() == 8 {
        file.put::<u64>(slot, mask, values);
    } else {
        file.put::<u32>(slot, mask, &values.map(|value| value as u32));
    }
}
