//! Show-tell's backward pass: the vocabulary product, the LSTM back through time, the embedding, the image.

use super::{Activations, EMBEDDING_SITE, ShowTell};
use crate::data::vocabulary::PAD;
use crate::error::Result;
use crate::model::captions::{Captions, Losses};
use crate::nn::params::Params;
use crate::ops::lstm::{self, sequence};
use crate::ops::{Accumulate, cross_entropy, dropout, embedding};
use crate::tensor::{Context, Tensor};

impl ShowTell {
    /// The losses, and every gradient written to the arena; `d_features` (B, D) too when it is wanted. Consumes the
    /// activations: the logits become their gradient.
    pub(super) fn backward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        mut activations: Activations,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses> {
        let (steps, dtype) = (captions.steps(), params.dtype());
        let mut losses = ctx.empty([activations.logits.rows()], dtype)?;
        let mut loss = ctx.empty([1], dtype)?;
        let d_logits = &mut activations.logits;
        let tokens = &captions.tokens;
        cross_entropy::forward_backward(ctx, d_logits, tokens, PAD, &mut losses, &mut loss)?;

        let h = activations.lstm.output()?;
        let mut d_h = ctx.empty(h.shape(), dtype)?;
        self.output
            .backward(ctx, params, &h, d_logits, Some(&mut d_h))?;
        let d_x = self.backward_lstm(ctx, params, &activations, &d_h)?;

        let mut d_words = d_x.narrow(1, steps - 1)?;
        if let Some(noise) = &activations.noise {
            let site = noise.at(EMBEDDING_SITE);
            dropout::in_place(ctx, self.settings.embed_dropout, &site, 1, &mut d_words)?;
        }
        let inputs = tokens.narrow(0, steps - 1)?;
        let mut d_embedding = params.gradient(self.embedding);
        let no = Accumulate::No;
        embedding::backward(ctx, &inputs, &d_words, Some(PAD), no, &mut d_embedding)?;
        self.fc
            .backward(ctx, params, features, &d_x.index(0)?, d_features)?;
        Ok(Losses {
            cross_entropy: loss.clone(),
            loss,
        })
    }

    /// The gradient of the LSTM's inputs (T, B, E), from that of its outputs (T, B, H).
    fn backward_lstm(
        &self,
        ctx: &Context,
        params: &Params,
        activations: &Activations,
        d_h: &Tensor,
    ) -> Result<Tensor> {
        let x = &activations.x;
        let mut d_x = ctx.empty(x.shape(), params.dtype())?;
        let ids = self.lstm.iter();
        let mut gradients: Vec<[Tensor; 4]> =
            ids.map(|ids| ids.map(|id| params.gradient(id))).collect();
        let layers = gradients.iter_mut();
        let layers = layers.map(
            |[weight_ih, weight_hh, bias_ih, bias_hh]| lstm::LayerGradients {
                weight_ih,
                weight_hh,
                bias_ih,
                bias_hh,
            },
        );
        let wanted = sequence::Gradients {
            layers: layers.collect(),
            x: Some(&mut d_x),
            initial: None,
        };
        let (layers, saved) = (self.layers(params), &activations.lstm);
        sequence::backward(ctx, &layers, x, saved, d_h, wanted)?;
        Ok(d_x)
    }
}
