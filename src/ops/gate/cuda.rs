//! The gate on the CUDA device: `kernels/gate.cu`.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::gate as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, g: &mut Tensor, x: &Tensor, z: &mut Tensor) -> Result<()> {
    if z.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.write(g)?,
        launch.read(x)?,
        launch.write(z)?,
        launch.size(z.rows())?,
        launch.size(z.cols())?,
        launch.size(g.ld())?,
        launch.size(x.ld())?,
        launch.size(z.ld())?,
    );
    let width = launch.width(&[g, x, z]);
    let kernel = match width {
        4 => &kernels::GATE_FORWARD_F32X4,
        _ => &kernels::GATE_FORWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(z.len() / width, 256), args)
}

pub fn backward(
    ctx: &Context,
    g: &Tensor,
    x: &Tensor,
    dz: &Tensor,
    dg: &mut Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    if dz.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let args = (
        launch.read(g)?,
        launch.read(x)?,
        launch.read(dz)?,
        launch.write(dg)?,
        launch.write(dx)?,
        launch.size(dz.rows())?,
        launch.size(dz.cols())?,
        launch.size(g.ld())?,
        launch.size(x.ld())?,
        launch.size(dz.ld())?,
        launch.size(dg.ld())?,
        launch.size(dx.ld())?,
    );
    let width = launch.width(&[g, x, dz, dg, dx]);
    let kernel = match width {
        4 => &kernels::GATE_BACKWARD_F32X4,
        _ => &kernels::GATE_BACKWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(dz.len() / width, 256), args)
}
