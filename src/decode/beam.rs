//! Beam search: the K most probable beginnings of a sentence are followed side by side, for a whole batch of
//! images at once.
//!
//! A sentence of n generated tokens scores Σ log p / n^α, where α is the length penalty, and 0 is no penalty. `<eos>` is
//! counted, and `<sos>` where the decoder generates it. This is length normalisation by n itself, where Wu et al. 2016
//! (equation 14) have (5 + n) / 6. At any time all beginnings have the same length and are compared by Σ log p.
//!
//! As in the published code of Xu et al. 2015, a finished sentence leaves the beam and its place is lost: once F
//! sentences have finished, K - F beginnings are followed. The search for an image ends when K sentences have finished,
//! when no beginning can become better than the best of them, or at the limit. The result is then the best finished
//! sentence, or the best unfinished one if none has finished.

use super::{Awaited, AwaitedAttention, Search, Sentence};
use crate::data::vocabulary::{EOS, PAD, SOS};
use crate::error::Result;
use crate::model::decoder::{Decoder, Generation};
use crate::nn::params::Params;
use crate::ops::top_k;
use crate::tensor::{Context, DType, Tensor};

/// The sentence for each of the images with these features, (B, D) or (B, C, D), cut after `longest` tokens, `<sos>`
/// counted. States stay on the device, a row for every image and beginning; the K best tokens of each row are read
/// back once per word.
///
/// # Errors
/// When the device fails.
pub fn beam(
    ctx: &Context,
    params: &Params,
    decoder: &dyn Decoder,
    features: &Tensor,
    search: Search,
    longest: usize,
) -> Result<Vec<Sentence>> {
    let ranked = ranked(ctx, params, decoder, features, search, 1, longest)?;
    Ok(ranked.into_iter().flatten().collect())
}

/// As [`beam`], the `most` best finished sentences for each image, the best first; of an image without any, the best unfinished one. The
/// search for an image then goes on while a beginning can become better than the last of them.
///
/// # Errors
/// When the device fails.
pub fn ranked(
    ctx: &Context,
    params: &Params,
    decoder: &dyn Decoder,
    features: &Tensor,
    search: Search,
    most: usize,
    longest: usize,
) -> Result<Vec<Vec<Sentence>>> {
    let (batch, width) = (features.shape().dims()[0], search.beam);
    let limit = longest - usize::from(!decoder.predicts_start());
    let offered = width.min(decoder.vocabulary());
    let ids = ctx.empty([batch * width, offered], DType::U32)?;
    let log_probabilities = ctx.empty([batch * width, offered], params.dtype())?;
    let mut parents = ctx.empty([batch * width], DType::U32)?;
    let mut words = ctx.empty([batch * width], DType::U32)?;
    let mut beams = vec![Beam::new(search, most, limit); batch];
    let mut generation = decoder.start(ctx, params, features)?;
    for position in 0..limit {
        // Before the first word all beginnings of an image are the same: it has one row.
        let rows = if position == 0 { 1 } else { width };
        let mut ids = ids.narrow(0, batch * rows)?;
        let mut log_probabilities = log_probabilities.narrow(0, batch * rows)?;
        let logits = generation.logits();
        top_k::forward(ctx, logits, &mut ids, &mut log_probabilities)?;
        let offers = Offers::read(&ids, &log_probabilities, &*generation)?;
        let starts = decoder.predicts_start() && position == 0;
        for (image, beam) in beams.iter_mut().enumerate() {
            beam.advance(&offers, image * rows, starts);
        }
        if beams.iter().all(|beam| beam.live.is_empty()) || position + 1 == limit {
            break;
        }
        let [from, said] = layout(&beams, rows, width);
        parents.copy_from_slice(&from)?;
        words.copy_from_slice(&said)?;
        match position {
            0 => generation.branch(&parents)?,
            _ => generation.reorder(&parents)?,
        }
        generation.step(&words)?;
    }
    Ok(beams.iter().map(Beam::ranked).collect())
}

/// For each of the `width` rows that an image has in the next step: the row that it goes on from, of the `rows` rows per
/// image that there are now, and the word that it reads. Rows without a beginning repeat the first row, and their
/// results are ignored.
fn layout(beams: &[Beam], rows: usize, width: usize) -> [Vec<u32>; 2] {
    let mut from = Vec::with_capacity(beams.len() * width);
    let mut said = Vec::with_capacity(beams.len() * width);
    for (image, beam) in beams.iter().enumerate() {
        let first = image * rows;
        from.extend(beam.live.iter().map(|live| (first + live.slot) as u32));
        said.extend(beam.live.iter().map(|live| live.word));
        from.resize((image + 1) * width, first as u32);
        said.resize((image + 1) * width, PAD);
    }
    [from, said]
}

/// What a step offers on the host, row by row: the best next tokens, best first, and the attention under which they
/// were found.
struct Offers {
    tokens: Vec<Vec<(u32, f64)>>,
    attention: Option<Vec<Vec<f32>>>,
}

impl Offers {
    fn read(ids: &Tensor, log_probabilities: &Tensor, generation: &dyn Generation) -> Result<Self> {
        // All are on their way before the first is waited for.
        let tokens = ids.download_later::<u32>()?;
        let values = Awaited::new(log_probabilities)?;
        let attention = AwaitedAttention::new(generation)?;
        let tokens: Vec<_> = tokens.wait()?.into_iter().zip(values.wait()?).collect();
        Ok(Offers {
            tokens: tokens.chunks(ids.cols()).map(<[_]>::to_vec).collect(),
            attention: attention.map(AwaitedAttention::wait).transpose()?,
        })
    }
}

/// A word of a sentence and the one before it, by its place among the [`Beam::words`].
#[derive(Clone)]
struct Word {
    before: Option<usize>,
    token: u32,
    attention: Vec<f32>,
}

/// The beginning of a sentence.
#[derive(Clone)]
struct Hypothesis {
    /// `None` before the first word.
    last: Option<usize>,
    /// Σ log p
    log_probability: f64,
    /// Which of the image's rows it came from, and the token it said there.
    slot: usize,
    word: u32,
}

/// The search for one image.
#[derive(Clone)]
struct Beam {
    search: Search,
    /// Sentences that are wanted.
    most: usize,
    limit: usize,
    /// Tokens generated so far.
    length: usize,
    /// The words of all beginnings: a forest, as they share what they have in common.
    words: Vec<Word>,
    /// Most probable first; empty when the search is over.
    live: Vec<Hypothesis>,
    /// The best first.
    finished: Vec<Finished>,
}

/// A sentence that has come to its end.
#[derive(Clone)]
struct Finished {
    score: f64,
    log_probability: f64,
    /// Tokens with `<eos>`.
    said: usize,
    last: Option<usize>,
}

impl Beam {
    fn new(search: Search, most: usize, limit: usize) -> Self {
        let nothing = Hypothesis {
            last: None,
            log_probability: 0.0,
            slot: 0,
            word: PAD,
        };
        Beam {
            search,
            most,
            limit,
            length: 0,
            words: Vec::new(),
            live: vec![nothing],
            finished: Vec::new(),
        }
    }

    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.search.length_penalty)
    }

    /// Adds one token to every beginning. Their rows of `offers` begin at `first`. With `starts`, a `<sos>` is not
    /// counted as a word.
    fn advance(&mut self, offers: &Offers, first: usize, starts: bool) {
        self.length += 1;
        let mut candidates = Vec::new();
        for (slot, live) in self.live.iter().enumerate() {
            let offered = offers.tokens[first + slot].iter();
            candidates.extend(offered.map(|&(word, log_probability)| Hypothesis {
                last: live.last,
                log_probability: live.log_probability + log_probability,
                slot,
                word,
            }));
        }
        // The sort is stable: of two equal candidates, the one that is ahead so far stays ahead.
        candidates.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
        candidates.truncate(self.search.beam - self.finished.len());
        self.live.clear();
        for mut candidate in candidates {
            if candidate.word == EOS {
                self.finish(&candidate);
                continue;
            }
            if !(starts && candidate.word == SOS) {
                let attention = offers.attention.as_ref();
                self.words.push(Word {
                    before: candidate.last,
                    token: candidate.word,
                    attention: attention
                        .map_or_else(Vec::new, |a| a[first + candidate.slot].clone()),
                });
                candidate.last = Some(self.words.len() - 1);
            }
            self.live.push(candidate);
        }
        if !self.can_improve() {
            self.live.clear();
        }
    }

    fn finish(&mut self, sentence: &Hypothesis) {
        let score = self.score(sentence.log_probability, self.length);
        // Of two equal sentences, the one that was finished first stays ahead.
        let place = self.finished.partition_point(|other| other.score >= score);
        let finished = Finished {
            score,
            log_probability: sentence.log_probability,
            said: self.length,
            last: sentence.last,
        };
        self.finished.insert(place, finished);
    }

    /// Whether a beginning can still become better than the last finished sentence that is wanted. Its Σ log p can only fall, and the
    /// division by n^α helps most at the limit.
    fn can_improve(&self) -> bool {
        let last = self.finished.get(self.most.max(1) - 1);
        let (Some(last), Some(leader)) = (last, self.live.first()) else {
            return true;
        };
        self.score(leader.log_probability, self.limit) > last.score
    }

    fn ranked(&self) -> Vec<Sentence> {
        if self.finished.is_empty() {
            let leader = self.live.first();
            let (last, log_probability) =
                leader.map_or((None, 0.0), |leader| (leader.last, leader.log_probability));
            return vec![self.sentence(last, log_probability, self.length)];
        }
        let wanted = self.finished.iter().take(self.most.max(1));
        let sentence = |f: &Finished| self.sentence(f.last, f.log_probability, f.said);
        wanted.map(sentence).collect()
    }

    /// The words up to `last`.
    fn sentence(&self, last: Option<usize>, log_probability: f64, said: usize) -> Sentence {
        let mut next = last;
        let mut sentence = Sentence {
            log_probability,
            said,
            ..Sentence::default()
        };
        while let Some(place) = next {
            let word = &self.words[place];
            sentence.tokens.push(word.token);
            if !word.attention.is_empty() {
                sentence.attention.push(word.attention.clone());
            }
            next = word.before;
        }
        sentence.tokens.reverse();
        sentence.attention.reverse();
        sentence
    }
}
