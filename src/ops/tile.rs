//! How products of matrices and convolutions are cut among blocks: the host's side of `kernels/tile.cuh`.

use super::kernels::tile::{Cut, LARGE, SMALL, TALL};
use super::launch::{Blocks, Launch};
use half::bf16;

/// A part of a sum is a multiple of this, the deepest step of a kernel, and at least `SHORTEST`: adding up shorter
/// parts would take longer than making them.
const STEP: usize = SMALL.kbytes / size_of::<bf16>();
const SHORTEST: usize = 256;

/// The tiles of a matrix.
#[derive(Clone, Copy)]
pub struct Tiles {
    /// The cut, as kernels have it in their names.
    pub key: &'static str,
    pub count: usize,
    shared: usize,
}

impl Tiles {
    /// The large tiles of an arithmetic where they fill the multiprocessors, else small ones.
    pub fn new(launch: &Launch, arithmetic: &str, size: [usize; 2]) -> Self {
        let large = if arithmetic == "f32" {
            Tiles::of(TALL, size)
        } else {
            Tiles::of(LARGE, size)
        };
        if large.count >= launch.multiprocessors() {
            large
        } else {
            Tiles::small(size)
        }
    }

    pub fn small(size: [usize; 2]) -> Self {
        Tiles::of(SMALL, size)
    }

    fn of(cut: Cut, [rows, cols]: [usize; 2]) -> Self {
        Tiles {
            key: cut.key,
            count: rows.div_ceil(cut.m) * cols.div_ceil(cut.n),
            shared: cut.shared_bytes,
        }
    }

    /// A block for every tile, so many times over.
    pub fn blocks(&self, times_y: usize, times_z: usize) -> Blocks {
        Blocks::new([self.count, times_y, times_z]).shared(self.shared)
    }
}

/// A sum over `terms` terms in parts, to be added up in order.
#[derive(Clone, Copy)]
pub struct Parts {
    pub count: usize,
    /// Terms of a part; the last may have fewer.
    pub terms: usize,
}

impl Parts {
    /// About `wanted` parts, as far as they do not get too short.
    pub fn new(wanted: usize, terms: usize) -> Self {
        let wanted = wanted.clamp(1, terms.div_ceil(SHORTEST).max(1));
        let part = terms.div_ceil(wanted).max(1).next_multiple_of(STEP);
        Parts {
            count: terms.div_ceil(part).max(1),
            terms: part,
        }
    }
}
