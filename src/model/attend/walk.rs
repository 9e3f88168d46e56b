//! The walk back through time: from the gradients of the hidden states to those of all that a step computes.

use super::{Activations, Attend, Slot};
use crate::error::Result;
use crate::nn::params::Params;
use crate::ops::gemm::{self, Factor};
use crate::ops::{Accumulate, attention, fill, gate, lstm, regulariser};
use crate::tensor::{Context, Tensor};

/// Gradients that the walk leaves for the products after it; S steps.
pub(super) struct Walked {
    /// (S, B, 4H), of the gates before activation
    pub gates: Tensor,
    /// (S, B, D), of the context and of its gate before activation
    pub context: Tensor,
    pub gate: Tensor,
    /// (S, B, A)
    pub query: Tensor,
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
    /// Room for the gradient of the gated context (B, D).
    d_gated: Tensor,
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
        let empty = |like: &Tensor| ctx.empty(like.shape(), like.dtype());
        let mut walked = Walked {
            gates: empty(&a.gates)?,
            context: empty(&a.context)?,
            gate: empty(&a.gate)?,
            query: empty(&a.query)?,
            scores: empty(&a.alpha)?,
            h: empty(&a.h.index(0)?)?,
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
            d_gated: empty(&a.context.index(0)?)?,
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
            query,
            alpha,
            context,
            gate,
            gates,
            ..
        } = self.a.slot(t)?;
        let (mut d_gates, mut d_gate) = (walked.gates.index(t)?, walked.gate.index(t)?);
        let (mut d_context, mut d_query) = (walked.context.index(t)?, walked.query.index(t)?);
        let [weight_ih, weight_hh, ..] = model.cell.map(|id| params.value(id));
        let [_, of_context] = model.split_inputs(weight_ih)?;
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
        times(&d_gates, weight_hh, Accumulate::No, &mut walked.h)?;
        let d_gated = &mut self.d_gated;
        times(&d_gates, &of_context, Accumulate::No, d_gated)?;
        gate::backward(ctx, &gate, &context, d_gated, &mut d_gate, &mut d_context)?;
        let f_beta = params.value(model.f_beta.weight);
        times(&d_gate, f_beta, Accumulate::Yes, &mut walked.h)?;
        let gradients = attention::Gradients {
            query: &mut d_query,
            scores: &mut walked.scores.index(t)?,
        };
        let (inputs, d_alpha) = (model.inputs(params, &self.a.image), Some(&self.d_alpha));
        attention::backward(ctx, inputs, &query, &alpha, &d_context, d_alpha, gradients)?;
        let decoder_att = params.value(model.decoder_att.weight);
        times(&d_query, decoder_att, Accumulate::Yes, &mut walked.h)
    }
}
