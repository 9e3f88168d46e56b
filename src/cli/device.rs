//! Which device a command runs on, how precisely, and with how many threads; the list of devices.

use super::tell;
use crate::Device;
use crate::device::{Precision, cpu_threads, cuda};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::str::FromStr;

#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute: auto (the GPU if there is one, else the CPU), cpu, cuda, or cuda:N for GPU N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Choice,
    /// How products and convolutions compute [default: tf32 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    precision: Option<PrecisionChoice>,
    /// Threads to compute and to decode images with [default: all processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "expected auto, cpu, cuda or cuda:N".to_string();
        match text {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Choice::Cuda).map_err(|_| unknown())
            }
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionChoice {
    /// Everything in f32
    F32,
    /// Tensor cores, factors rounded to 10 bits of mantissa; a GPU's default
    Tf32,
    /// Tensor cores, activations and copies of the weights in bf16; master weights in f32
    Bf16,
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

impl DeviceArgs {
    /// Makes the device and sets the number of threads.
    pub fn open(&self) -> Result<Device> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.into())
                .build_global()
                .context("cannot start the threads")?;
        }
        let wanted = self.precision.map(Precision::from);
        let on_gpu = wanted.unwrap_or(Precision::Tf32);
        match self.device {
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

    /// Threads that decode images.
    pub fn loader_threads(&self) -> usize {
        cpu_threads()
    }
}

fn cpu(precision: Option<Precision>) -> Result<Device> {
    match precision {
        None | Some(Precision::F32) => Ok(Device::cpu()),
        Some(other) => bail!(
            "the CPU computes in f32, not {other}: leave --precision out, or use --device cuda"
        ),
    }
}

/// Lists the devices that this machine has
#[derive(Args)]
pub struct DevicesArgs {
    /// As JSON
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
    writeln!(out, "cpu     {} threads", cpu_threads())?;
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
