//! regulariser
