//! Opcodes of integer and float arithmetic to operations.

use super::super::op::*;
use super::Result;
use super::builder::Builder;
use super::names::{Class, Reg};
use super::words::{Words, int2};
use crate::ptx::Operand;

impl Builder<'_> {
    /// Integer arithmetic, logic and bits.
    pub fn arithmetic(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let word = words.list[0];
        let Some(&ty) = words.types().last() else {
            return Ok(false);
        };
        if ty.is_float() && word != "prmt" {
            return Ok(false);
        }
        let wide = ty.bytes() == 8;
        if words.has("cc") || matches!(word, "addc" | "subc" | "madc") {
            return self.carried(words, operands, ty);
        }
        if ty == Type::Pred {
            return Ok(false);
        }
        let two = |op| {
            if wide {
                Op::Int64(op, ty)
            } else {
                Op::Int32(op, ty)
            }
        };
        let one = |op| {
            if wide {
                Op::Int64Un(op, ty)
            } else {
                Op::Int32Un(op, ty)
            }
        };
        let three = |op| {
            if wide {
                Op::Int64Tern(op, ty)
            } else {
                Op::Int32Tern(op, ty)
            }
        };
        match word {
            "shl" | "shr" => {
                let op = two(if word == "shl" { Int2::Shl } else { Int2::Shr });
                let a = self.src(operands, 1, ty)?;
                let b = self.src(operands, 2, Type::U32)?;
                let d = self.dst(operands, 0)?;
                self.emit(op, vec![d], vec![a, b]);
            }
            "add" | "sub" if words.has("sat") => {
                let op = if word == "add" {
                    Int2::AddSat
                } else {
                    Int2::SubSat
                };
                self.same(two(op), operands, 2, ty)?;
            }
            "add" if ty.bytes() == 4 => self.same(Op::Add32, operands, 2, ty)?,
            "mul" if words.has("wide") => self.same_wide(Op::MulWide(ty), operands, ty)?,
            "mad" if words.has("wide") => self.same_wide(Op::MadWide(ty), operands, ty)?,
            "mul" => {
                let op = if words.has("hi") {
                    Int2::MulHi
                } else {
                    Int2::Mul
                };
                self.same(two(op), operands, 2, ty)?;
            }
            "mul24" if words.has("lo") => {
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
            }
            "mad" => {
                let op = if words.has("hi") {
                    Int3::MadHi
                } else {
                    Int3::Mad
                };
                self.same(three(op), operands, 3, ty)?;
            }
            "sad" => self.same(three(Int3::Sad), operands, 3, ty)?,
            "neg" => self.same(one(Int1::Neg), operands, 1, ty)?,
            "abs" => self.same(one(Int1::Abs), operands, 1, ty)?,
            "not" => self.same(one(Int1::Not), operands, 1, ty)?,
            "cnot" => self.same(one(Int1::Cnot), operands, 1, ty)?,
            "brev" => self.same(one(Int1::Brev), operands, 1, ty)?,
            "clz" => self.same(one(Int1::Clz), operands, 1, ty)?,
            "popc" => self.same(one(Int1::Popc), operands, 1, ty)?,
            "bfind" => {
                let shift = words.has("shiftamt");
                let op = if shift { Int1::BfindShift } else { Int1::Bfind };
                self.same(one(op), operands, 1, ty)?;
            }
            "bfe" => {
                let a = self.src(operands, 1, ty)?;
                let b = self.src(operands, 2, Type::U32)?;
                let c = self.src(operands, 3, Type::U32)?;
                let d = self.dst(operands, 0)?;
                self.emit(three(Int3::Bfe), vec![d], vec![a, b, c]);
            }
            "bfi" => {
                let a = self.src(operands, 1, ty)?;
                let b = self.src(operands, 2, ty)?;
                let c = self.src(operands, 3, Type::U32)?;
                let e = self.src(operands, 4, Type::U32)?;
                let d = self.dst(operands, 0)?;
                self.emit(Op::Bfi(ty), vec![d], vec![a, b, c, e]);
            }
            "shf" => {
                let op = match (words.has("l"), words.has("wrap")) {
                    (true, true) => Int3::ShfLeftWrap,
                    (true, false) => Int3::ShfLeftClamp,
                    (false, true) => Int3::ShfRightWrap,
                    (false, false) => Int3::ShfRightClamp,
                };
                self.same(Op::Int32Tern(op, ty), operands, 3, Type::U32)?;
            }
            "dp4a" => {
                let [a, b] = words.types()[..] else {
                    return Ok(false);
                };
                if a != b {
                    return self.fail("dp4a of mixed signs is not supported");
                }
                self.same(Op::Int32Tern(Int3::Dp4a, a), operands, 3, Type::U32)?;
            }
            "prmt" => {
                let mode = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
                let mode = mode
                    .iter()
                    .position(|mode| words.has(mode))
                    .map_or(0, |at| at + 1);
                self.same(Op::Prmt(mode as u8), operands, 3, Type::U32)?;
            }
            "lop3" => {
                let Operand::Int(table) = self.operand(operands, 4)? else {
                    return self.fail("the table of lop3 must be a constant");
                };
                self.same(Op::Lop3(*table as u8), operands, 3, Type::U32)?;
            }
            "copysign" => return Ok(false),
            _ => match int2(word) {
                Some(op) => self.same(two(op), operands, 2, ty)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Factors of `ty`, a result (and an addend) of twice its width.
    fn same_wide(&mut self, op: Op, operands: &[Operand], ty: Type) -> Result<()> {
        let double = if ty.bytes() == 2 {
            Type::U32
        } else {
            Type::U64
        };
        let mut src = vec![self.src(operands, 1, ty)?, self.src(operands, 2, ty)?];
        if matches!(op, Op::MadWide(_)) {
            src.push(self.src(operands, 3, double)?);
        }
        let dst = self.dst(operands, 0)?;
        self.emit(op, vec![dst], src);
        Ok(())
    }

    /// `add.cc`, `addc`, `mad.lo.cc` and their kind, through a hidden predicate.
    fn carried(&mut self, words: &Words, operands: &[Operand], ty: Type) -> Result<bool> {
        let carry_out = words.has("cc");
        let (op, sources) = match words.list[0] {
            "add" | "addc" | "sub" | "subc" => {
                let subtract = words.list[0].starts_with("sub");
                let carry_in = words.list[0].ends_with('c');
                (
                    Op::Carry {
                        ty,
                        subtract,
                        carry_in,
                        carry_out,
                    },
                    2,
                )
            }
            "mad" | "madc" => {
                let carry_in = words.list[0] == "madc";
                (
                    Op::CarryMad {
                        ty,
                        high: words.has("hi"),
                        carry_in,
                        carry_out,
                    },
                    3,
                )
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

    pub fn floats(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let word = words.list[0];
        let Some(&ty) = words.types().last() else {
            return Ok(false);
        };
        if !ty.is_float() {
            return Ok(false);
        }
        let mods = words.mods();
        let two = match word {
            "add" => Some(Float2::Add),
            "sub" => Some(Float2::Sub),
            "mul" => Some(Float2::Mul),
            "div" => Some(Float2::Div),
            "min" => Some(Float2::Min),
            "max" => Some(Float2::Max),
            "copysign" => Some(Float2::CopySign),
            _ => None,
        };
        let one = match word {
            "abs" => Some(Float1::Abs),
            "neg" => Some(Float1::Neg),
            "rcp" => Some(Float1::Rcp),
            "sqrt" => Some(Float1::Sqrt),
            "rsqrt" => Some(Float1::Rsqrt),
            "sin" => Some(Float1::Sin),
            "cos" => Some(Float1::Cos),
            "lg2" => Some(Float1::Lg2),
            "ex2" => Some(Float1::Ex2),
            "tanh" => Some(Float1::Tanh),
            _ => None,
        };
        let plain = mods == Mods::default();
        if let Some(two) = two {
            if matches!(two, Float2::Min | Float2::Max) && operands.len() > 3 {
                return self.fail("min and max of three operands are not supported");
            }
            let op = match (ty, two) {
                (Type::F32, Float2::Add) if plain => Op::AddF32,
                (Type::F32, Float2::Mul) if plain => Op::MulF32,
                (Type::F32, _) => Op::Float32(two, mods),
                (Type::F64, _) => Op::Float64(two, mods),
                _ => Op::Half2(two, ty, mods),
            };
            self.same(op, operands, 2, ty)?;
        } else if let Some(one) = one {
            let op = match ty {
                Type::F32 => Op::Float32Un(one, mods),
                Type::F64 => Op::Float64Un(one, mods),
                _ => Op::Half1(one, ty, mods),
            };
            self.same(op, operands, 1, ty)?;
        } else if matches!(word, "fma" | "mad") {
            let op = match ty {
                Type::F32 if plain => Op::FmaF32,
                Type::F32 => Op::Fma32(mods),
                Type::F64 if mods.round != Round::Near => {
                    return self.fail("fma.f64 rounds to nearest here");
                }
                Type::F64 => Op::Fma64(mods),
                _ => Op::HalfFma(ty, mods),
            };
            self.same(op, operands, 3, ty)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}
