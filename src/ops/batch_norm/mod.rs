//! Batch normalisation over all but the channels (Ioffe and Szegedy, 2015), as PyTorch computes it.
//!
//! x̂ = (x − μ_c) · i_c with i_c = 1 / √(σ²_c + ε), y = act(γ_c x̂ + β_c + z). x, the optional residual z
//! and y are (…, C), all else (C); M is the number of rows; act is ReLU or nothing.
//!
//! - Running mode: μ and σ² are the running statistics, constants. dx = γ i dy.
//! - Batch mode: μ = Σ x / M and σ² = Σ (x − μ)² / M, and the running statistics move towards them:
//!   r ← (1 − m) r + m s, with s = μ, or s = σ² M / (M − 1).
//!   dx = γ i (dy − dβ / M − x̂ dγ / M).
//!
//! In both dγ = Σ dy x̂, dβ = Σ dy. Behind a ReLU without a residual, dy is the gradient of what the ReLU gives ([`Saved::relu`]). With a
//! residual, dy has the ReLU already undone ([`conv::relu_backward`](super::conv::relu_backward), which needs y), and the residual's
//! gradient is that dy itself. Saves x, μ and i.
//!
//! The variance is that of blocks of rows about their own means, merged in f64 and in order (Chan,
//! Golub and LeVeque, 1979): no cancellation, one pass over memory, the same for any number of threads.
//!
//! x, z, y and their gradients may be bf16; parameters, statistics and the gradients of parameters are f32 then.

mod cpu;
pub(super) mod cuda;

use super::gemm::Accumulate;
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, Tensor};

const OP: &str = "batch_norm";

/// ε, added to the variance.
pub const EPSILON: f64 = 1e-5;

/// How far running statistics move in a step, by default.
pub const MOMENTUM: f64 = 0.1;

/// Which statistics normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchNorm {
    /// Those of training, which do not depend on the batch.
    Running,
    /// The batch's own.
    Batch,
}

/// γ and β, (C) each.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// The factor.
    pub gamma: &'a Tensor,
    /// The summand.
    pub beta: &'a Tensor,
}

/// What forward does before it stores.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Shaped as x.
    pub residual: Option<&'a Tensor>,
    /// Whether negative results become 0.
    pub relu: bool,
}

/// Mean and 1 / √(variance + ε) that normalised, (C) each: what backward needs.
pub struct Statistics<'a> {
    /// The mean of each channel.
    pub mean: &'a mut Tensor,
    /// 1 / √(variance + ε) of each channel.
    pub invstd: &'a mut Tensor,
}

/// Running statistics to normalise by, (C) each.
#[derive(Clone, Copy)]
pub struct RunningStatistics<'a> {
    /// The running mean.
    pub mean: &'a Tensor,
    /// The running variance.
    pub var: &'a Tensor,
}

/// How running statistics follow those of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Momentum {
    /// By this part of the way.
    Fixed(f64),
    /// As the plain mean over all batches, of which there were so many before this one.
    Cumulative {
        /// Batches before this one.
        count: u64,
    },
}

impl Momentum {
    fn factor(self) -> f64 {
        match self {
            Momentum::Fixed(factor) => factor,
            Momentum::Cumulative { count } => 1.0 / (count + 1) as f64,
        }
    }
}

/// Running statistics to update, (C) each.
pub struct Running<'a> {
    /// The running mean.
    pub mean: &'a mut Tensor,
    /// The running variance.
    pub var: &'a mut Tensor,
    /// How far they follow the batch.
    pub momentum: Momentum,
}

/// Normalises by running statistics and writes them to `statistics` as backward needs them.
pub fn running_forward(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: RunningStatistics,
    epilogue: Epilogue,
    mut statistics: Statistics,
    y: &mut Tensor,
) -> Result<()> {
    check_channels(x, "running mean", running.mean)?;
    check_channels(x, "running variance", running.var)?;
    check_forward(x, affine, &statistics, epilogue, y)?;
    let dtype = x.dtype();
    dispatch!(
        ctx,
        dtype,
        running_forward(x, affine, running, epilogue, &mut statistics, y)
    )
}

/// Normalises by the statistics of x itself, which go to `statistics` and into the running ones.
///
/// # Errors
/// When shapes do not fit, or there is a single row: it has no variance.
pub fn batch_forward(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: Option<Running>,
    epilogue: Epilogue,
    mut statistics: Statistics,
    y: &mut Tensor,
) -> Result<()> {
    check::that(OP, x.rows() > 1, || {
        format!(
            "a batch needs more than one value per channel, x is {:?}",
            x.shape()
        )
    })?;
    check_forward(x, affine, &statistics, epilogue, y)?;
    if let Some(running) = &running {
        check_channels(x, "running mean", running.mean)?;
        check_channels(x, "running variance", running.var)?;
    }
    let dtype = x.dtype();
    dispatch!(
        ctx,
        dtype,
        batch_forward(x, affine, running, epilogue, &mut statistics, y)
    )
}

fn check_forward(
    x: &Tensor,
    affine: Affine,
    statistics: &Statistics,
    epilogue: Epilogue,
    y: &Tensor,
) -> Result<()> {
    check_channels(x, "mean", statistics.mean)?;
    check_channels(x, "invstd", statistics.invstd)?;
    check_channels(x, "gamma", affine.gamma)?;
    check_channels(x, "beta", affine.beta)?;
    check::optional(
        OP,
        "residual",
        epilogue.residual,
        x.shape().dims(),
        x.dtype(),
    )?;
    check::tensor(OP, "y", y, x.shape().dims(), x.dtype())
}

/// What backward writes; what is `None` is not computed.
#[derive(Default)]
pub struct Gradients<'a> {
    /// Shaped as x; always overwritten.
    pub x: Option<&'a mut Tensor>,
    /// (C)
    pub gamma: Option<&'a mut Tensor>,
    /// (C)
    pub beta: Option<&'a mut Tensor>,
}

/// What backward reads: forward's input, γ and the statistics that forward left.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// The input, (…, C).
    pub x: &'a Tensor,
    /// The factor, (C).
    pub gamma: &'a Tensor,
    /// The mean that normalised, (C).
    pub mean: &'a Tensor,
    /// 1 / √(variance + ε), (C).
    pub invstd: &'a Tensor,
    /// β, (C), if a ReLU follows and nothing is added between: dy is then the gradient of what the ReLU gives. Where it was positive is
    /// worked out again from x.
    pub relu: Option<&'a Tensor>,
}

/// Gradients from dy (…, C). `accumulate` is for those of γ and β.
pub fn backward(
    ctx: &Context,
    mode: BatchNorm,
    saved: Saved,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    let x = saved.x;
    check::tensor(OP, "dy", dy, x.shape().dims(), x.dtype())?;
    check_channels(x, "gamma", saved.gamma)?;
    check_channels(x, "mean", saved.mean)?;
    check_channels(x, "invstd", saved.invstd)?;
    (saved.relu).map_or(Ok(()), |beta| check_channels(x, "beta", beta))?;
    check::optional(
        OP,
        "x gradient",
        gradients.x.as_deref(),
        x.shape().dims(),
        x.dtype(),
    )?;
    for (name, gradient) in [
        ("gamma gradient", gradients.gamma.as_deref()),
        ("beta gradient", gradients.beta.as_deref()),
    ] {
        gradient.map_or(Ok(()), |gradient| check_channels(x, name, gradient))?;
    }
    let dtype = x.dtype();
    dispatch!(ctx, dtype, backward(mode, saved, dy, accumulate, gradients))
}

/// Makes a convolution and the normalisation by running statistics after it one convolution with bias:
/// folded_k = f_k γ_k i_k, bias_k = β_k − μ_k γ_k i_k. Filters are (K, …); `folded` may be shaped otherwise
/// as long as it has K rows of the same length when seen as a matrix, and may be bf16.
pub fn fold(
    ctx: &Context,
    filter: &Tensor,
    affine: Affine,
    running: RunningStatistics,
    folded: &mut Tensor,
    bias: &mut Tensor,
) -> Result<()> {
    let k = bias.len();
    check::that(OP, k > 0 && filter.len().is_multiple_of(k), || {
        format!("filter {:?} for {k} biases", filter.shape())
    })?;
    let filter = filter.reshape([k, filter.len() / k])?;
    let mut folded = folded.reshape([k, folded.len() / k])?;
    check::shape(OP, "folded filter", &folded, filter.shape().dims())?;
    for (name, tensor) in [
        ("gamma", affine.gamma),
        ("beta", affine.beta),
        ("running mean", running.mean),
        ("running variance", running.var),
    ] {
        check::tensor(OP, name, tensor, &[k], filter.dtype())?;
    }
    check::dtype(OP, "folded bias", bias, filter.dtype())?;
    let dtype = filter.dtype();
    dispatch!(
        ctx,
        dtype,
        fold(&filter, affine, running, &mut folded, bias)
    )
}

/// A parameter or a statistic, (C).
fn check_channels(x: &Tensor, name: &str, tensor: &Tensor) -> Result<()> {
    check::tensor(OP, name, tensor, &[x.cols()], x.dtype().of_parameters())
}
