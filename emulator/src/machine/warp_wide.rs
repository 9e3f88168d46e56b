//! Instructions that lanes of a warp do together: shuffles, votes, matches, reductions and the
//! warp's barrier. They wait until all lanes of their mask have come, maybe at different places of
//! the code (a compiler may clone them into both arms of a branch).

use super::FaultKind;
use super::cta::{Common, Warp};
use super::engine::{Engine, Outcome, trouble};
use super::lanes::{FULL, LANES, lanes};
use super::op::{Op, ReduxOp, ShflMode, Type, VoteMode};

/// Lanes that execute one of these at one place.
#[derive(Clone, Copy)]
struct Part {
    pc: u32,
    mask: u32,
}

/// Lanes `active` come to the instruction at `pc`. Returns the lanes that have to wait there.
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
            let message = format!("this lane is not in the mask {members:#010x} that it gives");
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

/// Lets waiting lanes go on if all that they wait for have come or exited. Whether any did.
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

/// Where the mask operand of a collective lies.
fn mask_slot(engine: &Engine, pc: u32) -> u32 {
    let inst = &engine.field.code.insts[pc as usize];
    match inst.op {
        // Destinations d and p come first.
        Op::Shfl { .. } | Op::MatchAll(..) | Op::Elect => {
            engine.field.code.more[inst.d as usize + 2]
        }
        _ => inst.a,
    }
}

fn members(engine: &Engine, warp: &Warp, lane: usize, pc: u32) -> Outcome<u32> {
    let members = warp.file.get::<u32>(mask_slot(engine, pc))[lane];
    match members {
        0 => trouble(FaultKind::Trap, lane, "an empty mask"),
        _ => Ok(members),
    }
}

/// The lanes that wait at an instruction like that at `pc` with the same mask, by place.
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

/// Executes one collective over the lanes of all parts.
#[inline(never)]
fn perform(engine: &mut Engine, common: &mut Common, warp: &mut Warp, parts: &[Part]) {
    if engine.shadowed() {
        common.shadow.sync_warp(warp.index);
    }
    let code = engine.field.code;
    let all = parts.iter().fold(0, |all, part| all | part.mask);
    let inst = |part: &Part| &code.insts[part.pc as usize];
    let slots = |part: &Part| &code.more[inst(part).d as usize..];
    let op = inst(&parts[0]).op;
    // Sources of all lanes first, each from the registers of its own instruction.
    let gather32 = |warp: &Warp, slot: &dyn Fn(&Part) -> u32| {
        let mut values = [0u32; LANES];
        for part in parts {
            let from = warp.file.get::<u32>(slot(part));
            lanes(part.mask).for_each(|lane| values[lane] = from[lane]);
        }
        values
    };
    match op {
        Op::Shfl { mode, pred } => {
            let values = gather32(warp, &|part| slots(part)[3]);
            let b = gather32(warp, &|part| slots(part)[4]);
            let c = gather32(warp, &|part| slots(part)[5]);
            let (mut out, mut inside) = ([0; LANES], 0);
            for lane in 0..LANES {
                let (from, valid) = source(mode, lane as u32, b[lane] & 31, c[lane]);
                out[lane] = values[if valid { from as usize } else { lane }];
                inside |= u32::from(valid) << lane;
            }
            for part in parts {
                warp.file.put::<u32>(slots(part)[0], part.mask, &out);
                if pred {
                    warp.file.put_predicate(slots(part)[1], part.mask, inside);
                }
            }
        }
        Op::Vote(mode) => {
            let holds = parts.iter().fold(0, |holds, part| {
                holds | warp.file.predicates[inst(part).b as usize] & part.mask
            });
            for part in parts {
                let d = inst(part).d;
                let answer = match mode {
                    VoteMode::Ballot => {
                        warp.file.put::<u32>(d, part.mask, &[holds; LANES]);
                        continue;
                    }
                    VoteMode::All => holds == all,
                    VoteMode::Any => holds != 0,
                    VoteMode::Uni => holds == all || holds == 0,
                };
                warp.file
                    .put_predicate(d, part.mask, if answer { FULL } else { 0 });
            }
        }
        Op::Redux(op, signed) => {
            let values = gather32(warp, &|part| inst(part).b);
            let result = lanes(all)
                .map(|lane| values[lane])
                .reduce(|a, b| reduce(op, signed, a, b));
            for part in parts {
                warp.file
                    .put::<u32>(inst(part).d, part.mask, &[result.unwrap_or(0); LANES]);
            }
        }
        Op::MatchAny(ty) => {
            let values = wide_values(warp, parts, ty, |part| inst(part).b);
            let out = std::array::from_fn(|at| {
                let same = lanes(all).filter(|&lane| values[lane] == values[at]);
                same.fold(0, |mask, lane| mask | 1 << lane)
            });
            for part in parts {
                warp.file.put::<u32>(inst(part).d, part.mask, &out);
            }
        }
        Op::MatchAll(ty, _) => {
            let values = wide_values(warp, parts, ty, |part| slots(part)[3]);
            let first = values[all.trailing_zeros() as usize];
            let equal = lanes(all).all(|lane| values[lane] == first);
            let (mask, holds) = if equal { (all, FULL) } else { (0, 0) };
            for part in parts {
                warp.file
                    .put::<u32>(slots(part)[0], part.mask, &[mask; LANES]);
                warp.file.put_predicate(slots(part)[1], part.mask, holds);
            }
        }
        Op::Elect => {
            let leader = all.trailing_zeros();
            for part in parts {
                warp.file
                    .put::<u32>(slots(part)[0], part.mask, &[leader; LANES]);
                warp.file
                    .put_predicate(slots(part)[1], part.mask, 1 << leader);
            }
        }
        _ => {}
    }
}

fn wide_values(warp: &Warp, parts: &[Part], ty: Type, slot: impl Fn(&Part) -> u32) -> [u64; LANES] {
    let mut values = [0; LANES];
    for part in parts {
        for lane in lanes(part.mask) {
            values[lane] = if ty.bytes() == 8 {
                warp.file.get::<u64>(slot(part))[lane]
            } else {
                u64::from(warp.file.get::<u32>(slot(part))[lane])
            };
        }
    }
    values
}

/// The lane a shuffle reads, and whether it lies in the lane's segment.
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
