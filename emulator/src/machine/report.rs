//! What a launch leaves behind: counters, or a fault.

use std::fmt;

/// What a launch that ran to its end reports.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub counters: Counters,
    /// Allocations read or written: base and size.
    pub touched: Vec<(u64, u64)>,
    /// Bases of the allocations written.
    pub written: Vec<u64>,
}

/// Exact counts of one launch or, added up, of several. They do not depend on the number of
/// worker threads, except in kernels that spin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub launches: u64,
    /// Instructions, a warp at a time: also those whose guard is off in all lanes.
    pub warp_instructions: u64,
    /// Instructions, a lane at a time.
    pub lane_instructions: u64,
    /// Warp instructions of each class of [`Counters::CLASSES`].
    pub classes: [u64; 22],
    pub memory: Tally,
    /// Distinct 32-byte sectors of global memory that launches touched: what DRAM must move when
    /// the cache catches the rest.
    pub distinct_sectors: u64,
    pub mma: u64,
    /// Barriers of the CTA that warps came to.
    pub barriers: u64,
}

/// Counts of memory accesses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Warp accesses to global memory: loads, `cp.async` included; stores; atomics.
    pub global_loads: u64,
    pub global_stores: u64,
    pub global_atomics: u64,
    /// Bytes that lanes asked for.
    pub global_load_bytes: u64,
    pub global_store_bytes: u64,
    /// 32-byte sectors that each request touches, added up.
    pub global_load_sectors: u64,
    pub global_store_sectors: u64,
    pub shared_accesses: u64,
    /// Passes over the banks beyond those that the width needs.
    pub bank_conflicts: u64,
}

impl Counters {
    /// Names of [`Counters::classes`].
    pub const CLASSES: [&str; 22] = super::op::Class::NAMES;

    /// Adds the counts of another launch.
    pub fn add(&mut self, other: &Counters) {
        self.launches += other.launches;
        self.warp_instructions += other.warp_instructions;
        self.lane_instructions += other.lane_instructions;
        self.classes
            .iter_mut()
            .zip(other.classes)
            .for_each(|(a, b)| *a += b);
        self.memory.add(&other.memory);
        self.distinct_sectors += other.distinct_sectors;
        self.mma += other.mma;
        self.barriers += other.barriers;
    }

    /// Name and value of each counter, in a fixed order.
    pub fn entries(&self) -> Vec<(&'static str, u64)> {
        let memory = &self.memory;
        let mut entries = vec![
            ("launches", self.launches),
            ("warp_instructions", self.warp_instructions),
            ("lane_instructions", self.lane_instructions),
            ("global_loads", memory.global_loads),
            ("global_stores", memory.global_stores),
            ("global_atomics", memory.global_atomics),
            ("global_load_bytes", memory.global_load_bytes),
            ("global_store_bytes", memory.global_store_bytes),
            ("global_load_sectors", memory.global_load_sectors),
            ("global_store_sectors", memory.global_store_sectors),
            ("distinct_sectors", self.distinct_sectors),
            ("shared_accesses", memory.shared_accesses),
            ("bank_conflicts", memory.bank_conflicts),
            ("mma", self.mma),
            ("barriers", self.barriers),
        ];
        entries.extend(Counters::CLASSES.into_iter().zip(self.classes));
        entries
    }
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.global_loads += other.global_loads;
        self.global_stores += other.global_stores;
        self.global_atomics += other.global_atomics;
        self.global_load_bytes += other.global_load_bytes;
        self.global_store_bytes += other.global_store_bytes;
        self.global_load_sectors += other.global_load_sectors;
        self.global_store_sectors += other.global_store_sectors;
        self.shared_accesses += other.shared_accesses;
        self.bank_conflicts += other.bank_conflicts;
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    OutOfBounds,
    Misaligned,
    UseAfterFree,
    Uninitialised,
    SharedRace,
    GlobalRace,
    DivergentBarrier,
    /// A shared-memory access between `cp.async` and the wait for it.
    MissingAsyncWait,
    /// An access that needs `__syncwarp` between lanes of a warp.
    MissingWarpSync,
    /// All threads wait for something that cannot come.
    Deadlock,
    /// More instructions than [`super::Options::instruction_budget`].
    Budget,
    /// `trap`, or an instruction used against its rules.
    Trap,
    /// The launch itself is wrong: no such kernel, too many threads, too much shared memory.
    Launch,
}

/// A launch that failed: what, and where.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: FaultKind,
    pub kernel: String,
    /// Line of the PTX text, 0 when the launch itself is at fault.
    pub line: u32,
    /// Source file and line, when the PTX has `.loc`.
    pub source: Option<(String, u32)>,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(
            f,
            "{}: {} in kernel {}",
            self.kind, self.message, self.kernel
        )?;
        if self.line != 0 {
            write!(f, ", PTX line {}", self.line)?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, " ({file}:{line})")?;
        }
        write!(f, ", block ({bx},{by},{bz}), thread ({tx},{ty},{tz})")
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::OutOfBounds => "out of bounds",
            FaultKind::Misaligned => "misaligned access",
            FaultKind::UseAfterFree => "use after free",
            FaultKind::Uninitialised => "uninitialised read",
            FaultKind::SharedRace => "shared-memory race",
            FaultKind::GlobalRace => "global-memory race",
            FaultKind::DivergentBarrier => "divergent barrier",
            FaultKind::MissingAsyncWait => "missing cp.async wait",
            FaultKind::MissingWarpSync => "missing __syncwarp",
            FaultKind::Deadlock => "deadlock",
            FaultKind::Budget => "instruction budget",
            FaultKind::Trap => "trap",
            FaultKind::Launch => "launch failure",
        })
    }
}
