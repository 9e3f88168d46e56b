//! The models: residual encoders and the two caption decoders, put together from operations.

pub mod captions;
pub mod params;
pub mod resnet;
