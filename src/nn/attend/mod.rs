//! Model 2, attend: an LSTM that looks at the image anew for every word (Xu et al. 2015).
//!
//! Features are C cells of D channels; attention sees P positions, fixed means of cells (position = M · cells,
//! see `ops::attention`), which are never formed. With f̄ the mean over positions:
//!
//! h_0 = W_h f̄ + b_h, c_0 = W_c f̄ + b_c, and for t = 0 … T-2:
//! e_p = w · relu(M (W_ea f + b_ea)_p + W_da h_t + b_da) + b, α = softmax(e), z = Σ α_p (M f)_p,
//! z ← sigmoid(W_β h_t + b_β) ∘ z, (h, c)_{t+1} = LSTMCell([embedding(w_t); z], (h, c)_t),
//! logits_t = W_out dropout(h_{t+1}) + b_out predicts w_{t+1}.
//!
//! Hoisted out of the time loop: the keys W_ea f, the embedding half of the LSTM's input product, the
//! vocabulary product; and in the backward pass every weight gradient, one product each after the loop.

mod backward;

use super::captions::{Captions, Noise, State};
use super::layer::{self, Linear};
use super::params::{Declarations, Id, Init, Params, Role};
use crate::error::Result;
use crate::ops::attention::{self, CellMix};
use crate::ops::{dropout, embedding, gate, lstm};
use crate::tensor::{Context, Shape, Tensor};

/// Where dropout draws its masks.
const OUTPUT_SITE: u32 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// D
    pub features: usize,
    /// A
    pub attention: usize,
    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    /// V
    pub vocabulary: usize,
    pub dropout: f64,
    /// λ, weight of the doubly stochastic regulariser.
    pub regulariser: f64,
    /// How positions are means of cells.
    pub mix: CellMix,
}

pub struct Attend {
    config: Config,
    encoder_att: Linear,
    decoder_att: Linear,
    full_att: Linear,
    embedding: Id,
    /// weight_ih, weight_hh, bias_ih, bias_hh
    cell: [Id; 4],
    init_h: Linear,
    init_c: Linear,
    f_beta: Linear,
    output: Linear,
}

/// What does not change from word to word.
pub struct Image {
    /// f̄ (B, D)
    mean: Tensor,
    /// (B, P, A)
    keys: Tensor,
    /// (B, C, D)
    values: Tensor,
}

/// What the forward pass keeps for the backward pass; S = T-1 steps.
pub struct Activations {
    image: Image,
    /// (S, B, E)
    embedded: Tensor,
    /// Activated gates (S, B, 4H)
    gates: Tensor,
    /// (T, B, H): h_0 … h_S, and c.
    h: Tensor,
    c: Tensor,
    /// (S, B, A)
    query: Tensor,
    /// (S, B, C)
    beta: Tensor,
    /// (S, B, D): context z, its gate, their product.
    context: Tensor,
    gate: Tensor,
    gated: Tensor,
    /// h_1 … h_S after dropout (S, B, H)
    dropped: Tensor,
    noise: Option<Noise>,
    /// α (S, B, P)
    pub alpha: Tensor,
    /// (S, B, V); rows padded.
    pub logits: Tensor,
}

/// What one step reads (`h`, `c`, and the embedding's half of the product in `gates`) and writes.
struct Slot {
    h: Tensor,
    c: Tensor,
    query: Tensor,
    alpha: Tensor,
    beta: Tensor,
    context: Tensor,
    gate: Tensor,
    gated: Tensor,
    gates: Tensor,
    next_h: Tensor,
    next_c: Tensor,
}

impl Attend {
    /// Declares the parameters under the reference's names. Embedding and output weights start uniform in
    /// ±0.1, the output bias at 0, all else with PyTorch's defaults.
    pub fn declare(config: Config, declare: &mut Declarations) -> Self {
        let Config {
            features,
            attention,
            embed,
            hidden,
            vocabulary,
            ..
        } = config;
        let mut add =
            |name: &str, shape: &[usize], init| declare.add(name, shape, Role::Decoder, init);
        let fan_in = |n: usize| Init::Uniform(1.0 / (n as f64).sqrt());
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            [
                add(
                    &format!("{name}.weight"),
                    &[outputs, inputs],
                    fan_in(inputs),
                ),
                add(&format!("{name}.bias"), &[outputs], fan_in(inputs)),
            ]
        };
        Attend {
            config,
            encoder_att: linear("encoder_att", attention, features),
            decoder_att: linear("decoder_att", attention, hidden),
            full_att: linear("full_att", 1, attention),
            init_h: linear("init_h", hidden, features),
            init_c: linear("init_c", hidden, features),
            f_beta: linear("f_beta", features, hidden),
            embedding: add("embedding.weight", &[vocabulary, embed], Init::Uniform(0.1)),
            cell: [
                ("weight_ih", vec![4 * hidden, embed + features]),
                ("weight_hh", vec![4 * hidden, hidden]),
                ("bias_ih", vec![4 * hidden]),
                ("bias_hh", vec![4 * hidden]),
            ]
            .map(|(name, shape)| add(&format!("decode_step.{name}"), &shape, fan_in(hidden))),
            output: [
                add("output.weight", &[vocabulary, hidden], Init::Uniform(0.1)),
                add("output.bias", &[vocabulary], Init::Constant(0.0)),
            ],
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The columns of the cell's input weight that read the embedding, and those that read the context.
    fn split_inputs(&self, weight: &Tensor) -> Result<[Tensor; 2]> {
        let Config {
            embed, features, ..
        } = self.config;
        Ok([weight.columns(0, embed)?, weight.columns(embed, features)?])
    }

    /// Prepares features (B, C, D) for the time loop.
    pub fn look(&self, ctx: &Context, params: &Params, features: &Tensor) -> Result<Image> {
        let Config { attention, mix, .. } = self.config;
        let (batch, dtype) = (features.shape().dims()[0], params.dtype());
        let mut mean = ctx.empty([batch, self.config.features], dtype)?;
        attention::mean_forward(ctx, &mix, features, &mut mean)?;
        let mut keys = ctx.empty([batch, mix.positions(), attention], dtype)?;
        ctx.scope(|| {
            let mut cells = ctx.empty([batch, mix.cells(), attention], dtype)?;
            layer::forward(ctx, params, self.encoder_att, features, &mut cells)?;
            attention::mix_forward(ctx, &mix, &cells, &mut keys)
        })?;
        Ok(Image {
            mean,
            keys,
            values: features.clone(),
        })
    }

    fn inputs<'a>(&'a self, params: &'a Params, image: &'a Image) -> attention::Inputs<'a> {
        let [weight, bias] = self.full_att.map(|id| params.value(id));
        attention::Inputs {
            mix: &self.config.mix,
            keys: &image.keys,
            values: &image.values,
            weight,
            bias,
        }
    }

    /// Logits for every token but the first of every caption. Dropout is on when there is noise.
    pub fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Activations> {
        let (steps, batch, dtype) = (captions.steps() - 1, captions.batch(), params.dtype());
        let config = &self.config;
        let room = |entries, cols| ctx.empty([entries, batch, cols], dtype);
        let mut a = Activations {
            image: self.look(ctx, params, features)?,
            embedded: room(steps, config.embed)?,
            gates: room(steps, 4 * config.hidden)?,
            h: room(steps + 1, config.hidden)?,
            c: room(steps + 1, config.hidden)?,
            query: room(steps, config.attention)?,
            beta: room(steps, config.mix.cells())?,
            context: room(steps, config.features)?,
            gate: room(steps, config.features)?,
            gated: room(steps, config.features)?,
            dropped: room(steps, config.hidden)?,
            noise,
            alpha: room(steps, config.mix.positions())?,
            logits: ctx.empty_padded([steps, batch, config.vocabulary], dtype)?,
        };
        let words = captions.tokens.narrow(0, steps)?;
        embedding::forward(ctx, params.value(self.embedding), &words, &mut a.embedded)?;
        let [weight_ih, _, bias_ih, bias_hh] = self.cell.map(|id| params.value(id));
        let [of_embedding, _] = self.split_inputs(weight_ih)?;
        lstm::input_gates(
            ctx,
            &a.embedded,
            &of_embedding,
            bias_ih,
            bias_hh,
            &mut a.gates,
        )?;
        layer::forward(ctx, params, self.init_h, &a.image.mean, &mut a.h.index(0)?)?;
        layer::forward(ctx, params, self.init_c, &a.image.mean, &mut a.c.index(0)?)?;
        for t in 0..steps {
            self.forward_step(ctx, params, &a.image, &mut a.slot(t)?)?;
        }
        let h = a.h.narrow(1, steps)?;
        match &a.noise {
            Some(noise) => {
                let site = noise.at(OUTPUT_SITE);
                dropout::forward(ctx, config.dropout, &site, 0, &h, &mut a.dropped)?;
            }
            None => a.dropped = h,
        }
        layer::forward(ctx, params, self.output, &a.dropped, &mut a.logits)?;
        Ok(a)
    }

    /// One word.
    fn forward_step(
        &self,
        ctx: &Context,
        params: &Params,
        image: &Image,
        slot: &mut Slot,
    ) -> Result<()> {
        layer::forward(ctx, params, self.decoder_att, &slot.h, &mut slot.query)?;
        let outputs = attention::Outputs {
            alpha: &mut slot.alpha,
            beta: &mut slot.beta,
            context: &mut slot.context,
        };
        attention::forward(ctx, self.inputs(params, image), &slot.query, outputs)?;
        layer::forward(ctx, params, self.f_beta, &slot.h, &mut slot.gate)?;
        gate::forward(ctx, &mut slot.gate, &slot.context, &mut slot.gated)?;
        let [weight_ih, weight_hh, ..] = self.cell.map(|id| params.value(id));
        let [_, of_context] = self.split_inputs(weight_ih)?;
        let inputs = [(&slot.gated, &of_context), (&slot.h, weight_hh)];
        let inputs = inputs.map(|(x, weight)| lstm::Input { x, weight });
        let (c, h) = (&mut slot.next_c, &mut slot.next_h);
        lstm::step_forward(ctx, &inputs, &mut slot.gates, &slot.c, c, h)
    }

    /// The state before the first word.
    pub fn start(&self, ctx: &Context, params: &Params, image: &Image) -> Result<State> {
        let shape = [image.mean.rows(), self.config.hidden];
        let mut state = State {
            h: ctx.empty(shape, params.dtype())?,
            c: ctx.empty(shape, params.dtype())?,
        };
        layer::forward(ctx, params, self.init_h, &image.mean, &mut state.h)?;
        layer::forward(ctx, params, self.init_c, &image.mean, &mut state.c)?;
        Ok(state)
    }

    /// Reads one word an image, `words` (B): the next state, logits (B, V) for the following token, and the
    /// attention α (B, P) it was chosen under.
    #[allow(clippy::too_many_arguments)] // what a step reads, then what it writes
    pub fn step(
        &self,
        ctx: &Context,
        params: &Params,
        image: &Image,
        words: &Tensor,
        state: &State,
        next: &mut State,
        logits: &mut Tensor,
        alpha: &mut Tensor,
    ) -> Result<()> {
        let (batch, dtype, config) = (words.len(), params.dtype(), &self.config);
        ctx.scope(|| {
            let room = |cols| ctx.empty([batch, cols], dtype);
            let mut embedded = room(config.embed)?;
            embedding::forward(ctx, params.value(self.embedding), words, &mut embedded)?;
            let mut slot = Slot {
                h: state.h.clone(),
                c: state.c.clone(),
                query: room(config.attention)?,
                alpha: alpha.clone(),
                beta: room(config.mix.cells())?,
                context: room(config.features)?,
                gate: room(config.features)?,
                gated: room(config.features)?,
                gates: room(4 * config.hidden)?,
                next_h: next.h.clone(),
                next_c: next.c.clone(),
            };
            let [weight_ih, _, bias_ih, bias_hh] = self.cell.map(|id| params.value(id));
            let [of_embedding, _] = self.split_inputs(weight_ih)?;
            lstm::input_gates(
                ctx,
                &embedded,
                &of_embedding,
                bias_ih,
                bias_hh,
                &mut slot.gates,
            )?;
            self.forward_step(ctx, params, image, &mut slot)?;
            layer::forward(ctx, params, self.output, &next.h, logits)
        })
    }
}

impl Image {
    /// Image r becomes image `rows[r]` of these: for several sentences about the same one.
    pub fn gather(&self, ctx: &Context, rows: &Tensor) -> Result<Image> {
        let gathered = |x: &Tensor| {
            let (mut shape, batch) = (x.shape().dims().to_vec(), self.mean.rows());
            let entry = x.len() / batch;
            let mut y = ctx.empty([rows.len(), entry], x.dtype())?;
            embedding::forward(ctx, &x.reshape([batch, entry])?, rows, &mut y)?;
            shape[0] = rows.len();
            y.reshape(Shape::new(&shape))
        };
        Ok(Image {
            mean: gathered(&self.mean)?,
            keys: gathered(&self.keys)?,
            values: gathered(&self.values)?,
        })
    }
}

impl Activations {
    /// The part of every tensor that step t reads and writes.
    fn slot(&self, t: usize) -> Result<Slot> {
        Ok(Slot {
            h: self.h.index(t)?,
            c: self.c.index(t)?,
            query: self.query.index(t)?,
            alpha: self.alpha.index(t)?,
            beta: self.beta.index(t)?,
            context: self.context.index(t)?,
            gate: self.gate.index(t)?,
            gated: self.gated.index(t)?,
            gates: self.gates.index(t)?,
            next_h: self.h.index(t + 1)?,
            next_c: self.c.index(t + 1)?,
        })
    }
}
