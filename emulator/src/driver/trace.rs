//! Traces: each launch with the memory that it accessed, before and after, so that another interpreter can repeat it
//! and compare the results.
//!
//! Each module is written to `DIR/module-<k>.ptx`. Launch n is described in `DIR/<n>.json`, with files of raw memory in
//! the same directory. The numbers continue those of files that exist already.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::{fs, io};

use serde_json::{Value, json};

use crate::machine::{Heap, Report};

use super::context::Context;
use super::handle::lock;
use super::launch::KernelLaunch;
use super::log;

/// The launches and modules that were traced so far.
struct State {
    /// The numbers of the next launch and of the next module; `None` before the directory was read.
    next: Option<(u64, u64)>,
    /// The number of launches of each kernel.
    kept: BTreeMap<String, u64>,
    /// The number of the file of each module that was written.
    modules: BTreeMap<u64, u64>,
}

static STATE: Mutex<State> = Mutex::new(State {
    next: None,
    kept: BTreeMap::new(),
    modules: BTreeMap::new(),
});

/// A launch that runs: its number, and the content of all memory before it.
pub struct Traced {
    number: u64,
    before: BTreeMap<u64, Vec<u8>>,
}

/// The first unused numbers of launches and modules in the directory.
fn first_free(folder: &Path) -> io::Result<(u64, u64)> {
    fs::create_dir_all(folder)?;
    let (mut launch, mut module) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = |text: &str| text.parse::<u64>().ok();
        if let Some(found) = name.strip_suffix(".json").and_then(number) {
            launch = launch.max(found + 1);
        }
        let middle = name.strip_prefix("module-");
        if let Some(found) = middle.and_then(|n| n.strip_suffix(".ptx")).and_then(number) {
            module = module.max(found + 1);
        }
    }
    Ok((launch, module))
}

impl State {
    /// Counts the launch, and returns its number if it is to be traced.
    fn take(&mut self, folder: &Path, limit: u64, kernel: &str) -> io::Result<Option<u64>> {
        let next = match &mut self.next {
            Some(next) => next,
            none => none.insert(first_free(folder)?),
        };
        let number = next.0;
        next.0 += 1;
        let kept = self.kept.entry(kernel.into()).or_default();
        *kept += 1;
        Ok((*kept <= limit).then_some(number))
    }

    /// The number of the module's file. The file is written at the first call.
    fn module(&mut self, folder: &Path, launch: &KernelLaunch) -> io::Result<u64> {
        if let Some(number) = self.modules.get(&launch.module.number) {
            return Ok(*number);
        }
        let (_, next) = self.next.get_or_insert_default();
        let number = *next;
        *next += 1;
        fs::write(
            folder.join(format!("module-{number}.ptx")),
            &launch.module.text,
        )?;
        self.modules.insert(launch.module.number, number);
        Ok(number)
    }
}

/// Begins the trace of a launch. All memory is copied, because the memory that a launch accesses is known only after
/// it. `None`: the launch is not traced.
pub fn before(launch: &KernelLaunch, context: &Context) -> Option<Traced> {
    let environment = context.environment;
    let folder = environment.trace.as_deref()?;
    let number = lock(&STATE).take(folder, environment.trace_limit, &launch.kernel);
    let number = number
        .inspect_err(|error| log::line(format_args!("trace: {}: {error}", folder.display())))
        .ok()??;
    let allocations = context.heap.allocations().into_iter();
    let before =
        allocations.filter_map(|(base, size)| Some((base, snapshot(&context.heap, base, size)?)));
    Some(Traced {
        number,
        before: before.collect(),
    })
}

fn snapshot(heap: &Heap, base: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    heap.read(base, &mut bytes).ok()?;
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Traced {
    /// Writes the trace of a launch without a fault.
    pub fn after(self, launch: &KernelLaunch, context: &Context, report: &Report) {
        if let Some(folder) = context.environment.trace.as_deref()
            && let Err(error) = self.write(folder, launch, &context.heap, report)
        {
            log::line(format_args!("trace: {}: {error}", folder.display()));
        }
    }

    fn write(
        &self,
        folder: &Path,
        launch: &KernelLaunch,
        heap: &Heap,
        report: &Report,
    ) -> io::Result<()> {
        let number = self.number;
        let mut allocations = Vec::new();
        for (i, &(base, size)) in report.touched.iter().enumerate() {
            let before = format!("{number}-{i}-before.bin");
            fs::write(
                folder.join(&before),
                self.before.get(&base).map_or(&[][..], Vec::as_slice),
            )?;
            let mut after = Value::Null;
            if report.written.contains(&base) {
                let name = format!("{number}-{i}-after.bin");
                fs::write(
                    folder.join(&name),
                    snapshot(heap, base, size).unwrap_or_default(),
                )?;
                after = name.into();
            }
            allocations.push(json!({"base": base, "size": size, "before": before, "after": after}));
        }
        let module = lock(&STATE).module(folder, launch)?;
        let variables = launch.module.module.globals().iter();
        let globals = variables.zip(&launch.module.globals);
        let globals: Vec<Value> = globals
            .map(|(v, base)| json!({"name": v.name, "base": base, "size": v.size}))
            .collect();
        let json = json!({
            "module": module,
            "kernel": launch.kernel,
            "grid": launch.grid,
            "block": launch.block,
            "dynamic_shared": launch.dynamic_shared,
            "cooperative": launch.cooperative,
            "params": hex(&launch.params),
            "globals": globals,
            "allocations": allocations,
        });
        fs::write(folder.join(format!("{number}.json")), format!("{json:#}\n"))
    }
}
