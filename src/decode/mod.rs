//! From logits to sentences.

mod greedy;

pub use greedy::{Sentence, greedy};

/// Tokens of a sentence, `<sos>` counted, after which generation stops.
pub const LONGEST: usize = 51;
