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
//! The CPU's forward never builds X: see `kernel.rs`; its backward does, a few images at a time: `columns.rs`. On the CUDA
//! device all three are implicit products: `kernels/conv.cu`.

mod columns;
mod cpu;
pub(super) mod cuda;
mod kernel;

use super::gemm::Accumulate;
use super::window::Window;
use super::{check, dispatch};
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
    /// Whether negative results become 0.
    pub relu: bool,
}

/// y = act(conv(x, filter) + bias + residual).
///
/// # Errors
/// When shapes or element types do not fit; on a CUDA device, when the window has more than 16 rows or columns.
pub fn forward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    let filter = check_shapes(x, filter, window, "y", y)?;
    let (dtype, shape, residual) = (y.dtype(), y.shape(), epilogue.residual);
    check::optional(
        OP,
        "bias",
        epilogue.bias,
        &[y.cols()],
        dtype.of_parameters(),
    )?;
    check::optional(OP, "residual", residual, shape.dims(), dtype)?;
    dispatch!(ctx, dtype, forward(x, &filter, window, epilogue, y))
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
    let parameters = dy.dtype().of_parameters();
    let Gradients {
        x: d_x,
        filter: d_filter,
        bias: d_bias,
    } = &gradients;
    let (d_x, d_filter, d_bias) = (d_x.as_deref(), d_filter.as_deref(), d_bias.as_deref());
    check::optional(OP, "x gradient", d_x, x.shape().dims(), dy.dtype())?;
    check::optional(OP, "filter gradient", d_filter, shape.dims(), parameters)?;
    check::optional(OP, "bias gradient", d_bias, &[dy.cols()], parameters)?;
    let mut d_filter = match gradients.filter {
        Some(df) => Some(as_matrix("filter gradient", df)?),
        None => None,
    };
    let gradients = Gradients {
        filter: d_filter.as_mut(),
        ..gradients
    };
    dispatch!(ctx, backward(x, &filter, window, dy, accumulate, gradients))
}

/// dy ∘ 1[y > 0], in place: the gradient through the ReLU that made y.
pub fn relu_backward(ctx: &Context, y: &Tensor, dy: &mut Tensor) -> Result<()> {
    check::tensor(OP, "ReLU gradient", dy, y.shape().dims(), y.dtype())?;
    dispatch!(ctx, y.dtype(), relu_backward(y, dy))
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
    check::tensor(OP, "filter", &filter, &[k, r * s * c], x.dtype())?;
    check::tensor(OP, name, y, &[n, p, q, k], x.dtype())?;
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

fn image_size(x: &Tensor) -> [usize; 2] {
    let dims = x.shape();
    [dims.dims()[1], dims.dims()[2]]
}
