//! Decodes the opcodes of comparisons, moves and control, and the operands of all opcodes.

use super::super::op::*;
use super::Result;
use super::builder::Builder;
use super::names::{Class, Name, Reg};
use super::words::Words;
use crate::ptx::{Instruction, Operand};

/// The register class that holds a type.
pub fn class_of(ty: Type) -> Class {
    match ty {
        Type::Pred => Class::Pred,
        _ if ty.bytes() == 8 => Class::W64,
        _ if ty.bytes() == 4 => Class::W32,
        _ => Class::W16,
    }
}

impl Builder<'_> {
    /// Decodes an instruction, `call` and `ret` excepted.
    pub fn decode(&mut self, instruction: &Instruction) -> Result<()> {
        let words = Words::new(&instruction.opcode);
        let operands = &instruction.operands[..];
        let known = !words.unsupported()
            && (self.arithmetic(&words, operands)?
                || self.floats(&words, operands)?
                || self.moves(&words, operands)?
                || self.predicates(&words, operands)?
                || self.control(&words, operands)?
                || self.memory(&words, operands)?
                || self.warp_wide(&words, operands)?);
        if known {
            Ok(())
        } else {
            self.unknown(instruction)
        }
    }

    fn unknown<T>(&self, instruction: &Instruction) -> Result<T> {
        self.fail(format!(
            "the emulator does not know the instruction `{}`",
            instruction.opcode
        ))
    }

    pub fn operand<'o>(&self, operands: &'o [Operand], at: usize) -> Result<&'o Operand> {
        match operands.get(at) {
            Some(operand) => Ok(operand),
            None => self.fail(format!("operand {} is missing", at + 1)),
        }
    }

    /// The type of an instruction: the last one that its opcode names.
    pub fn ty(&self, words: &Words) -> Result<Type> {
        match words.types().last() {
            Some(&ty) => Ok(ty),
            None => self.fail(format!("`{}` names no type", words.list.join("."))),
        }
    }

    pub fn dst(&mut self, operands: &[Operand], at: usize) -> Result<Reg> {
        match self.operand(operands, at)? {
            Operand::Name(name) if name == "_" => Ok(self.fresh(Class::W64)),
            Operand::Name(name) => self.register(name),
            _ => self.fail("the destination must be a register"),
        }
    }

    pub fn src(&mut self, operands: &[Operand], at: usize, ty: Type) -> Result<Reg> {
        let operand = self.operand(operands, at)?.clone();
        self.value(&operand, ty)
    }

    /// A source operand as a register of the class of `ty`.
    pub fn value(&mut self, operand: &Operand, ty: Type) -> Result<Reg> {
        let class = class_of(ty);
        let narrow = |bits: u64| Initial::Const32(bits as u32);
        let constant = match operand {
            Operand::Int(bits) => match class {
                Class::Pred => Initial::Pred(*bits != 0),
                Class::W16 => narrow(bits & 0xffff),
                Class::W32 if ty == Type::F32 => narrow(*bits),
                Class::W32 => narrow(*bits),
                Class::W64 => Initial::Const64(*bits),
            },
            Operand::Single(bits) if class == Class::W64 => {
                Initial::Const64(f64::from(f32::from_bits(*bits)).to_bits())
            }
            Operand::Single(bits) => Initial::Const32(*bits),
            Operand::Double(bits) if class == Class::W64 => Initial::Const64(*bits),
            Operand::Double(bits) => Initial::Const32((f64::from_bits(*bits) as f32).to_bits()),
            Operand::Name(name) => return self.named_value(name, 0, class),
            Operand::Offset(name, offset) => return self.named_value(name, *offset, class),
            Operand::Not(name) => {
                let reg = self.register(name)?;
                let not = self.fresh(Class::Pred);
                self.emit_always(Op::PredNot, vec![not], vec![reg]);
                return Ok(not);
            }
            _ => return self.fail("this operand must be a register or a constant"),
        };
        Ok(self.constant(constant))
    }

    fn named_value(&mut self, name: &str, offset: i64, class: Class) -> Result<Reg> {
        if let Some(reg) = self.special(name) {
            return Ok(self.fit(reg, class));
        }
        if name == "WARP_SZ" {
            return Ok(self.constant(Initial::Const32(32)));
        }
        match self.name(name) {
            Some(Name::Reg(reg)) if offset == 0 => {
                let found = self.classes[reg as usize];
                if (found == Class::Pred) != (class == Class::Pred) {
                    return self.fail(format!("`{name}` is of the wrong type here"));
                }
                Ok(self.fit(reg, class))
            }
            Some(found) => match self.address(found, offset) {
                Some(address) => Ok(self.fit(address, class)),
                None => self.fail(format!("`{name}` plus an offset needs brackets")),
            },
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    /// A register at another width: its low bits, or its value with zeros above it.
    pub fn fit(&mut self, reg: Reg, class: Class) -> Reg {
        let op = match (self.classes[reg as usize], class) {
            (Class::W64, Class::W32 | Class::W16) => Op::Truncate64,
            (Class::W32 | Class::W16, Class::W64) => Op::ZeroExtend32,
            _ => return reg,
        };
        let fitted = self.fresh(class);
        self.emit_always(op, vec![fitted], vec![reg]);
        fitted
    }

    /// Emits an operation over sources of one type.
    pub fn same(&mut self, op: Op, operands: &[Operand], sources: usize, ty: Type) -> Result<()> {
        let src = (1..=sources)
            .map(|at| self.src(operands, at, ty))
            .collect::<Result<Vec<_>>>()?;
        let dst = self.dst(operands, 0)?;
        self.emit(op, vec![dst], src);
        Ok(())
    }

    fn moves(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        match words.list[0] {
            "mov" => self.mov(words, operands)?,
            "cvt" => return self.convert(words, operands),
            "selp" => {
                let ty = self.ty(words)?;
                let op = if ty.bytes() == 8 {
                    Op::Selp64
                } else {
                    Op::Selp32
                };
                let a = self.src(operands, 1, ty)?;
                let b = self.src(operands, 2, ty)?;
                let p = self.src(operands, 3, Type::Pred)?;
                let d = self.dst(operands, 0)?;
                self.emit(op, vec![d], vec![a, b, p]);
            }
            "slct" => {
                let [ty, by] = words.types()[..] else {
                    return Ok(false);
                };
                let a = self.src(operands, 1, ty)?;
                let b = self.src(operands, 2, ty)?;
                let c = self.src(operands, 3, by)?;
                let d = self.dst(operands, 0)?;
                self.emit(
                    Op::Slct {
                        ty,
                        float: by == Type::F32,
                    },
                    vec![d],
                    vec![a, b, c],
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mov(&mut self, words: &Words, operands: &[Operand]) -> Result<()> {
        let ty = self.ty(words)?;
        match (self.operand(operands, 0)?, self.operand(operands, 1)?) {
            (_, Operand::Vector(parts)) => {
                let part = self.part(ty, parts.len())?;
                let src = parts
                    .iter()
                    .map(|part_operand| self.value(part_operand, part))
                    .collect::<Result<Vec<_>>>()?;
                let d = self.dst(operands, 0)?;
                let (bits, count) = ((part.bytes() * 8) as u8, parts.len() as u8);
                self.emit(Op::Pack { bits, count }, vec![d], src);
            }
            (Operand::Vector(parts), _) => {
                let part = self.part(ty, parts.len())?;
                let a = self.src(operands, 1, ty)?;
                let dst = (0..parts.len())
                    .map(|at| self.dst(parts, at))
                    .collect::<Result<Vec<_>>>()?;
                let (bits, count) = ((part.bytes() * 8) as u8, parts.len() as u8);
                self.emit(Op::Unpack { bits, count }, dst, vec![a]);
            }
            (_, Operand::Name(name)) if clock(name).is_some() => {
                let (kind, class) = clock(name).expect("just seen");
                let d = self.dst(operands, 0)?;
                if self.classes[d as usize] != class {
                    return self.fail(format!("`{name}` has another width"));
                }
                self.emit(Op::ReadClock(kind), vec![d], vec![]);
            }
            _ => {
                let a = self.src(operands, 1, ty)?;
                let d = self.dst(operands, 0)?;
                let op = match class_of(ty) {
                    Class::Pred => Op::PredMov,
                    Class::W64 => Op::Mov64,
                    _ => Op::Mov32,
                };
                self.emit(op, vec![d], vec![a]);
            }
        }
        Ok(())
    }

    /// The type of one of `count` parts of a register.
    fn part(&self, ty: Type, count: usize) -> Result<Type> {
        match ty.bytes() as usize * 8 / count.max(1) {
            8 => Ok(Type::U8),
            16 => Ok(Type::U16),
            32 => Ok(Type::U32),
            _ => self.fail("the parts of the vector do not fill the register"),
        }
    }

    fn convert(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let [to, from] = words.types()[..] else {
            return Ok(false);
        };
        let mods = words.mods();
        if words.has("pack") {
            return Ok(false);
        }
        if matches!(to, Type::F16x2 | Type::Bf16x2) {
            if from != Type::F32 {
                return Ok(false);
            }
            self.same(Op::ConvertPair { to, mods }, operands, 2, Type::F32)?;
            return Ok(true);
        }
        let a = self.src(operands, 1, from)?;
        let d = self.dst(operands, 0)?;
        let found = self.classes[d as usize];
        let plain = !mods.sat && !to.is_float() && !from.is_float();
        // A value of at most 32 bits is converted first, and then stored at the width of the register.
        match (from.bytes(), to.bytes(), found) {
            (4, 8, Class::W64) if plain => {
                let op = if from.is_signed() {
                    Op::SignExtend32
                } else {
                    Op::ZeroExtend32
                };
                self.emit(op, vec![d], vec![a]);
            }
            (8, 4, Class::W32) if plain => drop(self.emit(Op::Truncate64, vec![d], vec![a])),
            (_, 8, Class::W64) | (_, 4, Class::W32) => {
                self.emit(Op::Convert { to, from, mods }, vec![d], vec![a]);
            }
            (_, ..=4, _) => {
                let value = self.fresh(Class::W32);
                self.emit_always(Op::Convert { to, from, mods }, vec![value], vec![a]);
                self.store_as(value, to.is_signed(), d);
            }
            _ => return self.fail("the destination register is too narrow"),
        }
        Ok(true)
    }

    /// Stores a 32-bit value in a register of any width.
    pub fn store_as(&mut self, value: Reg, signed: bool, d: Reg) {
        match self.classes[d as usize] {
            Class::W16 => {
                let mask = self.constant(Initial::Const32(0xffff));
                self.emit(Op::Int32(Int2::And, Type::U32), vec![d], vec![value, mask]);
            }
            Class::W64 if signed => drop(self.emit(Op::SignExtend32, vec![d], vec![value])),
            Class::W64 => drop(self.emit(Op::ZeroExtend32, vec![d], vec![value])),
            _ => drop(self.emit(Op::Mov32, vec![d], vec![value])),
        }
    }

    fn predicates(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let word = words.list[0];
        match word {
            "setp" | "set" => return self.set(words, operands),
            "testp" => {
                let ty = self.ty(words)?;
                if !matches!(ty, Type::F32 | Type::F64) {
                    return Ok(false);
                }
                let kind = match words.list[1] {
                    "finite" => Classify::Finite,
                    "infinite" => Classify::Infinite,
                    "number" => Classify::Number,
                    "notanumber" => Classify::NotANumber,
                    "normal" => Classify::Normal,
                    "subnormal" => Classify::Subnormal,
                    _ => return Ok(false),
                };
                self.same(Op::Testp(kind, ty), operands, 1, ty)?;
            }
            "and" | "or" | "xor" if words.has("pred") => {
                let logic = match word {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    _ => Logic::Xor,
                };
                self.same(Op::PredLogic(logic), operands, 2, Type::Pred)?;
            }
            "not" if words.has("pred") => self.same(Op::PredNot, operands, 1, Type::Pred)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let types = words.types();
        let (Some(&ty), Some(compare)) = (types.last(), words.compare()) else {
            return Ok(false);
        };
        let (logic, ftz) = (words.logic(), words.mods().ftz);
        let ordered = matches!(
            compare,
            Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge
        );
        let incomparable = matches!(ty, Type::F16x2 | Type::Bf16x2 | Type::Tf32 | Type::Pred);
        if incomparable || !(ordered || ty.is_float()) {
            return Ok(false);
        }
        let comparison = Comparison {
            compare,
            ty,
            logic,
            ftz,
        };
        let mut src = vec![self.src(operands, 1, ty)?, self.src(operands, 2, ty)?];
        if logic.is_some() {
            src.push(self.src(operands, 3, Type::Pred)?);
        }
        if words.list[0] == "set" {
            let d = self.dst(operands, 0)?;
            let to = types[0];
            if types.len() != 2 || !matches!(to, Type::U32 | Type::S32 | Type::F32) {
                return Ok(false);
            }
            self.emit(Op::Set(comparison, to), vec![d], src);
            return Ok(true);
        }
        let (dst, two) = match self.operand(operands, 0)? {
            Operand::Pair(p, q) => (vec![self.predicate(p)?, self.predicate(q)?], true),
            _ => (vec![self.dst(operands, 0)?], false),
        };
        self.emit(Op::Setp(comparison, two), dst, src);
        Ok(true)
    }

    /// A predicate as a destination; `_` discards the result.
    pub fn predicate(&mut self, name: &str) -> Result<Reg> {
        if name == "_" {
            Ok(self.fresh(Class::Pred))
        } else {
            self.register(name)
        }
    }

    fn control(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        match words.list[0] {
            "bra" => {
                let Operand::Name(name) = self.operand(operands, 0)? else {
                    return Ok(false);
                };
                let label = self.label(name)?;
                self.emit(Op::Control(Control::Branch), vec![], vec![])
                    .labels = vec![label];
            }
            "brx" => {
                let index = self.src(operands, 0, Type::U32)?;
                let Operand::Name(name) = self.operand(operands, 1)? else {
                    return Ok(false);
                };
                let labels = self.table(name)?;
                self.emit(Op::Control(Control::BranchByTable), vec![], vec![index])
                    .labels = labels;
            }
            "exit" => drop(self.emit(Op::Control(Control::Exit), vec![], vec![])),
            "trap" | "brkpt" => drop(self.emit(Op::Control(Control::Trap), vec![], vec![])),
            "nanosleep" => drop(self.emit(Op::Sleep, vec![], vec![])),
            "membar" | "fence" => drop(self.emit(Op::Fence, vec![], vec![])),
            "pmevent" | "griddepcontrol" | "prefetch" | "prefetchu" | "discard"
            | "applypriority" | "setmaxnreg" => drop(self.emit(Op::Nop, vec![], vec![])),
            "createpolicy" => {
                let d = self.dst(operands, 0)?;
                let zero = self.constant(Initial::Const64(0));
                self.emit(Op::Mov64, vec![d], vec![zero]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn clock(name: &str) -> Option<(Clock, Class)> {
    Some(match name {
        "%clock" | "%clock_hi" => (Clock::Cycles32, Class::W32),
        "%globaltimer_lo" => (Clock::Cycles32, Class::W32),
        "%clock64" => (Clock::Cycles64, Class::W64),
        "%globaltimer" => (Clock::Nanoseconds, Class::W64),
        _ => return None,
    })
}
