//! How good captions are.

pub mod bleu;
