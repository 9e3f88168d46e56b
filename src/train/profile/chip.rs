//! What GPUs can do at most, by their makers' data sheets: the floor under the time of a kernel.

use crate::device::{Precision, Work, cuda};
use std::time::Duration;

/// A GPU, by its data sheet. Rates of tensor cores are those of dense matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// The word for it.
    pub word: &'static str,
    /// The product's name.
    pub name: &'static str,
    /// Where the figures are from.
    pub source: &'static str,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Bytes of shared memory that a block may ask for.
    pub shared: usize,
    /// Bytes that the device memory moves in a second.
    pub bandwidth: f64,
    /// Floating-point operations in a second, in f32 without tensor cores.
    pub f32: f64,
    /// The same on tensor cores in tf32.
    pub tf32: f64,
    /// The same on tensor cores in bf16, with sums in f32.
    pub bf16: f64,
}

const GB: f64 = 1e9;
const TERA: f64 = 1e12;

/// The GPUs that are known.
pub const CHIPS: [Chip; 5] = [
    Chip {
        word: "a100",
        name: "NVIDIA A100 80GB SXM",
        source: "NVIDIA A100 Tensor Core GPU data sheet",
        capability: (8, 0),
        multiprocessors: 108,
        memory: 80 << 30,
        shared: 163 << 10,
        bandwidth: 2_039.0 * GB,
        f32: 19.5 * TERA,
        tf32: 156.0 * TERA,
        bf16: 312.0 * TERA,
    },
    Chip {
        word: "h100",
        name: "NVIDIA H100 80GB SXM",
        source: "NVIDIA H100 Tensor Core GPU data sheet",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 80 << 30,
        shared: 227 << 10,
        bandwidth: 3_350.0 * GB,
        f32: 67.0 * TERA,
        tf32: 494.5 * TERA,
        bf16: 989.5 * TERA,
    },
    Chip {
        word: "h200",
        name: "NVIDIA H200 SXM",
        source: "NVIDIA H200 Tensor Core GPU data sheet",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 141 << 30,
        shared: 227 << 10,
        bandwidth: 4_800.0 * GB,
        f32: 67.0 * TERA,
        tf32: 494.5 * TERA,
        bf16: 989.5 * TERA,
    },
    Chip {
        word: "l4",
        name: "NVIDIA L4",
        source: "NVIDIA L4 Tensor Core GPU data sheet",
        capability: (8, 9),
        multiprocessors: 58,
        memory: 24 << 30,
        shared: 99 << 10,
        bandwidth: 300.0 * GB,
        f32: 30.3 * TERA,
        tf32: 60.0 * TERA,
        bf16: 121.0 * TERA,
    },
    Chip {
        word: "rtx4090",
        name: "NVIDIA GeForce RTX 4090",
        source: "NVIDIA Ada GPU Architecture white paper",
        capability: (8, 9),
        multiprocessors: 128,
        memory: 24 << 30,
        shared: 99 << 10,
        bandwidth: 1_008.0 * GB,
        f32: 82.6 * TERA,
        tf32: 82.6 * TERA,
        bf16: 165.2 * TERA,
    },
];

// What waiting costs, as `scripts/visit/latency.cu` measured it on an NVIDIA H100 80GB HBM3 with driver 580.159.

/// A kernel of a graph takes this long whatever it does.
pub const GRAPH_NODE: Duration = Duration::from_nanos(920);

/// The same for a kernel that is launched by itself, where the host is what holds it up.
pub const LAUNCH: Duration = Duration::from_nanos(5_300);

/// A barrier of one block on each multiprocessor inside a kernel, which could take the place of a node.
pub const BARRIER: Duration = Duration::from_nanos(1_030);

impl Chip {
    /// The chip of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        CHIPS.into_iter().find(|chip| chip.word == word)
    }

    /// The chip that a driver calls so, such as "NVIDIA H100 80GB HBM3".
    pub fn of_product(name: &str) -> Option<Self> {
        let name = name.to_lowercase().replace(' ', "");
        CHIPS.into_iter().find(|chip| name.contains(chip.word))
    }

    /// What a dry run of it has to know.
    pub fn facts(&self) -> cuda::Facts {
        cuda::Facts {
            ordinal: 0,
            name: self.name.to_string(),
            capability: self.capability,
            multiprocessors: self.multiprocessors,
            memory: self.memory,
            shared: self.shared,
        }
    }

    /// The least time for this work, the kernel's products being computed as its name says: the longer of moving each byte
    /// once and of computing.
    pub fn floor(&self, kernel: &str, work: Work) -> Duration {
        let moving = Duration::from_secs_f64(work.bytes as f64 / self.bandwidth);
        moving.max(self.computing(kernel, work))
    }

    /// The least time for computing alone.
    pub fn computing(&self, kernel: &str, work: Work) -> Duration {
        let rate = match arithmetic(kernel) {
            Precision::F32 => self.f32,
            Precision::Tf32 => self.tf32,
            Precision::Bf16 => self.bf16,
        };
        Duration::from_secs_f64(work.flops / rate)
    }
}

/// How a kernel of this name computes products.
fn arithmetic(kernel: &str) -> Precision {
    let mut words = kernel.split('_');
    words
        .find_map(|word| match word {
            "bf16" => Some(Precision::Bf16),
            "tf32" => Some(Precision::Tf32),
            _ => None,
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3.35 GB take a millisecond; 494.5 GFLOP of tf32 take one, too; the same of f32 take 7.38.
    #[test]
    fn the_floor_is_the_longer_of_moving_and_computing() {
        let h100 = Chip::of_word("h100").unwrap();
        let floor = |kernel, bytes, flops| {
            let work = Work { bytes, flops };
            h100.floor(kernel, work).as_secs_f64() * 1e3
        };
        assert!((floor("add_f32", 3_350_000_000, 1e9) - 1.0).abs() < 1e-6);
        assert!((floor("gemm_tf32_nn_large_f32", 1000, 494.5e9) - 1.0).abs() < 1e-6);
        assert!((floor("gemm_bf16_nn_large_f32", 1000, 989.5e9) - 1.0).abs() < 1e-6);
        assert!((floor("gemm_f32_nn_tall_f32", 1000, 494.5e9) - 494.5 / 67.0).abs() < 1e-6);
    }

    #[test]
    fn chips_are_found_by_what_drivers_call_them() {
        let word = |name| Chip::of_product(name).map(|chip| chip.word);
        assert_eq!(word("NVIDIA H100 80GB HBM3"), Some("h100"));
        assert_eq!(word("NVIDIA H200"), Some("h200"));
        assert_eq!(word("NVIDIA A100-SXM4-80GB"), Some("a100"));
        assert_eq!(word("NVIDIA GeForce RTX 4090"), Some("rtx4090"));
        assert_eq!(word("NVIDIA L4"), Some("l4"));
        assert_eq!(word("NVIDIA T4"), None);
    }
}
