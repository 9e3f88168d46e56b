//! Preprocessing on the CUDA device: `kernels/preprocess.cu`.

use super::{Normalisation, OP};
use crate::error::Result;
use crate::ops::kernels::preprocess::{PreprocessForward, PreprocessNormalisation};
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, Tensor};

pub fn forward(
    ctx: &Context,
    images: &Tensor,
    normalisation: Normalisation,
    y: &mut Tensor,
) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let Normalisation { mean, std } = normalisation;
    // Without padding there are no gaps between pixels, so a thread can take 16 bytes although a pixel has three channels.
    let whole = launch.vector_and_rest(&[y, images], true);
    let fits = images.is_dense() && y.is_dense() && y.len().is_multiple_of(whole.width);
    let vector = if fits {
        whole
    } else {
        launch.vector(&[y, images])
    };
    let threads = y.len().div_ceil(vector.width);
    let arguments = PreprocessForward {
        pixels: y.rows() as i64,
        ldi: launch.size(images.ld())?,
        ldy: launch.size(y.ld())?,
        by: PreprocessNormalisation { mean, std },
        images: images.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], Blocks::for_threads(threads), arguments)
}
