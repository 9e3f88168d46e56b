//! Instructions that lanes of a warp execute together: shuffles, votes, matches, reductions and the
//! barrier of the warp. They wait until all lanes of their mask have arrived. The lanes may be at
//! different instructions, because a compiler may copy such an instruction into both arms of a
//! branch.

use super::FaultKind;
use super::cta::{Common, Warp};
use super::engine::{Engine, Outcome, trouble};
use super::lanes::{FULL, LANES, lanes};
use super::op::{Code, Collective, Control, Inst, Op, ReduxOp, ShflMode, Type, VoteMode};

/// Lanes that execute a collective at one program counter.
#[derive(Clone, Copy)]
struct Part {
    pc: u32,
    mask: u32,
}

/// The lanes `active` arrive at the instruction at `pc`. Returns the lanes that have to wait there.
pub fn collective(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    active: u32,
    pc: u32,
) -> Outcome<u32> {
    let (mut left, mut waiting) = (active, 0);
    while left != 0 {
        let members = members(engine, warp, left.trailing_zeros() as usize, pc)?;
        let all = *warp.file.get::<u32>(mask_slot(engine, pc));
        let same = lanes(left).filter(|&lane| all[lane] == members);
        let group = if all == [members; LANES] {
            left
        } else {
            same.fold(0, |group, lane| group | 1 << lane)
        };
        if group & !members != 0 {
            let lane = (group & !members).trailing_zeros() as usize;
            let message = format!(
                "this lane gives the mask {members:#010x}, which does not include the lane itself"
            );
            return trouble(FaultKind::Trap, lane, message);
        }
        left &= !group;
        if members & warp.alive & !group == 0 {
            perform(engine, common, warp, &[Part { pc, mask: group }]);
        } else {
            lanes(group).for_each(|lane| warp.pc[lane] = pc);
            warp.syncing |= group;
            waiting |= group;
            let mut parts = gather(engine, warp, members, pc);
            if complete(&parts, members, warp.alive) {
                finish(engine, common, warp, &mut parts);
            }
        }
    }
    Ok(waiting)
}

/// Releases waiting lanes if all the lanes that they wait for have arrived or exited. Returns
/// whether any were released.
pub fn resolve(engine: &mut Engine, common: &mut Common, warp: &mut Warp) -> Outcome<bool> {
    let mut left = warp.syncing;
    while left != 0 {
        let lane = left.trailing_zeros() as usize;
        let pc = warp.pc[lane];
        let members = members(engine, warp, lane, pc)?;
        let mut parts = gather(engine, warp, members, pc);
        if complete(&parts, members, warp.alive) {
            finish(engine, common, warp, &mut parts);
            return Ok(true);
        }
        left &= !(1 << lane);
    }
    Ok(false)
}

/// The slot of a collective's mask operand.
fn mask_slot(engine: &Engine, pc: u32) -> u32 {
    let inst = &engine.field.code.insts[pc as usize];
    match inst.op {
        // The slots of its two destinations come first.
        Op::Control(Control::Collective(
            Collective::Shfl { .. } | Collective::MatchAll(_) | Collective::Elect,
        )) => engine.field.code.more[inst.d as usize + 2],
        _ => inst.a,
    }
}

fn members(engine: &Engine, warp: &Warp, lane: usize, pc: u32) -> Outcome<u32> {
    let members = warp.file.get::<u32>(mask_slot(engine, pc))[lane];
    if members == 0 {
        return trouble(FaultKind::Trap, lane, "the mask of lanes is empty");
    }
    Ok(members)
}

/// The lanes that wait, with the same mask, at instructions that do the same as the one at `pc`.
fn gather(engine: &Engine, warp: &Warp, members: u32, pc: u32) -> Vec<Part> {
    let insts = &engine.field.code.insts;
    let mut parts: Vec<Part> = Vec::new();
    for lane in lanes(warp.syncing & members) {
        let at = warp.pc[lane];
        let alike = insts[at as usize].op == insts[pc as usize].op;
        if !alike || warp.file.get::<u32>(mask_slot(engine, at))[lane] != members {
            continue;
        }
        match parts.iter_mut().find(|part| part.pc == at) {
            Some(part) => part.mask |= 1 << lane,
            None => parts.push(Part {
                pc: at,
                mask: 1 << lane,
            }),
        }
    }
    parts
}

fn complete(parts: &[Part], members: u32, alive: u32) -> bool {
    let here = parts.iter().fold(0, |here, part| here | part.mask);
    here != 0 && members & alive & !here == 0
}

fn finish(engine: &mut Engine, common: &mut Common, warp: &mut Warp, parts: &mut [Part]) {
    perform(engine, common, warp, parts);
    for part in parts {
        warp.syncing &= !part.mask;
        lanes(part.mask).for_each(|lane| warp.pc[lane] = part.pc + 1);
    }
}

/// Lanes that execute a collective together, and its operands.
struct Together<'a> {
    code: &'a Code,
    parts: &'a [Part],
    /// The lanes of all parts.
    all: u32,
}

impl Together<'_> {
    fn inst(&self, part: &Part) -> &Inst {
        &self.code.insts[part.pc as usize]
    }

    /// Slot `at` of an instruction that has its slots in [`Code::more`].
    fn slot(&self, part: &Part, at: usize) -> u32 {
        self.code.more[self.inst(part).d as usize + at]
    }

    /// A source of all lanes, each from the register of its own instruction.
    fn gather32(&self, warp: &Warp, slot: impl Fn(&Part) -> u32) -> [u32; LANES] {
        let mut values = [0; LANES];
        for part in self.parts {
            let from = warp.file.get::<u32>(slot(part));
            lanes(part.mask).for_each(|lane| values[lane] = from[lane]);
        }
        values
    }

    /// The same for a type of 32 or 64 bits.
    fn gather(&self, warp: &Warp, ty: Type, slot: impl Fn(&Part) -> u32) -> [u64; LANES] {
        if ty.bytes() != 8 {
            return self.gather32(warp, slot).map(u64::from);
        }
        let mut values = [0; LANES];
        for part in self.parts {
            let from = warp.file.get::<u64>(slot(part));
            lanes(part.mask).for_each(|lane| values[lane] = from[lane]);
        }
        values
    }

    fn shuffle(&self, warp: &mut Warp, mode: ShflMode, pred: bool) {
        let values = self.gather32(warp, |part| self.slot(part, 3));
        let b = self.gather32(warp, |part| self.slot(part, 4));
        let c = self.gather32(warp, |part| self.slot(part, 5));
        let (mut out, mut inside) = ([0; LANES], 0);
        for lane in 0..LANES {
            let (from, valid) = source(mode, lane as u32, b[lane] & 31, c[lane]);
            out[lane] = values[if valid { from as usize } else { lane }];
            inside |= u32::from(valid) << lane;
        }
        for part in self.parts {
            warp.file.put::<u32>(self.slot(part, 0), part.mask, &out);
            if pred {
                let p = self.slot(part, 1);
                warp.file.put_predicate(p, part.mask, inside);
            }
        }
    }

    fn vote(&self, warp: &mut Warp, mode: VoteMode) {
        let holds = self.parts.iter().fold(0, |holds, part| {
            holds | warp.file.predicates[self.inst(part).b as usize] & part.mask
        });
        for part in self.parts {
            let d = self.inst(part).d;
            let answer = match mode {
                VoteMode::Ballot => {
                    warp.file.put::<u32>(d, part.mask, &[holds; LANES]);
                    continue;
                }
                VoteMode::All => holds == self.all,
                VoteMode::Any => holds != 0,
                VoteMode::Uni => holds == self.all || holds == 0,
            };
            warp.file
                .put_predicate(d, part.mask, if answer { FULL } else { 0 });
        }
    }

    fn reduce(&self, warp: &mut Warp, op: ReduxOp, signed: bool) {
        let values = self.gather32(warp, |part| self.inst(part).b);
        let result = lanes(self.all)
            .map(|lane| values[lane])
            .reduce(|a, b| reduce(op, signed, a, b))
            .unwrap_or(0);
        for part in self.parts {
            let d = self.inst(part).d;
            warp.file.put::<u32>(d, part.mask, &[result; LANES]);
        }
    }

    fn match_any(&self, warp: &mut Warp, ty: Type) {
        let values = self.gather(warp, ty, |part| self.inst(part).b);
        let out = std::array::from_fn(|at| {
            let same = lanes(self.all).filter(|&lane| values[lane] == values[at]);
            same.fold(0, |mask, lane| mask | 1 << lane)
        });
        for part in self.parts {
            warp.file.put::<u32>(self.inst(part).d, part.mask, &out);
        }
    }

    fn match_all(&self, warp: &mut Warp, ty: Type) {
        let values = self.gather(warp, ty, |part| self.slot(part, 3));
        let first = values[self.all.trailing_zeros() as usize];
        let equal = lanes(self.all).all(|lane| values[lane] == first);
        let (mask, holds) = if equal { (self.all, FULL) } else { (0, 0) };
        self.put_with_predicate(warp, mask, holds);
    }

    fn elect(&self, warp: &mut Warp) {
        let leader = self.all.trailing_zeros();
        self.put_with_predicate(warp, leader, 1 << leader);
    }

    /// One value, and a predicate, for the lanes of all parts.
    fn put_with_predicate(&self, warp: &mut Warp, value: u32, holds: u32) {
        for part in self.parts {
            let (d, p) = (self.slot(part, 0), self.slot(part, 1));
            warp.file.put::<u32>(d, part.mask, &[value; LANES]);
            warp.file.put_predicate(p, part.mask, holds);
        }
    }
}

/// Executes one collective over the lanes of all parts.
#[inline(never)]
fn perform(engine: &mut Engine, common: &mut Common, warp: &mut Warp, parts: &[Part]) {
    if engine.shadowed() {
        common.shadow.sync_warp(warp.index);
    }
    let together = Together {
        code: engine.field.code,
        parts,
        all: parts.iter().fold(0, |all, part| all | part.mask),
    };
    let Op::Control(Control::Collective(collective)) = together.inst(&parts[0]).op else {
        unreachable!("only collectives wait for other lanes of their warp");
    };
    match collective {
        Collective::Barrier => {}
        Collective::Shfl { mode, pred } => together.shuffle(warp, mode, pred),
        Collective::Vote(mode) => together.vote(warp, mode),
        Collective::Redux { op, signed } => together.reduce(warp, op, signed),
        Collective::MatchAny(ty) => together.match_any(warp, ty),
        Collective::MatchAll(ty) => together.match_all(warp, ty),
        Collective::Elect => together.elect(warp),
    }
}

/// The lane that a shuffle reads from, and whether it lies in the segment of the reading lane.
fn source(mode: ShflMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (clamp, segment) = (c & 31, c >> 8 & 31);
    let last = lane & segment | clamp & !segment;
    let first = lane & segment;
    match mode {
        ShflMode::Up => {
            let from = lane as i32 - b as i32;
            (from as u32, from >= last as i32)
        }
        ShflMode::Down => (lane + b, lane + b <= last),
        ShflMode::Bfly => (lane ^ b, lane ^ b <= last),
        ShflMode::Idx => {
            let from = first | b & !segment;
            (from, from <= last)
        }
    }
}

fn reduce(op: ReduxOp, signed: bool, a: u32, b: u32) -> u32 {
    match op {
        ReduxOp::Add => a.wrapping_add(b),
        ReduxOp::Min if signed => (a as i32).min(b as i32) as u32,
        ReduxOp::Max if signed => (a as i32).max(b as i32) as u32,
        ReduxOp::Min => a.min(b),
        ReduxOp::Max => a.max(b),
        ReduxOp::And => a & b,
        ReduxOp::Or => a | b,
        ReduxOp::Xor => a ^ b,
    }
}
