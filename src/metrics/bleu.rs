//! BLEU (Papineni, Roukos, Ward and Zhu, 2002), as torchmetrics' `BLEUScore` without smoothing.
//!
//! BLEU-n = b · (p_1 … p_n)^(1/n). p_k: of all k-grams of the hypotheses, the share found in the
//! references, each counted at most as often as the reference that has it most often. b compares h, the
//! hypotheses' words, with r, the sum of the lengths of the references closest in length to their
//! hypothesis (the first listed wins a tie): 1 if h > r, else exp(1 − r/h). 0 when one of the p_k is 0.

use std::collections::HashMap;

/// The longest n-grams that count.
pub const ORDERS: usize = 4;

/// What a corpus amounts to.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// k-grams of the hypotheses that the references have, by k − 1.
    matches: [usize; ORDERS],
    /// All k-grams of the hypotheses, by k − 1.
    totals: [usize; ORDERS],
    hypothesis_words: usize,
    reference_words: usize,
}

impl Counts {
    /// Adds a hypothesis and its references; words are what stands between white space.
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
        let penalty = match hypothesis > reference {
            true => 1.0,
            false => (1.0 - reference / hypothesis).exp(),
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
