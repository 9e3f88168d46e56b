//! Attend's losses and its backward pass: one walk back through time, then one product a weight.

use super::walk::{Walk, Walked};
use super::{Activations, Attend, OUTPUT_SITE};
use crate::data::vocabulary::PAD;
use crate::error::Result;
use crate::model::captions::{Captions, Losses};
use crate::nn::params::Params;
use crate::ops::linear::Gradients;
use crate::ops::{
    Accumulate, add, attention, cross_entropy, dropout, embedding, linear, regulariser,
};
use crate::tensor::{Context, Tensor};

impl Attend {
    /// Mean cross-entropy over all tokens but the first, `<pad>` ignored, plus the regulariser.
    pub(super) fn losses(
        &self,
        ctx: &Context,
        captions: &Captions,
        a: &Activations,
    ) -> Result<Losses> {
        let dtype = a.logits.dtype().of_parameters();
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
        let mut loss = ctx.empty([1], cross_entropy.dtype())?;
        regulariser::forward(ctx, &a.alpha, self.settings.regulariser, &mut loss)?;
        add::forward(ctx, &cross_entropy, &mut loss)?;
        Ok(Losses {
            loss,
            cross_entropy,
        })
    }

    /// The losses, and every gradient written to the arena; `d_features` (B, C, D) too when it is wanted.
    /// Consumes the activations: the logits become their gradient.
    pub(super) fn backward(
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
        let (dropped, d_logits) = (&a.dropped, &a.logits);
        self.output
            .backward(ctx, params, dropped, d_logits, Some(&mut d_h))?;
        if let Some(noise) = &a.noise {
            let site = noise.at(OUTPUT_SITE);
            dropout::in_place(ctx, self.settings.dropout, &site, 0, &mut d_h)?;
        }
        let walked = Walk::new(self, ctx, params, &a)?.back(&d_h)?;
        self.backward_weights(ctx, params, captions, &a, &walked)?;
        self.backward_image(ctx, params, &a, &walked, d_features)?;
        self.with_regulariser(ctx, &a, loss)
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
        self.of_h.backward(ctx, params, &h, &walked.of_h)?;
        let [d_ih, mut d_hh, mut d_bias_ih, mut d_bias_hh] =
            self.cell.map(|id| params.gradient(id));
        let [weight_ih, weight_hh, ..] = self.cell.map(|id| params.operand(id));
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
        let (image, mix, dtype) = (&a.image, &self.mix, params.dtype());
        let batch = image.mean.rows();
        let no = Accumulate::No;
        let mut d_positions = ctx.empty(image.keys.shape(), dtype)?;
        let mut d_weight = params.gradient(self.full_att.weight);
        let mut d_bias = params.gradient(self.full_att.bias);
        let gradients = attention::KeyGradients {
            keys: &mut d_positions,
            weight: &mut d_weight,
            bias: &mut d_bias,
        };
        let inputs = self.inputs(params, image);
        let [query, _] = self.split_of_h(&a.of_h)?;
        attention::keys_backward(ctx, inputs, &query, &walked.scores, no, gradients)?;
        let of_cells = [batch, mix.cells(), self.settings.attention];
        let mut d_keys = ctx.empty(of_cells, params.operands())?;
        attention::mix_backward(ctx, mix, &d_positions, no, &mut d_keys)?;
        let (values, mean) = (&image.values, &image.mean);
        let from_state = [(self.init_h, &walked.h), (self.init_c, &walked.c)];
        let Some(d_features) = d_features else {
            self.encoder_att
                .backward(ctx, params, values, &d_keys, None)?;
            return from_state
                .into_iter()
                .try_for_each(|(layer, d_y)| layer.backward(ctx, params, mean, d_y, None));
        };
        let wanted = Some(&mut *d_features);
        self.encoder_att
            .backward(ctx, params, values, &d_keys, wanted)?;
        let yes = Accumulate::Yes;
        attention::values_backward(ctx, &a.beta, &walked.context, yes, d_features)?;
        for (layer, d_state) in from_state {
            let mut d_mean = ctx.empty(mean.shape(), dtype)?;
            layer.backward(ctx, params, mean, d_state, Some(&mut d_mean))?;
            attention::mean_backward(ctx, mix, &d_mean, yes, d_features)?;
        }
        Ok(())
    }
}
