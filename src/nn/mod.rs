//! What models are built of: residual encoders, layers, all parameters in one arena, the randomness of a
//! training step, the state of sentences in progress.

pub mod linear;
pub mod noise;
pub mod params;
pub mod resnet;
pub mod state;
