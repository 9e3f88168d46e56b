//! Copies and casts on the CUDA device: f32, bf16 and between them; ids.

use super::OP;
use crate::error::{Error, Result};
use crate::ops::kernels::copy as kernels;
use crate::ops::launch::{Arguments, Launch, key};
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let width = match matrix.vector.width {
        1 => "1",
        4 => "4",
        _ => "8",
    };
    let cast = [key(x.dtype()), key(y.dtype()), width];
    if kernels::Copy::FAMILY.member(&cast).is_none() {
        let [from, to, _] = cast;
        let message = format!("the CUDA device has no cast from {from} to {to}");
        return Err(Error::operation(OP, message));
    }
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
