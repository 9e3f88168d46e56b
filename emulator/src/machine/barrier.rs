//! Barriers of the CTA as lanes arrive at them, and exits.

use super::FaultKind;
use super::cta::{Common, Wait, Warp};
use super::engine::{Engine, Outcome, trouble};
use super::exec::Flow;
use super::lanes::lanes;
use super::op::{Bar, BarMode, Inst};

/// Warp instructions that lanes may execute between passing a barrier where other lanes of their
/// warp wait and exiting.
const WAY_OUT: u32 = 4;

/// `exit`.
#[inline(never)]
pub fn leave(engine: &mut Engine, common: &Common, warp: &mut Warp, active: u32) -> Outcome<Flow> {
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
                "this thread exits without reaching the barrier of PTX line {line}, \
                 where other threads of its warp wait"
            );
            let lane = active.trailing_zeros() as usize;
            return trouble(FaultKind::DivergentBarrier, lane, message);
        }
    }
    if warp.alive == 0 {
        engine.changed = true;
    }
    Ok(Flow::Without(active))
}

/// Lanes arrive at a barrier of the CTA.
#[inline(never)]
pub fn arrive(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    active: u32,
    inst: &Inst,
    pc: u32,
    bar: Bar,
) -> Outcome<Flow> {
    let lane = active.trailing_zeros() as usize;
    let id = warp.file.get::<u32>(inst.a)[lane] as usize;
    if id >= common.barriers.len() {
        return trouble(
            FaultKind::Trap,
            lane,
            format!("barrier {id}: a CTA has barriers 0 to 15"),
        );
    }
    if bar.aligned && engine.field.checks.barriers && warp.waiting != 0 {
        elsewhere(engine, common, warp, lane, pc)?;
    }
    let count = bar.counted.then(|| warp.file.get::<u32>(inst.b)[lane]);
    if count.is_some_and(|count| count == 0 || count % 32 != 0) {
        return trouble(
            FaultKind::Trap,
            lane,
            "the thread count of a barrier must be a multiple of 32, and not 0",
        );
    }
    let barrier = &mut common.barriers[id];
    if count.is_some() && barrier.count.is_some() && barrier.count != count {
        return trouble(
            FaultKind::DivergentBarrier,
            lane,
            "threads give different thread counts for this barrier",
        );
    }
    barrier.count = barrier.count.or(count);
    barrier.aligned = bar.aligned;
    barrier.arrived[warp.index] |= active;
    if matches!(bar.mode, BarMode::And | BarMode::Or | BarMode::Popc) {
        barrier.holds[warp.index] |= warp.file.predicates[inst.c as usize] & active;
    }
    if bar.mode == BarMode::Arrive {
        return Ok(Flow::Next);
    }
    warp.waiting |= active;
    lanes(active).for_each(|lane| warp.pc[lane] = pc + 1);
    barrier.waits.push(Wait {
        warp: warp.index,
        mask: active,
        mode: bar.mode,
        dst: inst.d,
        pc,
    });
    Ok(Flow::Without(active))
}

/// An aligned barrier is for the whole warp: no other lane of the warp may wait at another
/// barrier instruction, unless that is a copy of this one (it has the same source line).
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
                "this barrier is in divergent code: \
                 other threads of this warp wait at the barrier of PTX line {line}"
            );
            trouble(FaultKind::DivergentBarrier, lane, message)
        }
        None => Ok(()),
    }
}
