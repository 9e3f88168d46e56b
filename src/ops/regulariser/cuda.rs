//! The regulariser on the CUDA device: a thread for every image and position.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::regulariser as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, DType, Tensor};

pub fn forward(ctx: &Context, alphas: &Tensor, lambda: f64, loss: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let [steps, batch, positions] = sizes(&launch, alphas)?;
    let elements = batch as usize * positions as usize;
    let blocks = elements.div_ceil(kernels::THREADS);
    ctx.scope(|| {
        let mut squares = ctx.empty([blocks], DType::F32)?;
        if blocks > 0 {
            let arguments = kernels::RegulariserSquares {
                steps,
                batch,
                positions,
                ld: launch.size(alphas.ld())?,
                alphas: alphas.into(),
                squares: (&mut squares).into(),
            };
            launch.run(&[], Blocks::new([blocks, 1, 1]), arguments)?;
        }
        let arguments = kernels::RegulariserLoss {
            count: launch.size(blocks)?,
            scale: (lambda / elements as f64) as f32,
            squares: (&squares).into(),
            loss: loss.into(),
        };
        launch.run(&[], Blocks::new([1, 1, 1]), arguments)
    })
}

pub fn backward(ctx: &Context, alphas: &Tensor, lambda: f64, d_alpha: &mut Tensor) -> Result<()> {
    if d_alpha.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let [steps, batch, positions] = sizes(&launch, alphas)?;
    let elements = d_alpha.len();
    let arguments = kernels::RegulariserBackward {
        steps,
        batch,
        positions,
        ld: launch.size(alphas.ld())?,
        ld_d_alpha: launch.size(d_alpha.ld())?,
        scale: (-2.0 * lambda / elements as f64) as f32,
        alphas: alphas.into(),
        d_alpha: d_alpha.into(),
    };
    launch.run(&[], Blocks::for_threads(elements), arguments)
}

/// T, B, P
fn sizes(launch: &Launch, alphas: &Tensor) -> Result<[i32; 3]> {
    let shape = alphas.shape();
    let dims = shape.dims();
    Ok([
        launch.size(dims[0])?,
        launch.size(dims[1])?,
        launch.size(dims[2])?,
    ])
}
