//! Convolution on the CPU: what each pixel sees, and backward's columns.

use super::kernel::{self, Block, Lanes, PIXEL_STEP};
use super::{Epilogue, OP};
use crate::device::cpu_threads;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::gemm::Accumulate;
use crate::ops::host::columns;
use crate::ops::host::simd::{add, simd};
use crate::ops::host::{Host, Rows};
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};

pub use super::columns::backward;

/// Pixels of a block, about: with all their channels they stay in the second-level cache.
const PIXELS: usize = 96;

pub fn forward<T: Lanes>(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let images = Images::new(&host, x, window)?;
    let filter = host.read::<T>(filter)?;
    let bias = host.read_some::<T>(epilogue.bias)?;
    let residual = host.read_some::<T>(epilogue.residual)?;
    let mut y = host.write::<T>(y)?;
    let (rows, k, ld) = (y.rows, y.cols, y.ld);
    // As many blocks for every thread; what is computed does not depend on it.
    let blocks = rows.div_ceil(PIXELS).next_multiple_of(cpu_threads());
    let step = rows.div_ceil(blocks.max(1)).next_multiple_of(PIXEL_STEP);
    let shape = [k, filter.cols];
    let bias = bias.map(|bias| bias.row(0));
    kernel::with_packed(
        shape,
        |row| filter.row(row),
        bias,
        |filters| {
            y.for_each_block(step, &|first, y| {
                let count = y.len().div_ceil(ld);
                images.with_segments(first, count, |segments| {
                    pulp::Arch::new().dispatch(Block {
                        filters: &filters,
                        segments,
                        window_rows: window.kernel[0],
                        y,
                        k,
                        ld,
                        residual: residual.map(|z| move |row| z.row(first + row)),
                        relu: epilogue.relu,
                    });
                });
            });
        },
    );
    Ok(())
}

/// The images that a window moves over.
struct Images<'a, T> {
    x: Rows<'a, T>,
    window: Window,
    size: [usize; 2],
    output: [usize; 2],
    /// A segment outside the image.
    zeros: Vec<T>,
}

impl<'a, T: Float> Images<'a, T> {
    fn new(host: &'a Host, x: &'a Tensor, window: Window) -> Result<Self> {
        let size = super::image_size(x);
        let zeros = vec![T::zero(); window.kernel[1] * x.cols()];
        Ok(Images {
            x: host.read(x)?,
            window,
            size,
            output: window.output(size),
            zeros,
        })
    }

    /// Image, row and column of an output pixel.
    fn position(&self, pixel: usize) -> [usize; 3] {
        let [p, q] = self.output;
        [pixel / (p * q), pixel / q % p, pixel % q]
    }

    /// The positions of output pixels from `first` on.
    fn positions(&self, first: usize) -> impl Iterator<Item = [usize; 3]> {
        let [p_count, q_count] = self.output;
        std::iter::successors(Some(self.position(first)), move |&[image, p, q]| {
            Some(match (p + 1 < p_count, q + 1 < q_count) {
                (_, true) => [image, p, q + 1],
                (true, false) => [image, p + 1, 0],
                (false, false) => [image + 1, 0, 0],
            })
        })
    }

    /// Elements that a row of the window covers.
    fn segment_length(&self) -> usize {
        self.zeros.len()
    }

    /// The image's column where the window at `q` starts, if all that a row of the window covers lies inside the
    /// image and in one piece.
    fn start(&self, q: usize) -> Option<usize> {
        let s = self.window.kernel[1];
        let in_one_piece = s == 1 || self.x.ld == self.x.cols;
        let start = (q * self.window.stride).checked_sub(self.window.padding)?;
        (in_one_piece && start + s <= self.size[1]).then_some(start)
    }

    /// Copies what a row of the window covers to `to`, zeros where it leaves the image.
    fn copy_segment(&self, image: usize, h: usize, q: usize, to: &mut [T]) {
        let [height, width] = self.size;
        for (s, to) in to.chunks_exact_mut(self.x.cols).enumerate() {
            match self.window.source(q, s, width) {
                Some(w) => to.copy_from_slice(self.x.row((image * height + h) * width + w)),
                None => to.fill(T::zero()),
            }
        }
    }

    /// Makes the table of segments [r][pixel] of `count` output pixels from `first` on, rounded up to a
    /// multiple of `PIXEL_STEP`, and hands it to `body`.
    fn with_segments(&self, first: usize, count: usize, body: impl FnOnce(&[&[T]])) {
        let (rows, length) = (self.window.kernel[0], self.segment_length());
        let positions = || self.positions(first).take(count);
        let cut = positions()
            .filter(|&[.., q]| self.start(q).is_none())
            .count();
        let mut copies = vec![T::zero(); cut * rows * length];
        let mut copies = copies.chunks_exact_mut(length);
        let stride = count.next_multiple_of(PIXEL_STEP);
        let mut table = vec![self.zeros.as_slice(); rows * stride];
        for (pixel, [image, p, q]) in positions().enumerate() {
            let start = self.start(q);
            for r in 0..rows {
                let Some(h) = self.window.source(p, r, self.size[0]) else {
                    continue;
                };
                let segment = &mut table[r * stride + pixel];
                if let Some(w) = start {
                    let row = (image * self.size[0] + h) * self.size[1] + w;
                    *segment = &self.x.data()[row * self.x.ld..][..length];
                } else if let Some(copy) = copies.next() {
                    self.copy_segment(image, h, q, copy);
                    *segment = copy;
                }
            }
        }
        body(&table);
    }
}

/// columns[(n,p,q), (r,s,c)] = the pixels under the window (im2col).
pub fn fill_columns<T: Float>(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    columns: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let images = Images::<T>::new(&host, x, window)?;
    let mut columns = host.write::<T>(columns)?;
    columns.for_each_block(1, &|pixel, row| {
        let [image, p, q] = images.position(pixel);
        for (r, to) in row.chunks_exact_mut(images.segment_length()).enumerate() {
            match window.source(p, r, images.size[0]) {
                Some(h) => images.copy_segment(image, h, q, to),
                None => to.fill(T::zero()),
            }
        }
    });
    Ok(())
}

/// dx[n,h,w,c] = Σ of the columns' elements that came from there (col2im), or that added. Every pixel
/// of dx gathers its own, so that no two threads write the same.
pub fn gather_columns<T: Float>(
    ctx: &Context,
    columns: &Tensor,
    window: Window,
    accumulate: Accumulate,
    dx: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let columns = host.read::<T>(columns)?;
    let [height, width] = super::image_size(dx);
    let [p_count, q_count] = window.output([height, width]);
    let ([r_count, s_count], c) = (window.kernel, dx.cols());
    host.write::<T>(dx)?.for_each_block(1, &|pixel, to| {
        let (image, h, w) = (
            pixel / (height * width),
            pixel / width % height,
            pixel % width,
        );
        if accumulate == Accumulate::No {
            to.fill(T::zero());
        }
        for (r, p) in positions(window, h, r_count, p_count) {
            for (s, q) in positions(window, w, s_count, q_count) {
                let column = columns.row((image * p_count + p) * q_count + q);
                let from = &column[(r * s_count + s) * c..][..c];
                simd(|| add(to, from));
            }
        }
    });
    Ok(())
}

/// The (offset, position) pairs of a window that see input coordinate `source`.
fn positions(
    window: Window,
    source: usize,
    kernel: usize,
    count: usize,
) -> impl Iterator<Item = (usize, usize)> {
    (0..kernel).filter_map(move |offset| {
        let start = (source + window.padding).checked_sub(offset)?;
        let position = start / window.stride;
        (start % window.stride == 0 && position < count).then_some((offset, position))
    })
}

pub fn sum_pixels<T: Float>(
    ctx: &Context,
    dy: &Tensor,
    accumulate: Accumulate,
    db: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let dy = host.read::<T>(dy)?;
    let mut db = host.write::<T>(db)?;
    let sums = columns::sums(
        [dy.rows, dy.cols],
        dy.cols,
        |first, count, sums: &mut [T]| {
            for row in first..first + count {
                add(sums, dy.row(row));
            }
        },
    );
    for (db, sum) in db.row(0).iter_mut().zip(sums) {
        let before = if accumulate == Accumulate::Yes {
            *db
        } else {
            T::zero()
        };
        *db = before + T::of(sum);
    }
    Ok(())
}

pub fn relu_backward<T: Float>(ctx: &Context, y: &Tensor, dy: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let y = host.read::<T>(y)?;
    let mut dy = host.write::<T>(dy)?;
    dy.for_each_row(|row, dy| {
        for (dy, &y) in dy.iter_mut().zip(y.row(row)) {
            *dy = if y > T::zero() { *dy } else { T::zero() };
        }
    });
    Ok(())
}
