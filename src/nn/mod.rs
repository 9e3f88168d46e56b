//! The models: residual encoders and the two caption decoders, put together from operations.

pub mod attend;
pub mod captioner;
pub mod captions;
pub mod decoder;
pub mod layer;
pub mod params;
pub mod resnet;
pub mod show_tell;
