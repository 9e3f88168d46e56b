//! What a run trains and validates on.

use super::config::Config;
use crate::data::batches::Batch;
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::samples::{Limits, Samples};
use crate::data::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::model::{Captions, Model, VocabularyOf};
use crate::tensor::{Context, DType, Tensor};

/// The vocabulary of a model, from the captions that it is counted from.
pub fn vocabulary(model: Model, dataset: &Flickr8k) -> Vocabulary {
    match model.vocabulary {
        VocabularyOf::AllCaptions => Vocabulary::build(dataset.all_captions()),
        VocabularyOf::TrainingCaptions => Vocabulary::build(dataset.captions(Split::Train)),
    }
}

/// How much of the training split a run uses.
pub fn training_limits(config: &Config) -> Limits {
    Limits {
        images: config.limit_images,
        captions_per_image: config.captions_per_image,
    }
}

/// The samples that a run trains on.
///
/// # Errors
/// When there are none.
pub fn training_samples(
    config: &Config,
    dataset: &Flickr8k,
    vocabulary: &Vocabulary,
) -> Result<Samples> {
    let samples = Samples::new(dataset, Split::Train, vocabulary, training_limits(config));
    if samples.is_empty() {
        let message = "the training list names no image that has a caption";
        return Err(Error::Config(message.into()));
    }
    Ok(samples)
}

/// The samples that a run validates on, if it does.
pub fn validation_samples(
    config: &Config,
    dataset: &Flickr8k,
    vocabulary: &Vocabulary,
) -> Option<Samples> {
    let samples = || Samples::new(dataset, Split::Dev, vocabulary, Limits::default());
    let samples = config.validate.then(samples);
    samples.filter(|samples| !samples.is_empty())
}

/// A batch's captions, in the step arena.
///
/// # Errors
/// When the device has no memory left.
pub fn upload_captions(ctx: &Context, batch: &Batch) -> Result<Captions> {
    Captions::upload(ctx, batch.steps, batch.len(), &batch.time_major())
}

/// A batch's captions, and `words` (k, B), which say where each of its images is, in the step arena and in one copy.
///
/// # Errors
/// When the device has no memory left.
pub fn upload_captions_and_words(
    ctx: &Context,
    batch: &Batch,
    words: &[u32],
) -> Result<(Captions, Tensor)> {
    let more = words.len() / batch.len();
    let mut both = ctx.empty([batch.steps + more, batch.len()], DType::U32)?;
    both.copy_from_slice(&[&batch.time_major(), words].concat())?;
    let tokens = both.narrow(0, batch.steps)?;
    Ok((Captions { tokens }, both.narrow(batch.steps, more)?))
}
