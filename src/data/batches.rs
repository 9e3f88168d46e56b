//! An epoch as batches of indices and padded captions, without images. Training from cached features needs
//! no more; [`loader`](super::loader) adds the pixels.

use super::random::Epoch;
use super::samples::Samples;
use super::vocabulary::PAD;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The order of the samples in an epoch.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// The order of the split's list.
    Listed,
    /// A random order, different in every epoch.
    Shuffled(Epoch),
}

/// The batches of one epoch. The last one may be smaller than the others.
#[derive(Clone, Debug)]
pub struct Batches {
    samples: Arc<Samples>,
    order: Arc<[usize]>,
    size: usize,
}

impl Batches {
    /// Divides the samples into batches of `size`.
    ///
    /// # Errors
    /// When `size` is 0.
    pub fn new(samples: &Arc<Samples>, size: usize, order: Order) -> Result<Self> {
        if size == 0 {
            return Err(Error::Config(
                "the batch size is 0, expected at least 1".into(),
            ));
        }
        let order = match order {
            Order::Listed => (0..samples.len()).collect(),
            Order::Shuffled(epoch) => epoch.permutation(samples.len()).into(),
        };
        let samples = samples.clone();
        Ok(Batches {
            samples,
            order,
            size,
        })
    }

    /// Number of batches, including a smaller last one.
    pub fn len(&self) -> usize {
        self.order.len().div_ceil(self.size)
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Batch `index` of the epoch. It has no samples if `index` is not below [`len`](Self::len).
    pub fn get(&self, index: usize) -> Batch {
        Batch::new(&self.samples, self.samples_of(index).to_vec())
    }

    /// The batches in order.
    pub fn iter(&self) -> impl Iterator<Item = Batch> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Every shape (B, T) that a batch of the epoch has.
    pub fn shapes(&self) -> BTreeSet<(usize, usize)> {
        let shape = |index| {
            let samples = self.samples_of(index);
            (samples.len(), longest(&self.samples, samples))
        };
        (0..self.len()).map(shape).collect()
    }

    /// The positions of batch `index` in the epoch's order.
    pub(super) fn positions(&self, index: usize) -> Range<usize> {
        let (start, len) = (index.saturating_mul(self.size), self.order.len());
        start.min(len)..start.saturating_add(self.size).min(len)
    }

    fn samples_of(&self, index: usize) -> &[usize] {
        &self.order[self.positions(index)]
    }

    /// All samples in the epoch's order, batch after batch.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn samples(&self) -> &Arc<Samples> {
        &self.samples
    }
}

/// The samples of one step, with captions padded to the longest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Indices into the samples, length B.
    pub samples: Vec<usize>,
    /// Indices into the images of the data set, length B.
    pub images: Vec<usize>,
    /// T, the number of tokens of the longest caption.
    pub steps: usize,
    /// Token ids of shape (B, T), padded with [`PAD`].
    pub tokens: Vec<u32>,
}

impl Batch {
    /// A batch of this shape that says nothing, for a dry run: image 0 every time, with captions of padding.
    pub fn blank(len: usize, steps: usize) -> Self {
        Batch {
            samples: vec![0; len],
            images: vec![0; len],
            steps,
            tokens: vec![PAD; len * steps],
        }
    }

    pub(super) fn new(all: &Samples, samples: Vec<usize>) -> Self {
        let steps = longest(all, &samples);
        let mut tokens = vec![PAD; samples.len() * steps];
        for (row, &sample) in samples.iter().enumerate() {
            let caption = all.tokens(sample);
            tokens[row * steps..][..caption.len()].copy_from_slice(caption);
        }
        Batch {
            images: samples.iter().map(|&sample| all.image(sample)).collect(),
            samples,
            steps,
            tokens,
        }
    }

    /// B, the number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The captions as token ids of shape (T, B), the layout that the decoders read.
    pub fn time_major(&self) -> Vec<u32> {
        let rows = self.len();
        let tokens = (0..self.steps).flat_map(|t| (0..rows).map(move |b| (t, b)));
        tokens
            .map(|(t, b)| self.tokens[b * self.steps + t])
            .collect()
    }
}

/// The number of tokens of the longest caption.
fn longest(all: &Samples, samples: &[usize]) -> usize {
    let lengths = samples.iter().map(|&sample| all.tokens(sample).len());
    lengths.max().unwrap_or(0)
}
