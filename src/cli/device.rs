//! Which device a command runs on, and with how many threads.

use crate::Device;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: Choice,
    /// Threads to compute and to decode images with [default: all processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// The GPU if there is one, else the CPU
    Auto,
    Cpu,
    Cuda,
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
        match self.device {
            Choice::Auto | Choice::Cpu => Ok(Device::cpu()),
            Choice::Cuda => bail!("this showtell has no CUDA device; use --device cpu"),
        }
    }

    /// Threads that decode images.
    pub fn loader_threads(&self) -> usize {
        crate::device::cpu_threads()
    }
}
