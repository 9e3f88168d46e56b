//! The device that a command runs on, its precision and its threads; and the command that lists the devices.

use super::{flags, tell, usage};
use crate::device::{Precision, cpu_threads, cuda};
use crate::settings::{Setting, Table, Typed, Value, choice, integer, text};
use crate::words::count;
use crate::{Device, Error};
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::io::Write;

crate::settings! {
    /// Where a command computes.
    struct Settings {}
    "Device" {
        /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with number N
        ///
        /// auto takes the GPU if there is one; otherwise it takes the CPU and says why.
        device: Choice = text("auto, cpu, cuda or cuda:N", Choice::allows, "DEVICE").default("auto");
        /// How a GPU computes matrix products and convolutions; default: tf32
        ///
        /// The CPU always computes in f32.
        precision: Option<PrecisionChoice> = choice(PrecisionChoice::WORDS, "PRECISION");
        /// Threads that compute on the CPU and decode images; default: one per processor
        threads: Option<usize> = integer(1).most(4096);
    }
}

/// The settings of the device, which are no part of a run's configuration.
pub const SETTINGS: &[Setting] = Settings::SETTINGS;

/// The device that flags, or a file of settings, ask for.
pub struct DeviceArgs(Settings);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl Choice {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Choice::Auto),
            "cpu" => Some(Choice::Cpu),
            "cuda" => Some(Choice::Cuda(0)),
            _ => text.strip_prefix("cuda:")?.parse().ok().map(Choice::Cuda),
        }
    }

    fn allows(text: &str) -> bool {
        Choice::parse(text).is_some()
    }
}

impl Typed for Choice {
    fn from_value(value: &Value) -> Option<Self> {
        Choice::parse(value.as_str()?)
    }

    fn to_value(&self) -> Value {
        match self {
            Choice::Auto => "auto".into(),
            Choice::Cpu => "cpu".into(),
            Choice::Cuda(number) => format!("cuda:{number}").into(),
        }
    }
}

crate::choices! {
    /// A precision, by the word for it.
    enum PrecisionChoice {
        /// Everything in f32
        F32 = "f32",
        /// On tensor cores, with factors rounded to 11 significant bits
        Tf32 = "tf32",
        /// On tensor cores, with activations and copies of the weights in bf16; the weights themselves stay in f32
        Bf16 = "bf16",
    }
}

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::Tf32 => Precision::Tf32,
            PrecisionChoice::Bf16 => Precision::Bf16,
        }
    }
}

impl Args for DeviceArgs {
    fn augment_args(command: Command) -> Command {
        let defaults = |setting: &Setting| setting.default.map(String::from);
        command.args(
            SETTINGS
                .iter()
                .flat_map(|setting| flags::flags(setting, defaults(setting))),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        DeviceArgs::augment_args(command)
    }
}

impl FromArgMatches for DeviceArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let settings: Vec<&Setting> = SETTINGS.iter().collect();
        DeviceArgs::of(&flags::given(matches, &settings))
            .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("--{error}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = DeviceArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl DeviceArgs {
    /// The device that a table of settings asks for; what it leaves out keeps its default.
    pub fn of(given: &Table) -> crate::Result<Self> {
        let defaults = SETTINGS.iter().filter_map(|setting| {
            let value = setting.default_value()?;
            Some((setting.key.to_string(), value))
        });
        let mut table: Table = defaults.collect();
        table.extend(given.clone());
        Settings::read(&table).map(DeviceArgs)
    }

    /// Makes the device and sets the number of threads.
    pub fn open(&self) -> Result<Device> {
        if let Some(threads) = self.0.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .context("cannot start the threads")?;
        }
        let wanted = self.0.precision.map(Precision::from);
        let on_gpu = self.precision_on_gpu();
        match self.0.device {
            Choice::Cpu => cpu(wanted),
            Choice::Cuda(ordinal) => Ok(Device::cuda(ordinal, on_gpu)?),
            Choice::Auto => match Device::cuda(0, on_gpu) {
                Ok(device) => Ok(device),
                Err(reason) => {
                    tell(format_args!("computing on the CPU: {reason}"));
                    cpu(wanted)
                }
            },
        }
    }

    /// How a GPU computes.
    pub fn precision_on_gpu(&self) -> Precision {
        self.0.precision.map_or(Precision::Tf32, Precision::from)
    }

    /// Threads that decode images.
    pub fn loader_threads(&self) -> usize {
        cpu_threads()
    }
}

fn cpu(precision: Option<Precision>) -> Result<Device> {
    match precision {
        None | Some(Precision::F32) => Ok(Device::cpu()),
        Some(other) => {
            let message = format!(
                "the CPU computes in f32, not {other}: leave this out, or use `device = \"cuda\"`"
            );
            Err(usage(Error::setting("precision", message)))
        }
    }
}

/// Lists the devices that this machine has
#[derive(Args)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn devices(args: DevicesArgs) -> Result<()> {
    let found = cuda::devices();
    let mut out = std::io::stdout();
    if args.json {
        let (gpus, missing) = match found {
            Ok(gpus) => (gpus, None),
            Err(reason) => (Vec::new(), Some(reason.to_string())),
        };
        let gpus: Vec<_> = gpus.iter().map(gpu_json).collect();
        let listed = serde_json::json!({ "cpu": { "threads": cpu_threads() }, "cuda": gpus, "no_cuda": missing });
        writeln!(out, "{listed}")?;
        return Ok(());
    }
    writeln!(out, "cpu     {}", count(cpu_threads(), "thread"))?;
    match found {
        Ok(gpus) => gpus.iter().try_for_each(|gpu| {
            let ((major, minor), gib) = (gpu.capability, gpu.memory as f64 / f64::from(1 << 30));
            writeln!(
                out,
                "cuda:{}  {}, compute capability {major}.{minor}, {} multiprocessors, {gib:.1} GiB",
                gpu.ordinal, gpu.name, gpu.multiprocessors
            )
        })?,
        Err(reason) => writeln!(out, "cuda    none: {reason}")?,
    }
    Ok(())
}

fn gpu_json(gpu: &cuda::Facts) -> serde_json::Value {
    let (major, minor) = gpu.capability;
    serde_json::json!({
        "ordinal": gpu.ordinal,
        "name": gpu.name,
        "compute_capability": [major, minor],
        "multiprocessors": gpu.multiprocessors,
        "memory_bytes": gpu.memory,
        "shared_bytes": gpu.shared,
    })
}
