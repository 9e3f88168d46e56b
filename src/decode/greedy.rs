//! Greedy decoding: the most probable token, again and again, for a whole batch of images at once.

use super::{Awaited, AwaitedAttention, Sentence};
use crate::data::vocabulary::{EOS, SOS};
use crate::error::Result;
use crate::model::decoder::Decoder;
use crate::nn::params::Params;
use crate::ops::top_k;
use crate::tensor::{Context, DType, Tensor};

/// The sentence for each of the images with these features, (B, D) or (B, C, D). States and words stay on the
/// device; the chosen ids are read back once per word to see which sentences have ended. A sentence is cut after
/// `longest` tokens, `<sos>` counted ([`super::LONGEST`] in the published runs).
///
/// # Errors
/// When the device fails.
pub fn greedy(
    ctx: &Context,
    params: &Params,
    decoder: &dyn Decoder,
    features: &Tensor,
    longest: usize,
) -> Result<Vec<Sentence>> {
    let batch = features.shape().dims()[0];
    let mut ids = ctx.empty([batch, 1], DType::U32)?;
    let mut log_probabilities = ctx.empty([batch, 1], params.dtype())?;
    let mut generation = decoder.start(ctx, params, features)?;
    let mut sentences = vec![Sentence::default(); batch];
    let mut finished = vec![false; batch];
    let limit = longest - usize::from(!decoder.predicts_start());
    for position in 0..limit {
        top_k::forward(ctx, generation.logits(), &mut ids, &mut log_probabilities)?;
        let (chosen, attention) = (ids.download_later()?, AwaitedAttention::new(&*generation)?);
        let probable = Awaited::new(&log_probabilities)?;
        let (chosen, probable): (Vec<u32>, _) = (chosen.wait()?, probable.wait()?);
        let attention = attention.map(AwaitedAttention::wait).transpose()?;
        for (image, &id) in chosen.iter().enumerate() {
            if !finished[image] {
                sentences[image].log_probability += probable[image];
                sentences[image].said += 1;
            }
            finished[image] |= id == EOS;
            let starts = decoder.predicts_start() && position == 0 && id == SOS;
            if finished[image] || starts {
                continue;
            }
            sentences[image].tokens.push(id);
            if let Some(attention) = &attention {
                sentences[image].attention.push(attention[image].clone());
            }
        }
        if finished.iter().all(|&done| done) || position + 1 == limit {
            break;
        }
        generation.step(&ids.reshape([batch])?)?;
    }
    Ok(sentences)
}
