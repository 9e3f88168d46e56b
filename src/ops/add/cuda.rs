//! y += x on the CUDA device.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::add as kernels;
use crate::ops::launch::Launch;
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let arguments = kernels::Add {
        rows: matrix.rows,
        cols: matrix.cols,
        ldx: matrix.ld(x)?,
        ldy: matrix.ld(y)?,
        x: x.into(),
        y: y.into(),
    };
    launch.run(&[matrix.vector.key()], matrix.blocks(), arguments)
}
