//! Whether a captioner sees its images: its captions are scored once more, against the references of other images.
//!
//! A model that does not see says what is said most often, and scores as well on another image. That looks like a bad model: BLEU-4
//! of 14 or 15 on Flickr8k, with captions that read well. A known cause is an encoder whose pixels are not normalised as it was trained.

use super::coco::{self, Pair, Scores};
use serde::Serialize;

/// What the scores against other images say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The captions fit their own images clearly better.
    Sees,
    /// They fit them better, but others nearly as well.
    SeesLittle,
    /// They fit others as well as their own.
    Blind,
    /// There are too few images to tell.
    Unknown,
}

/// Captions against the references of other images.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sight {
    /// The scores where each caption is given to another image of the set.
    pub shuffled: Scores,
    /// By how much CIDEr-D is higher with the right images: the mean over captions,
    pub gain: f64,
    /// and the standard error of that mean.
    pub error: f64,
    /// What it means.
    pub verdict: Verdict,
}

/// Fewer images than this say nothing.
const FEWEST: usize = 20;
/// Standard errors that the gain of a model that sees is above 0.
const CERTAIN: f64 = 3.0;
/// The share of CIDEr-D that is left on other images where a model sees little.
const MUCH: f64 = 0.7;

impl Sight {
    /// From captions with the references of their images.
    pub fn new(pairs: &[Pair]) -> Self {
        // Half of the set away, so that images that lie side by side because they are alike are not taken for each other.
        let others = pairs.iter().cycle().skip(pairs.len() / 2);
        let shuffled: Vec<Pair> = pairs
            .iter()
            .zip(others)
            .map(|(pair, other)| Pair {
                caption: pair.caption.clone(),
                references: other.references.clone(),
            })
            .collect();
        let ((scores, own), (shuffled, others)) = (coco::each(pairs), coco::each(&shuffled));
        let gains: Vec<f64> = own.iter().zip(&others).map(|(a, b)| a - b).collect();
        let count = gains.len().max(1) as f64;
        let gain = gains.iter().sum::<f64>() / count;
        let squares: f64 = gains.iter().map(|g| (g - gain) * (g - gain)).sum();
        let error = (squares / (count - 1.0).max(1.0) / count).sqrt();
        let verdict = if pairs.len() < FEWEST {
            Verdict::Unknown
        } else if gain <= CERTAIN * error {
            Verdict::Blind
        } else if shuffled.cider_d > MUCH * scores.cider_d {
            Verdict::SeesLittle
        } else {
            Verdict::Sees
        };
        Sight {
            shuffled,
            gain,
            error,
            verdict,
        }
    }
}
