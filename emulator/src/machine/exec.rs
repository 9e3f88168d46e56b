//! The instruction loop of a warp.
//!
//! Each lane has its own program counter. Of the lanes that can run, those at the lowest counter
//! run next, together. Lanes that took different branches therefore meet again at the first
//! instruction that both paths reach.

use super::FaultKind;
use super::barrier;
use super::calculate::calculate;
use super::cta::{Common, Warp};
use super::engine::{Engine, Outcome, Trouble, trouble};
use super::lanes::{FULL, lanes};
use super::matrix;
use super::op::{Control, Inst, Mma, Op, UNGUARDED};
use super::warp_wide;

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

/// A fault and the instruction that caused it.
pub struct Failure {
    pub trouble: Box<Trouble>,
    pub pc: u32,
}

/// Number of polls after which a slice ends.
pub const POLLS: u32 = 64;

/// Runs a warp for at most `budget` instructions.
pub fn run(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    budget: &mut u32,
) -> Result<Stop, Failure> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both features, as just checked.
        return unsafe { slice_avx2(engine, common, warp, budget) };
    }
    slice(engine, common, warp, budget)
}

/// The loop compiled for AVX2 with fused multiply-add.
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

/// Lanes that execute together.
#[derive(Clone, Copy)]
struct Group {
    /// The program counter that all of them are at.
    pc: u32,
    mask: u32,
    /// The next higher program counter at which another lane that can run stands.
    next: u32,
}

impl Group {
    /// The lanes at the lowest program counter.
    fn lowest(warp: &Warp, runnable: u32) -> Group {
        let mut pc = u32::MAX;
        for lane in lanes(runnable) {
            pc = pc.min(warp.pc[lane]);
        }
        Group::at(warp, runnable, pc)
    }

    fn at(warp: &Warp, runnable: u32, pc: u32) -> Group {
        let (mut mask, mut next) = (0, u32::MAX);
        for lane in lanes(runnable) {
            if warp.pc[lane] == pc {
                mask |= 1 << lane;
            } else if warp.pc[lane] > pc {
                next = next.min(warp.pc[lane]);
            }
        }
        Group { pc, mask, next }
    }

    /// The lanes to run next. When one group has used up a slice, another group of the warp
    /// follows, because lanes may spin until other lanes of their warp arrive.
    fn choose(warp: &mut Warp) -> Group {
        let runnable = warp.runnable();
        let Some(after) = warp.spun.take() else {
            return Group::lowest(warp, runnable);
        };
        let others = lanes(runnable)
            .map(|lane| warp.pc[lane])
            .filter(|&pc| pc > after);
        match others.min() {
            Some(pc) => Group::at(warp, runnable, pc),
            None => Group::lowest(warp, runnable),
        }
    }

    /// Moves the group after a control instruction. Whether lanes of it are left to run together.
    #[inline(always)]
    fn follow(&mut self, flow: Flow) -> bool {
        match flow {
            Flow::Next => self.pc += 1,
            Flow::Jump(target) => self.pc = target,
            Flow::Without(gone) => {
                self.mask &= !gone;
                self.pc += 1;
            }
            Flow::Apart => return false,
        }
        self.mask != 0
    }

    /// Stores the program counter of the group's lanes in the warp.
    fn store(&self, warp: &mut Warp) {
        lanes(self.mask).for_each(|lane| warp.pc[lane] = self.pc);
    }
}

/// Where the lanes of a group are after a control instruction.
pub enum Flow {
    /// All are at the next instruction.
    Next,
    /// All are at this instruction.
    Jump(u32),
    /// These lanes have exited or wait; the others are at the next instruction.
    Without(u32),
    /// They are at different instructions, and [`Warp::pc`] says at which.
    Apart,
}

#[inline(always)]
fn slice(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    budget: &mut u32,
) -> Result<Stop, Failure> {
    loop {
        if warp.runnable() == 0 {
            if warp.alive == 0 {
                return Ok(Stop::Done);
            }
            match warp_wide::resolve(engine, common, warp) {
                Ok(true) => continue,
                Ok(false) => return Ok(Stop::Blocked),
                Err(trouble) => {
                    let pc = warp.pc[trouble.lane];
                    return Err(Failure { trouble, pc });
                }
            }
        }
        let group = Group::choose(warp);
        if run_group(engine, common, warp, group, budget)? {
            return Ok(Stop::Slice);
        }
    }
}

/// Runs a group until its lanes part, until it reaches other lanes of the warp, or until the
/// budget is used up. Whether the budget is used up.
#[inline(always)]
fn run_group(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    mut group: Group,
    budget: &mut u32,
) -> Result<bool, Failure> {
    let insts = &engine.field.code.insts[..];
    loop {
        if group.pc >= group.next {
            group.store(warp);
            return Ok(false);
        }
        if *budget == 0 {
            group.store(warp);
            if group.mask != warp.runnable() {
                warp.spun = Some(group.pc);
            }
            return Ok(true);
        }
        *budget -= 1;
        let inst = &insts[group.pc as usize];
        engine.counts[group.pc as usize] += 1;
        let mut active = group.mask;
        if inst.guard != UNGUARDED {
            let predicate = warp.file.predicates[(inst.guard >> 1) as usize];
            active &= predicate ^ (inst.guard & 1).wrapping_neg();
            if active == 0 {
                group.pc += 1;
                continue;
            }
        }
        engine.lane_instructions += u64::from(active.count_ones());
        warp.alone += u32::from(warp.waiting != 0);
        let result = match inst.op {
            Op::Control(op) => match control(engine, common, warp, group, active, inst, op) {
                Ok(flow) => {
                    if !group.follow(flow) {
                        return Ok(false);
                    }
                    continue;
                }
                Err(trouble) => Err(trouble),
            },
            _ => execute(engine, common, warp, active, inst, budget),
        };
        if let Err(trouble) = result {
            let pc = group.pc;
            return Err(Failure { trouble, pc });
        }
        group.pc += 1;
    }
}

/// Executes a branch, an exit, a trap, or an instruction at which lanes wait for others.
#[inline(always)]
fn control(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    group: Group,
    active: u32,
    inst: &Inst,
    op: Control,
) -> Outcome<Flow> {
    match op {
        Control::Branch => Ok(branch(warp, group, active, inst.imm as u32)),
        Control::BranchByTable => branch_by_table(engine, warp, group, active, inst),
        Control::Exit => barrier::leave(engine, common, warp, active),
        Control::Bar(bar) => barrier::arrive(engine, common, warp, active, inst, group.pc, bar),
        Control::Collective(_) => collective(engine, common, warp, group, active),
        Control::Trap => trap(active),
    }
}

/// Executes any other instruction. All lanes then go on to the next one.
#[inline(always)]
fn execute(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    active: u32,
    inst: &Inst,
    budget: &mut u32,
) -> Outcome {
    let code = engine.field.code;
    match inst.op {
        Op::Load(access) => {
            let slots = &code.more[inst.d as usize..][..access.count as usize];
            engine.transfer::<false>(common, warp, active, inst, access, slots)?;
            end_polling(engine, budget);
        }
        Op::Store(access) => {
            let slots = &code.more[inst.d as usize + 1..][..access.count as usize];
            engine.transfer::<true>(common, warp, active, inst, access, slots)?;
        }
        Op::Atomic(atomic) => {
            engine.atomic(common, warp, active, inst, atomic)?;
            end_polling(engine, budget);
        }
        Op::CpAsync { bytes, sized } => {
            engine.cp_async(common, warp, active, inst, bytes, sized)?;
        }
        Op::CpCommit => lanes(active).for_each(|lane| warp.committed[lane] += 1),
        Op::CpWait(count) => engine.cp_arrive(common, warp, active, |committed| {
            committed.saturating_sub(count)
        }),
        Op::CpWaitAll => engine.cp_arrive(common, warp, active, |_| u32::MAX),
        Op::LdMatrix { count, trans } => {
            whole(active, "ldmatrix")?;
            let slots = &code.more[inst.d as usize..][..count as usize];
            engine.ldmatrix(common, warp, inst, count, trans, slots)?;
        }
        Op::Mma(mma) => multiply(engine, warp, active, inst, mma)?,
        Op::Fence => fence(engine, common),
        Op::Sleep => engine.polls += 1,
        _ => calculate(engine, warp, active, inst),
    }
    Ok(())
}

/// Ends the slice of a warp that polls, so that the warps it waits for can run.
#[inline(always)]
fn end_polling(engine: &Engine, budget: &mut u32) {
    if engine.polls >= POLLS {
        *budget = 0;
    }
}

/// `bra`.
#[inline(always)]
fn branch(warp: &mut Warp, group: Group, active: u32, target: u32) -> Flow {
    if active == group.mask {
        return Flow::Jump(target);
    }
    lanes(active).for_each(|lane| warp.pc[lane] = target);
    lanes(group.mask & !active).for_each(|lane| warp.pc[lane] = group.pc + 1);
    Flow::Apart
}

/// `brx.idx`: each lane jumps to the target that its index names.
#[inline(never)]
fn branch_by_table(
    engine: &Engine,
    warp: &mut Warp,
    group: Group,
    active: u32,
    inst: &Inst,
) -> Outcome<Flow> {
    let index = *warp.file.get::<u32>(inst.a);
    for lane in lanes(active) {
        if i64::from(index[lane]) >= inst.imm {
            let (index, targets) = (index[lane], inst.imm);
            let message = format!("brx.idx to target {index} of {targets}");
            return trouble(FaultKind::Trap, lane, message);
        }
        warp.pc[lane] = engine.field.code.targets[(inst.d + index[lane]) as usize];
    }
    lanes(group.mask & !active).for_each(|lane| warp.pc[lane] = group.pc + 1);
    Ok(Flow::Apart)
}

/// An instruction that the lanes of its mask execute together.
#[inline(always)]
fn collective(
    engine: &mut Engine,
    common: &mut Common,
    warp: &mut Warp,
    group: Group,
    active: u32,
) -> Outcome<Flow> {
    let stay = warp_wide::collective(engine, common, warp, active, group.pc)?;
    if stay == 0 {
        return Ok(Flow::Next);
    }
    lanes(group.mask & !stay).for_each(|lane| warp.pc[lane] = group.pc + 1);
    Ok(Flow::Apart)
}

/// `mma.sync`.
#[inline(always)]
fn multiply(engine: &Engine, warp: &mut Warp, active: u32, inst: &Inst, mma: Mma) -> Outcome {
    whole(active, "mma")?;
    let (a, b, c) = mma.registers();
    let slots = &engine.field.code.more[inst.d as usize..][..a + b + 2 * c];
    matrix::mma(&mut warp.file, slots, mma);
    Ok(())
}

/// `fence` and `membar`.
fn fence(engine: &Engine, common: &Common) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    if engine.field.checks.global_races {
        engine.field.order.release(common.index);
    }
}

#[cold]
fn trap(active: u32) -> Outcome<Flow> {
    trouble(
        FaultKind::Trap,
        active.trailing_zeros() as usize,
        "the kernel executed a trap instruction, for example because an assertion failed",
    )
}

/// Refuses an instruction of the whole warp that some lanes do not execute.
fn whole(active: u32, what: &str) -> Outcome {
    if active == FULL {
        return Ok(());
    }
    let lane = (!active).trailing_zeros() as usize;
    trouble(
        FaultKind::Trap,
        lane,
        format!("all lanes of the warp must execute {what}, and this one does not"),
    )
}
