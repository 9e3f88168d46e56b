//! Model 1, show-tell: the image is the first word an LSTM reads (Vinyals et al. 2015).
//!
//! x_0 = W_fc f + b_fc, x_t = dropout(embedding(w_{t-1})) for t = 1 … T-1; an LSTM of L layers runs over x;
//! logits_t = W_out h_t + b_out predicts w_t, `<sos>` included. f (B, D) are pooled encoder features.

use super::captions::{Captions, Losses, Noise, PAD, State};
use super::layer::{self, Linear};
use super::params::{Declarations, Id, Init, Params, Role};
use crate::error::Result;
use crate::ops::lstm::{self, sequence};
use crate::ops::{Accumulate, cross_entropy, dropout, embedding, fill};
use crate::tensor::{Context, Tensor};

/// Places where dropout draws its masks.
const EMBEDDING_SITE: u32 = 0;
const LSTM_SITE: u32 = 16;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// D
    pub features: usize,
    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    pub layers: usize,
    /// V
    pub vocabulary: usize,
    pub embed_dropout: f64,
    pub lstm_dropout: f64,
}

pub struct ShowTell {
    config: Config,
    fc: Linear,
    embedding: Id,
    lstm: Vec<[Id; 4]>,
    output: Linear,
}

/// What the forward pass keeps for the backward pass.
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
    pub fn declare(config: Config, declare: &mut Declarations) -> Self {
        let Config {
            features,
            embed,
            hidden,
            vocabulary,
            ..
        } = config;
        let mut add =
            |name: String, shape: &[usize], init| declare.add(name, shape, Role::Decoder, init);
        let fan_in = |n: usize| Init::Uniform(1.0 / (n as f64).sqrt());
        let fc = [
            add(
                "encoder.fc.weight".into(),
                &[embed, features],
                fan_in(features),
            ),
            add("encoder.fc.bias".into(), &[embed], fan_in(features)),
        ];
        let embedding = add(
            "embedding.weight".into(),
            &[vocabulary, embed],
            Init::Embedding,
        );
        let lstm = (0..config.layers)
            .map(|layer| {
                let inputs = if layer == 0 { embed } else { hidden };
                let mut gates = |name: &str, shape: &[usize]| {
                    add(format!("lstm.{name}_l{layer}"), shape, fan_in(hidden))
                };
                [
                    gates("weight_ih", &[4 * hidden, inputs]),
                    gates("weight_hh", &[4 * hidden, hidden]),
                    gates("bias_ih", &[4 * hidden]),
                    gates("bias_hh", &[4 * hidden]),
                ]
            })
            .collect();
        let output = [
            add(
                "output.weight".into(),
                &[vocabulary, hidden],
                fan_in(hidden),
            ),
            add("output.bias".into(), &[vocabulary], fan_in(hidden)),
        ];
        ShowTell {
            config,
            fc,
            embedding,
            lstm,
            output,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    fn layers<'a>(&self, params: &'a Params) -> Vec<lstm::Layer<'a>> {
        let layer = |ids: &[Id; 4]| {
            let [weight_ih, weight_hh, bias_ih, bias_hh] = ids.map(|id| params.value(id));
            lstm::Layer {
                weight_ih,
                weight_hh,
                bias_ih,
                bias_hh,
            }
        };
        self.lstm.iter().map(layer).collect()
    }

    /// Logits for all T tokens of every caption. Dropout is on when there is noise.
    pub fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Activations> {
        let (steps, batch) = (captions.steps(), captions.batch());
        let (config, dtype) = (&self.config, params.dtype());
        let x = ctx.empty([steps, batch, config.embed], dtype)?;
        layer::forward(ctx, params, self.fc, features, &mut x.index(0)?)?;
        let mut words = x.narrow(1, steps - 1)?;
        let inputs = captions.tokens.narrow(0, steps - 1)?;
        embedding::forward(ctx, params.value(self.embedding), &inputs, &mut words)?;
        if let Some(noise) = &noise {
            let site = noise.at(EMBEDDING_SITE);
            dropout::in_place(ctx, config.embed_dropout, &site, 1, &mut words)?;
        }
        let between = noise.as_ref().map(|noise| sequence::Dropout {
            p: config.lstm_dropout,
            site: noise.at(LSTM_SITE),
        });
        let lstm = sequence::forward(ctx, &self.layers(params), &x, None, between)?;
        let mut logits = ctx.empty_padded([steps, batch, config.vocabulary], dtype)?;
        layer::forward(ctx, params, self.output, &lstm.output()?, &mut logits)?;
        Ok(Activations {
            x,
            lstm,
            noise,
            logits,
        })
    }

    /// Mean cross-entropy over all tokens, `<pad>` ignored.
    pub fn loss(
        &self,
        ctx: &Context,
        captions: &Captions,
        activations: &Activations,
    ) -> Result<Losses> {
        let logits = &activations.logits;
        let mut losses = ctx.empty([logits.rows()], logits.dtype())?;
        let mut loss = ctx.empty([1], logits.dtype())?;
        cross_entropy::forward(ctx, logits, &captions.tokens, PAD, &mut losses, &mut loss)?;
        Ok(Losses {
            cross_entropy: loss.clone(),
            loss,
        })
    }

    /// The loss, and every gradient written to the arena; `d_features` (B, D) too when wanted. Consumes the
    /// activations: the logits become their gradient.
    pub fn backward(
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
        layer::backward(ctx, params, self.output, &h, d_logits, Some(&mut d_h))?;

        let mut d_x = ctx.empty(activations.x.shape(), dtype)?;
        let mut gradients: Vec<[Tensor; 4]> = (self.lstm.iter())
            .map(|ids| ids.map(|id| params.gradient(id)))
            .collect();
        let layers = gradients
            .iter_mut()
            .map(
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
        sequence::backward(
            ctx,
            &layers,
            &activations.x,
            saved,
            &d_h,
            Accumulate::No,
            wanted,
        )?;

        let mut d_words = d_x.narrow(1, steps - 1)?;
        if let Some(noise) = &activations.noise {
            let site = noise.at(EMBEDDING_SITE);
            dropout::in_place(ctx, self.config.embed_dropout, &site, 1, &mut d_words)?;
        }
        let inputs = tokens.narrow(0, steps - 1)?;
        let mut d_embedding = params.gradient(self.embedding);
        let no = Accumulate::No;
        embedding::backward(ctx, &inputs, &d_words, Some(PAD), no, &mut d_embedding)?;
        layer::backward(ctx, params, self.fc, features, &d_x.index(0)?, d_features)?;
        Ok(Losses {
            cross_entropy: loss.clone(),
            loss,
        })
    }

    /// Shows the image to the LSTM: the state after it, and logits (B, V) for the first token.
    pub fn start(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        logits: &mut Tensor,
    ) -> Result<State> {
        let (config, dtype) = (&self.config, params.dtype());
        let batch = features.rows();
        let mut x = ctx.empty([batch, config.embed], dtype)?;
        layer::forward(ctx, params, self.fc, features, &mut x)?;
        let shape = [config.layers, batch, config.hidden];
        let mut zero = State {
            h: ctx.empty(shape, dtype)?,
            c: ctx.empty(shape, dtype)?,
        };
        fill::zero(ctx, &mut zero.h)?;
        fill::zero(ctx, &mut zero.c)?;
        let mut next = zero.empty_like(ctx)?;
        self.advance(ctx, params, &x, &zero, &mut next, logits)?;
        Ok(next)
    }

    /// Reads one word an image, `words` (B): the next state, and logits (B, V) for the following token.
    pub fn step(
        &self,
        ctx: &Context,
        params: &Params,
        words: &Tensor,
        state: &State,
        next: &mut State,
        logits: &mut Tensor,
    ) -> Result<()> {
        let mut x = ctx.empty([words.len(), self.config.embed], params.dtype())?;
        embedding::forward(ctx, params.value(self.embedding), words, &mut x)?;
        self.advance(ctx, params, &x, state, next, logits)
    }

    fn advance(
        &self,
        ctx: &Context,
        params: &Params,
        x: &Tensor,
        state: &State,
        next: &mut State,
        logits: &mut Tensor,
    ) -> Result<()> {
        let from = lstm::State {
            h: &state.h,
            c: &state.c,
        };
        let to = lstm::StateMut {
            h: &mut next.h,
            c: &mut next.c,
        };
        lstm::step(ctx, &self.layers(params), x, from, to)?;
        let top = next.h.index(self.config.layers - 1)?;
        layer::forward(ctx, params, self.output, &top, logits)
    }
}
