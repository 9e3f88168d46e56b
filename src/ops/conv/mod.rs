//! Convolution, with zero padding and a stride, without groups or dilation.
//!
//! y[n,p,q,k] = act(b[k] + Σ_rsc f[k,r,s,c] x[n, p·stride + r − padding, q·stride + s − padding, c] + z[n,p,q,k])
//!
//! x (N, H, W, C), f (K, R, S, C) or (K, R·S·C), optional b (K), optional residual z and y (N, P, Q, K); act is ReLU
//! or nothing. Pixels outside the image are 0.
//!
//! Backward, from dy with the ReLU already undone ([`relu_backward`], which needs y): with columns
//! X[(n,p,q), (r,s,c)], the pixels under the window (im2col), it is the linear layer's backward,
//! dX = dy f scattered back to dx, df = dyᵀ X, db = Σ_npq dy. Saves x and, where there is a ReLU, y.
//!
//! Forward on the CPU never builds X: see `kernel.rs`. Backward builds it for a few images at a time,
//! always the same ones, in order, so that sums do not depend on the number of threads.

mod cpu;
mod kernel;

use super::gemm::{self, Accumulate, Factor};
use super::window::Window;
use super::{check, dispatch_cpu};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "conv";

/// What forward does to the sums before it stores them.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// (K)
    pub bias: Option<&'a Tensor>,
    /// (N, P, Q, K)
    pub residual: Option<&'a Tensor>,
    pub relu: bool,
}

/// y = act(conv(x, filter) + bias + residual).
///
/// # Errors
/// When shapes or element types do not fit.
pub fn forward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    let filter = check_shapes(x, filter, window, "y", y)?;
    check::optional_shape(OP, "bias", epilogue.bias, &[y.cols()])?;
    check::optional_shape(OP, "residual", epilogue.residual, y.shape().dims())?;
    let dtype = y.dtype();
    dispatch_cpu!(ctx, OP, dtype, forward(x, &filter, window, epilogue, y))
}

/// What backward writes; what is `None` is not computed.
#[derive(Default)]
pub struct Gradients<'a> {
    /// (N, H, W, C)
    pub x: Option<&'a mut Tensor>,
    /// Shaped as the filter.
    pub filter: Option<&'a mut Tensor>,
    /// (K)
    pub bias: Option<&'a mut Tensor>,
}

/// Gradients from dy (N, P, Q, K), of the convolution without its ReLU. The residual's is dy itself.
pub fn backward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    let shape = filter.shape();
    let filter = check_shapes(x, filter, window, "dy", dy)?;
    if let Some(dx) = gradients.x {
        check::shape(OP, "x gradient", dx, x.shape().dims())?;
        backward_data(ctx, &filter, window, dy, accumulate, dx)?;
    }
    if let Some(df) = gradients.filter {
        check::shape(OP, "filter gradient", df, shape.dims())?;
        let mut df = as_matrix("filter gradient", df)?;
        backward_filter(ctx, x, window, dy, accumulate, &mut df)?;
    }
    if let Some(db) = gradients.bias {
        check::shape(OP, "bias gradient", db, &[dy.cols()])?;
        dispatch_cpu!(ctx, OP, dy.dtype(), sum_pixels(dy, accumulate, db))?;
    }
    Ok(())
}

/// dy ∘ 1[y > 0], in place: undoes the ReLU that made y.
pub fn relu_backward(ctx: &Context, y: &Tensor, dy: &mut Tensor) -> Result<()> {
    check::shape(OP, "ReLU gradient", dy, y.shape().dims())?;
    dispatch_cpu!(ctx, OP, y.dtype(), relu_backward(y, dy))
}

/// Checks everything but the epilogue and gives the filter as (K, R·S·C).
fn check_shapes(
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    name: &str,
    y: &Tensor,
) -> Result<Tensor> {
    let [n, h, w, c] = check::dims(OP, "x", x)?;
    window.check(OP, [h, w])?;
    let ([r, s], [p, q]) = (window.kernel, window.output([h, w]));
    let k = filter.shape().dims().first().copied().unwrap_or(0);
    if filter.shape().rank() == 4 {
        check::shape(OP, "filter", filter, &[k, r, s, c])?;
    }
    let filter = as_matrix("filter", filter)?;
    check::shape(OP, "filter", &filter, &[k, r * s * c])?;
    check::shape(OP, name, y, &[n, p, q, k])?;
    check::dtype(OP, "filter", &filter, x.dtype())?;
    check::dtype(OP, name, y, x.dtype())?;
    Ok(filter)
}

/// A filter (K, R, S, C) or (K, R·S·C) as the latter.
fn as_matrix(name: &str, filter: &Tensor) -> Result<Tensor> {
    let k = filter.shape().dims().first().copied().unwrap_or(0);
    check::that(OP, k > 0, || {
        format!("{name} is empty: {:?}", filter.shape())
    })?;
    filter.reshape([k, filter.len() / k])
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
    by_images(dy, filter, |start, images| {
        let (dy, mut dx) = (dy.narrow(start, images)?, dx.narrow(start, images)?);
        ctx.scope(|| {
            let mut columns = ctx.empty([dy.rows(), filter.cols()], dy.dtype())?;
            product(&dy, Accumulate::No, &mut columns)?;
            let dtype = dy.dtype();
            dispatch_cpu!(
                ctx,
                OP,
                dtype,
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
    by_images(dy, &df.clone(), |start, images| {
        let (dy, x) = (dy.narrow(start, images)?, x.narrow(start, images)?);
        ctx.scope(|| {
            let mut columns = ctx.empty([dy.rows(), depth], dy.dtype())?;
            dispatch_cpu!(ctx, OP, dy.dtype(), fill_columns(&x, window, &mut columns))?;
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

/// Calls `body(first image, number of images)` for all images, so many at a time as `COLUMNS` allows.
fn by_images(
    dy: &Tensor,
    filter: &Tensor,
    mut body: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let images = dy.shape().dims()[0];
    let per_image = dy.rows() / images.max(1) * filter.cols();
    let step = (COLUMNS / per_image.max(1)).max(1);
    (0..images)
        .step_by(step)
        .try_for_each(|start| body(start, step.min(images - start)))
}

fn image_size(x: &Tensor) -> [usize; 2] {
    let dims = x.shape();
    [dims.dims()[1], dims.dims()[2]]
}
