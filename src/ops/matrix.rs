//! How element-wise kernels (kernels/elementwise.cuh) see their tensors.

use super::launch::Launch;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::tensor::Tensor;

/// Threads of a block.
const THREADS: u32 = 256;

/// The rows and columns that tensors have in common: one long row where none of them is padded.
pub struct Matrix<'a> {
    launch: &'a Launch<'a>,
    pub rows: i32,
    pub cols: i32,
}

impl<'a> Matrix<'a> {
    pub fn new(launch: &'a Launch<'a>, tensors: &[&Tensor]) -> Result<Self> {
        let (mut rows, mut cols) = (tensors[0].rows(), tensors[0].cols());
        if tensors.iter().all(|tensor| tensor.is_dense()) {
            (rows, cols) = (1, rows * cols);
        }
        launch.size(rows * cols)?;
        Ok(Matrix {
            launch,
            rows: launch.size(rows)?,
            cols: launch.size(cols)?,
        })
    }

    /// Between the starts of rows; 0 where there is one row.
    pub fn ld(&self, tensor: &Tensor) -> Result<i32> {
        match self.rows {
            1 => Ok(0),
            _ => self.launch.size(tensor.ld()),
        }
    }

    /// A thread for every `width` columns of a row.
    pub fn grid(&self, width: usize) -> Grid {
        let groups = (self.cols as usize).div_ceil(width);
        Grid::threads_for(self.rows as usize * groups, THREADS)
    }
}
