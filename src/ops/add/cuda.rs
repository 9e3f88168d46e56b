//! y += x on the CUDA device.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::add as kernels;
use crate::ops::launch::{Launch, by_dtype};
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let (ldx, ldy) = (matrix.ld(x)?, matrix.ld(y)?);
    by_dtype!(
        launch,
        y.dtype(),
        [kernels::ADD_F32, kernels::ADD_BF16] as T,
        |kernel| {
            let (x, y) = (launch.read::<T>(x)?, launch.write::<T>(y)?);
            let arguments = (x, y, matrix.rows, matrix.cols, ldx, ldy);
            launch.run(kernel, matrix.grid(4), arguments)
        }
    )
}
