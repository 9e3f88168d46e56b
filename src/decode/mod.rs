//! From logits to sentences.

mod beam;
mod greedy;

pub use beam::{beam, ranked};
pub use greedy::greedy;

use crate::error::{Error, Result};
use crate::model::{Engine, Generation};
use crate::tensor::{DType, Pending, Tensor};

/// Tokens of a sentence, `<sos>` counted, after which generation stops.
pub const LONGEST: usize = 51;

/// A generated sentence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sentence {
    /// Token ids without `<sos>` and `<eos>`.
    pub tokens: Vec<u32>,
    /// The attention (P) under which each token was chosen; empty when the decoder has none.
    pub attention: Vec<Vec<f32>>,
    /// Σ log p of all that the decoder said for it: its tokens, `<eos>` unless it was cut, and `<sos>` where the decoder says it.
    pub log_probability: f64,
    /// How many tokens that were.
    pub said: usize,
}

impl Sentence {
    /// The probability of a token, on geometric average: from 0 to 1, for sentences of any length.
    pub fn confidence(&self) -> f64 {
        (self.log_probability / self.said.max(1) as f64).exp()
    }
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
    /// The most probable token every time.
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

    /// The sentence for each of these images, `pixels` (N, S, S, 3) on the host, cut after [`LONGEST`] tokens. The engine's
    /// vocabulary makes text of its tokens.
    ///
    /// # Errors
    /// When the pixels are not those of whole images, or the device fails.
    ///
    /// # Panics
    /// Before [`Engine::prepare`].
    pub fn caption(&self, engine: &Engine, pixels: &[u8]) -> Result<Vec<Sentence>> {
        engine.with_images(pixels, |images| {
            self.sentences(engine, &engine.features(images)?)
        })
    }

    /// The sentence for each of the images with these features, (B, D) or (B, C, D), as [`Engine::features`] gives
    /// them, cut after [`LONGEST`] tokens.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sentences(&self, engine: &Engine, features: &Tensor) -> Result<Vec<Sentence>> {
        let ranked = self.ranked(engine, features, 1)?;
        Ok(ranked.into_iter().flatten().collect())
    }

    /// As [`Search::sentences`], the `most` best sentences for each image, the best first. There are fewer where fewer of the K
    /// that are followed come to an end, and one where none does.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ranked(
        &self,
        engine: &Engine,
        features: &Tensor,
        most: usize,
    ) -> Result<Vec<Vec<Sentence>>> {
        let (ctx, params) = (&engine.ctx, &engine.params);
        let decoder = &*engine.captioner.decoder;
        match self.beam {
            1 => {
                let sentences = greedy(ctx, params, decoder, features, LONGEST)?;
                Ok(sentences.into_iter().map(|s| vec![s]).collect())
            }
            _ => ranked(ctx, params, decoder, features, *self, most, LONGEST),
        }
    }
}

/// The values of a tensor of either float type, on their way to the host.
enum Awaited {
    F32(Pending<f32>),
    F64(Pending<f64>),
}

impl Awaited {
    fn new(tensor: &Tensor) -> Result<Self> {
        Ok(match tensor.dtype() {
            DType::F64 => Awaited::F64(tensor.download_later()?),
            _ => Awaited::F32(tensor.download_later()?),
        })
    }

    fn wait(self) -> Result<Vec<f64>> {
        Ok(match self {
            Awaited::F32(values) => values.wait()?.into_iter().map(f64::from).collect(),
            Awaited::F64(values) => values.wait()?,
        })
    }
}

/// The attention (B, P) that words are chosen under, on its way to the host.
struct AwaitedAttention {
    values: Awaited,
    positions: usize,
}

impl AwaitedAttention {
    fn new(generation: &dyn Generation) -> Result<Option<Self>> {
        let of = |alpha: &Tensor| {
            Ok(AwaitedAttention {
                values: Awaited::new(alpha)?,
                positions: alpha.cols(),
            })
        };
        generation.attention().map(of).transpose()
    }

    /// Row by row.
    fn wait(self) -> Result<Vec<Vec<f32>>> {
        let values: Vec<f32> = self.values.wait()?.into_iter().map(|v| v as f32).collect();
        Ok(values.chunks(self.positions).map(<[f32]>::to_vec).collect())
    }
}
