//! `showtell profile`: what a device does, kernel by kernel, beside the least time it could take.

use super::device::DeviceArgs;
use super::flags::number;
use super::{Usage, print};
use crate::files;
use crate::model::{MODELS, Model};
use crate::settings::integer;
use crate::train::config::Config;
use crate::train::profile::chip::{BARRIER, CHIPS, Chip, GRAPH_NODE, LAUNCH};
use crate::train::profile::{Kernel, Part, Profile, Size};
use crate::words::count;
use crate::{Device, Error};
use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shows where the time of a training step, of the encoder or of captions goes, kernel by kernel
///
/// A GPU is timed by events: each kernel runs eight times over, and its time is the mean. The CPU is timed by operations. In the
/// emulator of the driver the bytes that kernels ask for are counted. With --dry-run nothing is computed: kernels are counted as a
/// GPU that need not be here would run them. The floor of a kernel is the longer of computing and of moving each byte once between the device's
/// memory and the chip; what the level 2 cache still has from the kernel before can be faster than that.
#[derive(Args)]
pub struct ProfileArgs {
    /// What is profiled: a training step on given features, images through the encoder, or captions of images
    #[arg(value_parser = one_of(&Part::ALL, |part| part.word()))]
    part: Part,
    /// The decoder
    #[arg(long, value_name = "NAME", default_value = MODELS[0].name, value_parser = one_of(MODELS, |model| model.name))]
    model: Model,
    /// Captions of a step, or images [default: the batch size of the decoder's recipe]
    #[arg(long, value_name = "B", value_parser = number::<usize>(integer(1).most(4_096)))]
    batch: Option<usize>,
    /// Tokens of each caption of a step
    #[arg(long, value_name = "T", default_value_t = 24, value_parser = number::<usize>(integer(2).most(4_096)))]
    length: usize,
    /// Words of the vocabulary
    #[arg(long, value_name = "V", default_value_t = 8_915, value_parser = number::<usize>(integer(5).most(1_000_000)))]
    vocab: usize,
    /// The GPU whose data sheet gives the floor [default: the GPU that computes, if it is one of these, else h100]
    #[arg(long, value_name = "NAME", value_parser = one_of(&CHIPS, |chip| chip.word))]
    chip: Option<Chip>,
    /// Compute nothing: count what --chip would be asked for, here in --precision
    #[arg(long)]
    dry_run: bool,
    /// Write every call with its time, for chrome://tracing or ui.perfetto.dev; where nothing is timed, with its floor
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A parser for one of these values, by its word.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    word: fn(&T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let words = PossibleValuesParser::new(all.iter().map(word));
    words.try_map(move |text| {
        let value = all.iter().find(|value| word(value) == text);
        value.copied().ok_or("no such word")
    })
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    part: &'static str,
    model: &'static str,
    batch: usize,
    length: usize,
    vocabulary: usize,
    device: String,
    chip: Option<&'static str>,
    chip_source: Option<&'static str>,
    kernels: Vec<Row>,
    /// Of all kernels.
    all: Row,
    /// The least time as a graph on the chip: floors, and what each kernel takes whatever it does.
    graph_floor_ms: Option<f64>,
    /// The part as a whole.
    whole_ms: Option<f64>,
}

/// A heading, and what stands under it.
type Column = (&'static str, fn(&Row) -> String);

/// A kernel, or an operation of the CPU.
#[derive(Clone, Default, Serialize)]
struct Row {
    name: String,
    calls: usize,
    ms: Option<f64>,
    /// Of the tensors of all calls.
    tensor_bytes: usize,
    requested_bytes: Option<u64>,
    distinct_bytes: Option<u64>,
    flops: f64,
    /// Instructions of tensor cores, of a warp each, that an emulator counted.
    mma: Option<u64>,
    floor_ms: Option<f64>,
    /// The part of the floor of those calls that computing takes longer than memory.
    computing_ms: Option<f64>,
    /// Time above the floor.
    lost_ms: Option<f64>,
}

impl Row {
    /// What the floor is made of; where a call's is shorter than a node of a graph, it is not the floor that counts.
    fn bound(&self) -> Option<&'static str> {
        let (floor, nodes) = (self.floor_ms?, milliseconds(GRAPH_NODE) * self.calls as f64);
        Some(if floor < nodes {
            "latency"
        } else if 2.0 * self.computing_ms? >= floor {
            "computing"
        } else {
            "memory"
        })
    }
}

pub fn profile(args: ProfileArgs) -> Result<()> {
    let device = if args.dry_run {
        let chip = args.chip.unwrap_or_else(h100);
        Device::planning_cuda(chip.facts(), args.device.precision_on_gpu())
    } else {
        args.device.open()?
    };
    let chip = chip_of(&device, args.chip)?;
    let config = Config {
        augment: false,
        ..Config::recipe(args.model)
    };
    let size = Size {
        batch: args.batch.unwrap_or(config.batch_size),
        length: args.length,
        vocabulary: args.vocab,
    };
    if let Some(path) = &args.trace {
        files::check_writable(path)?;
    }
    let profile = Profile::new(&device, args.part, &config, size)?;
    let report = Report::new(&args, &device, chip, size, &profile);
    print(args.json, &report, Report::text)?;
    match &args.trace {
        Some(path) => write_trace(path, &profile, chip),
        None => Ok(()),
    }
}

fn h100() -> Chip {
    Chip::of_word("h100").unwrap_or(CHIPS[0])
}

/// The chip whose floor is shown; none on the CPU, of whose operations only the time is known.
fn chip_of(device: &Device, wanted: Option<Chip>) -> Result<Option<Chip>> {
    let Some(gpu) = device.gpu() else {
        if wanted.is_none() {
            return Ok(None);
        }
        let message =
            "--chip: is for a GPU, its emulator or --dry-run: of the CPU only the time is known";
        return Err(Usage(Error::Config(message.into())).into());
    };
    let own = || Chip::of_product(&gpu.name);
    Ok(wanted.or_else(own).or_else(|| Some(h100())))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Row {
    fn new(kernel: Kernel) -> Self {
        let (time, floor) = (kernel.time, kernel.floor);
        let lost = time
            .zip(floor)
            .map(|(time, floor)| time.saturating_sub(floor));
        Row {
            name: kernel.name,
            calls: kernel.calls,
            ms: time.map(milliseconds),
            tensor_bytes: kernel.bytes,
            requested_bytes: kernel.counts.map(|counts| counts.requested_bytes()),
            distinct_bytes: kernel.counts.map(|counts| counts.distinct_bytes()),
            flops: kernel.flops,
            mma: kernel.counts.map(|counts| counts.mma),
            floor_ms: floor.map(milliseconds),
            computing_ms: kernel.computing.map(milliseconds),
            lost_ms: lost.map(milliseconds),
        }
    }

    fn all(rows: &[Row]) -> Self {
        fn sum<T: std::iter::Sum>(rows: &[Row], of: fn(&Row) -> Option<T>) -> Option<T> {
            let known: Vec<T> = rows.iter().filter_map(of).collect();
            (!known.is_empty()).then(|| known.into_iter().sum())
        }
        Row {
            name: "all".into(),
            calls: rows.iter().map(|row| row.calls).sum(),
            ms: sum(rows, |row| row.ms),
            tensor_bytes: rows.iter().map(|row| row.tensor_bytes).sum(),
            requested_bytes: sum(rows, |row| row.requested_bytes),
            distinct_bytes: sum(rows, |row| row.distinct_bytes),
            flops: rows.iter().map(|row| row.flops).sum(),
            mma: sum(rows, |row| row.mma),
            floor_ms: sum(rows, |row| row.floor_ms),
            computing_ms: sum(rows, |row| row.computing_ms),
            lost_ms: sum(rows, |row| row.lost_ms),
        }
    }
}

impl Report {
    fn new(
        args: &ProfileArgs,
        device: &Device,
        chip: Option<Chip>,
        size: Size,
        profile: &Profile,
    ) -> Self {
        let kernels = profile.kernels(chip).into_iter();
        let kernels: Vec<Row> = kernels.map(Row::new).collect();
        let all = Row::all(&kernels);
        let nodes = milliseconds(GRAPH_NODE) * all.calls as f64;
        Report {
            part: args.part.word(),
            model: args.model.name,
            batch: size.batch,
            length: size.length,
            vocabulary: size.vocabulary,
            device: device.name(),
            chip: chip.map(|chip| chip.name),
            chip_source: chip.map(|chip| chip.source),
            graph_floor_ms: all.floor_ms.map(|floor| floor + nodes),
            whole_ms: profile.whole.map(milliseconds),
            kernels,
            all,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let about = match self.part {
            "step" => format!(
                "training step of {}, B={} T={} V={}",
                self.model, self.batch, self.length, self.vocabulary
            ),
            "caption" => format!(
                "captions of {} by {}, V={}",
                count(self.batch, "image"),
                self.model,
                self.vocabulary
            ),
            _ => format!("encoder on {}", count(self.batch, "image")),
        };
        let _ = writeln!(text, "{about}, on {}\n", self.device);
        let columns = self.columns();
        let width = self.kernels.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or(0).max(6);
        let mut line = |name: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>13}")).collect();
            let _ = writeln!(text, "{name:width$}{cells}");
        };
        line(
            "kernel",
            columns.iter().map(|column| column.0.into()).collect(),
        );
        for row in self.kernels.iter().chain([&self.all]) {
            line(
                &row.name,
                columns.iter().map(|column| (column.1)(row)).collect(),
            );
        }
        self.conclude(&mut text);
        text
    }

    /// The columns of which something is known.
    fn columns(&self) -> Vec<Column> {
        fn number(value: Option<f64>, digits: usize) -> String {
            value.map_or_else(String::new, |value| format!("{value:.digits$}"))
        }
        let mut columns: Vec<Column> = vec![("calls", |row| row.calls.to_string())];
        if self.all.ms.is_some() {
            columns.push(("ms", |row| number(row.ms, 3)));
        }
        if self.all.requested_bytes.is_some() {
            columns.push(("asked MB", |row| {
                number(row.requested_bytes.map(|bytes| bytes as f64 / 1e6), 1)
            }));
            columns.push(("distinct MB", |row| {
                number(row.distinct_bytes.map(|bytes| bytes as f64 / 1e6), 1)
            }));
        }
        if self.chip.is_some() {
            columns.push(("tensors MB", |row| {
                number(Some(row.tensor_bytes as f64 / 1e6), 1)
            }));
            columns.push(("GFLOP", |row| number(Some(row.flops / 1e9), 2)));
            columns.push(("floor ms", |row| number(row.floor_ms, 3)));
        }
        if self.all.lost_ms.is_some() {
            columns.push(("lost ms", |row| number(row.lost_ms, 3)));
        }
        columns
    }

    /// What it comes to, and what to look at next.
    fn conclude(&self, text: &mut String) {
        if let (Some(chip), Some(source), Some(floor), Some(graph)) = (
            self.chip,
            self.chip_source,
            self.all.floor_ms,
            self.graph_floor_ms,
        ) {
            let calls = self.all.calls;
            let computing = self.all.computing_ms.unwrap_or(0.0);
            let _ = writeln!(
                text,
                "\nOn one {chip} ({source}) all kernels take {floor:.3} ms at least if each reads its tensors from device \
                 memory: {:.3} ms bound by memory, {:.3} by computing. With {:.2} µs for each of {calls} nodes of a graph, as an \
                 H100 takes, it is about {graph:.3} ms. A barrier of all blocks in the place of a node takes {:.2} µs, a launch \
                 by itself {:.1} µs.",
                floor - computing,
                computing,
                1e3 * milliseconds(GRAPH_NODE),
                1e3 * milliseconds(BARRIER),
                1e3 * milliseconds(LAUNCH),
            );
        }
        if let Some(whole) = self.whole_ms {
            let _ = writeln!(text, "\nAs a run does it, it takes {whole:.3} ms.");
        }
        if let Some(next) = self.next() {
            let _ = writeln!(text, "{next}");
        }
        if self.chip.is_some() {
            let anchor = match self.part {
                "encoder" => {
                    "ResNet-50 at 224x224 in int8: 88,714 images a second on an H100 (MLPerf Inference 4.0)"
                }
                _ => {
                    "cuDNN's LSTM: 1.96 µs a step forward, 5.07 with backward (H100, B=16, H=768, bf16; FlashRNN, Pöppel et al. 2024)"
                }
            };
            let _ = writeln!(text, "For comparison, {anchor}.");
        }
    }

    /// The kernel to look at next: where the most time is lost, or else where the floors are the highest.
    fn next(&self) -> Option<String> {
        let of = |row: &Row| row.lost_ms.or(row.floor_ms);
        let larger = |a: &&Row, b: &&Row| of(a).unwrap_or(0.0).total_cmp(&of(b).unwrap_or(0.0));
        let first = self
            .kernels
            .iter()
            .filter(|row| of(row).is_some())
            .max_by(larger)?;
        let (what, all) = match self.all.lost_ms {
            Some(all) => ("is lost", all),
            None => ("has to be done", self.all.floor_ms?),
        };
        let part = of(first)?;
        Some(format!(
            "Most {what} in {}: {part:.3} of {all:.3} ms ({:.0} %) in {}, bound by {}.",
            first.name,
            100.0 * part / all,
            count(first.calls, "call"),
            first.bound()?
        ))
    }
}

/// Writes the calls as a trace of events, in microseconds.
fn write_trace(path: &Path, profile: &Profile, chip: Option<Chip>) -> Result<()> {
    let mut now = Duration::ZERO;
    let mut events = Vec::with_capacity(profile.calls.len());
    for call in &profile.calls {
        let floor = chip.map(|chip| chip.floor(&call.name, call.work).max(GRAPH_NODE));
        let (start, length) = call.time.unwrap_or((now, floor.unwrap_or_default()));
        now = start + length;
        events.push(serde_json::json!({
            "name": call.name, "ph": "X", "pid": 0, "tid": 0,
            "ts": start.as_secs_f64() * 1e6, "dur": length.as_secs_f64() * 1e6,
            "args": { "bytes": call.work.bytes, "flops": call.work.flops },
        }));
    }
    let trace = serde_json::json!({ "traceEvents": events, "displayTimeUnit": "ms" });
    Ok(files::write_text(path, &trace.to_string())?)
}
