//! A recorded training step, replayed, leaves the same bits as one launched kernel by kernel, for both models, with everything
//! random switched on.

use crate::support;
use showtell::DType;
use showtell::data::flickr8k::Flickr8k;
use showtell::device::Recording;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::model::{Captions, Engine, Input, Model};
use showtell::nn::noise::Noise;
use showtell::train::config::{Config, EncoderBatchNorm};
use showtell::train::optimiser::Optimiser;
use showtell::train::run::structure;
use showtell::train::trainer;
use support::training::small;
use support::{Numbers, cuda, pictures};

const BATCH: usize = 3;
const TOKENS: usize = 7;
const STEPS: u32 = 4;

/// The weights and the last gradients' norm after some steps, each on another batch.
fn train(config: &Config, replayed: bool) -> Option<(Vec<f32>, f32)> {
    let device = cuda()?.device().clone();
    let data = pictures::temporary();
    let dataset = Flickr8k::open(data.path()).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let words = vocabulary.len();
    let mut engine = Engine::new(&device, &structure(config, words), vocabulary).unwrap();
    let Engine {
        ctx,
        captioner,
        params,
        ..
    } = &mut engine;
    params.initialise(1).unwrap();
    captioner.prepare(ctx, params).unwrap();
    let mut optimiser = Optimiser::new(config, params).unwrap();
    let mut noise = Noise::new(&device, 5).unwrap();
    let mut numbers = Numbers::new(2);
    let side = config.image_size;
    let mut graph: Option<Recording> = None;
    for step in 0..STEPS {
        let bytes: Vec<u8> = (0..BATCH * side * side * 3)
            .map(|_| numbers.below(256) as u8)
            .collect();
        let tokens: Vec<u32> = (0..BATCH * TOKENS)
            .map(|_| 1 + numbers.below(words - 1) as u32)
            .collect();
        let mut pixels = ctx.empty([BATCH, side, side, 3], DType::U8).unwrap();
        pixels.copy_from_slice(&bytes).unwrap();
        let captions = Captions::upload(ctx, TOKENS, BATCH, &tokens).unwrap();
        noise.set_step(step).unwrap();
        optimiser.begin_step([0.01, 0.001]).unwrap();
        let mut body = || {
            let input = Input::Images(&pixels);
            captioner.train(ctx, params, input, &captions, Some(noise.clone()))?;
            optimiser.step(ctx, params)
        };
        match &graph {
            Some(graph) => graph.replay().unwrap(),
            // The first step loads the kernels and finds the size of the arena.
            None if replayed && step > 0 => {
                let recorded = ctx.device().record(body).unwrap();
                recorded.replay().unwrap();
                graph = Some(recorded);
            }
            None => body().unwrap(),
        }
        drop((pixels, captions));
        ctx.reset().unwrap();
    }
    assert_eq!(graph.is_some(), replayed);
    let norm = optimiser.norm.to_vec::<f32>().unwrap()[0];
    Some((params.values().to_vec().unwrap(), norm))
}

fn check(config: Config) {
    let Some((plain, norm)) = train(&config, false) else {
        return;
    };
    let (replayed, replayed_norm) = train(&config, true).unwrap();
    assert!(norm > 0.0 && norm.is_finite(), "{norm}");
    assert_eq!(norm.to_bits(), replayed_norm.to_bits());
    let differ = plain
        .iter()
        .zip(&replayed)
        .filter(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(differ.count(), 0, "of {} weights differ", plain.len());
}

fn config(model: Model, encoder_batch_norm: EncoderBatchNorm) -> Config {
    Config {
        fine_tune: true,
        fine_tune_from: 1,
        encoder_batch_norm,
        ..small(model)
    }
}

#[test]
fn show_tell() {
    check(config(SHOW_TELL, EncoderBatchNorm::Running));
}

#[test]
fn attend() {
    check(config(ATTEND, EncoderBatchNorm::Running));
}

#[test]
fn attend_with_batch_statistics() {
    check(config(ATTEND, EncoderBatchNorm::Batch));
}
