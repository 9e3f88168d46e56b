//! Decodes the opcodes of barriers and of instructions that the lanes of a warp execute together.

use super::super::op::*;
use super::Result;
use super::builder::Builder;
use super::names::{Class, Reg};
use super::words::Words;
use crate::ptx::Operand;

impl Builder<'_> {
    /// Barriers, shuffles, votes and their kind.
    pub fn warp_wide(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        match words.list[0] {
            "bar" | "barrier" => return self.barrier(words, operands),
            "shfl" if words.has("sync") => self.shfl(words, operands)?,
            "vote" if words.has("sync") => return self.vote(words, operands),
            "match" if words.has("sync") => self.matching(words, operands)?,
            "redux" => return self.redux(words, operands),
            "elect" => {
                let mask = self.src(operands, 1, Type::U32)?;
                let (dst, _) = self.result_and_predicate(operands)?;
                self.emit(
                    Op::Control(Control::Collective(Collective::Elect)),
                    dst,
                    vec![mask],
                );
            }
            "activemask" => {
                let d = self.dst(operands, 0)?;
                self.emit(Op::Activemask, vec![d], vec![]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn vote(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let mode = match words.list[2] {
            "all" => VoteMode::All,
            "any" => VoteMode::Any,
            "uni" => VoteMode::Uni,
            "ballot" => VoteMode::Ballot,
            _ => return Ok(false),
        };
        let p = self.src(operands, 1, Type::Pred)?;
        let mask = self.src(operands, 2, Type::U32)?;
        let d = self.dst(operands, 0)?;
        let op = Op::Control(Control::Collective(Collective::Vote(mode)));
        self.emit(op, vec![d], vec![mask, p]);
        Ok(true)
    }

    fn matching(&mut self, words: &Words, operands: &[Operand]) -> Result<()> {
        let ty = self.ty(words)?;
        let a = self.src(operands, 1, ty)?;
        let mask = self.src(operands, 2, Type::U32)?;
        let (op, dst) = if words.has("any") {
            (Collective::MatchAny(ty), vec![self.dst(operands, 0)?])
        } else {
            let (dst, _) = self.result_and_predicate(operands)?;
            (Collective::MatchAll(ty), dst)
        };
        self.emit(Op::Control(Control::Collective(op)), dst, vec![mask, a]);
        Ok(())
    }

    fn redux(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        let ty = self.ty(words)?;
        let op = match words.list[2] {
            "add" => ReduxOp::Add,
            "min" => ReduxOp::Min,
            "max" => ReduxOp::Max,
            "and" => ReduxOp::And,
            "or" => ReduxOp::Or,
            "xor" => ReduxOp::Xor,
            _ => return Ok(false),
        };
        if ty.is_float() {
            return Ok(false);
        }
        let a = self.src(operands, 1, Type::U32)?;
        let mask = self.src(operands, 2, Type::U32)?;
        let d = self.dst(operands, 0)?;
        let signed = ty.is_signed();
        let op = Op::Control(Control::Collective(Collective::Redux { op, signed }));
        self.emit(op, vec![d], vec![mask, a]);
        Ok(true)
    }

    /// `d|p`, or `d` alone.
    fn result_and_predicate(&mut self, operands: &[Operand]) -> Result<(Vec<Reg>, bool)> {
        match self.operand(operands, 0)? {
            Operand::Pair(d, p) => {
                let d = if d == "_" {
                    self.fresh(Class::W32)
                } else {
                    self.register(d)?
                };
                Ok((vec![d, self.predicate(p)?], true))
            }
            _ => Ok((vec![self.dst(operands, 0)?, self.fresh(Class::Pred)], false)),
        }
    }

    fn shfl(&mut self, words: &Words, operands: &[Operand]) -> Result<()> {
        let mode = match words.list[2] {
            "up" => ShflMode::Up,
            "down" => ShflMode::Down,
            "bfly" => ShflMode::Bfly,
            "idx" => ShflMode::Idx,
            other => return self.fail(format!("shfl.sync.{other} is not known")),
        };
        let mut src = vec![self.src(operands, 4, Type::U32)?];
        for at in 1..=3 {
            src.push(self.src(operands, at, Type::U32)?);
        }
        let (dst, pred) = self.result_and_predicate(operands)?;
        self.emit(
            Op::Control(Control::Collective(Collective::Shfl { mode, pred })),
            dst,
            src,
        );
        Ok(())
    }

    fn barrier(&mut self, words: &Words, operands: &[Operand]) -> Result<bool> {
        if words.has("warp") {
            let mask = self.src(operands, 0, Type::U32)?;
            self.emit(
                Op::Control(Control::Collective(Collective::Barrier)),
                vec![],
                vec![mask],
            );
            return Ok(true);
        }
        if words.has("cluster") {
            return Ok(false);
        }
        let aligned = words.list[0] == "bar" || words.has("aligned");
        let mode = match (words.has("sync"), words.has("arrive"), words.has("red")) {
            (true, false, false) => BarMode::Sync,
            (false, true, false) => BarMode::Arrive,
            (false, false, true) if words.has("and") => BarMode::And,
            (false, false, true) if words.has("or") => BarMode::Or,
            (false, false, true) if words.has("popc") => BarMode::Popc,
            _ => return Ok(false),
        };
        let first = usize::from(matches!(mode, BarMode::And | BarMode::Or | BarMode::Popc));
        let last = operands.len() - first;
        let id = self.src(operands, first, Type::U32)?;
        let counted = last > first + 1;
        let count = if counted {
            self.src(operands, first + 1, Type::U32)?
        } else {
            self.constant(Initial::Const32(0))
        };
        let (mut dst, mut src) = (vec![], vec![id, count]);
        if first == 1 {
            dst.push(self.dst(operands, 0)?);
            src.push(self.src(operands, last, Type::Pred)?);
        }
        let bar = Bar {
            mode,
            aligned,
            counted,
        };
        self.emit(Op::Control(Control::Bar(bar)), dst, src);
        Ok(true)
    }
}
