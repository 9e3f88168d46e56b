//! Adaptive average pooling as a matrix.

use super::OP;
use crate::error::Result;
use crate::ops::check;
use std::ops::Range;

/// The matrix M (P, C) that takes a map of C cells to P positions by adaptive average pooling: along each axis
/// position i of p averages the cells ⌊i n / p⌋ … ⌈(i + 1) n / p⌉ - 1 of n (PyTorch's rule). M is separable and
/// sparse: 1, 2 or 4 cells a position when p >= n. It is known from the two grids alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellMix {
    /// Height, width.
    cells: [usize; 2],
    positions: [usize; 2],
}

impl CellMix {
    /// From grids of (height, width).
    ///
    /// # Errors
    /// When a grid is empty.
    pub fn new(cells: [usize; 2], positions: [usize; 2]) -> Result<Self> {
        let empty = cells.contains(&0) || positions.contains(&0);
        check::that(OP, !empty, || {
            format!("cannot pool {cells:?} cells to {positions:?} positions")
        })?;
        Ok(CellMix { cells, positions })
    }

    /// C.
    pub fn cells(&self) -> usize {
        self.cells[0] * self.cells[1]
    }

    /// P.
    pub fn positions(&self) -> usize {
        self.positions[0] * self.positions[1]
    }

    /// Cells, then positions: height and width of each.
    pub fn grids(&self) -> [[usize; 2]; 2] {
        [self.cells, self.positions]
    }

    /// The cells of one axis that position `i` averages.
    fn range(&self, axis: usize, i: usize) -> Range<usize> {
        let (n, p) = (self.cells[axis], self.positions[axis]);
        i * n / p..((i + 1) * n).div_ceil(p)
    }

    /// What position `p` averages: cells with their weight M_pc.
    pub(super) fn taps(&self, p: usize) -> impl Iterator<Item = (usize, f64)> {
        let (rows, cols) = (
            self.range(0, p / self.positions[1]),
            self.range(1, p % self.positions[1]),
        );
        let weight = 1.0 / (rows.len() * cols.len()) as f64;
        let width = self.cells[1];
        rows.flat_map(move |row| cols.clone().map(move |col| (row * width + col, weight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts that the models' description gives for a map of 8 x 8.
    #[test]
    fn eight_to_fourteen() {
        let mix = CellMix::new([8, 8], [14, 14]).unwrap();
        let mut count = [0; 5];
        for p in 0..mix.positions() {
            count[mix.taps(p).count()] += 1;
        }
        assert_eq!(count, [0, 64, 96, 0, 36]);
        let widths: Vec<usize> = (0..14).map(|i| mix.range(0, i).len()).collect();
        assert_eq!(widths, [1, 2, 1, 2, 1, 2, 1, 1, 2, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn every_position_is_a_mean_and_equal_grids_are_the_identity() {
        for (cells, positions) in [([3, 5], [7, 2]), ([9, 4], [4, 4]), ([1, 1], [3, 3])] {
            let mix = CellMix::new(cells, positions).unwrap();
            for p in 0..mix.positions() {
                let sum: f64 = mix.taps(p).map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-15);
                assert!(mix.taps(p).all(|(cell, _)| cell < mix.cells()));
            }
        }
        let mix = CellMix::new([4, 3], [4, 3]).unwrap();
        assert!((0..12).all(|p| mix.taps(p).eq([(p, 1.0)])));
        assert!(CellMix::new([0, 3], [1, 1]).is_err());
    }
}
