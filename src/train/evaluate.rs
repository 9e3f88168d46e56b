//! Losses and captions of a split, from features.

use super::features::Features;
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::samples::Samples;
use crate::data::vocabulary::Vocabulary;
use crate::decode::{self, Search, Sentence};
use crate::error::Result;
use crate::metrics::bleu;
use crate::nn::captioner::Captioner;
use crate::nn::captions::Captions;
use crate::nn::params::Params;
use crate::tensor::{Context, Pending};
use serde::Serialize;
use std::sync::Arc;

/// Samples a batch: part of the published losses, which are means of batches' means.
pub const BATCH: usize = 32;

/// Unweighted means over batches of [`BATCH`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanLosses {
    pub loss: f64,
    pub ce: f64,
}

/// The generated caption of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Captioned {
    /// Index into the data set's images.
    #[serde(skip)]
    pub image: usize,
    pub file: String,
    pub caption: String,
}

/// A captioner with what its evaluation needs.
pub struct Evaluator<'a> {
    pub ctx: &'a Context,
    pub params: &'a Params,
    pub captioner: &'a Captioner,
    pub vocabulary: &'a Vocabulary,
    pub dataset: &'a Flickr8k,
    pub features: &'a Features,
    /// How captions are looked for.
    pub search: Search,
}

impl Evaluator<'_> {
    /// Losses over all samples whose image has features, unshuffled, without dropout.
    pub fn losses(
        &self,
        samples: &Arc<Samples>,
        mut progress: impl FnMut(usize),
    ) -> Result<MeanLosses> {
        let batches = Batches::new(samples, BATCH, Order::Listed)?;
        let mut sums = [0.0f64; 2];
        let mut add = |losses: [Pending<f32>; 2]| -> Result<()> {
            for (sum, loss) in sums.iter_mut().zip(losses) {
                *sum += f64::from(loss.wait()?[0]);
            }
            Ok(())
        };
        // A GPU is given a batch before the losses of the one before it are waited for.
        let mut awaited: Option<[Pending<f32>; 2]> = None;
        for (done, batch) in batches.iter().enumerate() {
            let losses = self.batch_losses(&batch)?;
            self.ctx.reset()?;
            awaited.replace(losses).map_or(Ok(()), &mut add)?;
            progress(done + 1);
        }
        awaited.map_or(Ok(()), &mut add)?;
        let count = batches.len() as f64;
        Ok(MeanLosses {
            loss: sums[0] / count,
            ce: sums[1] / count,
        })
    }

    fn batch_losses(&self, batch: &Batch) -> Result<[Pending<f32>; 2]> {
        let (ctx, params) = (self.ctx, self.params);
        let features = self.upload(&batch.images)?;
        let captions = Captions::upload(ctx, batch.steps, batch.len(), &batch.time_major())?;
        let losses = self
            .captioner
            .decoder
            .loss(ctx, params, &features, &captions)?;
        Ok([
            losses.loss.download_later()?,
            losses.cross_entropy.download_later()?,
        ])
    }

    fn upload(&self, images: &[usize]) -> Result<crate::Tensor> {
        let mut shape = self.captioner.feature_shape();
        shape[0] = images.len();
        self.features.batch(self.ctx, images, &shape)
    }

    /// Captions of images.
    pub fn captions(
        &self,
        images: &[usize],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Captioned>> {
        let mut captioned = Vec::with_capacity(images.len());
        for chunk in images.chunks(self.search.batch(BATCH)) {
            let sentences = self.sentences(chunk)?;
            for (&image, sentence) in chunk.iter().zip(sentences) {
                captioned.push(Captioned {
                    image,
                    file: self.dataset.images()[image].name.clone(),
                    caption: self.vocabulary.decode(&sentence.tokens),
                });
            }
            progress(captioned.len());
        }
        Ok(captioned)
    }

    /// Captions of a batch of images as tokens, with their attention.
    pub fn sentences(&self, images: &[usize]) -> Result<Vec<Sentence>> {
        let features = self.upload(images)?;
        let decoder = &self.captioner.decoder;
        let (search, ctx) = (&self.search, self.ctx);
        let sentences = search.sentences(ctx, self.params, decoder, &features, decode::LONGEST)?;
        drop(features);
        ctx.reset()?;
        Ok(sentences)
    }

    /// Captions paired with the references of their images, as BLEU wants them.
    fn pairs(&self, captioned: &[Captioned]) -> Vec<(String, Vec<String>)> {
        let pair = |c: &Captioned| {
            let references = self.dataset.images()[c.image].captions.clone();
            (c.caption.clone(), references)
        };
        captioned.iter().map(pair).collect()
    }

    /// Corpus BLEU-1 … BLEU-4, each image once.
    pub fn bleu(&self, captioned: &[Captioned]) -> [f64; 4] {
        bleu::corpus(&self.pairs(captioned))
    }

    /// The mean of sentences' BLEU-1 … BLEU-4 over every caption sample, the published protocol of show-tell.
    pub fn sentence_bleu(&self, captioned: &[Captioned]) -> [f64; 4] {
        let mut pairs = Vec::new();
        for pair in self.pairs(captioned) {
            pairs.extend(std::iter::repeat_n(pair.clone(), pair.1.len()));
        }
        bleu::sentence_mean(&pairs)
    }
}
