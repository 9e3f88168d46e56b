//! One training step of each decoder, features given: forward, backward, clip, update. Sizes as in the
//! recipes; the peers' scripts time the same.

use criterion::{Criterion, criterion_group, criterion_main};
use showtell::nn::attend::{self, Attend};
use showtell::nn::captions::{Captions, Noise, SOS};
use showtell::nn::decoder::Decoder;
use showtell::nn::params::{Declarations, Params};
use showtell::nn::show_tell::{self, ShowTell};
use showtell::ops::attention::CellMix;
use showtell::train::config::{Config, Model};
use showtell::train::optimiser::Optimiser;
use showtell::{Context, DType, Device, Tensor};
use std::time::Duration;

/// A decoder and a batch for it.
struct Step {
    ctx: Context,
    params: Params,
    decoder: Decoder,
    optimiser: Optimiser,
    lr: [f64; 2],
    features: Tensor,
    steps: usize,
    batch: usize,
    tokens: Vec<u32>,
}

impl Step {
    fn new(
        config: Config,
        decoder: Decoder,
        declare: Declarations,
        features: &[usize],
        steps: usize,
        vocabulary: u32,
    ) -> Self {
        let device = Device::cpu();
        let params = declare.build(&device, DType::F32).unwrap();
        params.initialise(1).unwrap();
        let batch = features[0];
        let shape = showtell::Shape::new(features);
        let values: Vec<f32> = (0..shape.len())
            .map(|i| (i * 2_654_435_761 % 1000) as f32 * 1e-3)
            .collect();
        let tokens = (0..steps * batch).map(|i| match i / batch {
            0 => SOS,
            _ => 4 + (i as u32 * 40_503) % (vocabulary - 4),
        });
        Step {
            optimiser: Optimiser::new(&config, &params).unwrap(),
            lr: [config.lr, 0.0],
            features: Tensor::from_slice(&device, shape, &values).unwrap(),
            tokens: tokens.collect(),
            ctx: Context::new(&device),
            params,
            decoder,
            steps,
            batch,
        }
    }

    fn run(&mut self) {
        let (ctx, params) = (&self.ctx, &self.params);
        {
            let captions = Captions::upload(ctx, self.steps, self.batch, &self.tokens).unwrap();
            let noise = Some(self.noise.clone());
            self.decoder
                .train(ctx, params, &self.features, &captions, noise, None)
                .unwrap();
            self.optimiser.begin_step(self.lr).unwrap();
            self.optimiser.step(ctx, params).unwrap();
        }
        ctx.reset().unwrap();
    }
}

/// B=128, 24 steps, the image first; V=7,702.
fn show_tell() -> Step {
    let config = Config::recipe(Model::ShowTell);
    let mut declare = Declarations::default();
    let model = show_tell::Config {
        features: 2048,
        embed: config.embed,
        hidden: config.hidden,
        layers: config.layers,
        vocabulary: 7702,
        embed_dropout: config.embed_dropout,
        lstm_dropout: config.lstm_dropout,
    };
    let decoder = Decoder::ShowTell(ShowTell::declare(model, &mut declare));
    Step::new(config, decoder, declare, &[128, 2048], 24, 7702)
}

/// B=32, 24 steps, 8x8 cells seen as 196 positions; V=8,915.
fn attend() -> Step {
    let config = Config::recipe(Model::Attend);
    let mut declare = Declarations::default();
    let model = attend::Config {
        features: 2048,
        attention: config.attention,
        embed: config.embed,
        hidden: config.hidden,
        vocabulary: 8915,
        dropout: config.dropout,
        regulariser: config.regulariser,
        mix: CellMix::new([8, 8], [14, 14]).unwrap(),
    };
    let decoder = Decoder::Attend(Attend::declare(model, &mut declare));
    Step::new(config, decoder, declare, &[32, 64, 2048], 25, 8915)
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    let mut step = show_tell();
    group.bench_function("show-tell B=128 T=24 V=7702", |b| b.iter(|| step.run()));
    let mut step = attend();
    group.bench_function("attend B=32 T=24 P=196 V=8915", |b| b.iter(|| step.run()));
    group.finish();
}

criterion_group!(decoders, benches);
criterion_main!(decoders);
