//! From logits to sentences.
