//! Decodes the opcodes of memory.

use super::super::op::*;
use super::Result;
use super::builder::Builder;
use super::names::{Class, Name, Reg};
use super::opcodes::class_of;
use super::words::Words;
use crate::ptx::{Operand, Space};

/// An address: the register, the offset, and whether the register has 64 bits.
struct Address {
    base: Reg,
    offset: i64,
    wide: bool,
    /// The space of the variable it names.
    space: Option<Space>,
}

impl Builder<'_> {
    pub fn memory(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        match words.list[0] {
            "ld" | "ldu" => self.load(words, operands)?,
            "st" => self.store(words, operands)?,
            "atom" | "red" => return self.atomic(words, operands),
            "cp" => return self.cp_async(words, operands),
            "ldmatrix" => return self.ldmatrix(words, operands),
            "mma" => return self.mma(words, operands),
            "cvta" => {
                let place = words.place();
                let op = match (place, words.has("to")) {
                    (Place::Global, _) => Op::Mov64,
                    (_, true) => Op::FromGeneric(place),
                    (_, false) => Op::ToGeneric(place),
                };
                let a = self.src(operands, 1, Type::U64)?;
                let d = self.dst(operands, 0)?;
                self.emit(op, vec![d], vec![a]);
            }
            "isspacep" => {
                let a = self.src(operands, 1, Type::U64)?;
                let d = self.dst(operands, 0)?;
                self.emit(Op::IsSpace(words.place()), vec![d], vec![a]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bracket(&mut self, operands: &[Operand], at: usize) -> Result<Address> {
        let Operand::Address(base, offset) = self.operand(operands, at)?.clone() else {
            return self.fail(format!("operand {} must be an address in brackets", at + 1));
        };
        let Some(name) = base else {
            let base = self.constant(Initial::Const64(0));
            return Ok(Address {
                base,
                offset,
                wide: true,
                space: None,
            });
        };
        match self.name(&name) {
            Some(Name::Reg(base)) => {
                let wide = match self.classes[base as usize] {
                    Class::W64 => true,
                    Class::W32 => false,
                    _ => return self.fail(format!("`{name}` cannot hold an address")),
                };
                Ok(Address {
                    base,
                    offset,
                    wide,
                    space: None,
                })
            }
            Some(found) => {
                let space = match found {
                    Name::Variable(space, _) => space,
                    Name::DynamicShared => Space::Shared,
                    _ => Space::Global,
                };
                let base = self.address(found, 0);
                let base = base.expect("a variable has an address");
                Ok(Address {
                    base,
                    offset,
                    wide: true,
                    space: Some(space),
                })
            }
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    fn access(&self, words: &Words, ty: Type, address: &Address) -> Result<Access> {
        let count = words.count('v');
        if !matches!(count, 1 | 2 | 4 | 8) || u32::from(count) * ty.bytes() > 32 {
            return self.fail("vector accesses have 2, 4 or 8 parts and at most 32 bytes");
        }
        let place = match (words.place(), address.space) {
            // Parameters of device functions live in local memory.
            (Place::Param, Some(Space::Local)) => Place::Local,
            (place, _) => place,
        };
        let strong = ["volatile", "relaxed", "acquire", "release", "mmio"];
        Ok(Access {
            place,
            width: ty.bytes() as u8,
            count,
            signed: ty.is_signed(),
            strong: strong.iter().any(|word| words.has(word)),
            wide: address.wide,
        })
    }

    /// A single operand, or the parts of a vector.
    fn parts(operand: &Operand) -> &[Operand] {
        match operand {
            Operand::Vector(parts) => parts,
            single => std::slice::from_ref(single),
        }
    }

    fn load(&mut self, words: &Words, operands: &[Operand]) -> Result<()> {
        let ty = self.ty(words)?;
        let address = self.bracket(operands, 1)?;
        let access = self.access(words, ty, &address)?;
        let parts = Self::parts(self.operand(operands, 0)?);
        if parts.len() != access.count as usize {
            return self.fail("the number of parts of the vector does not match the instruction");
        }
        let (mut dst, mut after) = (Vec::new(), Vec::new());
        for at in 0..parts.len() {
            let d = match &parts[at] {
                Operand::Name(name) if name == "_" => self.fresh(class_of(ty)),
                _ => self.dst(parts, at)?,
            };
            let found = self.classes[d as usize];
            let fits = match found {
                Class::W64 => access.width == 8,
                Class::W32 => access.width <= 4,
                _ => access.width <= 2 && !access.signed,
            };
            if fits {
                dst.push(d);
            } else if access.width <= 4 {
                let value = self.fresh(Class::W32);
                dst.push(value);
                after.push((value, d));
            } else {
                return self.fail("the destination register is too narrow");
            }
        }
        self.emit(Op::Load(access), dst, vec![address.base]).imm = address.offset;
        for (value, d) in after {
            self.store_as(value, access.signed, d);
        }
        Ok(())
    }

    fn store(&mut self, words: &Words, operands: &[Operand]) -> Result<()> {
        let ty = self.ty(words)?;
        let address = self.bracket(operands, 0)?;
        let access = self.access(words, ty, &address)?;
        let parts = Self::parts(self.operand(operands, 1)?);
        if parts.len() != access.count as usize {
            return self.fail("the number of parts of the vector does not match the instruction");
        }
        let mut src = vec![address.base];
        for part in parts {
            src.push(self.value(part, ty)?);
        }
        self.emit(Op::Store(access), vec![], src).imm = address.offset;
        Ok(())
    }

    fn atomic(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let silent = words.list[0] == "red";
        let op = match words.list[1..]
            .iter()
            .find_map(|word| AtomicOp::named(word))
        {
            Some(op) if words.count('v') == 1 => op,
            _ => return Ok(false),
        };
        let ty = self.ty(words)?;
        if !atomic_exists(op, ty) {
            return Ok(false);
        }
        let at = usize::from(!silent);
        let address = self.bracket(operands, at)?;
        let mut src = vec![address.base, self.src(operands, at + 1, ty)?];
        if op == AtomicOp::Cas {
            src.push(self.src(operands, at + 2, ty)?);
        }
        let d = match self.operand(operands, 0)? {
            Operand::Name(name) if name != "_" && !silent => self.register(name)?,
            _ => self.fresh(class_of(ty)),
        };
        let (place, wide) = (words.place(), address.wide);
        let op = Op::Atomic(Atomic {
            op,
            ty,
            place,
            wide,
            silent,
        });
        self.emit(op, vec![d], src).imm = address.offset;
        Ok(true)
    }

    fn cp_async(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        if words.list.get(1) != Some(&"async") {
            return Ok(false);
        }
        match words.list.get(2) {
            Some(&"commit_group") => drop(self.emit(Op::CpCommit, vec![], vec![])),
            Some(&"wait_all") => drop(self.emit(Op::CpWaitAll, vec![], vec![])),
            Some(&"wait_group") => {
                let Operand::Int(count) = self.operand(operands, 0)? else {
                    return Ok(false);
                };
                self.emit(Op::CpWait(*count as u32), vec![], vec![]);
            }
            Some(&"ca" | &"cg") => {
                let to = self.bracket(operands, 0)?;
                let from = self.bracket(operands, 1)?;
                let bytes = match self.operand(operands, 2)? {
                    Operand::Int(bytes @ (4 | 8 | 16)) => *bytes as u8,
                    _ => return self.fail("cp.async copies 4, 8 or 16 bytes"),
                };
                let to_base = self.shifted(&to);
                let from_base = self.shifted(&from);
                let mut src = vec![to_base, from_base];
                if let Some(size) = operands.get(3).cloned() {
                    src.extend(self.source_size(&size, bytes)?);
                }
                let sized = src.len() == 3;
                self.emit(Op::CpAsync { bytes, sized }, vec![], src);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The fourth operand of `cp.async`: bytes, a predicate to ignore the source, or a policy.
    fn source_size(&mut self, operand: &Operand, bytes: u8) -> Result<Option<Reg>> {
        if let Operand::Name(name) = operand
            && let Some(Name::Reg(reg)) = self.name(name)
        {
            match self.classes[reg as usize] {
                Class::W64 => return Ok(None),
                Class::Pred => {
                    let none = self.constant(Initial::Const32(0));
                    let all = self.constant(Initial::Const32(u32::from(bytes)));
                    let size = self.fresh(Class::W32);
                    self.emit_always(Op::Selp32, vec![size], vec![none, all, reg]);
                    return Ok(Some(size));
                }
                _ => {}
            }
        }
        self.value(operand, Type::U32).map(Some)
    }

    /// An address as one 64-bit register.
    fn shifted(&mut self, address: &Address) -> Reg {
        let base = self.fit(address.base, Class::W64);
        if address.offset == 0 {
            return base;
        }
        let shift = self.constant(Initial::Const64(address.offset as u64));
        let sum = self.fresh(Class::W64);
        self.emit_always(
            Op::Int64(Int2::Add, Type::U64),
            vec![sum],
            vec![base, shift],
        );
        sum
    }

    fn ldmatrix(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        if !words.has("m8n8") || !words.has("b16") {
            return Ok(false);
        }
        let count = words.count('x');
        let address = self.bracket(operands, 1)?;
        let base = self.shifted(&address);
        let parts = Self::parts(self.operand(operands, 0)?);
        if parts.len() != count as usize {
            return self.fail("the number of parts of the vector does not match the instruction");
        }
        let dst = (0..parts.len())
            .map(|at| self.dst(parts, at))
            .collect::<Result<Vec<_>>>()?;
        self.emit(
            Op::LdMatrix {
                count,
                trans: words.has("trans"),
            },
            dst,
            vec![base],
        );
        Ok(true)
    }

    fn mma(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let [d, a, b, c] = words.types()[..] else {
            return Ok(false);
        };
        let shape = words
            .list
            .iter()
            .find_map(|word| word.strip_prefix("m16n8k"));
        let Some(k) = shape.and_then(|k| k.parse::<u8>().ok()) else {
            return Ok(false);
        };
        let known = match (a, d) {
            (Type::F16, Type::F16 | Type::F32) | (Type::Bf16, Type::F32) => matches!(k, 8 | 16),
            (Type::Tf32, Type::F32) => matches!(k, 4 | 8),
            (Type::U8 | Type::S8, Type::S32) => matches!(k, 16 | 32),
            _ => false,
        };
        let integer = d == Type::S32;
        if !known || c != d || (a != b && !integer) || !words.has("row") || !words.has("col") {
            return Ok(false);
        }
        if words.has("satfinite") || words.has("sp") {
            return Ok(false);
        }
        let mma = Mma {
            k,
            operand: a,
            accumulate: d,
            b_operand: b,
        };
        let mut src = Vec::new();
        for at in 1..=3 {
            for part in Self::parts(self.operand(operands, at)?) {
                src.push(self.value(part, Type::U32)?);
            }
        }
        let parts = Self::parts(self.operand(operands, 0)?);
        let dst = (0..parts.len())
            .map(|at| self.dst(parts, at))
            .collect::<Result<Vec<_>>>()?;
        let (a, b, c) = mma.registers();
        if src.len() != a + b + c || dst.len() != c {
            return self.fail("the number of registers of the fragments does not match the shape");
        }
        self.emit(Op::Mma(mma), dst, src);
        Ok(true)
    }
}

/// Whether an atomic operation exists for a type.
fn atomic_exists(op: AtomicOp, ty: Type) -> bool {
    match ty {
        Type::F64 => op == AtomicOp::Add,
        Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 | Type::F32 => {
            matches!(op, AtomicOp::Add | AtomicOp::Min | AtomicOp::Max)
        }
        Type::U16 => matches!(op, AtomicOp::Cas | AtomicOp::Exch),
        Type::U32 => true,
        Type::S32 | Type::U64 | Type::S64 => !matches!(op, AtomicOp::Inc | AtomicOp::Dec),
        Type::U8 | Type::S8 | Type::S16 | Type::Tf32 | Type::Pred => false,
    }
}
