//! CIDEr-D (Vedantam, Zitnick and Parikh, 2015), equal to pycocoevalcap's.
//!
//! For n from 1 to 4 a text is a vector with an element for each of its n-grams: how often it occurs in the text, times ln(N / m), where
//! m of the N images have it in a reference (at least 1). Of a hypothesis h and a reference r
//!
//! ```text
//! s_n = Σ min(h, r) r / (|h| |r|) · exp(-(l_h - l_r)² / (2 · 6²))
//! ```
//!
//! with l the number of bigrams (pycocoevalcap's length). The score is 10 times the mean over references and n.

use super::ngrams::counted;
use std::collections::HashMap;
use std::hash::Hash;

const ORDERS: usize = 4;
const SIGMA: f64 = 6.0;

/// How common n-grams are in the references of a data set. A word is anything that can be compared: a string, or its id.
pub struct CiderD<'a, T> {
    /// In how many images' references each n-gram is.
    images_with: HashMap<&'a [T], usize>,
    images: usize,
}

/// A text by its n-grams.
struct Vector<'a, T> {
    elements: [Vec<(&'a [T], f64)>; ORDERS],
    norms: [f64; ORDERS],
    bigrams: usize,
}

impl<'a, T: Eq + Hash> CiderD<'a, T> {
    /// For these references of each image.
    pub fn new(references: &'a [Vec<Vec<T>>]) -> Self {
        let mut images_with: HashMap<&[T], usize> = HashMap::new();
        // The last image in which an n-gram was seen: several references of it count once.
        let mut seen: HashMap<&[T], usize> = HashMap::new();
        for (image, references) in references.iter().enumerate() {
            let grams = references
                .iter()
                .flat_map(|words| (1..=ORDERS).flat_map(|n| words.windows(n)));
            for gram in grams {
                if seen.insert(gram, image) != Some(image) {
                    *images_with.entry(gram).or_default() += 1;
                }
            }
        }
        CiderD {
            images_with,
            images: references.len(),
        }
    }

    /// The score of a hypothesis against references, from 0 to 10; 0 without references.
    pub fn score(&self, hypothesis: &[T], references: &[Vec<T>]) -> f64 {
        let hypothesis = self.vector(hypothesis);
        let mut sums = [0.0; ORDERS];
        for reference in references {
            let reference = self.vector(reference);
            for (sum, n) in sums.iter_mut().zip(0..) {
                *sum += similarity(&hypothesis, &reference, n);
            }
        }
        let mean = sums.iter().sum::<f64>() / ORDERS as f64;
        10.0 * mean / references.len().max(1) as f64
    }

    fn vector<'b>(&self, words: &'b [T]) -> Vector<'b, T> {
        let weight = |gram: &[T]| {
            let images = self.images_with.get(gram).copied().unwrap_or(1);
            (self.images as f64).ln() - (images as f64).ln()
        };
        let elements: [Vec<(&[T], f64)>; ORDERS] = std::array::from_fn(|n| {
            let grams = counted(words, n + 1).into_iter();
            grams
                .map(|(gram, count)| (gram, count as f64 * weight(gram)))
                .collect()
        });
        let squares = elements
            .each_ref()
            .map(|elements| elements.iter().map(|(_, value)| value * value).sum::<f64>());
        Vector {
            elements,
            norms: squares.map(f64::sqrt),
            bigrams: words.len().saturating_sub(1),
        }
    }
}

fn similarity<T: Eq + Hash>(hypothesis: &Vector<T>, reference: &Vector<T>, n: usize) -> f64 {
    let there: HashMap<&[T], f64> = reference.elements[n].iter().copied().collect();
    let elements = hypothesis.elements[n].iter();
    let mut product: f64 = elements
        .map(|(gram, value)| {
            let other = there.get(gram).copied().unwrap_or(0.0);
            value.min(other) * other
        })
        .sum();
    let norms = [hypothesis.norms[n], reference.norms[n]];
    if norms.iter().all(|&norm| norm != 0.0) {
        product /= norms[0] * norms[1];
    }
    let longer = hypothesis.bigrams as f64 - reference.bigrams as f64;
    product * (-(longer * longer) / (2.0 * SIGMA * SIGMA)).exp()
}
