//! Copies and casts on the CUDA device: f32, bf16 and between them; ids.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::copy as kernels;
use crate::ops::launch::{Launch, key};
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let width = matrix.vector.width.to_string();
    let cast = [key(x.dtype()), key(y.dtype()), &*width];
    let arguments = kernels::Copy {
        rows: matrix.rows,
        cols: matrix.cols,
        ldx: matrix.ld(x)?,
        ldy: matrix.ld(y)?,
        x: x.into(),
        y: y.into(),
    };
    launch.run(&cast, matrix.blocks(), arguments)
}
