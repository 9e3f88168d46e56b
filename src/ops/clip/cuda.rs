//! The norm on the CUDA device: a sum of squares for every chunk, then all of them by one block.

use super::{EPSILON, OP};
use crate::error::Result;
use crate::ops::kernels::clip as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, DType, Tensor};

// The two halves add the same number.
const _: () = assert!(kernels::EPSILON == EPSILON as f32);

pub fn norm(
    ctx: &Context,
    gradients: &Tensor,
    max_norm: f64,
    norm: &mut Tensor,
    factor: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let chunks = gradients.len().div_ceil(kernels::CHUNK);
    ctx.scope(|| {
        let mut squares = ctx.empty([chunks], DType::F32)?;
        if chunks > 0 {
            let vector = launch.vector_and_rest(&[gradients], true);
            let arguments = kernels::ClipSquares {
                n: launch.size(gradients.len())?,
                gradients: gradients.into(),
                squares: (&mut squares).into(),
            };
            launch.run(&[vector.key()], Blocks::new([chunks, 1, 1]), arguments)?;
        }
        let arguments = kernels::ClipNorm {
            count: launch.size(chunks)?,
            bound: max_norm as f32,
            squares: (&squares).into(),
            norm: norm.into(),
            factor: factor.into(),
        };
        launch.run(&[], Blocks::new([1, 1, 1]), arguments)
    })
}
