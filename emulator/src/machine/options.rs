//! How a launch runs, and which checks.

/// Which checks run. All by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Out of bounds, use after free. When off, such loads give zero and such stores do nothing.
    pub bounds: bool,
    pub alignment: bool,
    /// Reads of bytes never written.
    pub uninitialised: bool,
    /// Races in shared memory, missing `__syncwarp`, missing cp.async waits.
    pub shared_races: bool,
    /// Races in global memory between CTAs.
    pub global_races: bool,
    pub barriers: bool,
}

impl Checks {
    pub const ALL: Checks = Checks {
        bounds: true,
        alignment: true,
        uninitialised: true,
        shared_races: true,
        global_races: true,
        barriers: true,
    };
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
    /// Worker threads; CTAs are spread over them.
    pub threads: usize,
    pub checks: Checks,
    pub counters: bool,
    pub sm_count: u32,
    /// Largest dynamic shared memory a CTA may ask for, in bytes.
    pub max_dynamic_shared: u32,
    /// Warp instructions a launch may execute before it counts as hung.
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
