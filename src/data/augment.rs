//! What training draws for a sample in an epoch: horizontal flip, rotation and grayscale, in this order, of the u8 image after
//! the resize. The operation of the same name does it.

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
}
