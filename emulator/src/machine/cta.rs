//! A CTA: its warps, shared memory and barriers.

use super::lanes::{FULL, File, LANES};
use super::op::{BarMode, Code, Initial, Special};
use super::shadow::Shadow;

/// A `cp.async` of a warp that is not finished.
pub struct Pending {
    pub mask: u32,
    /// The group that it belongs to, for each lane.
    pub group: [u32; LANES],
    pub to: [u32; LANES],
    pub from: [u64; LANES],
    /// Number of bytes to copy, for each lane; the rest of `bytes` becomes zeros.
    pub size: [u8; LANES],
    pub bytes: u8,
}

/// A warp.
pub struct Warp {
    pub index: usize,
    pub file: File,
    /// The program counter of each lane; not up to date for the lanes that run.
    pub pc: [u32; LANES],
    pub alive: u32,
    /// Lanes at a barrier of the CTA.
    pub waiting: u32,
    /// Lanes that wait at a `.sync` instruction for other lanes of its mask.
    pub syncing: u32,
    pub pending: Vec<Pending>,
    /// Number of committed groups of copies, for each lane.
    pub committed: [u32; LANES],
    pub local: Vec<u8>,
    pub local_written: Vec<bool>,
    /// Number of warp instructions since some lanes of the warp arrived at an aligned barrier without the others.
    pub alone: u32,
    /// The program counter of lanes that have used up a slice while others of the warp could run.
    pub spun: Option<u32>,
}

impl Warp {
    /// Lanes that can continue.
    pub fn runnable(&self) -> u32 {
        self.alive & !self.waiting & !self.syncing
    }
}

/// One of the 16 barriers.
#[derive(Clone, Default)]
pub struct Barrier {
    /// Lanes that have arrived, for each warp.
    pub arrived: Vec<u32>,
    /// The number of threads to wait for, if an instruction gives it.
    pub count: Option<u32>,
    /// For `bar.red`: lanes whose predicate holds, for each warp.
    pub holds: Vec<u32>,
    pub aligned: bool,
    pub waits: Vec<Wait>,
}

/// Lanes of a warp that wait at a barrier.
#[derive(Clone, Copy)]
pub struct Wait {
    pub warp: usize,
    pub mask: u32,
    pub mode: BarMode,
    pub dst: u32,
    pub pc: u32,
}

/// What the warps of a CTA share.
pub struct Common {
    /// The CTA's number in the grid.
    pub index: usize,
    pub id: [u32; 3],
    pub shared: Vec<u8>,
    pub shadow: Shadow,
    pub barriers: Vec<Barrier>,
    pub threads: u32,
}

/// A resident CTA.
pub struct Cta {
    pub common: Common,
    pub warps: Vec<Warp>,
}

/// The numbers of a launch that special registers contain.
pub struct Shape<'a> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub dynamic_base: u32,
    pub sm_count: u32,
    pub globals: &'a [u64],
    /// The address of device memory for the barrier of a cooperative grid; 0 for any other grid.
    pub workspace: u64,
}

impl Cta {
    /// The memory of a CTA, before [`Cta::start`] makes it a certain one.
    pub fn new(code: &Code, shape: &Shape, local_bytes: u32) -> Cta {
        let threads: u32 = shape.block.iter().product();
        let warps = (0..threads.div_ceil(32) as usize)
            .map(|index| Warp {
                index,
                file: File::new(code.units, code.predicates),
                pc: [0; LANES],
                alive: 0,
                waiting: 0,
                syncing: 0,
                pending: Vec::new(),
                committed: [0; LANES],
                local: vec![0; local_bytes as usize * LANES],
                local_written: vec![false; local_bytes as usize * LANES],
                alone: 0,
                spun: None,
            })
            .collect();
        let common = Common {
            index: 0,
            id: [0; 3],
            shared: vec![0; (shape.dynamic_base + shape.dynamic_shared) as usize],
            shadow: Shadow::default(),
            barriers: Vec::new(),
            threads,
        };
        Cta { common, warps }
    }

    /// Starts CTA `index` of the grid at its first instruction.
    pub fn start(&mut self, index: usize, code: &Code, shape: &Shape, shadowed: bool) {
        let common = &mut self.common;
        let [x, y, _] = shape.grid.map(|n| n as usize);
        common.index = index;
        common.id = [
            (index % x) as u32,
            (index / x % y) as u32,
            (index / x / y) as u32,
        ];
        common.shared.fill(0);
        let warps = self.warps.len();
        if shadowed {
            common
                .shadow
                .reset(common.shared.len(), code.shared_grain, warps);
        }
        let barrier = Barrier {
            arrived: vec![0; warps],
            holds: vec![0; warps],
            ..Barrier::default()
        };
        common.barriers.clear();
        common.barriers.resize(16, barrier);
        for warp in &mut self.warps {
            let lanes = common.threads - 32 * warp.index as u32;
            warp.alive = if lanes >= 32 { FULL } else { (1 << lanes) - 1 };
            (warp.waiting, warp.syncing, warp.alone) = (0, 0, 0);
            warp.pc = [0; LANES];
            warp.spun = None;
            warp.committed = [0; LANES];
            warp.pending.clear();
            warp.local_written.fill(false);
            warp.file.clear();
            for &(slot, initial) in &code.initial {
                warp.set(slot, initial, common.id, shape);
            }
        }
    }

    pub fn done(&self) -> bool {
        self.warps.iter().all(|warp| warp.alive == 0)
    }
}

impl Warp {
    fn set(&mut self, slot: u32, initial: Initial, id: [u32; 3], shape: &Shape) {
        match initial {
            Initial::Const32(value) => *self.file.get_mut::<u32>(slot) = [value; LANES],
            Initial::Const64(value) => *self.file.get_mut::<u64>(slot) = [value; LANES],
            Initial::Pred(value) => {
                self.file.predicates[slot as usize] = if value { FULL } else { 0 }
            }
            Initial::Global(index, offset) => {
                let address = shape.globals.get(index as usize).copied().unwrap_or(0);
                *self.file.get_mut::<u64>(slot) = [address.wrapping_add_signed(offset); LANES];
            }
            Initial::Special(special) => {
                let index = self.index as u32;
                *self.file.get_mut::<u32>(slot) =
                    std::array::from_fn(|lane| value(special, index, lane as u32, id, shape));
            }
            Initial::Special64(special) => {
                let index = self.index as u32;
                *self.file.get_mut::<u64>(slot) = std::array::from_fn(|lane| {
                    u64::from(value(special, index, lane as u32, id, shape))
                });
            }
        }
    }
}

fn value(special: Special, warp: u32, lane: u32, id: [u32; 3], shape: &Shape) -> u32 {
    let thread = thread_of(warp * 32 + lane, shape.block);
    let warps = shape.block.iter().product::<u32>().div_ceil(32);
    match special {
        Special::Tid(axis) => thread[axis as usize],
        Special::Ntid(axis) => shape.block[axis as usize],
        Special::Ctaid(axis) => id[axis as usize],
        Special::Nctaid(axis) => shape.grid[axis as usize],
        Special::Laneid => lane,
        Special::Warpid => warp,
        Special::Nwarpid => warps,
        Special::Smid => {
            let flat = id[0] + shape.grid[0] * (id[1] + shape.grid[1] * id[2]);
            flat % shape.sm_count.max(1)
        }
        Special::Nsmid => shape.sm_count,
        Special::Gridid | Special::Env => 0,
        Special::LanemaskEq => 1 << lane,
        Special::LanemaskLe => FULL >> (31 - lane),
        Special::LanemaskLt => (1 << lane) - 1,
        Special::LanemaskGe => FULL << lane,
        Special::LanemaskGt => !(FULL >> (31 - lane)),
        Special::WorkspaceHigh => (shape.workspace >> 32) as u32,
        Special::WorkspaceLow => shape.workspace as u32,
        Special::DynamicShared => shape.dynamic_shared,
        Special::TotalShared => shape.dynamic_base + shape.dynamic_shared,
        Special::DynamicBase => shape.dynamic_base,
    }
}

/// The index (x, y, z) of the thread with this number in the CTA.
pub fn thread_of(number: u32, block: [u32; 3]) -> [u32; 3] {
    [
        number % block[0],
        number / block[0] % block[1],
        number / block[0] / block[1],
    ]
}

impl Cta {
    /// Releases the barriers at which all threads have arrived. Returns whether there were any.
    pub fn release_barriers(&mut self) -> bool {
        let mut released = false;
        for id in 0..self.common.barriers.len() {
            if self.common.barriers[id]
                .arrived
                .iter()
                .any(|&lanes| lanes != 0)
                && self.complete(id)
            {
                self.release(id);
                released = true;
            }
        }
        released
    }

    fn complete(&self, id: usize) -> bool {
        let barrier = &self.common.barriers[id];
        let warps = || self.warps.iter().zip(&barrier.arrived);
        match barrier.count {
            None => warps().all(|(warp, &arrived)| warp.alive & !arrived == 0),
            Some(count) => {
                // A whole warp counts 32 threads, even if some of its lanes have exited.
                let arrived = warps().map(|(warp, &arrived)| {
                    let whole = arrived != 0 && warp.alive & !arrived == 0;
                    if whole { 32 } else { arrived.count_ones() }
                });
                arrived.sum::<u32>() >= count.min(self.common.threads.next_multiple_of(32))
            }
        }
    }

    fn release(&mut self, id: usize) {
        let warps = self.warps.len();
        let barrier = &mut self.common.barriers[id];
        let waits = std::mem::take(&mut barrier.waits);
        let arrived = std::mem::replace(&mut barrier.arrived, vec![0; warps]);
        let holds = std::mem::replace(&mut barrier.holds, vec![0; warps]);
        barrier.count = None;
        let held: u32 = holds.iter().map(|lanes| lanes.count_ones()).sum();
        let all: u32 = arrived.iter().map(|lanes| lanes.count_ones()).sum();
        for wait in waits {
            let warp = &mut self.warps[wait.warp];
            warp.waiting &= !wait.mask;
            warp.alone = 0;
            match wait.mode {
                BarMode::Popc => warp.file.put::<u32>(wait.dst, wait.mask, &[held; LANES]),
                BarMode::And | BarMode::Or => {
                    let holds = if wait.mode == BarMode::And {
                        held == all
                    } else {
                        held > 0
                    };
                    let value = if holds { FULL } else { 0 };
                    warp.file.put_predicate(wait.dst, wait.mask, value);
                }
                BarMode::Sync | BarMode::Arrive => {}
            }
        }
        let everyone = self
            .warps
            .iter()
            .zip(&arrived)
            .all(|(w, &lanes)| w.alive & !lanes == 0);
        if everyone {
            self.common.shadow.sync_all();
        } else {
            let some = (0..warps).filter(|&warp| arrived[warp] != 0);
            self.common.shadow.sync_some(some);
        }
    }
}
