//! The instruction loop of a warp.
//!
//! Each lane has a place; the lowest place among the lanes that can run goes on, for all lanes
//! that stand there. Lanes that part at a branch so meet again at the first instruction that both
//! paths come to.

use super::FaultKind;
use super::calculate::calculate;
use super::cta::{Common, Wait, Warp};
use super::engine::{Engine, Outcome, Trouble, trouble};
use super::lanes::{FULL, lanes};
use super::matrix;
use super::op::{BarMode, Inst, Op, UNGUARDED};

/// Why a warp stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All its lanes have exited.
    Done,
    /// All its lanes wait.
    Blocked,
    /// It used up its slice.
    Slice,
}

/// A fault and the instruction that met it.
pub struct Failure {
    pub trouble: Box<Trouble>,
    pub pc: u32,
}

/// Polls after which a slice ends.
pub const POLLS: u32 = 64;

/// Warp instructions that lanes may execute on their way out past a barrier where others wait.
const WAY_OUT: u32 = 4;

/// Runs a warp for at most `budget` instructions.
pub fn run(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    budget: &mut u32,
) -> Result<Stop, Failure> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were just found.
        return unsafe { slice_avx2(engine, common, warp, budget) };
    }
    slice(engine, common, warp, budget)
}

/// The loop compiled for AVX2 with fused products.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn slice_avx2(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    budget: &mut u32,
) -> Result<Stop, Failure> {
    slice(engine, common, warp, budget)
}

/// The lanes that stand at the lowest place, the place, and the next place of any other.
fn lowest(warp: &Warp, runnable: u32) -> (u32, u32, u32) {
    let mut pc = u32::MAX;
    for lane in lanes(runnable) {
        pc = pc.min(warp.pc[lane]);
    }
    group_at(warp, runnable, pc)
}

fn group_at(warp: &Warp, runnable: u32, pc: u32) -> (u32, u32, u32) {
    let (mut mask, mut next) = (0, u32::MAX);
    for lane in lanes(runnable) {
        if warp.pc[lane] == pc {
            mask |= 1 << lane;
        } else if warp.pc[lane] > pc {
            next = next.min(warp.pc[lane]);
        }
    }
    (pc, mask, next)
}

/// The lanes to run next. After a slice that part of the warp used up, another part has its turn:
/// lanes may spin until others of their warp come.
fn choose(warp: &mut Warp) -> (u32, u32, u32) {
    let runnable = warp.runnable();
    let Some(after) = warp.spun.take() else {
        return lowest(warp, runnable);
    };
    let others = lanes(runnable)
        .map(|lane| warp.pc[lane])
        .filter(|&pc| pc > after);
    match others.min() {
        Some(pc) => group_at(warp, runnable, pc),
        None => lowest(warp, runnable),
    }
}

#[inline(always)]
fn slice(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    budget: &mut u32,
) -> Result<Stop, Failure> {
    let code = engine.field.code;
    let insts = &code.insts[..];
    'group: loop {
        if warp.runnable() == 0 {
            if warp.alive == 0 {
                return Ok(Stop::Done);
            }
            match super::warp_wide::resolve(engine, common, warp) {
                Ok(true) => continue 'group,
                Ok(false) => return Ok(Stop::Blocked),
                Err(trouble) => {
                    let pc = warp.pc[trouble.lane];
                    return Err(Failure { trouble, pc });
                }
            }
        }
        let (mut pc, mut mask, next) = choose(warp);
        loop {
            if pc >= next {
                lanes(mask).for_each(|lane| warp.pc[lane] = pc);
                continue 'group;
            }
            if *budget == 0 {
                lanes(mask).for_each(|lane| warp.pc[lane] = pc);
                if mask != warp.runnable() {
                    warp.spun = Some(pc);
                }
                return Ok(Stop::Slice);
            }
            *budget -= 1;
            let inst = &insts[pc as usize];
            engine.counts[pc as usize] += 1;
            let mut active = mask;
            if inst.guard != UNGUARDED {
                let predicate = warp.file.predicates[(inst.guard >> 1) as usize];
                active &= predicate ^ (inst.guard & 1).wrapping_neg();
                if active == 0 {
                    pc += 1;
                    continue;
                }
            }
            engine.lane_instructions += u64::from(active.count_ones());
            warp.alone += u32::from(warp.waiting != 0);
            macro_rules! attempt {
                ($result:expr) => {
                    match $result {
                        Ok(value) => value,
                        Err(trouble) => return Err(Failure { trouble, pc }),
                    }
                };
            }
            match inst.op {
                Op::Bra => {
                    let target = inst.imm as u32;
                    if active == mask {
                        pc = target;
                        continue;
                    }
                    lanes(active).for_each(|lane| warp.pc[lane] = target);
                    lanes(mask & !active).for_each(|lane| warp.pc[lane] = pc + 1);
                    continue 'group;
                }
                Op::Brx => {
                    let index = *warp.file.get::<u32>(inst.a);
                    for lane in lanes(active) {
                        let Some(at) = Some(index[lane]).filter(|&at| i64::from(at) < inst.imm)
                        else {
                            let result = trouble(FaultKind::Trap, lane, "brx.idx beyond its table");
                            attempt!(result);
                            break;
                        };
                        warp.pc[lane] = code.targets[(inst.d + at) as usize];
                    }
                    lanes(mask & !active).for_each(|lane| warp.pc[lane] = pc + 1);
                    continue 'group;
                }
                Op::Exit => {
                    attempt!(leave(engine, common, warp, active));
                    mask &= !active;
                    if mask == 0 {
                        continue 'group;
                    }
                }
                Op::Bar {
                    mode,
                    aligned,
                    counted,
                } => {
                    let bar = (mode, aligned, counted);
                    attempt!(arrive(engine, common, warp, active, inst, pc, bar));
                    if mode != BarMode::Arrive {
                        mask &= !active;
                    }
                    if mask == 0 {
                        continue 'group;
                    }
                }
                Op::WarpBar
                | Op::Shfl { .. }
                | Op::Vote(_)
                | Op::MatchAny(_)
                | Op::MatchAll(..)
                | Op::Redux(..)
                | Op::Elect => {
                    let stay = attempt!(super::warp_wide::collective(
                        engine, common, warp, active, pc
                    ));
                    if stay != 0 {
                        lanes(mask & !stay).for_each(|lane| warp.pc[lane] = pc + 1);
                        continue 'group;
                    }
                }
                Op::Load(access) => {
                    let slots = &code.more[inst.d as usize..][..access.count as usize];
                    attempt!(engine.load(common, warp, active, inst, access, slots));
                    if engine.polls >= POLLS {
                        *budget = 0;
                    }
                }
                Op::Store(access) => {
                    let slots = &code.more[inst.d as usize + 1..][..access.count as usize];
                    attempt!(engine.store(common, warp, active, inst, access, slots));
                }
                Op::Atomic(atomic) => {
                    attempt!(engine.atomic(common, warp, active, inst, atomic));
                    if engine.polls >= POLLS {
                        *budget = 0;
                    }
                }
                Op::CpAsync { bytes, sized } => {
                    attempt!(engine.cp_async(common, warp, active, inst, bytes, sized));
                }
                Op::CpCommit => lanes(active).for_each(|lane| warp.committed[lane] += 1),
                Op::CpWait(count) => {
                    engine.cp_arrive(common, warp, active, |committed| {
                        committed.saturating_sub(count)
                    });
                }
                Op::CpWaitAll => engine.cp_arrive(common, warp, active, |_| u32::MAX),
                Op::LdMatrix { count, trans } => {
                    attempt!(whole(active, "ldmatrix"));
                    let slots = &code.more[inst.d as usize..][..count as usize];
                    attempt!(engine.ldmatrix(common, warp, inst, count, trans, slots));
                }
                Op::Mma(mma) => {
                    attempt!(whole(active, "mma"));
                    let (a, b, c) = mma.registers();
                    let slots = &code.more[inst.d as usize..][..a + b + 2 * c];
                    matrix::mma(&mut warp.file, slots, mma);
                }
                Op::Fence => {
                    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                    if engine.field.checks.global_races {
                        engine.field.order.release(common.index);
                    }
                }
                Op::Sleep => engine.polls += 1,
                Op::Trap => attempt!(trouble(
                    FaultKind::Trap,
                    active.trailing_zeros() as usize,
                    "the kernel executed a trap (a failed assertion, for one)",
                )),
                _ => calculate(engine, warp, active, inst),
            }
            pc += 1;
        }
    }
}

/// Instructions of the whole warp.
fn whole(active: u32, what: &str) -> Outcome {
    if active == FULL {
        return Ok(());
    }
    let lane = (!active).trailing_zeros() as usize;
    trouble(
        FaultKind::Trap,
        lane,
        format!("{what} without this lane of the warp"),
    )
}

/// Lanes exit.
#[inline(never)]
fn leave(engine: &mut Engine, common: &Common, warp: &mut Warp, active: u32) -> Outcome {
    warp.alive &= !active;
    if engine.field.checks.barriers && warp.waiting != 0 && warp.alone > WAY_OUT {
        let waits = common
            .barriers
            .iter()
            .filter(|b| b.aligned)
            .flat_map(|b| &b.waits);
        if let Some(wait) = waits.into_iter().find(|wait| wait.warp == warp.index) {
            let line = engine.field.code.lines[wait.pc as usize];
            let message = format!(
                "this thread exits while others of its warp wait at the barrier of PTX line {line}, \
                 which it passed by"
            );
            let lane = active.trailing_zeros() as usize;
            return trouble(FaultKind::DivergentBarrier, lane, message);
        }
    }
    if warp.alive == 0 {
        engine.changed = true;
    }
    Ok(())
}

/// Lanes come to a barrier of the CTA.
#[inline(never)]
fn arrive(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    active: u32,
    inst: &Inst,
    pc: u32,
    (mode, aligned, counted): (BarMode, bool, bool),
) -> Outcome {
    let lane = active.trailing_zeros() as usize;
    let id = warp.file.get::<u32>(inst.a)[lane] as usize;
    if id >= common.barriers.len() {
        return trouble(FaultKind::Trap, lane, format!("barrier {id}: there are 16"));
    }
    if aligned && engine.field.checks.barriers && warp.waiting != 0 {
        elsewhere(engine, common, warp, lane, pc)?;
    }
    let count = counted.then(|| warp.file.get::<u32>(inst.b)[lane]);
    if count.is_some_and(|count| count == 0 || count % 32 != 0) {
        return trouble(
            FaultKind::Trap,
            lane,
            "a barrier's threads must be a multiple of 32",
        );
    }
    let barrier = &mut common.barriers[id];
    if count.is_some() && barrier.count.is_some() && barrier.count != count {
        return trouble(
            FaultKind::DivergentBarrier,
            lane,
            "threads expect different numbers here",
        );
    }
    barrier.count = barrier.count.or(count);
    barrier.aligned = aligned;
    barrier.arrived[warp.index] |= active;
    if matches!(mode, BarMode::And | BarMode::Or | BarMode::Popc) {
        barrier.holds[warp.index] |= warp.file.predicates[inst.c as usize] & active;
    }
    if mode != BarMode::Arrive {
        warp.waiting |= active;
        lanes(active).for_each(|lane| warp.pc[lane] = pc + 1);
        barrier.waits.push(Wait {
            warp: warp.index,
            mask: active,
            mode,
            dst: inst.d,
            pc,
        });
    }
    Ok(())
}

/// An aligned barrier is for the whole warp: other lanes of it may not wait at another place,
/// unless that is a copy of this one (the same source line).
fn elsewhere(engine: &Engine, common: &Common, warp: &Warp, lane: usize, pc: u32) -> Outcome {
    let locations = &engine.field.code.locations;
    let mut waits = common
        .barriers
        .iter()
        .filter(|b| b.aligned)
        .flat_map(|b| &b.waits);
    let other = waits.find(|wait| {
        let same = locations[wait.pc as usize] == locations[pc as usize]
            && locations[pc as usize] != (0, 0);
        wait.warp == warp.index && wait.pc != pc && !same
    });
    match other {
        Some(wait) => {
            let line = engine.field.code.lines[wait.pc as usize];
            let message = format!(
                "other threads of this warp wait at the barrier of PTX line {line}: \
                 a barrier in divergent code"
            );
            trouble(FaultKind::DivergentBarrier, lane, message)
        }
        None => Ok(()),
    }
}
