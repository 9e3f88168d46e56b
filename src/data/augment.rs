//! Augmentation for training: horizontal flip, rotation and grayscale, in this order, of the u8 image after the
//! resize. Rotation and grayscale give the same bits as Pillow.

use super::image::Rgb;
use super::random::Epoch;

const FLIP_PROBABILITY: f64 = 0.5;
const GRAYSCALE_PROBABILITY: f64 = 0.1;
const MAX_DEGREES: f64 = 15.0;

/// What is done to one sample in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Whether to flip the image horizontally.
    pub flip: bool,
    /// The angle of the rotation in degrees, counter-clockwise.
    pub degrees: f64,
    /// Whether to replace the colours by grays.
    pub grayscale: bool,
}

impl Augmentation {
    /// Draws the augmentation of a sample: flip with probability 0.5, an angle that is uniform between −15° and
    /// 15°, grayscale with probability 0.1.
    pub fn draw(epoch: Epoch, sample: usize) -> Self {
        let [flip, angle, grayscale, _] = epoch.augmentation(sample);
        // [0, 1) divided into 2^32 parts: the middle of the part that the word names.
        let uniform = |word: u32| (f64::from(word) + 0.5) / (1u64 << 32) as f64;
        Augmentation {
            flip: uniform(flip) < FLIP_PROBABILITY,
            degrees: MAX_DEGREES * (2.0 * uniform(angle) - 1.0),
            grayscale: uniform(grayscale) < GRAYSCALE_PROBABILITY,
        }
    }

    /// The augmented image, of the same size.
    pub fn apply(&self, mut image: Rgb) -> Rgb {
        if self.flip {
            flip(&mut image);
        }
        let mut image = rotate(&image, self.degrees);
        if self.grayscale {
            grayscale(&mut image);
        }
        image
    }
}

fn flip(image: &mut Rgb) {
    for row in image.pixels.chunks_exact_mut(3 * image.width) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Rotates about the centre with nearest-neighbour sampling. The size stays the same, and pixels from outside
/// the image are black.
///
/// Pixel (x, y) of the result is the one at A (x, y) + b, where A is the inverse rotation. Coordinates are
/// fixed-point numbers with 16 fractional bits, as in Pillow's `ImagingTransformAffine`.
fn rotate(image: &Rgb, degrees: f64) -> Rgb {
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (center_x, center_y) = (image.width as f64 / 2.0, image.height as f64 / 2.0);
    let offset_x = center_x - cos * center_x - sin * center_y;
    let offset_y = center_y + sin * center_x - cos * center_y;
    let (step_xx, step_xy) = (fixed(cos), fixed(sin));
    let (step_yx, step_yy) = (fixed(-sin), fixed(cos));
    let mut row_x = fixed(offset_x + cos * 0.5 + sin * 0.5);
    let mut row_y = fixed(offset_y - sin * 0.5 + cos * 0.5);
    let (source, _) = image.pixels.as_chunks::<3>();
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for _ in 0..image.height {
        let (mut x, mut y) = (row_x, row_y);
        for _ in 0..image.width {
            // The conversion makes negative coordinates too large.
            let (column, row) = ((x >> 16) as usize, (y >> 16) as usize);
            let inside = column < image.width && row < image.height;
            let pixel = if inside {
                source[row * image.width + column]
            } else {
                [0; 3]
            };
            pixels.extend(pixel);
            x += step_xx;
            y += step_yx;
        }
        row_x += step_xy;
        row_y += step_yy;
    }
    Rgb { pixels, ..*image }
}

/// Sets all three channels to the luma (ITU-R 601-2, Pillow's mode L).
fn grayscale(image: &mut Rgb) {
    for pixel in image.pixels.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(u32::from);
        let luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
        pixel.fill(luma as u8);
    }
}
