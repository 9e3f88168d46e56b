//! From logits to sentences.

mod beam;
mod greedy;

pub use beam::beam;
pub use greedy::greedy;

use crate::error::{Error, Result};
use crate::nn::decoder::Decoder;
use crate::nn::params::Params;
use crate::tensor::{Context, DType, Tensor};

/// Tokens of a sentence, `<sos>` counted, after which generation stops.
pub const LONGEST: usize = 51;

/// A generated sentence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sentence {
    /// Token ids without `<sos>` and `<eos>`.
    pub tokens: Vec<u32>,
    /// For attend, the attention (P) under which each token was chosen.
    pub attention: Vec<Vec<f32>>,
}

/// How sentences are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// K, sentences that are followed at once for every image; 1 is greedy decoding.
    beam: usize,
    /// α: a sentence of n tokens with probability p scores log p / n^α.
    length_penalty: f64,
}

impl Search {
    pub const GREEDY: Search = Search {
        beam: 1,
        length_penalty: 0.0,
    };

    /// # Errors
    /// When no sentence would be followed, or the penalty is negative or not finite.
    pub fn new(beam: usize, length_penalty: f64) -> Result<Self> {
        let possible = beam >= 1 && length_penalty >= 0.0 && length_penalty.is_finite();
        possible
            .then_some(Search {
                beam,
                length_penalty,
            })
            .ok_or_else(|| {
                Error::Config(format!(
                    "a beam is 1 or more wide and its length penalty 0 or more, \
                     not {beam} and {length_penalty}"
                ))
            })
    }

    /// How many images, at most `most`, to give [`Search::sentences`] at once. Fewer for wide beams: each of
    /// an image's K rows holds the image.
    pub fn batch(&self, most: usize) -> usize {
        (4 * most / self.beam).clamp(1, most)
    }

    /// The sentence for each of the images with these features, (B, D) or (B, C, D), cut after `longest` tokens,
    /// `<sos>` counted.
    pub fn sentences(
        &self,
        ctx: &Context,
        params: &Params,
        decoder: &Decoder,
        features: &Tensor,
        longest: usize,
    ) -> Result<Vec<Sentence>> {
        match self.beam {
            1 => greedy(ctx, params, decoder, features, longest),
            _ => beam(ctx, params, decoder, features, *self, longest),
        }
    }
}

fn host_rows(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    let values: Vec<f32> = match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>()?.iter().map(|&v| v as f32).collect(),
        _ => tensor.to_vec()?,
    };
    Ok(values.chunks(tensor.cols()).map(<[f32]>::to_vec).collect())
}
