//! Dropout on the CUDA device: `kernels/dropout.cu`.

use super::{Mask, OP};
use crate::device::cuda::{Grid, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::dropout as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

kernel_struct! {
    pub struct DropoutMask {
        pub seed: u64,
        pub site: u32,
        pub threshold: u32,
        pub scale: f32,
        pub first_t: i32,
        pub batch: i32,
    }
}

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
    let args = (
        DropoutMask::new(&launch, mask)?,
        launch.read(step)?,
        launch.read(x)?,
        launch.write(y)?,
        launch.size(x.rows())?,
        launch.size(x.cols())?,
        launch.size(x.ld())?,
        launch.size(y.ld())?,
        i32::from(launch.width(&[x, y]) == 4),
    );
    launch.run(&kernels::DROPOUT_FORWARD_F32, grid(x), args)
}

pub(super) fn in_place(ctx: &Context, mask: &Mask, step: &Tensor, x: &mut Tensor) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let args = (
        DropoutMask::new(&launch, mask)?,
        launch.read(step)?,
        launch.write(x)?,
        launch.size(x.rows())?,
        launch.size(x.cols())?,
        launch.size(x.ld())?,
        i32::from(launch.width(&[x]) == 4),
    );
    launch.run(&kernels::DROPOUT_IN_PLACE_F32, grid(x), args)
}

/// A thread for every Philox block.
fn grid(x: &Tensor) -> Grid {
    Grid::threads_for(x.rows() * x.cols().div_ceil(4), 256)
}
