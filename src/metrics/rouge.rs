//! ROUGE-L (Lin, 2004), equal to pycocoevalcap's.
//!
//! Of a hypothesis and each reference, the longest common subsequence L gives a precision L / |hypothesis| and a recall L / |reference|.
//! With the largest p and the largest r over the references, be they of the same one or not, the score is
//! (1 + β²) p r / (r + β² p), β = 1.2.

const BETA: f64 = 1.2;

/// The score of a hypothesis against references, from 0 to 1; 0 where no word is common.
pub fn rouge_l<T: PartialEq>(hypothesis: &[T], references: &[Vec<T>]) -> f64 {
    let (mut precision, mut recall): (f64, f64) = (0.0, 0.0);
    for reference in references {
        let common = longest_common(hypothesis, reference);
        if common > 0 {
            precision = precision.max(common as f64 / hypothesis.len() as f64);
            recall = recall.max(common as f64 / reference.len() as f64);
        }
    }
    if precision == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// The length of the longest common subsequence, row by row of the usual table.
fn longest_common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (i, other) in b.iter().enumerate() {
            let above = lengths[i + 1];
            lengths[i + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(lengths[i])
            };
            diagonal = above;
        }
    }
    lengths[b.len()]
}
