//! Augmentation on the CUDA device: `kernels/augment.cu`.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::augment::AugmentForward;
use crate::ops::kernels::vector::THREADS;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

pub fn forward(ctx: &Context, photos: &Tensor, changes: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let [count, height, width] = [0, 1, 2].map(|i| photos.shape().dims()[i]);
    let aligned = y.byte_range().start.is_multiple_of(4);
    let (key, pixels) = if aligned && width.is_multiple_of(4) {
        ("four", 4)
    } else {
        ("one", 1)
    };
    let threads = (height * width).div_ceil(pixels);
    let blocks = Blocks::new([threads.div_ceil(THREADS), changes.cols(), 1]);
    let arguments = AugmentForward {
        photo_count: launch.size(count)?,
        height: launch.size(height)?,
        width: launch.size(width)?,
        changes_ld: launch.size(changes.ld())?,
        photos: photos.into(),
        changes: changes.into(),
        y: y.into(),
    };
    launch.run(&[key], blocks, arguments)
}
