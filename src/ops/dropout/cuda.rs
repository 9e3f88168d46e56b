//! Dropout on the CUDA device: `kernels/dropout.cu`.

use super::{Mask, OP};
use crate::error::Result;
use crate::ops::kernels::dropout::{self as kernels, DropoutMask};
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

impl DropoutMask {
    fn new(launch: &Launch, mask: &Mask) -> Result<Self> {
        Ok(DropoutMask {
            seed: mask.seed,
            site: mask.site,
            threshold: mask.threshold,
            scale: mask.scale as f32,
            first_t: launch.size(mask.first_t)?,
            batch: launch.size(mask.batch)?,
        })
    }
}

pub(super) fn forward(
    ctx: &Context,
    mask: &Mask,
    step: &Tensor,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[x, y]).at_most(kernels::WORDS);
    let arguments = kernels::DropoutForward {
        mask: DropoutMask::new(&launch, mask)?,
        rows: launch.size(x.rows())?,
        cols: launch.size(x.cols())?,
        x_ld: launch.size(x.ld())?,
        y_ld: launch.size(y.ld())?,
        step: step.into(),
        x: x.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], blocks(x), arguments)
}

pub(super) fn in_place(ctx: &Context, mask: &Mask, step: &Tensor, x: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let (vector, blocks) = (launch.vector(&[x]).at_most(kernels::WORDS), blocks(x));
    let arguments = kernels::DropoutInPlace {
        mask: DropoutMask::new(&launch, mask)?,
        rows: launch.size(x.rows())?,
        cols: launch.size(x.cols())?,
        ld: launch.size(x.ld())?,
        step: step.into(),
        x: x.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

/// A thread for every Philox block.
fn blocks(x: &Tensor) -> Blocks {
    Blocks::for_threads(x.rows() * x.cols().div_ceil(kernels::WORDS))
}
