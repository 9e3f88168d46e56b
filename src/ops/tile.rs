//! How products of matrices and convolutions are cut among blocks: the host's side of `kernels/tile.cuh`.

use super::launch::Launch;
use crate::device::cuda::Grid;

/// Threads of a block, whatever its tile.
pub const THREADS: u32 = 128;

/// A part of a sum is a multiple of this, the deepest step of a kernel, and at least `SHORTEST`, lest summing up the
/// parts takes longer than making them.
const STEP: usize = 64;
const SHORTEST: usize = 256;

/// Rows and columns of a tile, and its bytes of shared memory.
#[derive(Clone, Copy)]
pub struct Cut {
    rows: usize,
    cols: usize,
    shared: usize,
}

impl Cut {
    const fn new([rows, cols]: [usize; 2], shared: usize) -> Self {
        Cut { rows, cols, shared }
    }

    fn count(&self, [rows, cols]: [usize; 2]) -> usize {
        rows.div_ceil(self.rows) * cols.div_ceil(self.cols)
    }
}

/// The cuts of those names in `kernels/tile.cuh`.
pub const LARGE: Cut = Cut::new([128, 128], 64 << 10);
pub const TALL: Cut = Cut::new([128, 64], 48 << 10);
const SMALL: Cut = Cut::new([64, 64], 48 << 10);

/// The tiles of a matrix.
#[derive(Clone, Copy)]
pub struct Tiles {
    /// Which of a kernel's two instances: 0 has large tiles, 1 small ones.
    pub instance: usize,
    pub count: usize,
    shared: usize,
}

impl Tiles {
    /// Large tiles where they fill the multiprocessors, else small ones.
    pub fn new(launch: &Launch, large: Cut, size: [usize; 2]) -> Self {
        let (instance, cut) = match large.count(size) >= launch.multiprocessors() {
            true => (0, large),
            false => (1, SMALL),
        };
        Tiles {
            instance,
            count: cut.count(size),
            shared: cut.shared,
        }
    }

    /// A block for every tile, so many times over.
    pub fn grid(&self, times_y: usize, times_z: usize) -> Grid {
        Grid::blocks([self.count, times_y, times_z], THREADS).shared(self.shared)
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
