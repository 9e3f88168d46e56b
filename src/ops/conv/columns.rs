//! Convolution's backward by columns, on the CPU: X is built for a few images at a time, always the same ones, in order,
//! so that sums do not depend on the number of threads.

use super::Gradients;
use super::{OP, cpu};
use crate::error::Result;
use crate::ops::compute;
use crate::ops::gemm::{self, Accumulate, Factor};
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};

/// As [`super::backward`], shapes checked, the filter and its gradient as (K, R·S·C).
pub fn backward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    if let Some(dx) = gradients.x {
        backward_data(ctx, filter, window, dy, accumulate, dx)?;
    }
    if let Some(df) = gradients.filter {
        backward_filter(ctx, x, window, dy, accumulate, df)?;
    }
    match gradients.bias {
        Some(db) => compute!(ctx, dy.dtype(), sum_pixels(dy, accumulate, db)),
        None => Ok(()),
    }
}

fn backward_data(
    ctx: &Context,
    filter: &Tensor,
    window: Window,
    dy: &Tensor,
    accumulate: Accumulate,
    dx: &mut Tensor,
) -> Result<()> {
    let product = |dy: &Tensor, accumulate, dx: &mut Tensor| {
        let (dy, filter) = (Factor::Plain(dy), Factor::Plain(filter));
        gemm::forward(ctx, dy, filter, accumulate, dx)
    };
    if window.is_pointwise() {
        return product(dy, accumulate, dx);
    }
    by_images(dy, filter.cols(), |start, images| {
        let (dy, mut dx) = (dy.narrow(start, images)?, dx.narrow(start, images)?);
        ctx.scope(|| {
            let mut columns = ctx.empty([dy.rows(), filter.cols()], dy.dtype())?;
            product(&dy, Accumulate::No, &mut columns)?;
            compute!(
                ctx,
                dy.dtype(),
                gather_columns(&columns, window, accumulate, &mut dx)
            )
        })
    })
}

fn backward_filter(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    dy: &Tensor,
    accumulate: Accumulate,
    df: &mut Tensor,
) -> Result<()> {
    let product = |dy: &Tensor, columns: &Tensor, accumulate, df: &mut Tensor| {
        let (dy, columns) = (Factor::Transposed(dy), Factor::Plain(columns));
        gemm::forward(ctx, dy, columns, accumulate, df)
    };
    if window.is_pointwise() {
        return product(dy, x, accumulate, df);
    }
    let depth = df.cols();
    by_images(dy, depth, |start, images| {
        let (dy, x) = (dy.narrow(start, images)?, x.narrow(start, images)?);
        ctx.scope(|| {
            let mut columns = ctx.empty([dy.rows(), depth], dy.dtype())?;
            compute!(ctx, dy.dtype(), fill_columns(&x, window, &mut columns))?;
            let accumulate = if start == 0 {
                accumulate
            } else {
                Accumulate::Yes
            };
            product(&dy, &columns, accumulate, df)
        })
    })
}

/// Elements of the columns that backward holds at once, unless one image has more: 8 MiB of f32.
const COLUMNS: usize = 1 << 21;

/// Calls `body(first image, number of images)` for all images, so many at a time as `COLUMNS` allows. `depth`: elements
/// of a pixel's columns.
fn by_images(
    dy: &Tensor,
    depth: usize,
    mut body: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let images = dy.shape().dims()[0];
    let per_image = dy.rows() / images.max(1) * depth;
    let step = (COLUMNS / per_image.max(1)).max(1);
    (0..images)
        .step_by(step)
        .try_for_each(|start| body(start, step.min(images - start)))
}
