//! Beam search compared with all possible sentences, on toy models in f64; and its edge cases.

use crate::support;
use showtell::data::vocabulary::{EOS, SOS};
use showtell::decode::{self, Search, Sentence};
use showtell::model::attend::{self, Attend};
use showtell::model::show_tell::{self, ShowTell};
use showtell::model::{Captions, Decoder, Sizes};
use showtell::nn::params::{Declarations, Params};
use showtell::{Context, DType, Tensor};
use std::collections::HashMap;
use support::{Numbers, cpu};

/// `<pad> <sos> <unk> <eos>` and two words.
const VOCABULARY: usize = 6;
const CELLS: usize = 6;
const FEATURES: usize = 5;
/// The most tokens that are generated in the exhaustive tests.
const LIMIT: usize = 4;
/// No beam of this width ever leaves out a beginning: there are 5^3, with 6 next tokens each.
const EVERYTHING: usize = 750;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    ShowTell,
    Attend,
}

const MODELS: [Model; 2] = [Model::ShowTell, Model::Attend];

/// Either decoder, with what only its own type gives: all logits of whole captions.
enum Either {
    ShowTell(ShowTell),
    Attend(Attend),
}

impl Either {
    fn decoder(&self) -> &dyn Decoder {
        match self {
            Either::ShowTell(model) => model,
            Either::Attend(model) => model,
        }
    }
}

struct Toy {
    ctx: Context,
    params: Params,
    model: Either,
    features: Tensor,
}

impl Toy {
    /// Weights in ±`spread`: the larger, the more certain of its words the model is.
    fn new(model: Model, batch: usize, spread: f64, seed: u64) -> Self {
        let (ctx, mut numbers) = (cpu(), Numbers::new(seed));
        let mut declare = Declarations::default();
        let sizes = Sizes {
            features: FEATURES,
            map: [2, 3],
            embed: 3,
            hidden: 7,
            vocabulary: VOCABULARY,
        };
        let (model, shape) = match model {
            Model::ShowTell => {
                let settings = show_tell::Settings {
                    layers: 2,
                    embed_dropout: 0.3,
                    lstm_dropout: 0.3,
                };
                let model = ShowTell::declare(settings, sizes, &mut declare);
                (Either::ShowTell(model), vec![batch, FEATURES])
            }
            Model::Attend => {
                let settings = attend::Settings {
                    attention: 4,
                    positions: 4,
                    dropout: 0.5,
                    regulariser: 1.0,
                };
                let model = Attend::declare(settings, sizes, &mut declare).unwrap();
                (Either::Attend(model), vec![batch, CELLS, FEATURES])
            }
        };
        let params = declare.build(ctx.device(), DType::F64).unwrap();
        for id in params.ids() {
            let values = numbers.vec(params.value(id).len());
            let values: Vec<f64> = values.iter().map(|v| spread * v).collect();
            params.value(id).handle().copy_from_slice(&values).unwrap();
        }
        let features = numbers.f64(&ctx, showtell::Shape::new(&shape));
        Toy {
            ctx,
            params,
            model,
            features,
        }
    }

    fn set(&self, name: &str, values: &[f64]) {
        let id = self.params.ids().find(|&id| self.params.name(id) == name);
        let mut value = self.params.value(id.unwrap()).clone();
        value.copy_from_slice(values).unwrap();
    }

    /// Makes `<eos>` impossible, or nearly.
    fn never_ends(&self) {
        let mut bias = vec![0.0; VOCABULARY];
        bias[EOS as usize] = -100.0;
        self.set("output.bias", &bias);
    }

    /// The argument `longest` for so many generated tokens: it counts the `<sos>` that attend is given.
    fn longest(&self, limit: usize) -> usize {
        limit + usize::from(!self.model.decoder().predicts_start())
    }

    fn beam(&self, width: usize, penalty: f64, limit: usize) -> Vec<Sentence> {
        let search = Search::new(width, penalty).unwrap();
        let (params, decoder, longest) = (&self.params, self.model.decoder(), self.longest(limit));
        let features = &self.features;
        let sentences = decode::beam(&self.ctx, params, decoder, features, search, longest);
        self.ctx.reset().unwrap();
        sentences.unwrap()
    }

    fn greedy(&self, limit: usize) -> Vec<Sentence> {
        let (params, decoder, longest) = (&self.params, self.model.decoder(), self.longest(limit));
        let sentences = decode::greedy(&self.ctx, params, decoder, &self.features, longest);
        self.ctx.reset().unwrap();
        sentences.unwrap()
    }

    /// What follows every beginning of fewer than `LIMIT` tokens, by the forward pass of training, which knows no
    /// steps and no states to reorder.
    fn table(&self, image: usize) -> Table {
        let beginnings = sequences(LIMIT - 1);
        let (ctx, batch) = (&self.ctx, beginnings.len());
        let given = usize::from(!self.model.decoder().predicts_start());
        let mut tokens = vec![SOS; (given + LIMIT) * batch];
        for (b, beginning) in beginnings.iter().enumerate() {
            for (t, &token) in beginning.iter().enumerate() {
                tokens[(given + t) * batch + b] = token;
            }
        }
        let row = self.features.index(image).unwrap();
        let features = row.to_vec::<f64>().unwrap().repeat(batch);
        let mut shape = self.features.shape().dims().to_vec();
        shape[0] = batch;
        let shape = showtell::Shape::new(&shape);
        let features = Tensor::from_slice(ctx.device(), shape, &features);
        let features = features.unwrap();
        let (logits, alpha) = {
            let captions = Captions::upload(ctx, given + LIMIT, batch, &tokens).unwrap();
            match &self.model {
                Either::ShowTell(model) => {
                    let a = model.forward(ctx, &self.params, &features, &captions, None);
                    (a.unwrap().logits.to_vec::<f64>().unwrap(), None)
                }
                Either::Attend(model) => {
                    let a = model.forward(ctx, &self.params, &features, &captions, None);
                    let a = a.unwrap();
                    let alpha = a.alpha.to_vec::<f64>().unwrap();
                    (a.logits.to_vec::<f64>().unwrap(), Some(alpha))
                }
            }
        };
        self.ctx.reset().unwrap();
        let mut table = Table::new();
        for (b, beginning) in beginnings.iter().enumerate() {
            for t in 0..LIMIT {
                let row = t * batch + b;
                let logits = &logits[row * VOCABULARY..][..VOCABULARY];
                let total = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
                let alpha = alpha.as_ref().map(|alpha| {
                    let positions = alpha.len() / (LIMIT * batch);
                    alpha[row * positions..][..positions].to_vec()
                });
                let log_p = logits.iter().map(|l| l - total).collect();
                table.insert(beginning[..t].to_vec(), (log_p, alpha));
            }
        }
        table
    }

    /// As the engine says it: without `<eos>`, and without the `<sos>` that show-tell starts with.
    fn sentence(&self, table: &Table, tokens: &[u32]) -> Sentence {
        let starts = self.model.decoder().predicts_start() && tokens.first() == Some(&SOS);
        let said = tokens;
        let tokens = tokens.strip_suffix(&[EOS]).unwrap_or(tokens);
        let attention = (usize::from(starts)..tokens.len()).filter_map(|t| {
            let alpha = table[&tokens[..t]].1.as_ref()?;
            Some(alpha.iter().map(|&a| a as f32).collect())
        });
        Sentence {
            attention: attention.collect(),
            tokens: tokens[usize::from(starts)..].to_vec(),
            log_probability: log_p(table, said),
            said: said.len(),
        }
    }
}

/// log p of every next token after a beginning, and the attention they were found under.
type Table = HashMap<Vec<u32>, (Vec<f64>, Option<Vec<f64>>)>;

/// All sequences of `len` tokens other than `<eos>`.
fn sequences(len: usize) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for _ in 0..len {
        let longer = all.iter().flat_map(|sequence| {
            let tokens = (0..VOCABULARY as u32).filter(|&token| token != EOS);
            tokens.map(move |token| [sequence.as_slice(), &[token]].concat())
        });
        all = longer.collect();
    }
    all
}

fn log_p(table: &Table, tokens: &[u32]) -> f64 {
    let each = tokens.iter().enumerate();
    each.map(|(t, &token)| table[&tokens[..t]].0[token as usize])
        .sum()
}

fn score(table: &Table, tokens: &[u32], penalty: f64) -> f64 {
    log_p(table, tokens) / (tokens.len() as f64).powf(penalty)
}

fn best(candidates: Vec<Vec<u32>>, score: impl Fn(&[u32]) -> f64) -> Vec<u32> {
    let best = candidates
        .into_iter()
        .max_by(|a, b| score(a).total_cmp(&score(b)));
    best.unwrap()
}

/// The best of all finished sentences of at most `LIMIT` tokens.
fn exhaustive(table: &Table, penalty: f64) -> Vec<u32> {
    let finished = (0..LIMIT).flat_map(sequences);
    let finished = finished.map(|words| [words.as_slice(), &[EOS]].concat());
    best(finished.collect(), |tokens| score(table, tokens, penalty))
}

/// Beam search exactly as it is defined, up to the limit and without short cuts.
fn plain_beam(table: &Table, width: usize, penalty: f64) -> Vec<u32> {
    let (mut live, mut finished) = (vec![Vec::<u32>::new()], Vec::new());
    for _ in 0..LIMIT {
        let mut candidates = Vec::new();
        for beginning in &live {
            let tokens = 0..VOCABULARY as u32;
            candidates.extend(tokens.map(|token| [beginning.as_slice(), &[token]].concat()));
        }
        candidates.sort_by(|a, b| log_p(table, b).total_cmp(&log_p(table, a)));
        candidates.truncate(width - finished.len());
        let (ended, going) = candidates
            .into_iter()
            .partition(|tokens| tokens.last() == Some(&EOS));
        live = going;
        finished.extend::<Vec<_>>(ended);
    }
    if finished.is_empty() {
        best(live, |tokens| log_p(table, tokens))
    } else {
        best(finished, |tokens| score(table, tokens, penalty))
    }
}

/// Attention is rounded to f32, and α is at most 1.
fn assert_same(found: &Sentence, expected: &Sentence, what: &str) {
    assert_eq!(found.tokens, expected.tokens, "{what}");
    let off = (found.log_probability - expected.log_probability).abs();
    assert!(off <= 1e-9, "{what}: log p is off by {off}");
    assert_eq!(found.said, expected.said, "{what}");
    assert_eq!(found.attention.len(), expected.attention.len(), "{what}");
    for (found, expected) in found.attention.iter().zip(&expected.attention) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= f32::EPSILON,
                "{what}: attention"
            );
        }
    }
}

const PENALTIES: [f64; 3] = [0.0, 0.7, 1.5];

#[test]
fn a_beam_of_everything_equals_exhaustive_search() {
    for model in MODELS {
        let (mut unlike_greedy, mut unlike_unpenalised) = (0, 0);
        for seed in 0..6 {
            let toy = Toy::new(model, 2, 2.0, seed);
            let greedy = toy.greedy(LIMIT);
            let tables = [toy.table(0), toy.table(1)];
            for penalty in PENALTIES {
                let found = toy.beam(EVERYTHING, penalty, LIMIT);
                for (image, table) in tables.iter().enumerate() {
                    let best = exhaustive(table, penalty);
                    let what = format!("{model:?} {seed} {penalty} image {image}");
                    assert_same(&found[image], &toy.sentence(table, &best), &what);
                    unlike_greedy += usize::from(found[image].tokens != greedy[image].tokens);
                    unlike_unpenalised += usize::from(best != exhaustive(table, 0.0));
                }
            }
        }
        assert!(unlike_greedy > 3, "{model:?}: greedy finds them as well");
        assert!(
            unlike_unpenalised > 3,
            "{model:?}: the penalty hardly matters"
        );
    }
}

/// A beam that drops nothing has the N best of all sentences, in order; the greedy sentence has the log-probability of its tokens.
#[test]
fn the_best_sentences_are_ranked() {
    const MOST: usize = 7;
    for model in MODELS {
        for seed in 0..4 {
            let toy = Toy::new(model, 2, 2.0, seed);
            for penalty in PENALTIES {
                let search = Search::new(EVERYTHING, penalty).unwrap();
                let (decoder, longest) = (toy.model.decoder(), toy.longest(LIMIT));
                let (ctx, params, features) = (&toy.ctx, &toy.params, &toy.features);
                let found = decode::ranked(ctx, params, decoder, features, search, MOST, longest);
                let (found, greedy) = (found.unwrap(), toy.greedy(LIMIT));
                for (image, found) in found.iter().enumerate() {
                    let table = toy.table(image);
                    let finished = (0..LIMIT).flat_map(sequences);
                    let finished = finished.map(|words| [words.as_slice(), &[EOS]].concat());
                    let mut all: Vec<Vec<u32>> = finished.collect();
                    all.sort_by(|a, b| {
                        score(&table, b, penalty).total_cmp(&score(&table, a, penalty))
                    });
                    assert_eq!(found.len(), MOST);
                    for (place, (found, expected)) in found.iter().zip(&all).enumerate() {
                        let what =
                            format!("{model:?} {seed} {penalty} image {image} place {place}");
                        assert_same(found, &toy.sentence(&table, expected), &what);
                    }
                    let said = &greedy[image];
                    let mut tokens = said.tokens.clone();
                    if decoder.predicts_start() && said.said > tokens.len() + 1 {
                        tokens.insert(0, SOS);
                    }
                    if said.said > tokens.len() {
                        tokens.push(EOS);
                    }
                    let off = (said.log_probability - log_p(&table, &tokens)).abs();
                    assert!(off <= 1e-9 && said.said == tokens.len(), "{said:?}: {off}");
                    let mean = (said.log_probability / said.said as f64).exp();
                    assert!((said.confidence() - mean).abs() < 1e-12);
                }
            }
        }
    }
}

#[test]
fn narrow_beams_do_as_defined() {
    for model in MODELS {
        for seed in 0..8 {
            let toy = Toy::new(model, 3, 3.0, 100 + seed);
            for image in 0..3 {
                let table = toy.table(image);
                for (width, penalty) in [2, 3, 5, 17].into_iter().zip([0.0, 1.0, 0.0, 0.6]) {
                    let expected = toy.sentence(&table, &plain_beam(&table, width, penalty));
                    let found = &toy.beam(width, penalty, LIMIT)[image];
                    assert_same(found, &expected, &format!("{model:?} {seed} K={width}"));
                }
            }
        }
    }
}

#[test]
fn a_beam_of_one_is_greedy() {
    for model in MODELS {
        for seed in 0..8 {
            let toy = Toy::new(model, 5, 3.0, 200 + seed);
            let greedy = toy.greedy(12);
            for penalty in PENALTIES {
                assert_eq!(toy.beam(1, penalty, 12), greedy, "{model:?} {seed}");
            }
        }
    }
}

#[test]
fn images_together_are_captioned_as_one_by_one() {
    for model in MODELS {
        let batch = 5;
        let mut toy = Toy::new(model, batch, 3.0, 300);
        let together = toy.beam(3, 0.7, 12);
        let lengths = together.iter().map(|sentence| sentence.tokens.len());
        assert!(
            lengths.collect::<std::collections::HashSet<_>>().len() > 1,
            "{model:?}: all images are finished at the same time"
        );
        let features = toy.features.clone();
        for (image, expected) in together.iter().enumerate() {
            toy.features = features.narrow(image, 1).unwrap();
            let alone = &toy.beam(3, 0.7, 12)[0];
            assert_same(alone, expected, &format!("{model:?} image {image}"));
        }
    }
}

#[test]
fn without_a_finished_sentence_the_best_unfinished_one_is_returned() {
    for model in MODELS {
        for seed in 0..4 {
            let toy = Toy::new(model, 1, 2.0, 400 + seed);
            toy.never_ends();
            let table = toy.table(0);
            // As wide as there are other tokens than `<eos>`: wider, it would have to take that in.
            for width in [1, 2, VOCABULARY - 1] {
                let best = plain_beam(&table, width, 1.0);
                assert!(best.len() == LIMIT && !best.contains(&EOS));
                let found = &toy.beam(width, 1.0, LIMIT)[0];
                let expected = toy.sentence(&table, &best);
                assert_same(found, &expected, &format!("{model:?} {seed} K={width}"));
            }
        }
    }
}

/// p(word) = 0.6 and p(`<eos>`) = 0.4 at every step, whatever was said; at most three tokens. The sentences of 0, 1
/// and 2 words have log p = -0.916, -1.427, -1.938 in 1, 2 and 3 tokens:
///
/// α = 0.60: -0.916, -0.942, -1.003; α = 0.66: -0.916, -0.903, -0.939; α = 1: -0.916, -0.714, -0.646.
#[test]
fn the_length_penalty_chooses_as_computed_by_hand() {
    let toy = Toy::new(Model::Attend, 1, 1.0, 500);
    let word = 4;
    let mut bias = vec![-1000.0; VOCABULARY];
    (bias[word], bias[EOS as usize]) = (0.6f64.ln(), 0.4f64.ln());
    toy.set("output.bias", &bias);
    toy.set("output.weight", &vec![0.0; VOCABULARY * 7]);
    for (penalty, words) in [(0.0, 0), (0.6, 0), (0.66, 1), (1.0, 2)] {
        let found = toy.beam(4, penalty, 3);
        assert_eq!(found[0].tokens, vec![word as u32; words], "α = {penalty}");
        assert_eq!(found[0].attention.len(), words);
    }
}

#[test]
fn memory_does_not_grow_with_the_steps() {
    for model in MODELS {
        let peak = |limit| {
            let toy = Toy::new(model, 2, 2.0, 600);
            toy.never_ends();
            let words = toy.beam(3, 0.0, limit)[0].tokens.len();
            assert!(words + 1 >= limit, "it ended before the limit");
            toy.ctx.peak_bytes()
        };
        assert_eq!(peak(4), peak(40), "{model:?}");
    }
}

#[test]
fn impossible_searches_are_refused() {
    for (width, penalty) in [(0, 0.0), (2, -0.1), (2, f64::NAN), (2, f64::INFINITY)] {
        let error = Search::new(width, penalty).unwrap_err().to_string();
        assert!(error.contains(&width.to_string()), "{error}");
    }
}
