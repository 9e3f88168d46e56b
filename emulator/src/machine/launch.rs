//! A launch and the worker threads that run its CTAs.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::cta::{Cta, Shape, thread_of};
use super::engine::{Engine, Field, Trouble, View};
use super::exec;
use super::op::{Class, Control, Op};
use super::options::Options;
use super::races::Order;
use super::{Counters, Fault, FaultKind, Heap, Kernel, Module, Report};

/// One launch of a kernel.
pub struct Launch<'a> {
    /// The module of the kernel.
    pub module: &'a Arc<Module>,
    /// The name of the kernel.
    pub kernel: &'a str,
    /// The address of each variable of [`Module::globals`].
    pub globals: &'a [u64],
    /// Number of blocks along x, y, z.
    pub grid: [u32; 3],
    /// Number of threads per block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory, in bytes per block.
    pub dynamic_shared: u32,
    /// Whether all blocks run at the same time, so that they can wait for each other.
    pub cooperative: bool,
    /// The whole parameter block, each parameter at its offset.
    pub params: &'a [u8],
}

/// The largest number of warp instructions of one turn of a warp.
const TURN: u32 = 20_000;

/// Number of successive slices in which the CTAs of a worker only polled, after which the worker is idle.
const IDLE: u64 = 2_000;

/// The number of the last launch, for the marks of the race check.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a launch to its end.
///
/// # Errors
/// When the launch itself is wrong, or when a thread meets a fault. The first fault ends the launch.
pub fn run(launch: &Launch, heap: &Heap, options: &Options) -> Result<Report, Fault> {
    let refuse = |message: String| refusal(launch, message);
    let kernel = launch
        .module
        .kernel(launch.kernel)
        .ok_or_else(|| refuse("the module has no kernel of this name".into()))?;
    check(launch, kernel, options).map_err(refuse)?;
    let _alone = heap.begin_launch();
    let workspace = if launch.cooperative {
        Workspace::new(heap)
            .ok_or_else(|| refuse("no memory is left for the barrier of the grid".into()))?
    } else {
        Workspace { heap, address: 0 }
    };
    let ctas: usize = launch.grid.iter().map(|&n| n as usize).product();
    let field = field(launch, kernel, heap, options, workspace.address);
    let crew = Crew::new(&field, launch.cooperative, ctas, options);
    let engines = crew.run();
    let problem = crew
        .problem
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    match problem {
        Some(problem) => Err(problem.fault(launch, kernel)),
        None => Ok(report(&field, &engines)),
    }
}

/// The fault of a launch that does not start.
fn refusal(launch: &Launch, message: String) -> Fault {
    Fault {
        kind: FaultKind::Launch,
        kernel: launch.kernel.to_string(),
        line: 0,
        source: None,
        block: [0; 3],
        thread: [0; 3],
        message,
    }
}

/// What all workers of the launch share.
fn field<'a>(
    launch: &Launch<'a>,
    kernel: &'a Kernel,
    heap: &'a Heap,
    options: &Options,
    workspace: u64,
) -> Field<'a> {
    let ctas: usize = launch.grid.iter().map(|&n| n as usize).product();
    let align = kernel.dynamic_align.max(16);
    Field {
        code: &kernel.code,
        shape: Shape {
            grid: launch.grid,
            block: launch.block,
            dynamic_shared: launch.dynamic_shared,
            dynamic_base: kernel.static_shared.next_multiple_of(align),
            sm_count: options.sm_count,
            globals: launch.globals,
            workspace,
        },
        params: launch.params,
        local_bytes: kernel.local_bytes.next_multiple_of(16),
        checks: options.checks,
        counters: options.counters,
        views: heap.snapshot().into_iter().map(View::new).collect(),
        heap,
        order: Order::new(if options.checks.global_races { ctas } else { 0 }),
        number: NUMBER.fetch_add(1, Relaxed).wrapping_add(1).max(1),
        started: Instant::now(),
    }
}

/// The memory for the barrier of a cooperative grid: zeros, freed at the end of the launch.
struct Workspace<'a> {
    heap: &'a Heap,
    address: u64,
}

impl Workspace<'_> {
    const BYTES: u64 = 64;

    fn new(heap: &Heap) -> Option<Workspace<'_>> {
        let address = heap.allocate(Self::BYTES)?;
        heap.write(address, &[0; Self::BYTES as usize]).ok()?;
        Some(Workspace { heap, address })
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        if self.address != 0 {
            self.heap.free(self.address);
        }
    }
}

/// Refuses what a driver refuses.
fn check(launch: &Launch, kernel: &Kernel, options: &Options) -> Result<(), String> {
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    let ctas: u128 = launch.grid.iter().map(|&n| u128::from(n)).product();
    if threads == 0 || ctas == 0 || ctas > 1 << 40 {
        return Err(format!(
            "a grid of {:?} CTAs of {:?} threads is not possible",
            launch.grid, launch.block
        ));
    }
    if threads > u64::from(kernel.max_threads.min(1024)) {
        let most = kernel.max_threads.min(1024);
        return Err(format!(
            "{threads} threads per CTA, but {most} is the maximum"
        ));
    }
    if launch.dynamic_shared > options.max_dynamic_shared {
        let (asked, most) = (launch.dynamic_shared, options.max_dynamic_shared);
        return Err(format!(
            "{asked} bytes of dynamic shared memory, but {most} is the maximum"
        ));
    }
    if launch.params.len() < kernel.param_bytes {
        let (given, wanted) = (launch.params.len(), kernel.param_bytes);
        return Err(format!("{given} bytes of parameters, expected {wanted}"));
    }
    if launch.globals.len() < launch.module.globals().len() {
        return Err("the addresses of module variables are missing".into());
    }
    Ok(())
}

/// The worker threads of a launch.
struct Crew<'a> {
    field: &'a Field<'a>,
    ctas: usize,
    /// Number of CTAs that a worker keeps at once.
    resident: usize,
    cooperative: bool,
    threads: usize,
    next: AtomicUsize,
    /// Warp instructions left.
    budget: AtomicU64,
    /// For each worker, the number of successive slices in which its CTAs only polled.
    idle: Vec<AtomicU64>,
    stop: AtomicBool,
    problem: Mutex<Option<Problem>>,
}

/// A fault and where it happened.
struct Problem {
    trouble: Box<Trouble>,
    pc: u32,
    warp: usize,
    block: [u32; 3],
}

enum Turn {
    Done,
    /// Its CTA polls: it is the turn of another one.
    Yield {
        idle: bool,
    },
}

impl<'a> Crew<'a> {
    fn new(field: &'a Field<'a>, cooperative: bool, ctas: usize, options: &Options) -> Self {
        let threads = options.threads.clamp(1, ctas);
        let resident = if cooperative {
            usize::MAX
        } else {
            options.sm_count.max(1) as usize
        };
        Crew {
            field,
            ctas,
            resident,
            cooperative,
            threads,
            next: AtomicUsize::new(0),
            budget: AtomicU64::new(options.instruction_budget),
            idle: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
            problem: Mutex::new(None),
        }
    }

    /// Runs all CTAs on the worker threads, of which the caller's thread is the first.
    fn run(&self) -> Vec<Engine<'a>> {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads)
                .map(|worker| scope.spawn(move || self.work(worker)))
                .collect();
            let mine = self.work(0);
            let others = others.into_iter().map(|other| match other.join() {
                Ok(engine) => engine,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            std::iter::once(mine).chain(others).collect()
        })
    }

    /// The work of a worker: it starts CTAs, and returns to those that wait for others.
    fn work(&self, worker: usize) -> Engine<'a> {
        let field = self.field;
        let mut engine = Engine::new(field);
        let mut resident: VecDeque<Cta> = VecDeque::new();
        let mut spare: Vec<Cta> = Vec::new();
        let mut own = worker;
        while !self.stop.load(Relaxed) {
            let fresh = if resident.len() >= self.resident {
                None
            } else if self.cooperative {
                // All CTAs of a cooperative grid are resident, and each worker has its fixed share.
                let after = own + self.threads;
                (own < self.ctas).then(|| std::mem::replace(&mut own, after))
            } else {
                Some(self.next.fetch_add(1, Relaxed)).filter(|&index| index < self.ctas)
            };
            let mut cta = match fresh {
                Some(index) => {
                    let mut cta = spare
                        .pop()
                        .unwrap_or_else(|| Cta::new(field.code, &field.shape, field.local_bytes));
                    cta.start(index, field.code, &field.shape, engine.shadowed());
                    cta
                }
                None => match resident.pop_front() {
                    Some(cta) => cta,
                    None => break,
                },
            };
            match self.turn(worker, &mut engine, &mut cta) {
                Ok(Turn::Done) => spare.push(cta),
                Ok(Turn::Yield { idle }) => {
                    self.idled(worker, idle, &cta, resident.len());
                    resident.push_back(cta);
                }
                Err(problem) => self.fail(problem),
            }
        }
        self.idle[worker].store(u64::MAX, Relaxed);
        engine
    }

    fn fail(&self, problem: Problem) {
        let mut first = self
            .problem
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(problem);
        self.stop.store(true, Relaxed);
    }

    /// Counts turns that only polled. If no worker does anything else for a long time, nothing can change the
    /// memory that they poll.
    fn idled(&self, worker: usize, idle: bool, cta: &Cta, resident: usize) {
        if !idle {
            return self.idle[worker].store(0, Relaxed);
        }
        let turns = self.idle[worker].fetch_add(1, Relaxed) + 1;
        let limit = IDLE + 20 * resident as u64;
        if turns > limit && self.idle.iter().all(|idle| idle.load(Relaxed) > limit) {
            let message = "all CTAs poll memory that no thread writes any more".into();
            let warp = cta.warps.iter().find(|warp| warp.alive != 0);
            let (index, lane, pc) = warp.map_or((0, 0, 0), |warp| {
                let lane = warp.alive.trailing_zeros() as usize;
                (warp.index, lane, warp.pc[lane])
            });
            let trouble = Box::new(Trouble {
                kind: FaultKind::Deadlock,
                lane,
                message,
            });
            self.fail(Problem {
                trouble,
                pc,
                warp: index,
                block: cta.common.id,
            });
        } else {
            std::thread::yield_now();
        }
    }

    /// Runs a CTA until it is done or does nothing but poll.
    fn turn(&self, worker: usize, engine: &mut Engine, cta: &mut Cta) -> Result<Turn, Problem> {
        engine.polls = 0;
        engine.changed = false;
        loop {
            let mut ran = false;
            for at in 0..cta.warps.len() {
                let warp = &mut cta.warps[at];
                if warp.runnable() == 0 && warp.syncing == 0 {
                    continue;
                }
                let mut left = TURN;
                let block = cta.common.id;
                engine.warp = at;
                let result = exec::run(engine, &mut cta.common, warp, &mut left);
                let spent = TURN - left;
                ran |= spent > 0;
                if let Err(exec::Failure { trouble, pc }) = result {
                    return Err(Problem {
                        trouble,
                        pc,
                        warp: at,
                        block,
                    });
                }
                self.spend(spent).map_err(|trouble| {
                    let lane = warp.alive.trailing_zeros().min(31) as usize;
                    let trouble = Box::new(Trouble { lane, ..trouble });
                    Problem {
                        trouble,
                        pc: warp.pc[lane],
                        warp: at,
                        block,
                    }
                })?;
                if engine.polls == 0 {
                    self.idle[worker].store(0, Relaxed);
                }
            }
            let released = cta.release_barriers();
            engine.changed |= released;
            if released {
                engine.field.order.synchronise(cta.common.index);
            }
            if cta.done() {
                return Ok(Turn::Done);
            }
            if !ran && !released {
                return Err(stuck(cta));
            }
            if engine.polls >= exec::POLLS {
                return Ok(Turn::Yield {
                    idle: !engine.changed,
                });
            }
            if self.stop.load(Relaxed) {
                return Ok(Turn::Yield { idle: false });
            }
        }
    }

    /// Takes the instructions of a slice from the budget of the launch.
    fn spend(&self, spent: u32) -> Result<(), Trouble> {
        let left = self.budget.fetch_sub(u64::from(spent), Relaxed);
        if left >= u64::from(spent) {
            return Ok(());
        }
        self.budget.store(0, Relaxed);
        let message = "the launch has used up its instruction budget: perhaps it never ends".into();
        Err(Trouble {
            kind: FaultKind::Budget,
            lane: 0,
            message,
        })
    }
}

/// The deadlock of a CTA in which no warp can continue.
fn stuck(cta: &Cta) -> Problem {
    let waiting = cta.warps.iter().find(|warp| warp.alive != 0);
    let (warp, lane) = waiting.map_or((0, 0), |warp| {
        let lanes = if warp.waiting != 0 {
            warp.waiting
        } else {
            warp.alive
        };
        (warp.index, lanes.trailing_zeros() as usize)
    });
    let at_barrier = cta.warps[warp].waiting >> lane & 1 == 1;
    let what = if at_barrier {
        "a barrier"
    } else {
        "other lanes of its warp"
    };
    let message = format!("this thread waits for {what}, and no thread of its CTA can continue");
    let pc = cta.warps[warp].pc[lane] - u32::from(at_barrier);
    let trouble = Box::new(Trouble {
        kind: FaultKind::Deadlock,
        lane,
        message,
    });
    Problem {
        trouble,
        pc,
        warp,
        block: cta.common.id,
    }
}

impl Problem {
    fn fault(self, launch: &Launch, kernel: &Kernel) -> Fault {
        let pc = self.pc as usize;
        let location = kernel.code.locations.get(pc).copied().unwrap_or_default();
        let thread = (self.warp * 32 + self.trouble.lane) as u32;
        Fault {
            kind: self.trouble.kind,
            kernel: kernel.name.clone(),
            line: kernel.code.lines.get(pc).copied().unwrap_or_default(),
            source: launch.module.source_line(location),
            block: self.block,
            thread: thread_of(thread, launch.block),
            message: self.trouble.message,
        }
    }
}

fn report(field: &Field, engines: &[Engine]) -> Report {
    let mut counters = Counters {
        launches: 1,
        ..Counters::default()
    };
    for engine in engines {
        counters.memory.add(&engine.tally);
        counters.lane_instructions += engine.lane_instructions;
        for (inst, &count) in field.code.insts.iter().zip(&engine.counts) {
            let class = inst.op.class();
            counters.warp_instructions += count;
            counters.classes[class as usize] += count;
            counters.mma += if class == Class::Mma { count } else { 0 };
            let barrier = matches!(inst.op, Op::Control(Control::Bar(_)));
            counters.barriers += if barrier { count } else { 0 };
        }
    }
    let seen = || {
        field
            .views
            .iter()
            .filter(|view| view.base != field.shape.workspace)
    };
    counters.distinct_sectors = seen().map(View::distinct_sectors).sum();
    let touched = seen().filter(|view| view.touched.load(Relaxed));
    let written = seen().filter(|view| view.written.load(Relaxed));
    Report {
        counters,
        touched: touched
            .map(|view| (view.base, view.end - view.base))
            .collect(),
        written: written.map(|view| view.base).collect(),
    }
}
