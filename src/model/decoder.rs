//! What a decoder is: something that reads features of an image and says what is in it, a word at a time.
//!
//! A [`Decoder`] computes losses and gradients over whole captions, and begins sentences. A [`Generation`] is a
//! batch of sentences in progress; what it keeps between two words is its own business. Both are called
//! through `dyn`, once per step of training or per word.

use super::captions::{Captions, Losses};
use crate::error::Result;
use crate::nn::noise::Noise;
use crate::nn::params::Params;
use crate::tensor::{Context, Tensor};

/// Which features of the encoder's map (B, h, w, D) a decoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// The mean over the map: (B, D).
    Average,
    /// Cells of a grid: (B, C, D) with C = rows · columns. A map that is larger than the grid is averaged to it.
    Cells {
        /// Rows of the grid, at most h.
        rows: usize,
        /// Columns of the grid, at most w.
        columns: usize,
    },
}

/// A caption decoder: where its parameters are, and what is computed with them.
pub trait Decoder {
    /// The features that it reads.
    fn features(&self) -> FeatureKind;

    /// V, the number of words that it chooses from.
    fn vocabulary(&self) -> usize;

    /// Whether the first token of a generation is `<sos>` itself, predicted as any other.
    fn predicts_start(&self) -> bool {
        false
    }

    /// Rows and columns of the positions that its attention weighs; together they span the image. `None` when it
    /// has no attention.
    fn attention_grid(&self) -> Option<[usize; 2]> {
        None
    }

    /// The losses of a batch, without dropout and without gradients. `features` are of the type of [`Params::operands`].
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    fn loss(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
    ) -> Result<Losses>;

    /// Forward and backward: the losses of a batch, every gradient of the decoder written to the arena, and that of
    /// the features to `d_features`, of the type of the parameters, when it is wanted. Dropout is on when there is noise.
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    fn train(
        &self,
        ctx: &Context,
        params: &Params,
        features: &Tensor,
        captions: &Captions,
        noise: Option<Noise>,
        d_features: Option<&mut Tensor>,
    ) -> Result<Losses>;

    /// Shows the images to the decoder: a generation with one row per image, whose logits are those of the first
    /// token.
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    fn start<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Box<dyn Generation + 'a>>;
}

/// A batch of R sentences in progress, between two words.
pub trait Generation {
    /// Reads one word for every row, `words` u32 (R): logits and attention become those of the next token.
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    fn step(&mut self, words: &Tensor) -> Result<()>;

    /// Changes the number of rows: row r goes on from row `rows[r]`, with an image and a state of its own.
    /// Logits and attention are undefined until the next step.
    ///
    /// # Errors
    /// When the device fails.
    fn branch(&mut self, rows: &Tensor) -> Result<()>;

    /// Row r goes on from the state of row `rows[r]`, which is a sentence about the same image. The number of rows
    /// stays. Logits and attention are undefined until the next step.
    ///
    /// # Errors
    /// When the device fails.
    fn reorder(&mut self, rows: &Tensor) -> Result<()>;

    /// (R, V), of the next token, of the type of the parameters.
    fn logits(&self) -> &Tensor;

    /// (R, P): the attention under which those logits came out, if the decoder has any.
    fn attention(&self) -> Option<&Tensor> {
        None
    }
}
