//! BLEU (Papineni, Roukos, Ward and Zhu, 2002), equal to torchmetrics' `BLEUScore` without smoothing.
//!
//! BLEU-n = b · (p_1 … p_n)^(1/n).
//!
//! p_k is the share of the k-grams of all hypotheses that the references contain. A k-gram counts at most as often
//! as it occurs in the reference with the most occurrences of it. The brevity penalty b is 1 if h > r, and
//! exp(1 − r/h) otherwise: h is the number of words of all hypotheses, and r is the sum of the lengths of one
//! reference per hypothesis, the one closest in length (the first of several). BLEU-n is 0 if one of the p_k is 0.
//!
//! pycocoevalcap differs in two points: [`Closest::Shortest`] and [`Counts::scores_without_zeros`].

use super::ngrams::counted;
use std::collections::HashMap;
use std::hash::Hash;

/// The length of the longest n-grams.
pub const ORDERS: usize = 4;

/// Which of several references that are equally close in length is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Closest {
    /// The first, as torchmetrics does.
    #[default]
    First,
    /// The shortest, as pycocoevalcap does.
    Shortest,
}

/// The counts of a corpus, from which BLEU is computed.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    closest: Closest,
    /// Element k − 1: the number of k-grams of the hypotheses that the references contain.
    matches: [usize; ORDERS],
    /// Element k − 1: the number of all k-grams of the hypotheses.
    totals: [usize; ORDERS],
    hypothesis_words: usize,
    reference_words: usize,
}

impl Counts {
    /// Without any hypothesis.
    pub fn new(closest: Closest) -> Self {
        Counts {
            closest,
            ..Counts::default()
        }
    }

    /// Adds a hypothesis and its references. Words are separated by white space.
    pub fn add<R: AsRef<str>>(&mut self, hypothesis: &str, references: &[R]) {
        let split = |text| -> Vec<&str> { str::split_whitespace(text).collect() };
        let references: Vec<Vec<&str>> = references.iter().map(|r| split(r.as_ref())).collect();
        self.add_words(&split(hypothesis), &references);
    }

    /// The same, of words.
    pub fn add_words<T: Eq + Hash>(&mut self, hypothesis: &[T], references: &[Vec<T>]) {
        self.hypothesis_words += hypothesis.len();
        let lengths = references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|length| {
            let shorter = match self.closest {
                Closest::First => 0,
                Closest::Shortest => *length,
            };
            (length.abs_diff(hypothesis.len()), shorter)
        });
        self.reference_words += closest.unwrap_or(0);
        for n in 1..=ORDERS {
            let mut allowed: HashMap<&[T], usize> = HashMap::new();
            for reference in references {
                for (gram, count) in counted(reference, n) {
                    let most = allowed.entry(gram).or_default();
                    *most = count.max(*most);
                }
            }
            for (gram, count) in counted(hypothesis, n) {
                self.totals[n - 1] += count;
                self.matches[n - 1] += count.min(allowed.get(gram).copied().unwrap_or(0));
            }
        }
    }

    /// BLEU-1 to BLEU-4 as pycocoevalcap has them, which adds 1e-15 to matches and 1e-9 to what they are divided by: where no 4-gram
    /// is matched, BLEU-4 is small instead of 0.
    pub fn scores_without_zeros(&self) -> [f64; ORDERS] {
        const TINY: f64 = 1e-15;
        const SMALL: f64 = 1e-9;
        let (hypothesis, reference) = (self.hypothesis_words as f64, self.reference_words as f64);
        let ratio = (hypothesis + TINY) / (reference + SMALL);
        let penalty = (1.0 - 1.0 / ratio).min(0.0).exp();
        let mut product = 1.0;
        std::array::from_fn(|k| {
            product *= (self.matches[k] as f64 + TINY) / (self.totals[k] as f64 + SMALL);
            penalty * product.powf(1.0 / (k + 1) as f64)
        })
    }

    /// BLEU-1 to BLEU-4, each from 0 to 1.
    pub fn scores(&self) -> [f64; ORDERS] {
        let (hypothesis, reference) = (self.hypothesis_words as f64, self.reference_words as f64);
        let penalty = if hypothesis > reference {
            1.0
        } else {
            (1.0 - reference / hypothesis).exp()
        };
        let mut log_product = 0.0;
        let mut scores = [0.0; ORDERS];
        for (k, score) in scores.iter_mut().enumerate() {
            if self.matches[k] == 0 {
                break;
            }
            log_product += (self.matches[k] as f64 / self.totals[k] as f64).ln();
            *score = penalty * (log_product / (k + 1) as f64).exp();
        }
        scores
    }
}

/// BLEU of all hypotheses together, each with its references.
pub fn corpus<H: AsRef<str>, R: AsRef<str>>(pairs: &[(H, Vec<R>)]) -> [f64; ORDERS] {
    let mut counts = Counts::default();
    for (hypothesis, references) in pairs {
        counts.add(hypothesis.as_ref(), references);
    }
    counts.scores()
}

/// The mean of the scores that each hypothesis has on its own; 0 without any.
pub fn sentence_mean<H: AsRef<str>, R: AsRef<str>>(pairs: &[(H, Vec<R>)]) -> [f64; ORDERS] {
    let mut sums = [0.0; ORDERS];
    for (hypothesis, references) in pairs {
        let mut counts = Counts::default();
        counts.add(hypothesis.as_ref(), references);
        for (sum, score) in sums.iter_mut().zip(counts.scores()) {
            *sum += score;
        }
    }
    sums.map(|sum| sum / pairs.len().max(1) as f64)
}
