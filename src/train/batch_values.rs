//! Batches that batch-norm cannot normalise by their own statistics: a single image whose features are 1 x 1 has one value
//! per channel, and one value has no variance.

use super::config::{Config, EncoderBatchNorm};
use super::evaluate;
use super::run::structure;
use crate::error::{Error, Result};

/// Images whose statistics a random encoder's batch-norm is calibrated on.
const CALIBRATION_IMAGES: usize = 64;

/// Whether an image gives one value per channel in the last stage of the encoder.
fn is_single(config: &Config) -> bool {
    let encoder = structure(config, 0).encoder;
    encoder.feature_size([config.image_size; 2]) == [1, 1]
}

/// Checks a batch of this many images, out of `samples` samples.
///
/// # Errors
/// When batch-norm is to use the statistics of the batch, and it has one value per channel. The message says which settings
/// to change.
pub fn check_batch(config: &Config, images: usize, samples: usize) -> Result<()> {
    let by_batch = config.encoder_batch_norm == EncoderBatchNorm::Batch;
    if images != 1 || !by_batch || !is_single(config) {
        return Ok(());
    }
    let others = (2..config.batch_size)
        .rev()
        .chain(config.batch_size + 1..=samples);
    let other = others.into_iter().find(|size| samples % size != 1);
    let other = other.map_or(String::new(), |size| format!("`batch-size = {size}`, "));
    let message = format!(
        "found {}, which leaves a batch of a single sample of {samples}; with images of {side} x {side} pixels it has one \
         value per channel in the encoder's last stage, and `encoder-batch-norm = \"batch\"` needs more to normalise by. \
         Use {other}a larger `image-size`, or `encoder-batch-norm = \"running\"`",
        config.batch_size,
        side = config.image_size,
    );
    Err(Error::setting("batch-size", message))
}

/// Checks every batch that an epoch of this many samples has.
///
/// # Errors
/// As [`check_batch`].
pub fn check_batches(config: &Config, samples: usize) -> Result<()> {
    check_batch(config, config.batch_size.min(samples), samples)?;
    check_batch(config, samples % config.batch_size, samples)
}

/// How many of the training images a random encoder's batch-norm is calibrated on.
///
/// # Errors
/// When there is one image, and it has one value per channel.
pub fn calibration_images(config: &Config, images: usize) -> Result<usize> {
    let count = images.min(CALIBRATION_IMAGES);
    if count % evaluate::BATCH != 1 || !is_single(config) {
        return Ok(count);
    }
    if count == 1 {
        let message = format!(
            "found {}, with which the only training image has one value per channel in the last stage of the random \
             encoder, whose batch-norm needs more to start with. Use a larger `image-size`, or more images",
            config.image_size
        );
        return Err(Error::setting("image-size", message));
    }
    Ok(count - 1)
}
