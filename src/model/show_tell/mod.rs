//! Model 1, show-tell: the image is the first word an LSTM reads (Vinyals et al. 2015).
//!
//! x_0 = W_fc f + b_fc, x_t = dropout(embedding(w_{t-1})) for t = 1 … T-1; an LSTM of L layers runs over x;
//! logits_t = W_out h_t + b_out predicts w_t, `<sos>` included. f (B, D) are pooled encoder features.

mod backward;
mod generation;
mod settings;

pub use settings::{SHOW_TELL, Settings};

use super::architecture::Sizes;
use super::captions::{Captions, Losses};
use super::decoder::{Decoder, FeatureKind, Generation};
use crate::data::vocabulary::PAD;
use crate::error::Result;
use crate::nn::linear::Linear;
use crate::nn::noise::Noise;
use crate::nn::params::{Declarations, Id, Init, Params, Role};
use crate::ops::lstm::{self, sequence};
use crate::ops::{cross_entropy, dropout, embedding};
use crate::tensor::{Context, Tensor};

/// The places where dropout draws its masks.
const EMBEDDING_SITE: u32 = 0;
const LSTM_SITE: u32 = 16;

/// The decoder: its sizes and settings, and where its parameters are.
pub struct ShowTell {
    sizes: Sizes,
    settings: Settings,
    fc: Linear,
    embedding: Id,
    /// Of each layer weight_ih, weight_hh, bias_ih, bias_hh.
    lstm: Vec<[Id; 4]>,
    output: Linear,
}

/// What the forward pass keeps for the backward pass. x and the logits are of the type of products' operands.
pub struct Activations {
    /// (T, B, E)
    x: Tensor,
    lstm: sequence::Saved,
    noise: Option<Noise>,
    /// (T, B, V); rows padded.
    pub logits: Tensor,
}

impl ShowTell {
    /// Declares the parameters under the reference's names, with PyTorch's default initialisation.
    pub fn declare(settings: Settings, sizes: Sizes, declare: &mut Declarations) -> Self {
        let (embed, hidden, vocabulary) = (sizes.embed, sizes.hidden, sizes.vocabulary);
        let fc = Linear::declare(declare, "encoder.fc", [embed, sizes.features]);
        let words = [vocabulary, embed];
        let embedding = declare.add("embedding.weight", &words, Role::Decoder, Init::Embedding);
        let lstm = (0..settings.layers)
            .map(|layer| {
                let inputs = if layer == 0 { embed } else { hidden };
                let mut gates = |name: &str, shape: &[usize]| {
                    let name = format!("lstm.{name}_l{layer}");
                    declare.add(name, shape, Role::Decoder, Init::fan_in(hidden))
                };
                [
                    gates("weight_ih", &[4 * hidden, inputs]),
                    gates("weight_hh", &[4 * hidden, hidden]),
                    gates("bias_ih", &[4 * hidden]),
                    gates("bias_hh", &[4 * hidden]),
                ]
            })
            .collect();
        ShowTell {
            sizes,
            settings,
            fc,
            embedding,
            lstm,
            output: Linear::declare(declare, "output", [vocabulary, hidden]),
        }
    }

    fn layers<'a>(&self, params: &'a Params) -> Vec<lstm::Layer<'a>> {
        let layer = |ids: &[Id; 4]| {
            let [weight_ih, weight_hh, ..] = ids.map(|id| params.operand(id));
            let [.., bias_ih, bias_hh] = ids.map(|id| params.value(id));
            lstm::Layer {
                weight_ih,
                weight_hh,
                bias_ih,
                bias_hh,
            }
        };
        self.lstm.iter().map(layer).collect()
    }

    /// Logits for all T tokens of every caption, from features (B, D). Dropout is on when there is noise.
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    pub fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Activations> {
        let (steps, batch) = (captions.steps(), captions.batch());
        let (sizes, dtype) = (self.sizes, params.operands());
        let x = ctx.empty([steps, batch, sizes.embed], dtype)?;
        self.fc.forward(ctx, params, features, &mut x.index(0)?)?;
        let mut words = x.narrow(1, steps - 1)?;
        let inputs = captions.tokens.narrow(0, steps - 1)?;
        embedding::forward(ctx, params.operand(self.embedding), &inputs, &mut words)?;
        if let Some(noise) = &noise {
            let site = noise.at(EMBEDDING_SITE);
            dropout::in_place(ctx, self.settings.embed_dropout, &site, 1, &mut words)?;
        }
        let between = noise.as_ref().map(|noise| sequence::Dropout {
            p: self.settings.lstm_dropout,
            site: noise.at(LSTM_SITE),
        });
        let lstm = sequence::forward(ctx, &self.layers(params), &x, None, between)?;
        let mut logits = ctx.empty_padded([steps, batch, sizes.vocabulary], dtype)?;
        self.output
            .forward(ctx, params, &lstm.output()?, &mut logits)?;
        Ok(Activations {
            x,
            lstm,
            noise,
            logits,
        })
    }
}

impl Decoder for ShowTell {
    fn features(&self) -> FeatureKind {
        FeatureKind::Average
    }

    fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    fn predicts_start(&self) -> bool {
        true
    }

    /// Mean cross-entropy over all tokens, `<pad>` ignored.
    fn loss(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
    ) -> Result<Losses> {
        let logits = self.forward(ctx, params, features, captions, None)?.logits;
        let mut losses = ctx.empty([logits.rows()], params.dtype())?;
        let mut loss = ctx.empty([1], params.dtype())?;
        cross_entropy::forward(ctx, &logits, &captions.tokens, PAD, &mut losses, &mut loss)?;
        Ok(Losses {
            cross_entropy: loss.clone(),
            loss,
        })
    }

    fn train(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses> {
        let activations = self.forward(ctx, params, features, captions, noise)?;
        self.backward(ctx, params, features, captions, activations, d_features)
    }

    fn start<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Box<dyn Generation + 'a>> {
        Ok(Box::new(self.show(ctx, params, features)?))
    }
}
