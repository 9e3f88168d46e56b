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
//! vocabulary product; and in the backward pass every weight gradient, one product each after the loop. What reads h_t, the
//! query W_da h + b_da and the gate W_β h + b_β, is one product each way; so is what the gradient of the LSTM's gates reaches, the
//! gated context and h.

mod backward;
mod generation;
mod settings;
mod walk;

pub use settings::{ATTEND, Settings};

use super::architecture::Sizes;
use super::captions::{Captions, Losses};
use super::decoder::{Decoder, FeatureKind, Generation};
use crate::error::Result;
use crate::nn::linear::{Linear, LinearPair};
use crate::nn::noise::Noise;
use crate::nn::params::{Declarations, Id, Init, Joined, Params, Role};
use crate::ops::attention::{self, CellMix};
use crate::ops::{dropout, embedding, gate, lstm};
use crate::tensor::{Context, Tensor};

/// Where dropout draws its masks.
const OUTPUT_SITE: u32 = 1;

/// The decoder: its sizes and settings, and where its parameters are.
pub struct Attend {
    sizes: Sizes,
    settings: Settings,
    /// How positions are means of cells.
    mix: CellMix,
    encoder_att: Linear,
    /// decoder_att and f_beta: query and gate.
    of_h: LinearPair,
    full_att: Linear,
    embedding: Id,
    /// weight_ih, weight_hh, bias_ih, bias_hh
    cell: [Id; 4],
    /// weight_ih and weight_hh, side by side.
    cell_weights: Joined,
    init_h: Linear,
    init_c: Linear,
    output: Linear,
}

/// What does not change from word to word; all of the type of the operands of products, as features are.
pub struct Image {
    /// f̄ (B, D)
    mean: Tensor,
    /// (B, P, A)
    keys: Tensor,
    /// (B, C, D)
    values: Tensor,
}

/// What the forward pass keeps for the backward pass; S = T-1 steps. What products read is of the type of their operands, and so are
/// the logits; all else of that of the parameters.
pub struct Activations {
    image: Image,
    /// (S, B, E)
    embedded: Tensor,
    /// Activated gates (S, B, 4H)
    gates: Tensor,
    /// (T, B, H): h_0 … h_S, and c.
    h: Tensor,
    c: Tensor,
    /// (S, B, A + D): query and gate
    of_h: Tensor,
    /// (S, B, C)
    beta: Tensor,
    /// (S, B, D): context z, and its product with the gate.
    context: Tensor,
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
    of_h: Tensor,
    alpha: Tensor,
    beta: Tensor,
    context: Tensor,
    gated: Tensor,
    gates: Tensor,
    next_h: Tensor,
    next_c: Tensor,
}

impl Attend {
    /// Declares the parameters under the reference's names. Embedding and output weights start uniform in
    /// ±0.1, the output bias at 0, all else with PyTorch's defaults.
    ///
    /// A map that is larger than the grid of positions is averaged to it before the decoder reads it; a smaller one
    /// stays as it is, and the decoder mixes the positions out of its cells.
    ///
    /// # Errors
    /// When there are no cells or no positions.
    pub fn declare(settings: Settings, sizes: Sizes, declare: &mut Declarations) -> Result<Self> {
        let (attention, positions) = (settings.attention, settings.positions);
        let cells = sizes.map.map(|side| side.min(positions));
        let mix = CellMix::new(cells, [positions; 2])?;
        let (features, embed) = (sizes.features, sizes.embed);
        let (hidden, vocabulary) = (sizes.hidden, sizes.vocabulary);
        let mut linear = |name: &str, sizes| Linear::declare(declare, name, sizes);
        let encoder_att = linear("encoder_att", [attention, features]);
        let decoder_att = linear("decoder_att", [attention, hidden]);
        let full_att = linear("full_att", [1, attention]);
        let init_h = linear("init_h", [hidden, features]);
        let init_c = linear("init_c", [hidden, features]);
        let f_beta = linear("f_beta", [features, hidden]);
        let mut add =
            |name: &str, shape: &[usize], init| declare.add(name, shape, Role::Decoder, init);
        let words = Init::Uniform(0.1);
        let embedding = add("embedding.weight", &[vocabulary, embed], words);
        let gates = 4 * hidden;
        let cell = [
            ("weight_ih", &[gates, embed + features][..]),
            ("weight_hh", &[gates, hidden]),
            ("bias_ih", &[gates]),
            ("bias_hh", &[gates]),
        ];
        let cell = cell
            .map(|(name, shape)| add(&format!("decode_step.{name}"), shape, Init::fan_in(hidden)));
        let of_h = LinearPair::new(declare, decoder_att, f_beta)?;
        let cell_weights = declare.beside(cell[0], cell[1])?;
        let (shape, inits) = ([vocabulary, hidden], [words, Init::Constant(0.0)]);
        Ok(Attend {
            sizes,
            settings,
            mix,
            encoder_att,
            of_h,
            full_att,
            embedding,
            cell,
            cell_weights,
            init_h,
            init_c,
            output: Linear::with_init(declare, "output", shape, inits),
        })
    }

    /// The columns of the cell's input weight that read the embedding, and those that read the context.
    fn split_inputs(&self, weight: &Tensor) -> Result<[Tensor; 2]> {
        let (embed, features) = (self.sizes.embed, self.sizes.features);
        Ok([weight.columns(0, embed)?, weight.columns(embed, features)?])
    }

    /// The columns of the cell's weights that read the gated context and h, the padding between them included.
    fn cell_inputs(&self, params: &Params) -> Result<Tensor> {
        let weights = params.joined_operand(self.cell_weights)?;
        weights.columns(self.sizes.embed, weights.cols() - self.sizes.embed)
    }

    /// What belongs to the gated context (B, D) and to h (B, H) in a tensor with the columns of [`Attend::cell_inputs`].
    fn split_cell_inputs(&self, inputs: &Tensor) -> Result<[Tensor; 2]> {
        let hidden = self.sizes.hidden;
        let of_context = inputs.columns(0, self.sizes.features)?;
        Ok([of_context, inputs.columns(inputs.cols() - hidden, hidden)?])
    }

    /// Query (…, A) and gate (…, D) of what is computed from h.
    fn split_of_h(&self, of_h: &Tensor) -> Result<[Tensor; 2]> {
        let (attention, features) = (self.settings.attention, self.sizes.features);
        Ok([
            of_h.columns(0, attention)?,
            of_h.columns(attention, features)?,
        ])
    }

    /// Prepares features (B, C, D) for the time loop.
    pub fn look(&self, ctx: &Context, params: &Params, features: &Tensor) -> Result<Image> {
        let (attention, mix) = (self.settings.attention, self.mix);
        let (batch, dtype) = (features.shape().dims()[0], params.operands());
        let mut mean = ctx.empty([batch, self.sizes.features], dtype)?;
        attention::mean_forward(ctx, &mix, features, &mut mean)?;
        let mut keys = ctx.empty([batch, mix.positions(), attention], dtype)?;
        ctx.scope(|| {
            let mut cells = ctx.empty([batch, mix.cells(), attention], params.dtype())?;
            self.encoder_att
                .forward(ctx, params, features, &mut cells)?;
            attention::mix_forward(ctx, &mix, &cells, &mut keys)
        })?;
        Ok(Image {
            mean,
            keys,
            values: features.clone(),
        })
    }

    fn inputs<'a>(&'a self, params: &'a Params, image: &'a Image) -> attention::Inputs<'a> {
        attention::Inputs {
            mix: &self.mix,
            keys: &image.keys,
            values: &image.values,
            weight: params.value(self.full_att.weight),
            bias: params.value(self.full_att.bias),
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
        let (steps, batch) = (captions.steps() - 1, captions.batch());
        let (sizes, settings) = (self.sizes, &self.settings);
        let room = |entries, cols| ctx.empty([entries, batch, cols], params.dtype());
        let operand = |entries, cols| ctx.empty([entries, batch, cols], params.operands());
        let mut a = Activations {
            image: self.look(ctx, params, features)?,
            embedded: operand(steps, sizes.embed)?,
            gates: room(steps, 4 * sizes.hidden)?,
            h: operand(steps + 1, sizes.hidden)?,
            c: room(steps + 1, sizes.hidden)?,
            of_h: room(steps, settings.attention + sizes.features)?,
            beta: room(steps, self.mix.cells())?,
            context: room(steps, sizes.features)?,
            gated: operand(steps, sizes.features)?,
            dropped: operand(steps, sizes.hidden)?,
            noise,
            alpha: room(steps, self.mix.positions())?,
            logits: ctx.empty_padded([steps, batch, sizes.vocabulary], params.operands())?,
        };
        let words = captions.tokens.narrow(0, steps)?;
        embedding::forward(ctx, params.operand(self.embedding), &words, &mut a.embedded)?;
        self.input_gates(ctx, params, &a.embedded, &mut a.gates)?;
        let mean = &a.image.mean;
        self.init_h.forward(ctx, params, mean, &mut a.h.index(0)?)?;
        self.init_c.forward(ctx, params, mean, &mut a.c.index(0)?)?;
        for t in 0..steps {
            self.forward_step(ctx, params, &a.image, &mut a.slot(t)?)?;
        }
        let h = a.h.narrow(1, steps)?;
        match &a.noise {
            Some(noise) => {
                let site = noise.at(OUTPUT_SITE);
                dropout::forward(ctx, settings.dropout, &site, 0, &h, &mut a.dropped)?;
            }
            None => a.dropped = h,
        }
        self.output
            .forward(ctx, params, &a.dropped, &mut a.logits)?;
        Ok(a)
    }

    /// What the embedding of a word adds to the gates.
    fn input_gates(
        &self,
        ctx: &Context,
        params: &Params,
        embedded: &Tensor,
        gates: &mut Tensor,
    ) -> Result<()> {
        let [weight_ih, _, bias_ih, bias_hh] = self.cell;
        let [of_embedding, _] = self.split_inputs(params.operand(weight_ih))?;
        let [bias_ih, bias_hh] = [bias_ih, bias_hh].map(|id| params.value(id));
        lstm::input_gates(ctx, embedded, &of_embedding, bias_ih, bias_hh, gates)
    }

    /// One word.
    fn forward_step(
        &self,
        ctx: &Context,
        params: &Params,
        image: &Image,
        slot: &mut Slot,
    ) -> Result<()> {
        self.of_h.forward(ctx, params, &slot.h, &mut slot.of_h)?;
        let [query, mut gate] = self.split_of_h(&slot.of_h)?;
        let outputs = attention::Outputs {
            alpha: &mut slot.alpha,
            beta: &mut slot.beta,
            context: &mut slot.context,
        };
        attention::forward(ctx, self.inputs(params, image), &query, outputs)?;
        gate::forward(ctx, &mut gate, &slot.context, &mut slot.gated)?;
        let [weight_ih, weight_hh, ..] = self.cell.map(|id| params.operand(id));
        let [_, of_context] = self.split_inputs(weight_ih)?;
        let inputs = [(&slot.gated, &of_context), (&slot.h, weight_hh)];
        let inputs = inputs.map(|(x, weight)| lstm::Input { x, weight });
        let (c, h) = (&mut slot.next_c, &mut slot.next_h);
        lstm::step_forward(ctx, &inputs, &mut slot.gates, &slot.c, c, h)
    }
}

impl Activations {
    /// The part of every tensor that step t reads and writes.
    fn slot(&self, t: usize) -> Result<Slot> {
        Ok(Slot {
            h: self.h.index(t)?,
            c: self.c.index(t)?,
            of_h: self.of_h.index(t)?,
            alpha: self.alpha.index(t)?,
            beta: self.beta.index(t)?,
            context: self.context.index(t)?,
            gated: self.gated.index(t)?,
            gates: self.gates.index(t)?,
            next_h: self.h.index(t + 1)?,
            next_c: self.c.index(t + 1)?,
        })
    }
}

impl Decoder for Attend {
    fn features(&self) -> FeatureKind {
        let [[rows, columns], _] = self.mix.grids();
        FeatureKind::Cells { rows, columns }
    }

    fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    fn attention_grid(&self) -> Option<[usize; 2]> {
        let [_, positions] = self.mix.grids();
        Some(positions)
    }

    /// Mean cross-entropy over all tokens but the first, `<pad>` ignored, plus the regulariser.
    fn loss(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
    ) -> Result<Losses> {
        let activations = self.forward(ctx, params, features, captions, None)?;
        self.losses(ctx, captions, &activations)
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
        self.backward(ctx, params, captions, activations, d_features)
    }

    fn start<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Box<dyn Generation + 'a>> {
        Ok(Box::new(self.begin(ctx, params, features)?))
    }
}
