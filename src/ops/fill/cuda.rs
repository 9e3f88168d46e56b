//! Fills on the CUDA device.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::fill as kernels;
use crate::ops::launch::Launch;
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, Tensor};

pub fn zero(ctx: &Context, t: &mut Tensor) -> Result<()> {
    constant(ctx, 0.0, t)
}

pub fn constant(ctx: &Context, value: f64, t: &mut Tensor) -> Result<()> {
    if t.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[t])?;
    let arguments = kernels::Fill {
        value: value as f32,
        rows: matrix.rows,
        cols: matrix.cols,
        ld: matrix.ld(t)?,
        y: t.into(),
    };
    launch.run(&[matrix.vector.key()], matrix.blocks(), arguments)
}
