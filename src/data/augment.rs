//! Training augmentation, on the u8 image after the resize: horizontal flip, rotation, grayscale, in this
//! order; rotation and grayscale equal Pillow's bit for bit.

use super::image::Rgb;
use super::random::Epoch;

const FLIP_PROBABILITY: f64 = 0.5;
const GRAYSCALE_PROBABILITY: f64 = 0.1;
const MAX_DEGREES: f64 = 15.0;

/// What is done to one sample in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Whether left and right are exchanged.
    pub flip: bool,
    /// Rotation, positive = counter-clockwise.
    pub degrees: f64,
    /// Whether the colours become grays.
    pub grayscale: bool,
}

impl Augmentation {
    /// The augmentation of a sample: flip with probability 0.5, an angle uniform in ±15°, grayscale with
    /// probability 0.1.
    pub fn draw(epoch: Epoch, sample: usize) -> Self {
        let [flip, angle, grayscale, _] = epoch.augmentation(sample);
        // The middle of the word's share of [0, 1).
        let uniform = |word: u32| (f64::from(word) + 0.5) / (1u64 << 32) as f64;
        Augmentation {
            flip: uniform(flip) < FLIP_PROBABILITY,
            degrees: MAX_DEGREES * (2.0 * uniform(angle) - 1.0),
            grayscale: uniform(grayscale) < GRAYSCALE_PROBABILITY,
        }
    }

    /// Changes an image.
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

/// Rotates about the centre, nearest sampling, same size, black where nothing was.
///
/// Pixel (x, y) of the result comes from A (x, y) + b, A the inverse rotation, in fixed-point numbers of 16
/// bits, as Pillow's `ImagingTransformAffine` walks them.
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
            // What is negative becomes too large.
            let (column, row) = ((x >> 16) as usize, (y >> 16) as usize);
            let inside = column < image.width && row < image.height;
            let pixel = match inside {
                true => source[row * image.width + column],
                false => [0; 3],
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

/// Luma in all three channels (ITU-R 601-2, Pillow's mode L).
fn grayscale(image: &mut Rgb) {
    for pixel in image.pixels.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(u32::from);
        let luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
        pixel.fill(luma as u8);
    }
}
