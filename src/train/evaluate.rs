//! Losses and captions of a split, from features.

use super::data::upload_captions;
use super::features::Features;
use super::{Observer, Stage};
use crate::data::batches::{Batch, Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::samples::Samples;
use crate::decode::{Search, Sentence};
use crate::error::Result;
use crate::metrics::sight::Sight;
use crate::metrics::{bleu, coco};
use crate::model::{Engine, Losses};
use crate::tensor::Pending;
use serde::Serialize;
use std::sync::Arc;

/// Samples per batch: part of the published losses, which are means of the batches' means.
pub const BATCH: usize = 32;

/// Unweighted means over batches of [`BATCH`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanLosses {
    /// What is minimised.
    pub loss: f64,
    /// The cross-entropy in it.
    pub ce: f64,
}

/// The generated caption of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Captioned {
    /// Index into the data set's images.
    #[serde(skip)]
    pub image: usize,
    /// The image's name.
    pub file: String,
    /// The words, with spaces between them.
    pub caption: String,
}

/// An engine with what its evaluation needs.
pub struct Evaluator<'a> {
    engine: &'a Engine,
    dataset: &'a Flickr8k,
    features: &'a Features,
    search: Search,
}

impl<'a> Evaluator<'a> {
    /// For images of the data set that have features; captions are found by `search`.
    pub fn new(
        engine: &'a Engine,
        dataset: &'a Flickr8k,
        features: &'a Features,
        search: Search,
    ) -> Self {
        Evaluator {
            engine,
            dataset,
            features,
            search,
        }
    }

    /// The data set.
    pub fn dataset(&self) -> &'a Flickr8k {
        self.dataset
    }

    /// Losses over all samples, whose images must have features, unshuffled, without dropout.
    ///
    /// # Errors
    /// When the device fails.
    pub fn losses(
        &self,
        samples: &Arc<Samples>,
        observer: &mut dyn Observer,
    ) -> Result<MeanLosses> {
        let batches = Batches::new(samples, BATCH, Order::Listed)?;
        let mut sums = [0.0f64; 2];
        let mut add = |losses: [Pending<f32>; 2]| -> Result<()> {
            for (sum, loss) in sums.iter_mut().zip(losses) {
                *sum += f64::from(loss.wait()?[0]);
            }
            Ok(())
        };
        observer.begin(Stage::Validation, batches.len());
        // A GPU is given a batch before the losses of the one before it are waited for.
        let mut awaited: Option<[Pending<f32>; 2]> = None;
        for (done, batch) in batches.iter().enumerate() {
            let losses = self.batch_losses(&batch)?;
            awaited.replace(losses).map_or(Ok(()), &mut add)?;
            observer.progress(done + 1);
        }
        awaited.map_or(Ok(()), &mut add)?;
        observer.end();
        let count = batches.len() as f64;
        Ok(MeanLosses {
            loss: sums[0] / count,
            ce: sums[1] / count,
        })
    }

    fn batch_losses(&self, batch: &Batch) -> Result<[Pending<f32>; 2]> {
        let (engine, images) = (self.engine, &batch.images);
        self.features.with_batch(engine, images, |features| {
            let Losses {
                loss,
                cross_entropy,
            } = engine.losses(features, &upload_captions(&engine.ctx, batch)?)?;
            Ok([loss.download_later()?, cross_entropy.download_later()?])
        })
    }

    /// Captions of images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn captions(
        &self,
        images: &[usize],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Captioned>> {
        observer.begin(Stage::Captions, images.len());
        let mut captioned = Vec::with_capacity(images.len());
        for chunk in images.chunks(self.search.batch(BATCH)) {
            let sentences = self.sentences(chunk)?;
            for (&image, sentence) in chunk.iter().zip(sentences) {
                captioned.push(Captioned {
                    image,
                    file: self.dataset.images()[image].name.clone(),
                    caption: self.engine.vocabulary.decode(&sentence.tokens),
                });
            }
            observer.progress(captioned.len());
        }
        observer.end();
        Ok(captioned)
    }

    /// Captions of a batch of images as tokens, with their attention.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sentences(&self, images: &[usize]) -> Result<Vec<Sentence>> {
        self.features.with_batch(self.engine, images, |features| {
            self.search.sentences(self.engine, features)
        })
    }

    /// Captions with the references of their images, as BLEU needs them.
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

    /// Scores as pycocoevalcap has them, each image once, and whether the captions fit other images as well.
    pub fn coco(&self, captioned: &[Captioned]) -> (coco::Scores, Sight) {
        let pairs = self.pairs(captioned).into_iter();
        let pairs: Vec<coco::Pair> = pairs
            .map(|(caption, references)| coco::Pair {
                caption,
                references,
            })
            .collect();
        (coco::scores(&pairs), Sight::new(&pairs))
    }

    /// The mean over every caption sample of the sentence's BLEU-1 … BLEU-4: a protocol that published results also use.
    pub fn sentence_bleu(&self, captioned: &[Captioned]) -> [f64; 4] {
        let mut pairs = Vec::new();
        for pair in self.pairs(captioned) {
            pairs.extend(std::iter::repeat_n(pair.clone(), pair.1.len()));
        }
        bleu::sentence_mean(&pairs)
    }
}
