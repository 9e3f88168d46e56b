//! What the captions of a data set are like, in numbers. Needs no images.

use super::flickr8k::{Flickr8k, Split};
use super::vocabulary::{Vocabulary, tokenize};
use serde::Serialize;

/// How many images, captions and words a data set has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Images that exist.
    pub images: usize,
    /// Caption lines, those of missing images included, as in what follows.
    pub captions: usize,
    /// Words and punctuation marks, without `<sos>` and `<eos>`.
    pub tokens: usize,
    /// The same for each of [`Split::ALL`].
    pub splits: Vec<SplitStatistics>,
    /// Names that captions mention without there being an image.
    pub missing: Vec<String>,
    /// How long captions are.
    pub lengths: Lengths,
    /// How many different words there are.
    pub vocabulary: VocabularySizes,
}

/// How many images, captions and words a split has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitStatistics {
    /// The split's name.
    pub name: String,
    /// Images that exist.
    pub images: usize,
    /// Captions of these images.
    pub captions: usize,
    /// Words and punctuation marks of these captions.
    pub tokens: usize,
}

/// Tokens a caption, without `<sos>` and `<eos>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The mean; 0 without captions.
    pub mean: f64,
    /// The longest caption.
    pub max: usize,
    /// How many captions have 0, 1, 2 … tokens.
    pub histogram: Vec<usize>,
}

/// V, the four specials included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VocabularySizes {
    /// Of all captions: attend's.
    pub all_captions: usize,
    /// Of the training captions: show-tell's.
    pub train_captions: usize,
}

impl Statistics {
    /// Counts what is in a data set.
    pub fn new(dataset: &Flickr8k) -> Self {
        let lengths: Vec<usize> = dataset.all_captions().map(|c| tokenize(c).len()).collect();
        let tokens: usize = lengths.iter().sum();
        let max = lengths.iter().copied().max().unwrap_or(0);
        let mut histogram = vec![0; max + 1];
        lengths.iter().for_each(|&length| histogram[length] += 1);
        let split = |split: Split| SplitStatistics {
            name: split.to_string(),
            images: dataset.split(split).len(),
            captions: dataset.captions(split).count(),
            tokens: dataset.captions(split).map(|c| tokenize(c).len()).sum(),
        };
        Statistics {
            images: dataset.images().len(),
            captions: lengths.len(),
            tokens,
            splits: Split::ALL.map(split).into(),
            missing: dataset.missing().iter().map(|i| i.name.clone()).collect(),
            lengths: Lengths {
                mean: tokens as f64 / lengths.len().max(1) as f64,
                max,
                histogram,
            },
            vocabulary: VocabularySizes {
                all_captions: Vocabulary::build(dataset.all_captions()).len(),
                train_captions: Vocabulary::build(dataset.captions(Split::Train)).len(),
            },
        }
    }
}
