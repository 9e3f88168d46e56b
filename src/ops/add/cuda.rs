//! y += x on the CUDA device: `kernels/add.cu`.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::add as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(x)?,
        launch.write(y)?,
        launch.size(y.rows())?,
        launch.size(y.cols())?,
        launch.size(x.ld())?,
        launch.size(y.ld())?,
    );
    launch.run(
        &kernels::ADD_FORWARD_F32,
        Grid::threads_for(y.len(), 256),
        args,
    )
}
