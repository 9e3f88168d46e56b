//! Pooling on the CUDA device: `kernels/pool.cu`.

use super::OP;
use crate::error::Result;
use crate::ops::check;
use crate::ops::kernels::pool::{
    self as kernels, PoolAdaptiveBackward, PoolAdaptiveForward, PoolMaxBackward, PoolMaxForward,
    PoolShape,
};
use crate::ops::launch::{Blocks, Launch, Vector};
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};

/// A mean over at least `MANY` pixels is shared by `PARTS` threads.
const PARTS: i32 = 8;
const MANY: usize = 32;

/// A thread for each vector of channels of every pixel of `written`; `x` are the images and `y` what is made of them.
fn shape(
    launch: &Launch,
    window: Window,
    images: [&Tensor; 2],
    written: &Tensor,
    vector: Vector,
) -> Result<PoolShape> {
    shape_of(launch, window, images, written.rows(), vector)
}

/// The same, for so many pixels or squares of them.
fn shape_of(
    launch: &Launch,
    window: Window,
    [x, y]: [&Tensor; 2],
    items: usize,
    vector: Vector,
) -> Result<PoolShape> {
    let size = |tensor: &Tensor, dim: usize| launch.size(tensor.shape().dims()[dim]);
    let groups = x.cols() / vector.width;
    let threads = kernels::THREADS;
    Ok(PoolShape {
        h: size(x, 1)?,
        w: size(x, 2)?,
        p: size(y, 1)?,
        q: size(y, 2)?,
        r: launch.size(window.kernel[0])?,
        s: launch.size(window.kernel[1])?,
        stride: launch.size(window.stride)?,
        padding: launch.size(window.padding)?,
        groups: launch.size(groups)?,
        // The number of every thread fits in an i32, up to the end of the last block.
        count: launch.size(items * groups + threads)? - threads as i32,
        parts: 1,
    })
}

fn blocks(shape: &PoolShape) -> Blocks {
    Blocks::for_threads(shape.count as usize * shape.parts as usize)
}

pub fn max_forward(ctx: &Context, x: &Tensor, window: Window, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[x, y]);
    let shape = shape(&launch, window, [x, y], y, vector)?;
    let arguments = PoolMaxForward {
        ldx: launch.size(x.ld())?,
        ldy: launch.size(y.ld())?,
        shape,
        x: x.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], blocks(&shape), arguments)
}

pub fn max_backward(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    dy: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[x, dy, dx]);
    let [n, h, w, _] = check::dims(OP, "x", x)?;
    let squares = n * h.div_ceil(kernels::SQUARE) * w.div_ceil(kernels::SQUARE);
    let shape = shape_of(&launch, window, [x, dy], squares, vector)?;
    let arguments = PoolMaxBackward {
        ldx: launch.size(x.ld())?,
        ldy: launch.size(dy.ld())?,
        ldd: launch.size(dx.ld())?,
        shape,
        x: x.into(),
        dy: dy.into(),
        dx: dx.into(),
    };
    launch.run(&[vector.key()], blocks(&shape), arguments)
}

/// [`shape`] for means, which have no window.
fn shape_of_means(
    launch: &Launch,
    [x, y]: [&Tensor; 2],
    written: &Tensor,
    vector: Vector,
) -> Result<PoolShape> {
    let shape = shape(launch, Window::square(1, 1, 0), [x, y], written, vector)?;
    let [h, w, p, q] = [shape.h, shape.w, shape.p, shape.q].map(|size| size as usize);
    // The kernels find the borders of means with products of these.
    launch.size((h + 1) * (p + 1))?;
    launch.size((w + 1) * (q + 1))?;
    Ok(shape)
}

pub fn adaptive_forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[x, y]);
    let mut shape = shape_of_means(&launch, [x, y], y, vector)?;
    if x.rows() / y.rows() >= MANY {
        shape.parts = PARTS;
    }
    let arguments = PoolAdaptiveForward {
        ldx: launch.size(x.ld())?,
        ldy: launch.size(y.ld())?,
        shape,
        x: x.into(),
        y: y.into(),
    };
    launch.run(&[vector.key()], blocks(&shape), arguments)
}

pub fn adaptive_backward(ctx: &Context, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[dx, dy]);
    let shape = shape_of_means(&launch, [dx, dy], dx, vector)?;
    let arguments = PoolAdaptiveBackward {
        ldy: launch.size(dy.ld())?,
        ldd: launch.size(dx.ld())?,
        shape,
        dy: dy.into(),
        dx: dx.into(),
    };
    launch.run(&[vector.key()], blocks(&shape), arguments)
}
