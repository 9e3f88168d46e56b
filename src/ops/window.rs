//! The window that convolutions and poolings slide over an image.

use super::check;
use crate::error::Result;

/// A window of `kernel` = [R, S] pixels that moves by `stride` over an image with `padding` pixels added
/// on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height R and width S in pixels.
    pub kernel: [usize; 2],
    /// Pixels between neighbouring positions, in both directions.
    pub stride: usize,
    /// Pixels added on every side of the image.
    pub padding: usize,
}

impl Window {
    /// A window of `kernel` x `kernel` pixels.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window {
            kernel: [kernel, kernel],
            stride,
            padding,
        }
    }

    /// Positions of the window over an image of [H, W]: [P, Q]. Zero where it does not fit.
    pub fn output(&self, [h, w]: [usize; 2]) -> [usize; 2] {
        let [r, s] = self.kernel;
        let positions =
            |size: usize, kernel: usize| match (size + 2 * self.padding).checked_sub(kernel) {
                Some(room) => room / self.stride.max(1) + 1,
                None => 0,
            };
        [positions(h, r), positions(w, s)]
    }

    /// Whether every output pixel is one input pixel, so that images need no gathering.
    pub fn is_pointwise(&self) -> bool {
        *self == Window::square(1, 1, 0)
    }

    /// The input coordinate that position `position` of the window sees at `offset`; `None` in the
    /// padding.
    pub(super) fn source(&self, position: usize, offset: usize, size: usize) -> Option<usize> {
        let source = (position * self.stride + offset).checked_sub(self.padding)?;
        (source < size).then_some(source)
    }

    pub(super) fn check(&self, op: &'static str, size: [usize; 2]) -> Result<()> {
        let fits = self.stride > 0
            && self.kernel.iter().all(|&k| k > 0)
            && self.output(size).iter().all(|&positions| positions > 0);
        check::that(op, fits, || {
            format!("{self:?} does not fit in an image of {size:?}")
        })
    }
}
