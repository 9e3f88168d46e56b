//! Either decoder behind one face: training passes, and generation a word at a time.

use super::attend::{self, Attend};
use super::captions::{Captions, Losses, Noise, SOS, State};
use super::params::Params;
use super::show_tell::ShowTell;
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

pub enum Decoder {
    /// Reads features (B, D).
    ShowTell(ShowTell),
    /// Reads features (B, C, D).
    Attend(Attend),
}

/// A batch of captions that is being generated: the state between two words.
pub struct Generation {
    /// What attend looks at, an image for every row.
    image: Option<attend::Image>,
    /// They change places at every word.
    state: State,
    next: State,
    /// (B, V), for the next token.
    pub logits: Tensor,
    /// Attention (B, P) under which those logits came out; attend only.
    pub alpha: Option<Tensor>,
}

impl Generation {
    /// A generation whose row r goes on from row `rows[r]` of this one, with an image and a state of its own;
    /// its logits and attention are undefined until the next step.
    pub fn branch(&self, ctx: &Context, rows: &Tensor) -> Result<Generation> {
        let count = rows.len();
        let image = self.image.as_ref().map(|image| image.gather(ctx, rows));
        let alpha = self.alpha.as_ref();
        let alpha = alpha.map(|alpha| ctx.empty([count, alpha.cols()], alpha.dtype()));
        let mut state = self.state.empty_rows(ctx, count)?;
        self.state.gather(ctx, rows, &mut state)?;
        Ok(Generation {
            image: image.transpose()?,
            next: state.empty_like(ctx)?,
            state,
            logits: ctx.empty_padded([count, self.logits.cols()], self.logits.dtype())?,
            alpha: alpha.transpose()?,
        })
    }

    /// Row r goes on from the state of row `rows[r]`, a sentence about the same image.
    pub fn reorder(&mut self, ctx: &Context, rows: &Tensor) -> Result<()> {
        self.state.gather(ctx, rows, &mut self.next)?;
        std::mem::swap(&mut self.state, &mut self.next);
        Ok(())
    }
}

impl Decoder {
    pub fn vocabulary(&self) -> usize {
        match self {
            Decoder::ShowTell(model) => model.config().vocabulary,
            Decoder::Attend(model) => model.config().vocabulary,
        }
    }

    /// Losses without dropout; nothing is trained.
    pub fn loss(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
    ) -> Result<Losses> {
        match self {
            Decoder::ShowTell(model) => {
                let activations = model.forward(ctx, params, features, captions, None)?;
                model.loss(ctx, captions, &activations)
            }
            Decoder::Attend(model) => {
                let activations = model.forward(ctx, params, features, captions, None)?;
                model.loss(ctx, captions, &activations)
            }
        }
    }

    /// Forward and backward: the losses, all decoder gradients in the arena, and that of the features
    /// when wanted.
    pub fn train(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses> {
        match self {
            Decoder::ShowTell(model) => {
                let activations = model.forward(ctx, params, features, captions, noise)?;
                model.backward(ctx, params, features, captions, activations, d_features)
            }
            Decoder::Attend(model) => {
                let activations = model.forward(ctx, params, features, captions, noise)?;
                model.backward(ctx, params, captions, activations, d_features)
            }
        }
    }

    /// Whether the first token generated is `<sos>` itself.
    pub fn predicts_start(&self) -> bool {
        matches!(self, Decoder::ShowTell(_))
    }

    /// Shows the images: logits for the first token. That is `<sos>` for show-tell, which is given the image
    /// alone, and the first word for attend, which is given `<sos>`.
    pub fn start(&self, ctx: &Context, params: &Params, features: &Tensor) -> Result<Generation> {
        let (batch, dtype) = (features.shape().dims()[0], params.dtype());
        let mut logits = ctx.empty_padded([batch, self.vocabulary()], dtype)?;
        match self {
            Decoder::ShowTell(model) => {
                let state = model.start(ctx, params, features, &mut logits)?;
                Ok(Generation {
                    image: None,
                    next: state.empty_like(ctx)?,
                    state,
                    logits,
                    alpha: None,
                })
            }
            Decoder::Attend(model) => {
                let image = model.look(ctx, params, features)?;
                let state = model.start(ctx, params, &image)?;
                let positions = model.config().mix.positions();
                let mut generation = Generation {
                    image: Some(image),
                    next: state.empty_like(ctx)?,
                    state,
                    logits,
                    alpha: Some(ctx.empty([batch, positions], dtype)?),
                };
                let mut words = ctx.empty([batch], DType::U32)?;
                words.copy_from_slice(&vec![SOS; batch])?;
                self.step(ctx, params, &words, &mut generation)?;
                Ok(generation)
            }
        }
    }

    /// Reads one word for every image, `words` (B): logits for the next token.
    pub fn step(
        &self,
        ctx: &Context,
        params: &Params,
        words: &Tensor,
        generation: &mut Generation,
    ) -> Result<()> {
        let Generation {
            image,
            state,
            next,
            logits,
            alpha,
        } = generation;
        ctx.scope(|| match (self, image, alpha) {
            (Decoder::ShowTell(model), ..) => model.step(ctx, params, words, state, next, logits),
            (Decoder::Attend(model), Some(image), Some(alpha)) => {
                model.step(ctx, params, image, words, state, next, logits, alpha)
            }
            _ => unreachable!("a generation is continued by the decoder that started it"),
        })?;
        std::mem::swap(state, next);
        Ok(())
    }
}
