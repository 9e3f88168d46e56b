//! BLEU (Papineni, Roukos, Ward and Zhu, 2002), equal to torchmetrics' `BLEUScore` without smoothing.
//!
//! BLEU-n = b · (p_1 … p_n)^(1/n).
//!
//! p_k is the share of the k-grams of all hypotheses that the references contain. A k-gram counts at most as often
//! as it occurs in the reference with the most occurrences of it. The brevity penalty b is 1 if h > r, and
//! exp(1 − r/h) otherwise: h is the number of words of all hypotheses, and r is the sum of the lengths of one
//! reference per hypothesis, the one closest in length (the first of several). BLEU-n is 0 if one of the p_k is 0.

use std::collections::HashMap;

/// The length of the longest n-grams.
pub const ORDERS: usize = 4;

/// The counts of a corpus, from which BLEU is computed.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Element k − 1: the number of k-grams of the hypotheses that the references contain.
    matches: [usize; ORDERS],
    /// Element k − 1: the number of all k-grams of the hypotheses.
    totals: [usize; ORDERS],
    hypothesis_words: usize,
    reference_words: usize,
}

impl Counts {
    /// Adds a hypothesis and its references. Words are separated by white space.
    pub fn add<R: AsRef<str>>(&mut self, hypothesis: &str, references: &[R]) {
        let split = |text| -> Vec<&str> { str::split_whitespace(text).collect() };
        let hypothesis = split(hypothesis);
        let references: Vec<Vec<&str>> = references.iter().map(|r| split(r.as_ref())).collect();
        self.hypothesis_words += hypothesis.len();
        let lengths = references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|length| length.abs_diff(hypothesis.len()));
        self.reference_words += closest.unwrap_or(0);
        for n in 1..=ORDERS {
            let mut allowed: HashMap<&[&str], usize> = HashMap::new();
            for reference in &references {
                for (gram, count) in count_ngrams(reference, n) {
                    let most = allowed.entry(gram).or_default();
                    *most = count.max(*most);
                }
            }
            for (gram, count) in count_ngrams(&hypothesis, n) {
                self.totals[n - 1] += count;
                self.matches[n - 1] += count.min(allowed.get(gram).copied().unwrap_or(0));
            }
        }
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

fn count_ngrams<'a>(words: &'a [&'a str], n: usize) -> HashMap<&'a [&'a str], usize> {
    let mut counts = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}
