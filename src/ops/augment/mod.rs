//! Augmentation: y_b is photo p(b), flipped, rotated about its centre, and grayed, in this order; the same bits as Pillow.
//!
//! photos (N, H, W, 3) u8, changes (7, B) u32, a column of [`Change::words`] for each image, y (B, H, W, 3) u8. Rotation takes the
//! nearest neighbour, and what comes from outside the photo is black: pixel (x, y) of the result is the one at
//! A (x, y) + b, where A is the inverse rotation and coordinates are fixed-point numbers with 16 fractional bits, as in
//! Pillow's `ImagingTransformAffine`. Gray is Pillow's mode L (ITU-R 601-2) in all three channels. There is nothing to
//! differentiate.

mod cpu;
mod cuda;

use super::kernels::augment::{FLIP, GRAY};
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "augment";

/// The longest side of a photo, in pixels: places of twice as many have room in 16 bits with a sign.
const LONGEST: usize = 1 << 14;

/// What becomes of a photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Which of the photos.
    pub photo: usize,
    /// Whether left and right change places.
    pub flip: bool,
    /// The angle of the rotation in degrees, counter-clockwise.
    pub degrees: f64,
    /// Whether the colours become grays.
    pub grayscale: bool,
}

impl Change {
    /// None at all.
    pub fn none(photo: usize) -> Self {
        Change {
            photo,
            flip: false,
            degrees: 0.0,
            grayscale: false,
        }
    }

    /// A column of `changes`, for photos of this height and width: the photo, its effects, where the rotation finds the
    /// result's first pixel, and how the place moves from pixel to pixel: x for one to the right, x for one down, y for
    /// one to the right. (y moves downwards as x does to the right.)
    pub fn words(&self, [height, width]: [usize; 2]) -> [u32; 7] {
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i32 as u32;
        let (sin, cos) = (-self.degrees.to_radians()).sin_cos();
        let (center_x, center_y) = (width as f64 / 2.0, height as f64 / 2.0);
        let offset_x = center_x - cos * center_x - sin * center_y;
        let offset_y = center_y + sin * center_x - cos * center_y;
        [
            self.photo as u32,
            (usize::from(self.flip) * FLIP + usize::from(self.grayscale) * GRAY) as u32,
            fixed(offset_x + cos * 0.5 + sin * 0.5),
            fixed(offset_y - sin * 0.5 + cos * 0.5),
            fixed(cos),
            fixed(sin),
            fixed(-sin),
        ]
    }
}

/// The columns of `changes`, as (7, B) lies in memory.
pub fn words(changes: &[Change], size: [usize; 2]) -> Vec<u32> {
    let columns: Vec<[u32; 7]> = changes.iter().map(|change| change.words(size)).collect();
    let row = |i: usize| columns.iter().map(move |column| column[i]);
    (0..7).flat_map(row).collect()
}

/// y = the changed photos. A photo that does not exist is black.
///
/// # Errors
/// When shapes or element types do not fit, photos or y are padded, or a side is longer than 16,384 pixels.
pub fn forward(ctx: &Context, photos: &Tensor, changes: &Tensor, y: &mut Tensor) -> Result<()> {
    let [n, h, w, _] = check::dims(OP, "photos", photos)?;
    let [_, b] = check::dims(OP, "changes", changes)?;
    check::tensor(OP, "photos", photos, &[n, h, w, 3], DType::U8)?;
    check::tensor(OP, "changes", changes, &[7, b], DType::U32)?;
    check::tensor(OP, "y", y, &[b, h, w, 3], DType::U8)?;
    check::that(OP, photos.is_dense() && y.is_dense(), || {
        "photos and y must have no padding".into()
    })?;
    check::that(OP, h.max(w) <= LONGEST, || {
        format!("photos of {w}x{h} pixels, expected sides of at most {LONGEST}")
    })?;
    dispatch!(ctx, forward(photos, changes, y))
}
