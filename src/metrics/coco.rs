//! The scores by which captioners are compared: BLEU, ROUGE-L and CIDEr-D as pycocoevalcap, the code of the COCO caption challenge, gives
//! them. METEOR and SPICE are not here: they need WordNet, tables of paraphrases, and a parser.

use super::bleu::{Closest, Counts, ORDERS};
use super::cider::CiderD;
use super::rouge::rouge_l;
use super::treebank;
use serde::Serialize;

/// A caption, and what people said about the same image.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The caption that is scored.
    pub caption: String,
    /// At least one.
    pub references: Vec<String>,
}

/// Scores of all captions together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// BLEU-1 to BLEU-4, from 0 to 1.
    pub bleu: [f64; ORDERS],
    /// The mean of all captions' ROUGE-L, from 0 to 1.
    pub rouge_l: f64,
    /// The mean of all captions' CIDEr-D, from 0 to 10.
    pub cider_d: f64,
}

/// Scores of captions by the words that [`treebank::words`] finds in them; all 0 without any. The references are the data set in which
/// CIDEr-D counts how common n-grams are, so a part of a test set has other scores than the whole.
pub fn scores(pairs: &[Pair]) -> Scores {
    each(pairs).0
}

/// The same, and the CIDEr-D of each caption.
pub(super) fn each(pairs: &[Pair]) -> (Scores, Vec<f64>) {
    let captions: Vec<Vec<String>> = pairs
        .iter()
        .map(|pair| treebank::words(&pair.caption))
        .collect();
    let references: Vec<Vec<Vec<String>>> = pairs
        .iter()
        .map(|pair| pair.references.iter().map(|r| treebank::words(r)).collect())
        .collect();
    let cider = CiderD::new(&references);
    let mut bleu = Counts::new(Closest::Shortest);
    let (mut rouge_sum, mut each) = (0.0, Vec::with_capacity(pairs.len()));
    for (caption, references) in captions.iter().zip(&references) {
        bleu.add_words(caption, references);
        rouge_sum += rouge_l(caption, references);
        each.push(cider.score(caption, references));
    }
    let count = pairs.len().max(1) as f64;
    let scores = Scores {
        bleu: bleu.scores_without_zeros(),
        rouge_l: rouge_sum / count,
        cider_d: each.iter().sum::<f64>() / count,
    };
    (scores, each)
}
