//! How element-wise kernels (kernels/elementwise.cuh) see their tensors.

use super::launch::{Blocks, Launch, Vector};
use crate::error::Result;
use crate::tensor::Tensor;

/// The rows and columns that tensors have in common: one long row where none of them is padded.
pub struct Matrix<'a> {
    launch: &'a Launch<'a>,
    pub rows: i32,
    pub cols: i32,
    pub vector: Vector,
}

impl<'a> Matrix<'a> {
    /// The vector has the element type of the first tensor.
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
            vector: launch.vector_and_rest(tensors, rows == 1),
        })
    }

    /// Between the starts of rows; 0 where there is one row.
    pub fn ld(&self, tensor: &Tensor) -> Result<i32> {
        if self.rows == 1 {
            Ok(0)
        } else {
            self.launch.size(tensor.ld())
        }
    }

    /// A thread for every vector of a row.
    pub fn blocks(&self) -> Blocks {
        let vectors = (self.cols as usize).div_ceil(self.vector.width);
        Blocks::for_threads(self.rows as usize * vectors)
    }
}
