//! Pixels to what an encoder takes: y[…,c] = (v / 255 − mean_c) / std_c, v of u8.
//!
//! images (N, H, W, 3) u8, y of the same shape in a float type. Every step is rounded to that type as
//! torchvision's ToTensor and Normalize do, so f32 results are the same bits; bf16 is f32 rounded once more. There is
//! nothing to differentiate.

mod cpu;
pub(super) mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "preprocess";

/// The mean that is subtracted from each channel, and the standard deviation that it is then divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Means of red, green and blue, each from 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviations, likewise.
    pub std: [f32; 3],
}

impl Normalisation {
    /// Of the images that torchvision's encoders were trained on.
    pub const IMAGENET: Normalisation = Normalisation {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
}

/// y = (images / 255 − mean) / std.
pub fn forward(
    ctx: &Context,
    images: &Tensor,
    normalisation: Normalisation,
    y: &mut Tensor,
) -> Result<()> {
    let [n, h, w, _] = check::dims(OP, "images", images)?;
    check::tensor(OP, "images", images, &[n, h, w, 3], DType::U8)?;
    check::shape(OP, "y", y, &[n, h, w, 3])?;
    let dtype = y.dtype();
    dispatch!(ctx, dtype, forward(images, normalisation, y))
}
