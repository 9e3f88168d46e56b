//! Additive attention (Bahdanau et al. 2015; over image positions: Xu et al. 2015), one step of the decoder.
//!
//! An image has C cells of features f_c (D). The model attends over P positions, which are fixed means of
//! the cells: position p is Σ_c M_pc f_c, with M a [`CellMix`]. What is linear in the positions is computed on
//! the cells, so that the (B, P, D) tensor never exists:
//!
//! - once for a batch: keys k_p = Σ_c M_pc (W f_c) + b (A), by [`mix_forward`] from the projected cells;
//! - each step, from the query q (A) = W_h h + b_h: e_p = w · relu(k_p + q) + b_e; α = softmax(e) over P;
//!   β = Mᵀα; context = Σ_c β_c f_c (D), which is Σ_p α_p (Mf)_p.
//!
//! Backward of a step, from d_context and, if α itself is in the loss, dα':
//! dβ_c = d_context · f_c; dα = M dβ + dα'; de_p = α_p (dα_p - Σ α dα); with r_p = [k_p + q > 0]:
//! dq = Σ_p de_p w r_p. Saves α, and β for [`values_backward`].
//!
//! Keys and values are what every step reads. They, and what is made of them for a product of matrices (the mean, dq, the gradient of the
//! projected cells), may be bf16; all else is then f32.
//!
//! The gradients of the image and of the parameters are computed when all steps are done, since each needs only the small
//! tensors that the steps leave: [`keys_backward`] has dk_p = Σ_t de_tp w r_tp, dw = Σ_tp de_tp relu(k_p + q_t), db_e =
//! Σ_tp de_tp (zero but for rounding, as softmax does not see b_e); [`values_backward`] has df_c = Σ_t β_tc d_context_t.
//! Added up in the loop, dk alone would be read and written T times.

mod cell_mix;
mod cpu;
pub(super) mod cuda;

use super::gemm::Accumulate;
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

pub use cell_mix::CellMix;

const OP: &str = "attention";

/// y_p = Σ_c M_pc x_c: x (B, C, A) to y (B, P, A).
pub fn mix_forward(ctx: &Context, mix: &CellMix, x: &Tensor, y: &mut Tensor) -> Result<()> {
    check_mix(mix, x, y)?;
    check::dtype(OP, "cells", x, y.dtype().of_parameters())?;
    dispatch!(ctx, y.dtype(), mix_forward(mix, x, y))
}

/// dx_c = Σ_p M_pc dy_p: dy (B, P, A) to dx (B, C, A).
pub fn mix_backward(
    ctx: &Context,
    mix: &CellMix,
    dy: &Tensor,
    accumulate: Accumulate,
    dx: &mut Tensor,
) -> Result<()> {
    check_mix(mix, dx, dy)?;
    check::dtype(OP, "gradient", dy, dx.dtype().of_parameters())?;
    dispatch!(ctx, dx.dtype(), mix_backward(mix, dy, accumulate, dx))
}

fn check_mix(mix: &CellMix, cells: &Tensor, positions: &Tensor) -> Result<()> {
    let [batch, _, cols] = check::dims(OP, "cells", cells)?;
    check::shape(OP, "cells", cells, &[batch, mix.cells(), cols])?;
    let shape = [batch, mix.positions(), cols];
    check::shape(OP, "positions", positions, &shape)
}

/// The mean over the positions, (B, D), of values (B, C, D): cell c weighs Σ_p M_pc / P.
pub fn mean_forward(
    ctx: &Context,
    mix: &CellMix,
    values: &Tensor,
    mean: &mut Tensor,
) -> Result<()> {
    check_mean(mix, values, mean)?;
    dispatch!(ctx, mean.dtype(), mean_forward(mix, values, mean))
}

/// d_values (B, C, D) from d_mean (B, D).
pub fn mean_backward(
    ctx: &Context,
    mix: &CellMix,
    d_mean: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    check_mean(mix, d_values, d_mean)?;
    dispatch!(
        ctx,
        d_mean.dtype(),
        mean_backward(mix, d_mean, accumulate, d_values)
    )
}

fn check_mean(mix: &CellMix, values: &Tensor, mean: &Tensor) -> Result<()> {
    let [batch, cols] = check::dims(OP, "mean", mean)?;
    check::tensor(
        OP,
        "values",
        values,
        &[batch, mix.cells(), cols],
        mean.dtype(),
    )
}

/// What stays the same from step to step.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// How positions are made of cells.
    pub mix: &'a CellMix,
    /// k, (B, P, A); f32 or bf16.
    pub keys: &'a Tensor,
    /// f, (B, C, D), of the keys' type.
    pub values: &'a Tensor,
    /// w, (1, A)
    pub weight: &'a Tensor,
    /// b_e, (1)
    pub bias: &'a Tensor,
}

impl Inputs<'_> {
    fn check(&self, query: &Tensor, alpha: &Tensor, context: &Tensor) -> Result<()> {
        let [batch, a] = check::dims(OP, "query", query)?;
        let (p, c, d) = (self.mix.positions(), self.mix.cells(), context.cols());
        let dtype = query.dtype();
        self.check_keys(&[batch, p, a], dtype)?;
        let values = self.values;
        check::tensor(OP, "values", values, &[batch, c, d], self.keys.dtype())?;
        check::tensor(OP, "weight", self.weight, &[1, a], dtype)?;
        check::tensor(OP, "bias", self.bias, &[1], dtype)?;
        check::tensor(OP, "alpha", alpha, &[batch, p], dtype)?;
        check::tensor(OP, "context", context, &[batch, d], dtype)
    }

    /// The keys may be bf16 where all that is added up is f32.
    fn check_keys(&self, shape: &[usize], sums: DType) -> Result<()> {
        check::shape(OP, "keys", self.keys, shape)?;
        check::beside(OP, "keys", self.keys, sums)
    }
}

/// What a step writes.
pub struct Outputs<'a> {
    /// α, (B, P)
    pub alpha: &'a mut Tensor,
    /// β, (B, C)
    pub beta: &'a mut Tensor,
    /// (B, D)
    pub context: &'a mut Tensor,
}

/// One step from the query (B, A).
pub fn forward(ctx: &Context, inputs: Inputs, query: &Tensor, outputs: Outputs) -> Result<()> {
    inputs.check(query, outputs.alpha, outputs.context)?;
    let (batch, cells) = (query.rows(), inputs.mix.cells());
    check::tensor(OP, "beta", outputs.beta, &[batch, cells], query.dtype())?;
    dispatch!(ctx, query.dtype(), forward(inputs, query, outputs))
}

/// What the backward of a step writes.
pub struct Gradients<'a> {
    /// dq, (B, A), of the keys' type.
    pub query: &'a mut Tensor,
    /// de, (B, P)
    pub scores: &'a mut Tensor,
}

/// The gradients of one step, from d_context (B, D) and that of α (B, P) if α is in the loss by itself.
pub fn backward(
    ctx: &Context,
    inputs: Inputs,
    query: &Tensor,
    alpha: &Tensor,
    d_context: &Tensor,
    d_alpha: Option<&Tensor>,
    gradients: Gradients,
) -> Result<()> {
    inputs.check(query, alpha, d_context)?;
    let [batch, a] = check::dims(OP, "query", query)?;
    let p = inputs.mix.positions();
    let dtype = query.dtype();
    check::optional(OP, "d_alpha", d_alpha, &[batch, p], dtype)?;
    let of_keys = inputs.keys.dtype();
    check::tensor(OP, "query gradient", gradients.query, &[batch, a], of_keys)?;
    check::tensor(OP, "scores' gradient", gradients.scores, &[batch, p], dtype)?;
    dispatch!(
        ctx,
        dtype,
        backward(inputs, query, alpha, d_context, d_alpha, gradients)
    )
}

/// What [`keys_backward`] writes.
pub struct KeyGradients<'a> {
    /// dk, (B, P, A)
    pub keys: &'a mut Tensor,
    /// dw, (1, A)
    pub weight: &'a mut Tensor,
    /// db_e, (1)
    pub bias: &'a mut Tensor,
}

/// dk, dw and db_e from the queries (T, B, A) and the gradients of the scores (T, B, P) of all steps.
pub fn keys_backward(
    ctx: &Context,
    inputs: Inputs,
    queries: &Tensor,
    d_scores: &Tensor,
    accumulate: Accumulate,
    gradients: KeyGradients,
) -> Result<()> {
    let [steps, batch, a] = check::dims(OP, "queries", queries)?;
    let p = inputs.mix.positions();
    let dtype = queries.dtype();
    inputs.check_keys(&[batch, p, a], dtype)?;
    check::tensor(OP, "weight", inputs.weight, &[1, a], dtype)?;
    check::tensor(OP, "scores' gradients", d_scores, &[steps, batch, p], dtype)?;
    check::tensor(OP, "keys gradient", gradients.keys, &[batch, p, a], dtype)?;
    check::tensor(OP, "weight gradient", gradients.weight, &[1, a], dtype)?;
    check::tensor(OP, "bias gradient", gradients.bias, &[1], dtype)?;
    dispatch!(
        ctx,
        dtype,
        keys_backward(inputs, queries, d_scores, accumulate, gradients)
    )
}

/// d_values (B, C, D) from β (T, B, C) and d_context (T, B, D) of all steps.
pub fn values_backward(
    ctx: &Context,
    beta: &Tensor,
    d_context: &Tensor,
    accumulate: Accumulate,
    d_values: &mut Tensor,
) -> Result<()> {
    let [steps, batch, cells] = check::dims(OP, "beta", beta)?;
    let (d, dtype) = (d_values.cols(), d_values.dtype());
    check::tensor(OP, "d_context", d_context, &[steps, batch, d], dtype)?;
    check::shape(OP, "d_values", d_values, &[batch, cells, d])?;
    check::dtype(OP, "beta", beta, dtype)?;
    dispatch!(
        ctx,
        d_values.dtype(),
        values_backward(beta, d_context, accumulate, d_values)
    )
}
