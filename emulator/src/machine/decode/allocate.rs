//! Gives slots to virtual registers and packs the instructions. Slots are assigned by liveness and a linear scan, so that
//! the register file of a warp is small enough for the cache.
//!
//! Liveness is computed for one thread. Each lane has its own column of a slot, so divergence does not matter. An
//! instruction with a guard may leave its destination unchanged, and therefore counts as a reader of it.

use std::collections::HashMap;

use super::super::op::{Code, Collective, Control, Initial, Inst, Op, Place, Slot, UNGUARDED};
use super::builder::{Builder, Decoded, Draft};
use super::names::{Class, Reg};
use super::{Result, fail};

/// Finishes a kernel.
pub fn finish(builder: Builder) -> Result<Decoded> {
    for (label, &at) in builder.label_at.iter().enumerate() {
        let used = || {
            builder
                .drafts
                .iter()
                .find(|draft| draft.labels.contains(&label))
        };
        if at == u32::MAX
            && let Some(draft) = used()
        {
            return fail(draft.line, "the label that it jumps to does not exist");
        }
    }
    let spans = Spans::of(&builder);
    let slots = Slots::new(&builder, &spans);
    let mut code = Code {
        initial: slots.initial.clone(),
        units: slots.units,
        predicates: slots.predicates,
        shared_grain: 16,
        ..Code::default()
    };
    for draft in &builder.drafts {
        pack(draft, &builder, &slots, &mut code)?;
        if let Some(bytes) = shared_bytes(draft.op) {
            code.shared_grain = code.shared_grain.min(bytes);
        }
    }
    Ok(Decoded {
        code,
        static_shared: builder.static_shared as u32,
        dynamic_align: builder.dynamic_align as u32,
        local_bytes: builder.local_bytes as u32,
        registers: slots.live_registers,
    })
}

/// The size in bytes of an access that may go to shared memory.
fn shared_bytes(op: Op) -> Option<u32> {
    match op {
        Op::Load(access) | Op::Store(access) => {
            let shared = matches!(access.place, Place::Shared | Place::Generic);
            shared.then_some(access.bytes())
        }
        Op::Atomic(atomic) => {
            matches!(atomic.place, Place::Shared | Place::Generic).then_some(atomic.ty.bytes())
        }
        Op::CpAsync { bytes, .. } => Some(u32::from(bytes)),
        _ => None,
    }
}

/// Whether the operands of an instruction are in [`Code::more`].
fn many(op: Op) -> bool {
    matches!(
        op,
        Op::Load(_)
            | Op::Store(_)
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::LdMatrix { .. }
            | Op::Mma(_)
            | Op::Carry(_)
            | Op::CarryMad(_)
            | Op::Bfi(_)
            | Op::Control(Control::Collective(
                Collective::Shfl { .. } | Collective::MatchAll(_) | Collective::Elect
            ))
            | Op::Setp(_, true)
    )
}

fn pack(draft: &Draft, builder: &Builder, slots: &Slots, code: &mut Code) -> Result<()> {
    let slot = |reg: Option<&Reg>| reg.map_or(0, |&reg| slots.of[reg as usize]);
    let mut inst = Inst {
        op: draft.op,
        guard: draft.guard.map_or(UNGUARDED, |(reg, negated)| {
            slots.of[reg as usize] * 2 + u32::from(negated)
        }),
        d: slot(draft.dst.first()),
        a: slot(draft.src.first()),
        b: slot(draft.src.get(1)),
        c: slot(draft.src.get(2)),
        imm: draft.imm,
    };
    if many(draft.op) {
        inst.d = code.more.len() as u32;
        code.more.extend(
            draft
                .dst
                .iter()
                .chain(&draft.src)
                .map(|&reg| slots.of[reg as usize]),
        );
    } else if draft.dst.len() > 1 || draft.src.len() > 3 {
        return fail(draft.line, "the instruction has too many operands");
    }
    match draft.op {
        Op::Control(Control::Branch) => inst.imm = i64::from(builder.label_at[draft.labels[0]]),
        Op::Control(Control::BranchByTable) => {
            inst.d = code.targets.len() as u32;
            inst.imm = draft.labels.len() as i64;
            code.targets
                .extend(draft.labels.iter().map(|&label| builder.label_at[label]));
        }
        _ => {}
    }
    code.insts.push(inst);
    code.lines.push(draft.line);
    code.locations.push(draft.location);
    Ok(())
}

/// The first and last position at which each register is live. Instruction i reads at position 2i and writes at 2i + 1.
struct Spans {
    first: Vec<u32>,
    last: Vec<u32>,
}

struct Block {
    start: usize,
    end: usize,
    next: Vec<usize>,
}

impl Spans {
    fn of(builder: &Builder) -> Spans {
        let registers = builder.classes.len();
        let blocks = blocks(builder);
        let words = registers.div_ceil(64);
        let mut live_in = vec![vec![0u64; words]; blocks.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for at in (0..blocks.len()).rev() {
                let mut live = live_out(&blocks[at], &live_in, words);
                for draft in builder.drafts[blocks[at].start..blocks[at].end]
                    .iter()
                    .rev()
                {
                    if draft.guard.is_none() {
                        draft.dst.iter().for_each(|&reg| clear(&mut live, reg));
                    }
                    uses(draft).for_each(|reg| set(&mut live, reg));
                }
                if live != live_in[at] {
                    live_in[at] = live;
                    changed = true;
                }
            }
        }
        let mut spans = Spans {
            first: vec![u32::MAX; registers],
            last: vec![0; registers],
        };
        for (at, block) in blocks.iter().enumerate() {
            members(&live_in[at]).for_each(|reg| spans.add(reg, 2 * block.start));
            let out = live_out(block, &live_in, words);
            members(&out).for_each(|reg| spans.add(reg, 2 * block.end));
            for index in block.start..block.end {
                let draft = &builder.drafts[index];
                uses(draft).for_each(|reg| spans.add(reg, 2 * index));
                draft
                    .dst
                    .iter()
                    .for_each(|&reg| spans.add(reg, 2 * index + 1));
            }
        }
        spans
    }

    fn add(&mut self, reg: Reg, position: usize) {
        let at = reg as usize;
        self.first[at] = self.first[at].min(position as u32);
        self.last[at] = self.last[at].max(position as u32);
    }
}

fn uses(draft: &Draft) -> impl Iterator<Item = Reg> {
    let kept = if draft.guard.is_some() {
        &draft.dst[..]
    } else {
        &[]
    };
    draft
        .src
        .iter()
        .chain(kept)
        .copied()
        .chain(draft.guard.map(|(reg, _)| reg))
}

fn live_out(block: &Block, live_in: &[Vec<u64>], words: usize) -> Vec<u64> {
    let mut live = vec![0; words];
    for &next in &block.next {
        live.iter_mut()
            .zip(&live_in[next])
            .for_each(|(a, b)| *a |= b);
    }
    live
}

fn set(live: &mut [u64], reg: Reg) {
    live[reg as usize / 64] |= 1 << (reg % 64);
}

fn clear(live: &mut [u64], reg: Reg) {
    live[reg as usize / 64] &= !(1 << (reg % 64));
}

fn members(live: &[u64]) -> impl Iterator<Item = Reg> {
    live.iter().enumerate().flat_map(|(at, &word)| {
        (0..64)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| at as u32 * 64 + bit)
    })
}

/// Whether a thread that executes the instruction does not continue with the next one.
fn stops(op: Op) -> bool {
    use Control::{Branch, BranchByTable, Exit, Trap};
    matches!(op, Op::Control(Branch | BranchByTable | Exit | Trap))
}

fn blocks(builder: &Builder) -> Vec<Block> {
    let drafts = &builder.drafts;
    let mut starts = vec![false; drafts.len() + 1];
    starts[0] = true;
    for (at, draft) in drafts.iter().enumerate() {
        if stops(draft.op) {
            starts[at + 1] = true;
        }
        for &label in &draft.labels {
            starts[builder.label_at[label] as usize] = true;
        }
    }
    let begins: Vec<usize> = (0..drafts.len()).filter(|&at| starts[at]).collect();
    let index: HashMap<usize, usize> = begins.iter().enumerate().map(|(n, &at)| (at, n)).collect();
    let block = |(n, &start): (usize, &usize)| {
        let end = begins.get(n + 1).copied().unwrap_or(drafts.len());
        let last = &drafts[end - 1];
        let targets = last
            .labels
            .iter()
            .map(|&label| builder.label_at[label] as usize);
        let mut next: Vec<usize> = targets.filter_map(|at| index.get(&at).copied()).collect();
        let stops = stops(last.op);
        if (!stops || last.guard.is_some()) && n + 1 < begins.len() {
            next.push(n + 1);
        }
        Block { start, end, next }
    };
    begins.iter().enumerate().map(block).collect()
}

struct Slots {
    of: Vec<Slot>,
    initial: Vec<(Slot, Initial)>,
    units: u32,
    predicates: u32,
    live_registers: u32,
}

/// The slots of one width.
#[derive(Default)]
struct Pool {
    free: Vec<u32>,
    made: u32,
}

impl Pool {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made - 1
        })
    }
}

impl Slots {
    fn new(builder: &Builder, spans: &Spans) -> Slots {
        let registers = builder.classes.len();
        let mut constant = vec![false; registers];
        builder
            .initial
            .iter()
            .for_each(|&(reg, _)| constant[reg as usize] = true);
        let live = |&reg: &u32| spans.first[reg as usize] != u32::MAX && !constant[reg as usize];
        let mut order: Vec<Reg> = (0..registers as u32).filter(live).collect();
        order.sort_by_key(|&reg| spans.first[reg as usize]);

        let mut pools = [Pool::default(), Pool::default(), Pool::default()];
        let mut index = vec![0; registers];
        let mut active = std::collections::BinaryHeap::new();
        for reg in order {
            let at = reg as usize;
            while let Some(&std::cmp::Reverse((last, old))) = active.peek() {
                if last >= spans.first[at] {
                    break;
                }
                active.pop();
                let old: Reg = old;
                let pool = builder.classes[old as usize].units() as usize;
                pools[pool].free.push(index[old as usize]);
            }
            index[at] = pools[builder.classes[at].units() as usize].take();
            active.push(std::cmp::Reverse((spans.last[at], reg)));
        }

        let (mut units, mut predicates) = (0, 0);
        let mut of = vec![0; registers];
        let mut initial = Vec::new();
        for &(reg, value) in &builder.initial {
            let class = builder.classes[reg as usize];
            let next = if class == Class::Pred {
                &mut predicates
            } else {
                &mut units
            };
            of[reg as usize] = *next;
            initial.push((*next, value));
            *next += class.units().max(u32::from(class == Class::Pred));
        }
        let wide = units + pools[1].made;
        for reg in (0..registers).filter(|&reg| !constant[reg]) {
            of[reg] = match builder.classes[reg].units() {
                0 => predicates + index[reg],
                1 => units + index[reg],
                _ => wide + 2 * index[reg],
            };
        }
        Slots {
            of,
            initial,
            units: wide + 2 * pools[2].made.max(1),
            predicates: predicates + pools[0].made.max(1),
            live_registers: pools[1].made + 2 * pools[2].made,
        }
    }
}
