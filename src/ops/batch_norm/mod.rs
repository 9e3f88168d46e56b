//! batch_norm
