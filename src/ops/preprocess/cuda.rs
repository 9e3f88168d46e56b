//! Preprocessing on the CUDA device: `kernels/preprocess.cu`.

use super::{Normalisation, OP};
use crate::device::cuda::{Grid, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::preprocess as kernels;
use crate::ops::launch::{Launch, by_dtype};
use crate::tensor::{Context, Tensor};

const THREADS: u32 = 256;

kernel_struct! {
    /// Of red, green and blue.
    pub struct PreprocessNormalisation {
        pub mean: [f32; 3],
        pub std: [f32; 3],
    }
}

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
    // Without padding the pixels run on, and three channels do not keep a thread from taking 16 bytes.
    let width = match images.is_dense() && y.is_dense() {
        true => {
            let run = |tensor: &Tensor| {
                tensor
                    .reshape([tensor.len()])?
                    .columns(0, tensor.len() / 16 * 16)
            };
            launch
                .width(&[&run(y)?])
                .min(launch.width(&[&run(images)?]))
        }
        false => 1,
    };
    by_dtype!(
        launch,
        y.dtype(),
        [
            kernels::PREPROCESS_FORWARD_F32,
            kernels::PREPROCESS_FORWARD_BF16
        ] as T,
        |kernel| {
            let args = (
                launch.read(images)?,
                launch.write::<T>(y)?,
                y.rows() as i64,
                launch.size(images.ld())?,
                launch.size(y.ld())?,
                (width > 1).into(),
                PreprocessNormalisation { mean, std },
            );
            launch.run(
                kernel,
                Grid::threads_for(y.len().div_ceil(width), THREADS),
                args,
            )
        }
    )
}
