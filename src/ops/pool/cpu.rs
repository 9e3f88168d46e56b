//! Pooling on the CPU: a thread takes an output row, or an image where rows overlap.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::simd::{add, add_scaled, simd};
use crate::ops::host::{Host, Rows};
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};
use std::ops::Range;

/// Height and width of an image (N, H, W, C).
fn size(x: &Tensor) -> [usize; 2] {
    let shape = x.shape();
    [shape.dims()[1], shape.dims()[2]]
}

/// The pixels of an image under output pixel (p, q), in window order, as rows of x within the image.
fn under(window: Window, [h, w]: [usize; 2], [p, q]: [usize; 2]) -> impl Iterator<Item = usize> {
    let [r_count, s_count] = window.kernel;
    let rows = (0..r_count).filter_map(move |r| window.source(p, r, h));
    rows.flat_map(move |row| {
        let columns = (0..s_count).filter_map(move |s| window.source(q, s, w));
        columns.map(move |column| row * w + column)
    })
}

/// Whether `x` takes the place of the largest so far: of equals the first stays, a NaN wins.
#[inline(always)]
fn exceeds<T: Float>(x: T, largest: T) -> bool {
    x > largest || x.is_nan()
}

pub fn max_forward<T: Float>(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (image, [p_count, q_count]) = (size(x), size(y));
    let x = host.read::<T>(x)?;
    let pixels = image[0] * image[1];
    let mut y = host.write::<T>(y)?;
    let ld = y.ld;
    y.for_each_block(q_count, &|first, y| {
        let (n, p) = (first / (p_count * q_count), first / q_count % p_count);
        simd(|| {
            for (q, y) in y.chunks_mut(ld).enumerate() {
                let y = &mut y[..x.cols];
                y.fill(T::neg_infinity());
                for pixel in under(window, image, [p, q]) {
                    for (largest, &x) in y.iter_mut().zip(x.row(n * pixels + pixel)) {
                        *largest = if exceeds(x, *largest) { x } else { *largest };
                    }
                }
            }
        });
    });
    Ok(())
}

pub fn max_backward<T: Float>(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    dy: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (image, output) = (size(x), size(dy));
    let (x, dy) = (host.read::<T>(x)?, host.read::<T>(dy)?);
    let mut dx = host.write::<T>(dx)?;
    let (ld, pixels) = (dx.ld, image[0] * image[1]);
    dx.for_each_block(pixels, &|first, dx| {
        let n = first / pixels;
        for row in dx.chunks_mut(ld) {
            row[..x.cols].fill(T::zero());
        }
        let mut largest = vec![T::zero(); x.cols];
        let mut from = vec![0; x.cols];
        for (i, [p, q]) in positions(output).enumerate() {
            largest.fill(T::neg_infinity());
            // A window of nothing but −∞ has its first element as the largest.
            from.fill(under(window, image, [p, q]).next().unwrap_or(0));
            for pixel in under(window, image, [p, q]) {
                let candidates = largest.iter_mut().zip(&mut from).zip(x.row(first + pixel));
                for ((largest, from), &x) in candidates {
                    if exceeds(x, *largest) {
                        (*largest, *from) = (x, pixel);
                    }
                }
            }
            let dy = dy.row(n * output[0] * output[1] + i);
            for (c, (&from, &dy)) in from.iter().zip(dy).enumerate() {
                dx[from * ld + c] += dy;
            }
        }
    });
    Ok(())
}

/// All pixels of an image, row by row.
fn positions([p, q]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..p).flat_map(move |row| (0..q).map(move |column| [row, column]))
}

/// The inputs that output `i` of `outputs` averages, of `inputs`.
fn span(i: usize, inputs: usize, outputs: usize) -> Range<usize> {
    i * inputs / outputs..((i + 1) * inputs).div_ceil(outputs)
}

/// The rows of x, within an image, that output pixel (p, q) averages.
fn averaged(
    [h, w]: [usize; 2],
    [p_count, q_count]: [usize; 2],
    [p, q]: [usize; 2],
) -> impl Iterator<Item = usize> + Clone {
    let columns = span(q, w, q_count);
    span(p, h, p_count).flat_map(move |row| columns.clone().map(move |column| row * w + column))
}

pub fn adaptive_forward<T: Float>(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (image, output) = (size(x), size(y));
    let x: Rows<T> = host.read(x)?;
    let [pixels, positions] = [image, output].map(|[h, w]| h * w);
    host.write::<T>(y)?.for_each_block(1, &|i, y| {
        let (n, p, q) = (i / positions, i % positions / output[1], i % output[1]);
        let cells = averaged(image, output, [p, q]);
        let part = T::one() / T::of(cells.clone().count() as f64);
        y.fill(T::zero());
        simd(|| {
            for pixel in cells {
                add(y, x.row(n * pixels + pixel));
            }
            y.iter_mut().for_each(|y| *y *= part);
        });
    });
    Ok(())
}

pub fn adaptive_backward<T: Float>(ctx: &Context, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (image, output) = (size(dx), size(dy));
    let dy = host.read::<T>(dy)?;
    let mut dx = host.write::<T>(dx)?;
    let (ld, c) = (dx.ld, dx.cols);
    let pixels = image[0] * image[1];
    dx.for_each_block(pixels, &|first, dx| {
        let n = first / pixels;
        for row in dx.chunks_mut(ld) {
            row[..c].fill(T::zero());
        }
        for (i, position) in positions(output).enumerate() {
            let dy = dy.row(n * output[0] * output[1] + i);
            let cells = averaged(image, output, position);
            let part = T::one() / T::of(cells.clone().count() as f64);
            simd(|| {
                for pixel in cells {
                    add_scaled(&mut dx[pixel * ld..][..c], part, dy);
                }
            });
        }
    });
    Ok(())
}
