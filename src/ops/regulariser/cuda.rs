//! The regulariser on the CUDA device: a thread for every image and position.

use super::OP;
use crate::device::cuda::Grid;
use crate::error::Result;
use crate::ops::kernels::regulariser as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Tensor};

const THREADS: u32 = 256;

pub fn forward(ctx: &Context, alphas: &Tensor, lambda: f64, loss: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if alphas.dtype() != DType::F32 {
        return launch.refuse(alphas.dtype());
    }
    let [steps, batch, positions, ld] = sizes(&launch, alphas)?;
    let elements = batch as usize * positions as usize;
    let blocks = elements.div_ceil(THREADS as usize);
    ctx.scope(|| {
        let squares = ctx.empty([blocks], DType::F32)?;
        if blocks > 0 {
            let (alphas, squares) = (launch.read(alphas)?, launch.write(&squares)?);
            let arguments = (alphas, squares, steps, batch, positions, ld);
            let grid = Grid::threads_for(elements, THREADS);
            launch.run(&kernels::REGULARISER_SQUARES_F32, grid, arguments)?;
        }
        let launch = Launch::new(OP, ctx)?;
        let arguments = (
            launch.read(&squares)?,
            launch.write(loss)?,
            launch.size(blocks)?,
            (lambda / elements as f64) as f32,
        );
        let grid = Grid::blocks([1, 1, 1], THREADS);
        launch.run(&kernels::REGULARISER_LOSS_F32, grid, arguments)
    })
}

pub fn backward(ctx: &Context, alphas: &Tensor, lambda: f64, d_alpha: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if alphas.dtype() != DType::F32 {
        return launch.refuse(alphas.dtype());
    }
    if d_alpha.is_empty() {
        return Ok(());
    }
    let [steps, batch, positions, ld] = sizes(&launch, alphas)?;
    let elements = d_alpha.len();
    let ld_d_alpha = launch.size(d_alpha.ld())?;
    let arguments = (
        launch.read(alphas)?,
        launch.write(d_alpha)?,
        steps,
        batch,
        positions,
        ld,
        ld_d_alpha,
        (-2.0 * lambda / elements as f64) as f32,
    );
    let grid = Grid::threads_for(elements, THREADS);
    launch.run(&kernels::REGULARISER_BACKWARD_F32, grid, arguments)
}

/// T, B, P and what lies between rows.
fn sizes(launch: &Launch, alphas: &Tensor) -> Result<[i32; 4]> {
    let dims = alphas.shape();
    let dims = dims.dims();
    Ok([
        launch.size(dims[0])?,
        launch.size(dims[1])?,
        launch.size(dims[2])?,
        launch.size(alphas.ld())?,
    ])
}
