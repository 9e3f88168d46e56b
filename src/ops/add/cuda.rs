//! y += x on the CUDA device.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::add as kernels;
use crate::ops::launch::Launch;
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, DType, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let (ldx, ldy) = (matrix.ld(x)?, matrix.ld(y)?);
    let sizes = (matrix.rows, matrix.cols);
    match y.dtype() {
        DType::F32 => {
            let (x, y) = (launch.read(x)?, launch.write(y)?);
            let arguments = (x, y, sizes.0, sizes.1, ldx, ldy);
            launch.run(&kernels::ADD_F32, matrix.grid(4), arguments)
        }
        DType::Bf16 => {
            let (x, y) = (launch.read(x)?, launch.write(y)?);
            let arguments = (x, y, sizes.0, sizes.1, ldx, ldy);
            launch.run(&kernels::ADD_BF16, matrix.grid(4), arguments)
        }
        other => launch.refuse(other),
    }
}
