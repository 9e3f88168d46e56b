//! Attend's losses and its backward pass: one walk back through time, then one product a weight.

use super::{Activations, Attend, OUTPUT_SITE, Slot};
use crate::error::Result;
use crate::nn::captions::{Captions, Losses, PAD};
use crate::nn::layer;
use crate::nn::params::Params;
use crate::ops::gemm::{self, Factor};
use crate::ops::linear::Gradients;
use crate::ops::{
    Accumulate, add, attention, cross_entropy, dropout, embedding, fill, gate, linear, lstm,
    regulariser,
};
use crate::tensor::{Context, Tensor};

/// Gradients that the walk back through time leaves for the products after it; S steps.
struct Walked {
    /// (S, B, 4H), of the gates before activation
    gates: Tensor,
    /// (S, B, D), of the context and of its gate before activation
    context: Tensor,
    gate: Tensor,
    /// (S, B, A)
    query: Tensor,
    /// Of the scores (S, B, P)
    scores: Tensor,
    /// h_0 and c_0 (B, H)
    h: Tensor,
    c: Tensor,
}

impl Attend {
    /// Mean cross-entropy over all tokens but the first, `<pad>` ignored, plus the regulariser.
    pub fn loss(&self, ctx: &Context, captions: &Captions, a: &Activations) -> Result<Losses> {
        let dtype = a.logits.dtype();
        let mut losses = ctx.empty([a.logits.rows()], dtype)?;
        let mut cross_entropy = ctx.empty([1], dtype)?;
        let targets = captions.tokens.narrow(1, captions.steps() - 1)?;
        let loss = &mut cross_entropy;
        cross_entropy::forward(ctx, &a.logits, &targets, PAD, &mut losses, loss)?;
        self.with_regulariser(ctx, a, cross_entropy)
    }

    fn with_regulariser(
        &self,
        ctx: &Context,
        a: &Activations,
        cross_entropy: Tensor,
    ) -> Result<Losses> {
        let mut loss = ctx.empty([1], a.logits.dtype())?;
        regulariser::forward(ctx, &a.alpha, self.config.regulariser, &mut loss)?;
        add::forward(ctx, &cross_entropy, &mut loss)?;
        Ok(Losses {
            loss,
            cross_entropy,
        })
    }

    /// The losses, and every gradient written to the arena; `d_features` (B, C, D) too when wanted. Consumes
    /// the activations: the logits become their gradient.
    pub fn backward(
        &self,
        ctx: &Context,
        params: &Params,
        captions: &Captions,
        mut a: Activations,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses> {
        let (steps, dtype) = (captions.steps() - 1, params.dtype());
        let mut losses = ctx.empty([a.logits.rows()], dtype)?;
        let mut loss = ctx.empty([1], dtype)?;
        let targets = captions.tokens.narrow(1, steps)?;
        let logits = &mut a.logits;
        cross_entropy::forward_backward(ctx, logits, &targets, PAD, &mut losses, &mut loss)?;

        let mut d_h = ctx.empty(a.dropped.shape(), dtype)?;
        layer::backward(
            ctx,
            params,
            self.output,
            &a.dropped,
            &a.logits,
            Some(&mut d_h),
        )?;
        if let Some(noise) = &a.noise {
            let site = noise.at(OUTPUT_SITE);
            dropout::in_place(ctx, self.config.dropout, &site, 0, &mut d_h)?;
        }
        let walked = self.walk_back(ctx, params, &a, &d_h)?;
        self.backward_weights(ctx, params, captions, &a, &walked)?;
        self.backward_image(ctx, params, &a, &walked, d_features)?;
        self.with_regulariser(ctx, &a, loss)
    }

    /// From the gradient of h_1 … h_S (S, B, H) back to that of h_0.
    fn walk_back(
        &self,
        ctx: &Context,
        params: &Params,
        a: &Activations,
        d_h: &Tensor,
    ) -> Result<Walked> {
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
        let (batch, dtype) = (walked.h.rows(), params.dtype());
        let mut d_alpha = empty(&a.alpha.index(0)?)?;
        regulariser::backward(ctx, &a.alpha, self.config.regulariser, &mut d_alpha)?;
        let mut d_gated = ctx.empty([batch, self.config.features], dtype)?;
        let [weight_ih, weight_hh, ..] = self.cell.map(|id| params.value(id));
        let [_, of_context] = self.split_inputs(weight_ih)?;
        let times = |dy: &Tensor, weight: &Tensor, accumulate, dx: &mut Tensor| {
            let (dy, weight) = (Factor::Plain(dy), Factor::Plain(weight));
            gemm::forward(ctx, dy, weight, accumulate, dx)
        };
        let inputs = self.inputs(params, &a.image);
        let steps = a.gates.shape().dims()[0];
        for t in (0..steps).rev() {
            let Slot {
                c,
                next_c,
                query,
                alpha,
                context,
                gate,
                gates,
                ..
            } = a.slot(t)?;
            let (mut d_gates, mut d_gate) = (walked.gates.index(t)?, walked.gate.index(t)?);
            let (mut d_context, mut d_query) = (walked.context.index(t)?, walked.query.index(t)?);
            let mut d_scores = walked.scores.index(t)?;
            let cell = lstm::Cell {
                gates: &gates,
                c_prev: &c,
                c: &next_c,
            };
            let (later, d_c) = ((t + 1 < steps).then_some(&walked.h), &mut walked.c);
            lstm::cell_backward(ctx, cell, &d_h.index(t)?, later, d_c, &mut d_gates)?;
            times(&d_gates, weight_hh, Accumulate::No, &mut walked.h)?;
            times(&d_gates, &of_context, Accumulate::No, &mut d_gated)?;
            gate::backward(ctx, &gate, &context, &d_gated, &mut d_gate, &mut d_context)?;
            let f_beta = params.value(self.f_beta[0]);
            times(&d_gate, f_beta, Accumulate::Yes, &mut walked.h)?;
            let gradients = attention::Gradients {
                query: &mut d_query,
                scores: &mut d_scores,
            };
            let d_alpha = Some(&d_alpha);
            attention::backward(ctx, inputs, &query, &alpha, &d_context, d_alpha, gradients)?;
            let decoder_att = params.value(self.decoder_att[0]);
            times(&d_query, decoder_att, Accumulate::Yes, &mut walked.h)?;
        }
        Ok(walked)
    }

    /// One product for every weight that the time loop used.
    fn backward_weights(
        &self,
        ctx: &Context,
        params: &Params,
        captions: &Captions,
        a: &Activations,
        walked: &Walked,
    ) -> Result<()> {
        let steps = a.gates.shape().dims()[0];
        let h = a.h.narrow(0, steps)?;
        layer::backward(ctx, params, self.decoder_att, &h, &walked.query, None)?;
        layer::backward(ctx, params, self.f_beta, &h, &walked.gate, None)?;
        let [d_ih, mut d_hh, mut d_bias_ih, mut d_bias_hh] =
            self.cell.map(|id| params.gradient(id));
        let [weight_ih, weight_hh, ..] = self.cell.map(|id| params.value(id));
        let [of_embedding, of_context] = self.split_inputs(weight_ih)?;
        let [mut d_of_embedding, mut d_of_context] = self.split_inputs(&d_ih)?;
        let mut d_embedded = ctx.empty(a.embedded.shape(), params.dtype())?;
        let d_gates = &walked.gates;
        let no = Accumulate::No;
        let gradients = Gradients {
            x: Some(&mut d_embedded),
            weight: Some(&mut d_of_embedding),
            bias: Some(&mut d_bias_ih),
        };
        linear::backward(ctx, &a.embedded, &of_embedding, d_gates, no, gradients)?;
        let gradients = Gradients {
            weight: Some(&mut d_of_context),
            ..Gradients::default()
        };
        linear::backward(ctx, &a.gated, &of_context, d_gates, no, gradients)?;
        let gradients = Gradients {
            weight: Some(&mut d_hh),
            bias: Some(&mut d_bias_hh),
            ..Gradients::default()
        };
        linear::backward(ctx, &h, weight_hh, d_gates, no, gradients)?;
        let words = captions.tokens.narrow(0, steps)?;
        let mut d_embedding = params.gradient(self.embedding);
        embedding::backward(ctx, &words, &d_embedded, Some(PAD), no, &mut d_embedding)
    }

    /// What depends on the image: the first state and the keys, with the score's weight and bias; the features
    /// themselves when the encoder is trained.
    fn backward_image(
        &self,
        ctx: &Context,
        params: &Params,
        a: &Activations,
        walked: &Walked,
        d_features: Option<&mut Tensor>,
    ) -> Result<()> {
        let (image, mix, dtype) = (&a.image, &self.config.mix, params.dtype());
        let batch = image.mean.rows();
        let no = Accumulate::No;
        let mut d_positions = ctx.empty(image.keys.shape(), dtype)?;
        let [mut d_weight, mut d_bias] = self.full_att.map(|id| params.gradient(id));
        let gradients = attention::KeyGradients {
            keys: &mut d_positions,
            weight: &mut d_weight,
            bias: &mut d_bias,
        };
        let inputs = self.inputs(params, image);
        attention::keys_backward(ctx, inputs, &a.query, &walked.scores, no, gradients)?;
        let mut d_keys = ctx.empty([batch, mix.cells(), self.config.attention], dtype)?;
        attention::mix_backward(ctx, mix, &d_positions, no, &mut d_keys)?;
        let Some(d_features) = d_features else {
            layer::backward(ctx, params, self.encoder_att, &image.values, &d_keys, None)?;
            layer::backward(ctx, params, self.init_h, &image.mean, &walked.h, None)?;
            return layer::backward(ctx, params, self.init_c, &image.mean, &walked.c, None);
        };
        let (values, keys) = (&image.values, self.encoder_att);
        layer::backward(ctx, params, keys, values, &d_keys, Some(&mut *d_features))?;
        let yes = Accumulate::Yes;
        attention::values_backward(ctx, &a.beta, &walked.context, yes, d_features)?;
        for (layer, d_state) in [(self.init_h, &walked.h), (self.init_c, &walked.c)] {
            let mut d_mean = ctx.empty(image.mean.shape(), dtype)?;
            layer::backward(ctx, params, layer, &image.mean, d_state, Some(&mut d_mean))?;
            attention::mean_backward(ctx, mix, &d_mean, yes, d_features)?;
        }
        Ok(())
    }
}
