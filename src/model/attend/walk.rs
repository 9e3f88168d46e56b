//! The walk back through time: from the gradients of the hidden states to those of all that a step computes.

use super::{Activations, Attend, Slot};
use crate::error::Result;
use crate::nn::params::Params;
use crate::ops::gemm::{self, Factor};
use crate::ops::{Accumulate, attention, fill, gate, lstm, regulariser};
use crate::tensor::{Context, Tensor};

/// Gradients that the walk leaves for the products after it; S steps. Those of the gates and of what is computed from h are factors of
/// products, and of the type of their operands.
pub(super) struct Walked {
    /// (S, B, 4H), of the gates before activation
    pub gates: Tensor,
    /// (S, B, D), of the context
    pub context: Tensor,
    /// (S, B, A + D), of the query and of the gate before activation
    pub of_h: Tensor,
    /// Of the scores (S, B, P)
    pub scores: Tensor,
    /// h_0 and c_0 (B, H)
    pub h: Tensor,
    pub c: Tensor,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    model: &'a Attend,
    ctx: &'a Context,
    params: &'a Params,
    a: &'a Activations,
    /// The regulariser's share in the gradient of every step's α (B, P).
    d_alpha: Tensor,
    /// Room for the gradients of the gated context (B, D) and of h (B, H), side by side as the columns of the cell's weights are.
    d_inputs: Tensor,
    /// `h` and `c` in it are those of the step that was last walked.
    walked: Walked,
}

impl<'a> Walk<'a> {
    /// Before the last step.
    pub fn new(
        model: &'a Attend,
        ctx: &'a Context,
        params: &'a Params,
        a: &'a Activations,
    ) -> Result<Self> {
        let empty = |like: &Tensor| ctx.empty(like.shape(), params.dtype());
        let operand = |like: &Tensor| ctx.empty(like.shape(), params.operands());
        let inputs = model.cell_inputs(params)?;
        let d_inputs = ctx.empty([a.h.index(0)?.rows(), inputs.cols()], params.dtype())?;
        let [_, h] = model.split_cell_inputs(&d_inputs)?;
        let mut walked = Walked {
            gates: operand(&a.gates)?,
            context: empty(&a.context)?,
            of_h: operand(&a.of_h)?,
            scores: empty(&a.alpha)?,
            h,
            c: empty(&a.c.index(0)?)?,
        };
        fill::zero(ctx, &mut walked.c)?;
        let mut d_alpha = empty(&a.alpha.index(0)?)?;
        regulariser::backward(ctx, &a.alpha, model.settings.regulariser, &mut d_alpha)?;
        Ok(Walk {
            model,
            ctx,
            params,
            a,
            d_alpha,
            d_inputs,
            walked,
        })
    }

    /// From the gradient of h_1 … h_S (S, B, H), as the logits have it, back to that of h_0.
    pub fn back(mut self, d_h: &Tensor) -> Result<Walked> {
        let steps = d_h.shape().dims()[0];
        for t in (0..steps).rev() {
            self.step(t, &d_h.index(t)?, t + 1 == steps)?;
        }
        Ok(self.walked)
    }

    /// Step t: the gradient of h_{t+1} is `d_h`, and what the later steps found if there are any.
    fn step(&mut self, t: usize, d_h: &Tensor, last: bool) -> Result<()> {
        let (ctx, params, model, walked) = (self.ctx, self.params, self.model, &mut self.walked);
        let Slot {
            c,
            next_c,
            of_h,
            alpha,
            context,
            gates,
            ..
        } = self.a.slot(t)?;
        let (mut d_gates, d_of_h) = (walked.gates.index(t)?, walked.of_h.index(t)?);
        let mut d_context = walked.context.index(t)?;
        let [query, gate] = model.split_of_h(&of_h)?;
        let [mut d_query, mut d_gate] = model.split_of_h(&d_of_h)?;
        let times = |dy: &Tensor, weight: &Tensor, accumulate, dx: &mut Tensor| {
            let (dy, weight) = (Factor::Plain(dy), Factor::Plain(weight));
            gemm::forward(ctx, dy, weight, accumulate, dx)
        };
        let cell = lstm::Cell {
            gates: &gates,
            c_prev: &c,
            c: &next_c,
        };
        let (later, d_c) = ((!last).then_some(&walked.h), &mut walked.c);
        lstm::cell_backward(ctx, cell, d_h, later, d_c, &mut d_gates)?;
        let (no, inputs) = (Accumulate::No, model.cell_inputs(params)?);
        times(&d_gates, &inputs, no, &mut self.d_inputs)?;
        let [d_gated, _] = model.split_cell_inputs(&self.d_inputs)?;
        gate::backward(ctx, &gate, &context, &d_gated, &mut d_gate, &mut d_context)?;
        let gradients = attention::Gradients {
            query: &mut d_query,
            scores: &mut walked.scores.index(t)?,
        };
        let (inputs, d_alpha) = (model.inputs(params, &self.a.image), Some(&self.d_alpha));
        attention::backward(ctx, inputs, &query, &alpha, &d_context, d_alpha, gradients)?;
        times(
            &d_of_h,
            &model.of_h.weight(params)?,
            Accumulate::Yes,
            &mut walked.h,
        )
    }
}
