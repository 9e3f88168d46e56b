//! The decoder: a gated convolution over the last words. It has no recurrent state, but a cache of their embeddings.
//!
//! ```text
//! x_t = embedding(w_t), zero before the sentence
//! u_t = W_f f + b_f + Σ_{k<K} W_k x_{t-k}
//! g_t = σ(W_g x_t + b_g)
//! h_t = dropout(g_t ∘ u_t), logits_t = W_o h_t + b_o predicts w_{t+1}
//! ```
//!
//! f (B, D) are pooled features of the image; K is the setting `window`. What products of matrices read (x, h, dg, du and the
//! weights) has the type of `Params::operands`, which a GPU may compute with in bf16; sums have that of the parameters.

use showtell::data::vocabulary::{PAD, SOS};
use showtell::model::architecture::{Architecture, Sizes, VocabularyOf};
use showtell::model::{Captions, Decoder, FeatureKind, Generation, Losses, Model};
use showtell::nn::linear::Linear;
use showtell::nn::noise::Noise;
use showtell::nn::params::{Declarations, Id, Init, Params, Role};
use showtell::nn::state::{select_rows, selected_rows};
use showtell::ops::gemm::{self, Factor};
use showtell::ops::{Accumulate, add, copy, cross_entropy, dropout, embedding, fill, gate};
use showtell::settings::{integer, number};
use showtell::{Context, DType, Result, Tensor};

showtell::settings! {
    /// The settings that only this decoder has.
    pub struct Settings {}
    "Decoder window" {
        /// How many of the last words are read (K)
        window: usize = integer(1).default("2");
        /// Dropout before words are scored: the share of elements set to 0
        window_dropout: f64 = number(0.0, 1.0).default("0.1").value_name("P");
    }
}

pub const WINDOW: Model = &Architecture {
    name: "window",
    help: "A gated convolution over the last words",
    settings: Settings::SETTINGS,
    defaults: &[
        ("encoder-blocks", "1,1"),
        ("embed", "16"),
        ("hidden", "32"),
        ("optimizer", "adam"),
        ("lr", "2e-2"),
        ("weight-decay", "0"),
        ("schedule-factor", "0.5"),
        ("schedule-from", "10"),
        ("batch-size", "6"),
        ("epochs", "30"),
    ],
    vocabulary: VocabularyOf::TrainingCaptions,
    declare: |own, sizes, declare| {
        let settings = Settings::read(own)?;
        Ok(Box::new(Window::new(&settings, sizes, declare)))
    },
};

/// Where dropout draws its masks.
const SITE: u32 = 0;

pub struct Window {
    sizes: Sizes,
    dropout: f64,
    embedding: Id,
    /// W_f, b_f
    image: Linear,
    /// W_0 … W_{K-1} (H, E)
    lags: Vec<Id>,
    /// W_g, b_g
    gate: Linear,
    /// W_o, b_o
    output: Linear,
}

/// What the forward pass keeps for the backward pass; S = T-1 steps.
struct Activations {
    /// (S, B, E)
    x: Tensor,
    /// (S, B, H)
    u: Tensor,
    g: Tensor,
    h: Tensor,
    /// (S, B, V); rows padded.
    logits: Tensor,
    noise: Option<Noise>,
}

impl Window {
    pub fn new(settings: &Settings, sizes: Sizes, declare: &mut Declarations) -> Self {
        let Sizes {
            features,
            embed,
            hidden,
            vocabulary,
            ..
        } = sizes;
        let words = [vocabulary, embed];
        let lag = |k: usize, declare: &mut Declarations| {
            let init = Init::fan_in(settings.window * embed);
            declare.add(format!("window.{k}"), &[hidden, embed], Role::Decoder, init)
        };
        Window {
            sizes,
            dropout: settings.window_dropout,
            embedding: declare.add("embedding.weight", &words, Role::Decoder, Init::Embedding),
            image: Linear::declare(declare, "image", [hidden, features]),
            lags: (0..settings.window).map(|k| lag(k, declare)).collect(),
            gate: Linear::declare(declare, "gate", [hidden, embed]),
            output: Linear::declare(declare, "output", [vocabulary, hidden]),
        }
    }

    /// u += W_k x, the words being `k` steps back.
    fn add_lag(
        &self,
        ctx: &Context,
        params: &Params,
        k: usize,
        x: &Tensor,
        u: &mut Tensor,
    ) -> Result<()> {
        let weight = Factor::Transposed(params.operand(self.lags[k]));
        gemm::forward(ctx, Factor::Plain(x), weight, Accumulate::Yes, u)
    }

    fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Activations> {
        let (steps, batch) = (captions.steps() - 1, captions.batch());
        let Sizes {
            embed,
            hidden,
            vocabulary,
            ..
        } = self.sizes;
        let sums = |cols| ctx.empty([steps, batch, cols], params.dtype());
        let operand = |cols| ctx.empty([steps, batch, cols], params.operands());
        let (u, mut g) = (sums(hidden)?, sums(hidden)?);
        let (mut x, mut h) = (operand(embed)?, operand(hidden)?);
        let words = captions.tokens.narrow(0, steps)?;
        embedding::forward(ctx, params.operand(self.embedding), &words, &mut x)?;
        for t in 0..steps {
            self.image
                .forward(ctx, params, features, &mut u.index(t)?)?;
        }
        for k in 0..self.lags.len().min(steps) {
            let (from, mut to) = (x.narrow(0, steps - k)?, u.narrow(k, steps - k)?);
            self.add_lag(ctx, params, k, &from, &mut to)?;
        }
        self.gate.forward(ctx, params, &x, &mut g)?;
        gate::forward(ctx, &mut g, &u, &mut h)?;
        if let Some(noise) = &noise {
            dropout::in_place(ctx, self.dropout, &noise.at(SITE), 0, &mut h)?;
        }
        let mut logits = ctx.empty_padded([steps, batch, vocabulary], params.operands())?;
        self.output.forward(ctx, params, &h, &mut logits)?;
        Ok(Activations {
            x,
            u,
            g,
            h,
            logits,
            noise,
        })
    }

    fn backward(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        mut a: Activations,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses> {
        let steps = captions.steps() - 1;
        let sums = |like: &Tensor| ctx.empty(like.shape(), params.dtype());
        let operand = |like: &Tensor| ctx.empty(like.shape(), params.operands());
        let mut losses = ctx.empty([a.logits.rows()], params.dtype())?;
        let mut loss = ctx.empty([1], params.dtype())?;
        let targets = captions.tokens.narrow(1, steps)?;
        cross_entropy::forward_backward(ctx, &mut a.logits, &targets, PAD, &mut losses, &mut loss)?;
        let (mut d_h, mut d_u, mut d_x) = (sums(&a.h)?, sums(&a.u)?, sums(&a.x)?);
        let (mut d_g, mut rounded) = (operand(&a.g)?, operand(&a.u)?);
        self.output
            .backward(ctx, params, &a.h, &a.logits, Some(&mut d_h))?;
        if let Some(noise) = &a.noise {
            dropout::in_place(ctx, self.dropout, &noise.at(SITE), 0, &mut d_h)?;
        }
        gate::backward(ctx, &a.g, &a.u, &d_h, &mut d_g, &mut d_u)?;
        copy::forward(ctx, &d_u, &mut rounded)?;
        self.gate
            .backward(ctx, params, &a.x, &d_g, Some(&mut d_x))?;
        for (k, &lag) in self.lags.iter().enumerate() {
            let mut d_weight = params.gradient(lag);
            if k >= steps {
                fill::zero(ctx, &mut d_weight)?;
                continue;
            }
            let (x, d_y) = (a.x.narrow(0, steps - k)?, rounded.narrow(k, steps - k)?);
            let mut d_x = d_x.narrow(0, steps - k)?;
            let weight = Factor::Plain(params.operand(lag));
            gemm::forward(ctx, Factor::Plain(&d_y), weight, Accumulate::Yes, &mut d_x)?;
            let (d_y, x) = (Factor::Transposed(&d_y), Factor::Plain(&x));
            gemm::forward(ctx, d_y, x, Accumulate::No, &mut d_weight)?;
        }
        let mut d_image = d_u.index(0)?;
        for t in 1..steps {
            add::forward(ctx, &d_u.index(t)?, &mut d_image)?;
        }
        self.image
            .backward(ctx, params, features, &d_image, d_features)?;
        let (words, no) = (captions.tokens.narrow(0, steps)?, Accumulate::No);
        let mut d_embedding = params.gradient(self.embedding);
        embedding::backward(ctx, &words, &d_x, Some(PAD), no, &mut d_embedding)?;
        Ok(Losses {
            cross_entropy: loss.clone(),
            loss,
        })
    }
}

impl Decoder for Window {
    fn features(&self) -> FeatureKind {
        FeatureKind::Average
    }

    fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    fn loss(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
    ) -> Result<Losses> {
        let a = self.forward(ctx, params, features, captions, None)?;
        let mut losses = ctx.empty([a.logits.rows()], params.dtype())?;
        let mut loss = ctx.empty([1], params.dtype())?;
        let targets = captions.tokens.narrow(1, captions.steps() - 1)?;
        cross_entropy::forward(ctx, &a.logits, &targets, PAD, &mut losses, &mut loss)?;
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
        let a = self.forward(ctx, params, features, captions, noise)?;
        self.backward(ctx, params, features, captions, a, d_features)
    }

    fn start<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Box<dyn Generation + 'a>> {
        let (rows, dtype) = (features.rows(), params.dtype());
        let Sizes {
            embed,
            hidden,
            vocabulary,
            ..
        } = self.sizes;
        let cache = || {
            (0..self.lags.len())
                .map(|_| ctx.empty([rows, embed], params.operands()))
                .collect::<Result<Vec<_>>>()
        };
        let mut sentences = Sentences {
            model: self,
            ctx,
            params,
            image: ctx.empty([rows, hidden], dtype)?,
            cache: cache()?,
            spare: cache()?,
            logits: ctx.empty_padded([rows, vocabulary], dtype)?,
        };
        self.image
            .forward(ctx, params, features, &mut sentences.image)?;
        for words in &mut sentences.cache {
            fill::zero(ctx, words)?;
        }
        let mut words = ctx.empty([rows], DType::U32)?;
        words.copy_from_slice(&vec![SOS; rows])?;
        sentences.step(&words)?;
        Ok(Box::new(sentences))
    }
}

/// R sentences in progress: what they take from the image, and the embeddings of the last K words.
struct Sentences<'a> {
    model: &'a Window,
    ctx: &'a Context,
    params: &'a Params,
    /// W_f f + b_f (R, H)
    image: Tensor,
    /// The last word first, (R, E) each.
    cache: Vec<Tensor>,
    /// Where the cache is copied to when its rows are reordered.
    spare: Vec<Tensor>,
    logits: Tensor,
}

impl Generation for Sentences<'_> {
    fn step(&mut self, words: &Tensor) -> Result<()> {
        let (ctx, params, model) = (self.ctx, self.params, self.model);
        self.cache.rotate_right(1);
        embedding::forward(
            ctx,
            params.operand(model.embedding),
            words,
            &mut self.cache[0],
        )?;
        ctx.scope(|| {
            let room = |dtype| ctx.empty(self.image.shape(), dtype);
            let (mut u, mut g) = (room(params.dtype())?, room(params.dtype())?);
            let mut h = room(params.operands())?;
            copy::forward(ctx, &self.image, &mut u)?;
            for (k, x) in self.cache.iter().enumerate() {
                model.add_lag(ctx, params, k, x, &mut u)?;
            }
            model.gate.forward(ctx, params, &self.cache[0], &mut g)?;
            gate::forward(ctx, &mut g, &u, &mut h)?;
            model.output.forward(ctx, params, &h, &mut self.logits)
        })
    }

    fn branch(&mut self, rows: &Tensor) -> Result<()> {
        let select = |x: &Tensor| selected_rows(self.ctx, x, rows);
        self.image = select(&self.image)?;
        self.spare = self.cache.iter().map(select).collect::<Result<_>>()?;
        self.cache = self.cache.iter().map(select).collect::<Result<_>>()?;
        let vocabulary = self.logits.cols();
        self.logits = self
            .ctx
            .empty_padded([rows.len(), vocabulary], self.logits.dtype())?;
        Ok(())
    }

    fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        for (from, to) in self.cache.iter().zip(&mut self.spare) {
            select_rows(self.ctx, from, rows, to)?;
        }
        std::mem::swap(&mut self.cache, &mut self.spare);
        Ok(())
    }

    fn logits(&self) -> &Tensor {
        &self.logits
    }
}
