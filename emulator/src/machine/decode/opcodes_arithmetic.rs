//! Decodes the opcodes of integer and float arithmetic.

use super::super::op::*;
use super::Result;
use super::builder::Builder;
use super::names::{Class, Reg};
use super::words::{Words, int2};
use crate::ptx::Operand;

/// An operation on one integer, at the width of its type.
fn unary(op: Int1, ty: Type) -> Op {
    if ty.bytes() == 8 {
        Op::Int64Un(op, ty)
    } else {
        Op::Int32Un(op, ty)
    }
}

/// An operation on two integers, at the width of their type.
fn binary(op: Int2, ty: Type) -> Op {
    if ty.bytes() == 8 {
        Op::Int64(op, ty)
    } else {
        Op::Int32(op, ty)
    }
}

/// An operation on three integers, at the width of their type.
fn ternary(op: Int3, ty: Type) -> Op {
    if ty.bytes() == 8 {
        Op::Int64Tern(op, ty)
    } else {
        Op::Int32Tern(op, ty)
    }
}

/// The operation on one integer that an opcode names.
fn int1(words: &Words) -> Option<Int1> {
    Some(match words.list[0] {
        "neg" => Int1::Neg,
        "abs" => Int1::Abs,
        "not" => Int1::Not,
        "cnot" => Int1::Cnot,
        "brev" => Int1::Brev,
        "clz" => Int1::Clz,
        "popc" => Int1::Popc,
        "bfind" if words.has("shiftamt") => Int1::BfindShift,
        "bfind" => Int1::Bfind,
        _ => return None,
    })
}

/// The operation on floats that an opcode names, by the number of operands.
fn float1(word: &str) -> Option<Float1> {
    Some(match word {
        "abs" => Float1::Abs,
        "neg" => Float1::Neg,
        "rcp" => Float1::Rcp,
        "sqrt" => Float1::Sqrt,
        "rsqrt" => Float1::Rsqrt,
        "sin" => Float1::Sin,
        "cos" => Float1::Cos,
        "lg2" => Float1::Lg2,
        "ex2" => Float1::Ex2,
        "tanh" => Float1::Tanh,
        _ => return None,
    })
}

fn float2(word: &str) -> Option<Float2> {
    Some(match word {
        "add" => Float2::Add,
        "sub" => Float2::Sub,
        "mul" => Float2::Mul,
        "div" => Float2::Div,
        "min" => Float2::Min,
        "max" => Float2::Max,
        "copysign" => Float2::CopySign,
        _ => return None,
    })
}

impl Builder<'_> {
    /// Integer arithmetic, logic and operations on bits.
    pub fn arithmetic(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let word = words.list[0];
        let Some(&ty) = words.types().last() else {
            return Ok(false);
        };
        if ty.is_float() {
            return Ok(false);
        }
        if words.has("cc") || matches!(word, "addc" | "subc" | "madc") {
            return self.carried(words, operands, ty);
        }
        if ty == Type::Pred {
            return Ok(false);
        }
        if let Some(op) = int1(words) {
            self.same(unary(op, ty), operands, 1, ty)?;
            return Ok(true);
        }
        match word {
            "shl" | "shr" => self.shift(words, operands, ty)?,
            "add" | "sub" if words.has("sat") => return self.saturating(words, operands, ty),
            "add" if ty.bytes() == 4 => self.same(Op::Add32, operands, 2, ty)?,
            "mul" | "mad" if words.has("wide") => return self.wide(words, operands, ty),
            "mul" => {
                let high = words.has("hi");
                let op = if high { Int2::MulHi } else { Int2::Mul };
                self.same(binary(op, ty), operands, 2, ty)?;
            }
            "mul24" if words.has("lo") => self.mul24(operands, ty)?,
            "mad" => {
                let high = words.has("hi");
                let op = if high { Int3::MadHi } else { Int3::Mad };
                self.same(ternary(op, ty), operands, 3, ty)?;
            }
            "sad" => self.same(ternary(Int3::Sad, ty), operands, 3, ty)?,
            "bfe" | "bfi" => self.bit_field(words, operands, ty)?,
            "shf" | "dp4a" | "dp2a" | "prmt" | "lop3" => return self.words32(words, operands, ty),
            _ => match int2(word) {
                Some(op) => self.same(binary(op, ty), operands, 2, ty)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// `shl` and `shr`.
    fn shift(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<()> {
        let left = words.list[0] == "shl";
        let op = binary(if left { Int2::Shl } else { Int2::Shr }, ty);
        let a = self.src(operands, 1, ty)?;
        let b = self.src(operands, 2, Type::U32)?;
        let d = self.dst(operands, 0)?;
        self.emit(op, vec![d], vec![a, b]);
        Ok(())
    }

    /// `add.sat` and `sub.sat`.
    fn saturating(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<bool> {
        if ty != Type::S32 {
            return Ok(false);
        }
        let add = words.list[0] == "add";
        let op = if add { Int2::AddSat } else { Int2::SubSat };
        self.same(binary(op, ty), operands, 2, ty)?;
        Ok(true)
    }

    /// `mul24.lo`: the product of the low 24 bits of each operand.
    fn mul24(&mut self, operands: &[Operand], ty: Type) -> Result<()> {
        let shift = self.constant(Initial::Const32(8));
        let cut = |builder: &mut Self, at| -> Result<Reg> {
            let (up, down) = (builder.fresh(Class::W32), builder.fresh(Class::W32));
            let reg = builder.src(operands, at, ty)?;
            let src = vec![reg, shift];
            builder.emit_always(Op::Int32(Int2::Shl, Type::U32), vec![up], src);
            builder.emit_always(Op::Int32(Int2::Shr, ty), vec![down], vec![up, shift]);
            Ok(down)
        };
        let (a, b) = (cut(self, 1)?, cut(self, 2)?);
        let d = self.dst(operands, 0)?;
        self.emit(Op::Int32(Int2::Mul, ty), vec![d], vec![a, b]);
        Ok(())
    }

    /// `bfe` and `bfi`.
    fn bit_field(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<()> {
        let mut src = vec![self.src(operands, 1, ty)?];
        let (op, first) = if words.list[0] == "bfi" {
            src.push(self.src(operands, 2, ty)?);
            (Op::Bfi(ty), 3)
        } else {
            (ternary(Int3::Bfe, ty), 2)
        };
        src.push(self.src(operands, first, Type::U32)?);
        src.push(self.src(operands, first + 1, Type::U32)?);
        let d = self.dst(operands, 0)?;
        self.emit(op, vec![d], src);
        Ok(())
    }

    /// Operations of three operands that exist for 32 bits only.
    fn words32(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<bool> {
        if ty.bytes() != 4 {
            return Ok(false);
        }
        let op = match words.list[0] {
            "shf" => {
                let op = match (words.has("l"), words.has("wrap")) {
                    (true, true) => Int3::ShfLeftWrap,
                    (true, false) => Int3::ShfLeftClamp,
                    (false, true) => Int3::ShfRightWrap,
                    (false, false) => Int3::ShfRightClamp,
                };
                Op::Int32Tern(op, ty)
            }
            name @ ("dp4a" | "dp2a") => {
                let [a, b] = words.types()[..] else {
                    return Ok(false);
                };
                if a != b {
                    return self.fail(format!(
                        "{name} of a signed and an unsigned operand is not supported"
                    ));
                }
                let op = match name {
                    "dp4a" => Int3::Dp4a,
                    _ if words.has("hi") => Int3::Dp2aHigh,
                    _ => Int3::Dp2aLow,
                };
                Op::Int32Tern(op, a)
            }
            "prmt" => {
                let modes = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
                let mode = modes.iter().position(|mode| words.has(mode));
                Op::Prmt(mode.map_or(0, |at| at + 1) as u8)
            }
            "lop3" => {
                let Operand::Int(table) = self.operand(operands, 4)? else {
                    return self.fail("the table of lop3 must be a constant");
                };
                Op::Lop3(*table as u8)
            }
            _ => return Ok(false),
        };
        self.same(op, operands, 3, Type::U32)?;
        Ok(true)
    }

    /// `mul.wide` and `mad.wide`: the factors have type `ty`; the result, and what `mad` adds,
    /// have twice its width.
    fn wide(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<bool> {
        let double = match ty {
            Type::U16 | Type::S16 => Type::U32,
            Type::U32 | Type::S32 => Type::U64,
            _ => return Ok(false),
        };
        let mut src = vec![self.src(operands, 1, ty)?, self.src(operands, 2, ty)?];
        let op = if words.list[0] == "mad" {
            src.push(self.src(operands, 3, double)?);
            Op::MadWide(ty)
        } else {
            Op::MulWide(ty)
        };
        let dst = self.dst(operands, 0)?;
        self.emit(op, vec![dst], src);
        Ok(true)
    }

    /// `add.cc`, `addc`, `mad.lo.cc` and their kind. A hidden predicate holds the carry.
    fn carried(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<bool> {
        let carry_out = words.has("cc");
        let (op, sources) = match words.list[0] {
            "add" | "addc" | "sub" | "subc" => {
                let how = Carry {
                    ty,
                    subtract: words.list[0].starts_with("sub"),
                    carry_in: words.list[0].ends_with('c'),
                    carry_out,
                };
                (Op::Carry(how), 2)
            }
            "mad" | "madc" => {
                let how = CarryMad {
                    ty,
                    high: words.has("hi"),
                    carry_in: words.list[0] == "madc",
                    carry_out,
                };
                (Op::CarryMad(how), 3)
            }
            _ => return Ok(false),
        };
        let carry = self.carry();
        let mut src = (1..=sources)
            .map(|at| self.src(operands, at, ty))
            .collect::<Result<Vec<_>>>()?;
        src.push(carry);
        let dst = vec![self.dst(operands, 0)?, carry];
        self.emit(op, dst, src);
        Ok(true)
    }

    /// Float arithmetic.
    pub fn floats(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let word = words.list[0];
        let Some(&ty) = words.types().last() else {
            return Ok(false);
        };
        let mods = words.mods();
        if !ty.is_float() || ty == Type::Tf32 || (mods.xor_sign && ty != Type::F32) {
            return Ok(false);
        }
        let plain = mods == Mods::default();
        let (op, sources) = if let Some(op) = float2(word) {
            if matches!(op, Float2::Min | Float2::Max) && operands.len() > 3 {
                return self.fail("min and max of three operands are not supported");
            }
            let op = match (ty, op) {
                (Type::F32, Float2::Add) if plain => Op::AddF32,
                (Type::F32, Float2::Mul) if plain => Op::MulF32,
                (Type::F32, _) => Op::Float32(op, mods),
                (Type::F64, _) => Op::Float64(op, mods),
                _ => Op::Half2(op, ty, mods),
            };
            (op, 2)
        } else if let Some(op) = float1(word) {
            let op = match ty {
                Type::F32 => Op::Float32Un(op, mods),
                Type::F64 => Op::Float64Un(op, mods),
                _ => Op::Half1(op, ty, mods),
            };
            (op, 1)
        } else if matches!(word, "fma" | "mad") {
            let op = match ty {
                Type::F32 if plain => Op::FmaF32,
                Type::F32 => Op::Fma32(mods),
                Type::F64 if mods.round != Round::Near => {
                    return self.fail("fma.f64 is supported with rounding to nearest only");
                }
                Type::F64 => Op::Fma64(mods),
                _ => Op::HalfFma(ty, mods),
            };
            (op, 3)
        } else {
            return Ok(false);
        };
        self.same(op, operands, sources, ty)?;
        Ok(true)
    }
}
