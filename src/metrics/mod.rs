//! Measures of the quality of captions.

pub mod bleu;
