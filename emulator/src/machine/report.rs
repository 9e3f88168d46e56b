//! The result of a launch: counters, or a fault.

use std::fmt;

/// The report of a launch without a fault.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What the launch did.
    pub counters: Counters,
    /// The allocations that were read or written: address and size in bytes.
    pub touched: Vec<(u64, u64)>,
    /// The addresses of the allocations that were written.
    pub written: Vec<u64>,
}

/// Exact counts of one launch, or the sums over several. They do not depend on the number of worker threads,
/// except for kernels that spin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of launches.
    pub launches: u64,
    /// Instructions, counted once per warp, even if their guard is off in all lanes.
    pub warp_instructions: u64,
    /// Instructions, counted once per lane that executes them.
    pub lane_instructions: u64,
    /// Warp instructions of each class of [`Counters::CLASSES`].
    pub classes: [u64; 22],
    /// Accesses to memory.
    pub memory: Tally,
    /// Distinct sectors of 32 bytes in global memory that each launch accessed: what DRAM must transfer if the
    /// cache serves all other requests.
    pub distinct_sectors: u64,
    /// Tensor-core instructions, counted once per warp.
    pub mma: u64,
    /// Barriers of the CTA, counted once per warp that arrives.
    pub barriers: u64,
}

/// Counts of memory accesses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Loads from global memory, including `cp.async`, counted once per warp.
    pub global_loads: u64,
    /// Stores to global memory, counted once per warp.
    pub global_stores: u64,
    /// Atomics in global memory, counted once per warp.
    pub global_atomics: u64,
    /// Bytes that lanes load from global memory.
    pub global_load_bytes: u64,
    /// Bytes that lanes store to global memory.
    pub global_store_bytes: u64,
    /// Sectors of 32 bytes that each load accesses, added up.
    pub global_load_sectors: u64,
    /// Sectors of 32 bytes that each store accesses, added up.
    pub global_store_sectors: u64,
    /// Accesses to shared memory, counted once per warp.
    pub shared_accesses: u64,
    /// Passes over the banks of shared memory, beyond those that the width of the access needs.
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

    /// The name and the value of each counter, in a fixed order.
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
    /// Adds the counts of another launch or worker.
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

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside any allocation.
    OutOfBounds,
    /// An address that is not a multiple of the size of the access.
    Misaligned,
    /// An access to memory that was freed.
    UseAfterFree,
    /// A read of bytes that were never written.
    Uninitialised,
    /// Two threads of a CTA access the same shared memory without an order, and at least one of them writes.
    SharedRace,
    /// Two CTAs, or two warps of one, access the same global memory without an order, and at least one of them writes.
    GlobalRace,
    /// Threads of a warp wait at different barriers, or do not reach a barrier where others wait.
    DivergentBarrier,
    /// An access to shared memory between a `cp.async` and the wait for it.
    MissingAsyncWait,
    /// An access that needs `__syncwarp` between the lanes of a warp.
    MissingWarpSync,
    /// All threads wait for something that cannot happen.
    Deadlock,
    /// More instructions than [`super::Options::instruction_budget`].
    Budget,
    /// `trap`, or an instruction used against its rules.
    Trap,
    /// The launch itself is wrong: an unknown kernel, too many threads, too much shared memory.
    Launch,
}

/// Why a launch failed, and where.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The name of the kernel.
    pub kernel: String,
    /// The line of the PTX text; 0 if the launch itself is wrong.
    pub line: u32,
    /// The source file and the line in it, if the PTX has `.loc`.
    pub source: Option<(String, u32)>,
    /// The index of the block: x, y, z.
    pub block: [u32; 3],
    /// The index of the thread in its block: x, y, z.
    pub thread: [u32; 3],
    /// What happened.
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
