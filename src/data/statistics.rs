//! Statistics of the captions of a data set. The images are not needed.

use super::flickr8k::{Flickr8k, Split};
use super::vocabulary::{Vocabulary, tokenize};
use serde::Serialize;

/// Statistics of a data set. Unless noted otherwise, captions of missing images count, too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Number of images that exist.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of words and punctuation marks, without `<sos>` and `<eos>`.
    pub tokens: usize,
    /// The same numbers for each split.
    pub splits: Vec<SplitStatistics>,
    /// Names of images that have captions but do not exist.
    pub missing: Vec<String>,
    /// The lengths of captions.
    pub lengths: Lengths,
    /// The sizes of the vocabularies.
    pub vocabulary: VocabularySizes,
}

/// Statistics of a split, whose images all exist or are in its list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitStatistics {
    /// The name of the split.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of words and punctuation marks, without `<sos>` and `<eos>`.
    pub tokens: usize,
}

/// Tokens per caption, without `<sos>` and `<eos>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The mean over all captions.
    pub mean: f64,
    /// The length of the longest caption.
    pub max: usize,
    /// Number of captions with 0, 1, 2 … tokens.
    pub histogram: Vec<usize>,
}

/// V, the number of words, including the four special ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VocabularySizes {
    /// Words of all captions.
    pub all_captions: usize,
    /// Words of the training captions.
    pub train_captions: usize,
}

impl Statistics {
    /// Counts the captions of a data set.
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
