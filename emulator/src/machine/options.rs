//! Options of a launch.

/// The checks that run; by default all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Accesses out of bounds and uses after free. Without the check, such loads leave the destination as it was,
    /// and such stores do nothing.
    pub bounds: bool,
    /// Addresses that are not a multiple of the size of the access.
    pub alignment: bool,
    /// Reads of bytes that were never written.
    pub uninitialised: bool,
    /// Races in shared memory, missing `__syncwarp`, missing waits for `cp.async`.
    pub shared_races: bool,
    /// Races in global memory between CTAs.
    pub global_races: bool,
    /// Barriers in divergent code.
    pub barriers: bool,
}

impl Checks {
    /// All checks run.
    pub const ALL: Checks = Checks {
        bounds: true,
        alignment: true,
        uninitialised: true,
        shared_races: true,
        global_races: true,
        barriers: true,
    };
    /// No checks run.
    pub const NONE: Checks = Checks {
        bounds: false,
        alignment: false,
        uninitialised: false,
        shared_races: false,
        global_races: false,
        barriers: false,
    };
}

impl Default for Checks {
    fn default() -> Self {
        Checks::ALL
    }
}

/// How a launch runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of worker threads, which share the CTAs.
    pub threads: usize,
    /// The checks that run.
    pub checks: Checks,
    /// Whether memory accesses are counted.
    pub counters: bool,
    /// Number of multiprocessors.
    pub sm_count: u32,
    /// The largest dynamic shared memory of a CTA, in bytes.
    pub max_dynamic_shared: u32,
    /// The number of warp instructions after which a launch is considered to hang.
    pub instruction_budget: u64,
}

impl Default for Options {
    /// An A100, all checks on.
    fn default() -> Self {
        Options {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            checks: Checks::ALL,
            counters: true,
            sm_count: 108,
            max_dynamic_shared: 163 << 10,
            instruction_budget: 1 << 40,
        }
    }
}
