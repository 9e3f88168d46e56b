//! The samples of a split: pairs of an image and an encoded caption, in the order of the list.

use super::digest;
use super::flickr8k::{Flickr8k, Split};
use super::vocabulary::Vocabulary;
use crate::philox;
use std::collections::{BTreeSet, HashSet};

/// How much of a split to use; `None` means all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Use this many images, from the first one.
    pub images: Option<usize>,
    /// Use this many captions of each image, from the first one.
    pub captions_per_image: Option<usize>,
}

/// The images of a split and their captions, in the order of the list.
fn pairs(dataset: &Flickr8k, split: Split, limits: Limits) -> impl Iterator<Item = (usize, &str)> {
    let images = dataset.split(split).iter();
    let images = images.take(limits.images.unwrap_or(usize::MAX));
    images.flat_map(move |&image| {
        let captions = dataset.images()[image].captions.iter();
        let captions = captions.take(limits.captions_per_image.unwrap_or(usize::MAX));
        captions.map(move |caption| (image, &**caption))
    })
}

/// The most words and punctuation marks of a caption that a decoder can be trained on: there are masks for so many steps, two of which
/// are `<sos>` and `<eos>`.
pub const MOST_WORDS: usize = philox::MOST_STEPS - 2;

/// Pairs of an image (its index in the data set) and a caption `<sos> w1 … wn <eos>`.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    images: Vec<usize>,
    /// Caption i is `tokens[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    tokens: Vec<u32>,
}

impl Samples {
    /// The samples of `split`, captions encoded with `vocabulary`.
    pub fn new(dataset: &Flickr8k, split: Split, vocabulary: &Vocabulary, limits: Limits) -> Self {
        let mut samples = Samples::default();
        for (image, caption) in pairs(dataset, split, limits) {
            samples.push(image, &vocabulary.encode(caption));
        }
        samples
    }

    /// SHA-256, in hexadecimal, of what [`new`](Samples::new) takes from the data set: the name of each sample's image and
    /// its caption. Where the files lie has no part in it.
    pub fn sha256(dataset: &Flickr8k, split: Split, limits: Limits) -> String {
        let pairs = pairs(dataset, split, limits);
        digest::of_texts(
            pairs.flat_map(|(image, caption)| [&*dataset.images()[image].name, caption]),
        )
    }

    /// Every image once, in this order, with an empty caption: for encoding or captioning images.
    pub fn of_images(images: impl IntoIterator<Item = usize>) -> Self {
        let mut samples = Samples::default();
        for image in images {
            samples.push(image, &[]);
        }
        samples
    }

    fn push(&mut self, image: usize, tokens: &[u32]) {
        self.images.push(image);
        self.starts.push(self.tokens.len());
        self.tokens.extend(tokens);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The image of a sample, as an index into the images of the data set.
    pub fn image(&self, sample: usize) -> usize {
        self.images[sample]
    }

    /// The encoded caption of a sample, `<sos>` and `<eos>` included.
    pub fn tokens(&self, sample: usize) -> &[u32] {
        let end = self.starts.get(sample + 1).copied();
        &self.tokens[self.starts[sample]..end.unwrap_or(self.tokens.len())]
    }

    /// The distinct images, in order of first use.
    pub fn images(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        let images = self.images.iter().copied();
        images.filter(|&image| seen.insert(image)).collect()
    }

    /// T, the number of tokens of the longest encoded caption.
    pub fn longest(&self) -> usize {
        let lengths = (0..self.len()).map(|sample| self.tokens(sample).len());
        lengths.max().unwrap_or(0)
    }

    /// All samples except those of the given images, for example unreadable ones.
    pub fn without(&self, images: &BTreeSet<usize>) -> Self {
        let mut kept = Samples::default();
        for sample in 0..self.len() {
            if !images.contains(&self.image(sample)) {
                kept.push(self.image(sample), self.tokens(sample));
            }
        }
        kept
    }
}
