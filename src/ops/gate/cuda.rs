//! The gate on the CUDA device: `kernels/gate.cu`.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::gate as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, g: &mut Tensor, x: &Tensor, z: &mut Tensor) -> Result<()> {
    if z.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[z, g, x]);
    let blocks = Blocks::for_threads(z.len() / vector.width);
    let arguments = kernels::GateForward {
        rows: launch.size(z.rows())?,
        cols: launch.size(z.cols())?,
        g_ld: launch.size(g.ld())?,
        x_ld: launch.size(x.ld())?,
        z_ld: launch.size(z.ld())?,
        g: g.into(),
        x: x.into(),
        z: z.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
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
    let vector = launch.vector(&[dg, g, x, dz, dx]);
    let blocks = Blocks::for_threads(dz.len() / vector.width);
    let arguments = kernels::GateBackward {
        rows: launch.size(dz.rows())?,
        cols: launch.size(dz.cols())?,
        s_ld: launch.size(g.ld())?,
        x_ld: launch.size(x.ld())?,
        dz_ld: launch.size(dz.ld())?,
        dg_ld: launch.size(dg.ld())?,
        dx_ld: launch.size(dx.ld())?,
        s: g.into(),
        x: x.into(),
        dz: dz.into(),
        dg: dg.into(),
        dx: dx.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}
