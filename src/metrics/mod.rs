//! Measures of the quality of captions.

pub mod bleu;
pub mod cider;
pub mod coco;
mod ngrams;
pub mod rouge;
pub mod sight;
pub mod treebank;
