//! Pooling: the largest or the mean of the pixels under a window, channel by channel.
//!
//! - Max: y[n,p,q,c] = max over the window of x[n,h,w,c], padding counting as −∞; a NaN wins. Backward
//!   gives dy to the first largest element in window order, found again from x, so that nothing but x is saved.
//! - Average: y[n,c] = mean of x[n,·,·,c]; dx = dy / (H·W).
//! - Adaptive average: y[n,p,q,c] is the mean of rows ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉ − 1 and, likewise, columns; dx sums
//!   dy / (cells of the mean) over all means that a pixel is in.
//!
//! x (N, H, W, C), y (N, P, Q, C), of the plain average (N, C). Backward overwrites dx. Where x is bf16, the gradient of averages is
//! f32.

mod cpu;
pub(super) mod cuda;

use super::window::Window;
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "pool";

/// y = max over the window.
pub fn max_forward(ctx: &Context, x: &Tensor, window: Window, y: &mut Tensor) -> Result<()> {
    check_max(x, window, y)?;
    dispatch!(ctx, x.dtype(), max_forward(x, window, y))
}

/// dx from dy (N, P, Q, C) and forward's input.
pub fn max_backward(
    ctx: &Context,
    x: &Tensor,
    window: Window,
    dy: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    check_max(x, window, dy)?;
    check::tensor(OP, "x gradient", dx, x.shape().dims(), x.dtype())?;
    dispatch!(ctx, x.dtype(), max_backward(x, window, dy, dx))
}

fn check_max(x: &Tensor, window: Window, y: &Tensor) -> Result<()> {
    let [n, h, w, c] = check::dims(OP, "x", x)?;
    window.check(OP, [h, w])?;
    let in_reach = window.kernel.iter().all(|&k| 2 * window.padding <= k);
    check::that(OP, in_reach, || {
        format!("{window:?} is padded by more than half the window: it may see no pixel")
    })?;
    let [p, q] = window.output([h, w]);
    check::tensor(OP, "y", y, &[n, p, q, c], x.dtype())
}

/// y (N, C) = mean of x (N, H, W, C) over all pixels.
pub fn average_forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let mut y = as_one_pixel(y)?;
    adaptive_forward(ctx, x, &mut y)
}

/// dx (N, H, W, C) from dy (N, C).
pub fn average_backward(ctx: &Context, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    let dy = as_one_pixel(dy)?;
    adaptive_backward(ctx, &dy, dx)
}

/// (N, C) as (N, 1, 1, C): the plain average is the adaptive one to a single pixel.
fn as_one_pixel(y: &Tensor) -> Result<Tensor> {
    let [n, c] = check::dims(OP, "y", y)?;
    y.reshape([n, 1, 1, c])
}

/// y (N, P, Q, C) = means of x (N, H, W, C), whatever the sizes.
pub fn adaptive_forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    check_adaptive(x, y)?;
    check::dtype(OP, "y", y, x.dtype())?;
    dispatch!(ctx, x.dtype(), adaptive_forward(x, y))
}

/// dx (N, H, W, C) from dy (N, P, Q, C).
pub fn adaptive_backward(ctx: &Context, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    check_adaptive(dx, dy)?;
    check::dtype(OP, "y gradient", dy, dx.dtype().of_parameters())?;
    dispatch!(ctx, dx.dtype(), adaptive_backward(dy, dx))
}

fn check_adaptive(x: &Tensor, y: &Tensor) -> Result<()> {
    let [n, h, w, c] = check::dims(OP, "x", x)?;
    let [_, p, q, _] = check::dims(OP, "y", y)?;
    check::that(OP, h * w * p * q > 0, || {
        format!("an empty image: {:?} to {:?}", x.shape(), y.shape())
    })?;
    check::shape(OP, "y", y, &[n, p, q, c])
}
