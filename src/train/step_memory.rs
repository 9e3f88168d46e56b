//! How much memory a training step takes, found by running it on the planning device.

use super::config::Config;
use super::run::structure;
use crate::data::batches::Batches;
use crate::data::vocabulary::{SOS, Vocabulary};
use crate::device::Device;
use crate::error::Result;
use crate::model::{Captioner, Captions, Input};
use crate::nn::noise::Noise;
use crate::tensor::{Context, DType};

/// Bytes that the step arena of `device` needs for the largest batch of an epoch.
pub fn arena_bytes(
    device: &Device,
    config: &Config,
    vocabulary: &Vocabulary,
    batches: &Batches,
) -> Result<usize> {
    let batch = batches.shapes().iter().map(|&(batch, _)| batch).max();
    let steps = batches.shapes().iter().map(|&(_, steps)| steps).max();
    let (Some(batch), Some(steps)) = (batch, steps) else {
        return Ok(0);
    };
    let device = device.planning();
    let (mut captioner, declarations) = Captioner::declare(&structure(config, vocabulary.len()))?;
    let params = declarations.build(&device, DType::F32)?;
    let ctx = Context::new(&device);
    captioner.prepare(&ctx, &params)?;
    let tokens = vec![SOS; steps * batch];
    let captions = Captions::upload(&ctx, steps, batch, &tokens)?;
    let side = config.image_size;
    let input = match config.features_are_fixed() {
        true => ctx.empty(captioner.feature_shape(batch), DType::F32)?,
        false => ctx.empty([batch, side, side, 3], DType::U8)?,
    };
    let input = match config.features_are_fixed() {
        true => Input::Features(&input),
        false => Input::Images(&input),
    };
    let noise = Noise::new(&device, 0)?;
    captioner.train(&ctx, &params, input, &captions, Some(noise))?;
    Ok(ctx.peak_bytes())
}
