//! Pooling on the CUDA device: `kernels/pool.cu`.

use super::OP;
use crate::device::cuda::{Grid, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::pool as kernels;
use crate::ops::launch::{Launch, by_dtype};
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};

const THREADS: u32 = 256;

/// Threads that share a mean over many pixels, and the pixels that are many.
const PARTS: usize = 8;
const MANY: usize = 32;

kernel_struct! {
    /// Sizes of images and of what is made of them, and the window: see the kernels.
    pub struct PoolShape {
        pub h: i32,
        pub w: i32,
        pub p: i32,
        pub q: i32,
        pub r: i32,
        pub s: i32,
        pub stride: i32,
        pub padding: i32,
        pub groups: i32,
        pub wide: i32,
        pub count: i32,
        pub parts: i32,
    }
}

/// A thread for each group of channels of every pixel of `written`; `x` are the images and `y` what is made of them.
fn shape(
    launch: &Launch,
    window: Window,
    [x, y]: [&Tensor; 2],
    written: &Tensor,
    tensors: &[&Tensor],
) -> Result<PoolShape> {
    let size = |tensor: &Tensor, dim: usize| launch.size(tensor.shape().dims()[dim]);
    // Where types differ the wider one decides.
    let width = tensors.iter().map(|&tensor| launch.width(&[tensor]));
    let width = width.min().unwrap_or(1);
    let groups = written.cols() / width;
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
        wide: (width > 1).into(),
        // Numbers of threads stay countable up to the end of the last block.
        count: launch.size(written.rows() * groups + THREADS as usize)? - THREADS as i32,
        parts: 1,
    })
}

fn grid(shape: &PoolShape) -> Grid {
    Grid::threads_for(shape.count as usize * shape.parts as usize, THREADS)
}

pub fn max_forward(ctx: &Context, x: &Tensor, window: Window, y: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let shape = shape(&launch, window, [x, y], y, &[x, y])?;
    by_dtype!(
        launch,
        x.dtype(),
        [
            kernels::POOL_MAX_FORWARD_F32,
            kernels::POOL_MAX_FORWARD_BF16
        ] as T,
        |kernel| {
            let args = (
                launch.read::<T>(x)?,
                launch.write::<T>(y)?,
                launch.size(x.ld())?,
                launch.size(y.ld())?,
                shape,
            );
            launch.run(kernel, grid(&shape), args)
        }
    )
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
    let shape = shape(&launch, window, [x, dy], dx, &[x, dy, dx])?;
    by_dtype!(
        launch,
        x.dtype(),
        [
            kernels::POOL_MAX_BACKWARD_F32,
            kernels::POOL_MAX_BACKWARD_BF16
        ] as T,
        |kernel| {
            let args = (
                launch.read::<T>(x)?,
                launch.read::<T>(dy)?,
                launch.write::<T>(dx)?,
                launch.size(x.ld())?,
                launch.size(dy.ld())?,
                launch.size(dx.ld())?,
                shape,
            );
            launch.run(kernel, grid(&shape), args)
        }
    )
}

/// Of means, which have no window.
fn shape_of_means(launch: &Launch, [x, y]: [&Tensor; 2], written: &Tensor) -> Result<PoolShape> {
    let shape = shape(launch, Window::square(1, 1, 0), [x, y], written, &[x, y])?;
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
    let mut shape = shape_of_means(&launch, [x, y], y)?;
    if x.rows() / y.rows() >= MANY {
        shape.parts = PARTS as i32;
    }
    by_dtype!(
        launch,
        x.dtype(),
        [
            kernels::POOL_ADAPTIVE_FORWARD_F32,
            kernels::POOL_ADAPTIVE_FORWARD_BF16
        ] as T,
        |kernel| {
            let args = (
                launch.read::<T>(x)?,
                launch.write(y)?,
                launch.size(x.ld())?,
                launch.size(y.ld())?,
                shape,
            );
            launch.run(kernel, grid(&shape), args)
        }
    )
}

pub fn adaptive_backward(ctx: &Context, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let shape = shape_of_means(&launch, [dx, dy], dx)?;
    by_dtype!(
        launch,
        dx.dtype(),
        [
            kernels::POOL_ADAPTIVE_BACKWARD_F32,
            kernels::POOL_ADAPTIVE_BACKWARD_BF16
        ] as T,
        |kernel| {
            let args = (
                launch.read(dy)?,
                launch.write::<T>(dx)?,
                launch.size(dy.ld())?,
                launch.size(dx.ld())?,
                shape,
            );
            launch.run(kernel, grid(&shape), args)
        }
    )
}
