//! One training step of each decoder, features given: forward, backward, clip, update, as the trainer takes it.
//! Sizes as in the recipes; the peers' scripts time the same. Captions per second.

use crate::support;
use criterion::{Criterion, Throughput, criterion_group};
use showtell::data::vocabulary::SOS;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::model::{Captions, Decoder, Model, Sizes};
use showtell::nn::noise::Noise;
use showtell::nn::params::{Declarations, Params};
use showtell::train::config::Config;
use showtell::train::optimiser::Optimiser;
use showtell::train::step_graph::StepGraphs;
use showtell::{Context, DType, Result, Tensor};
use support::{device, time};

/// A decoder and a batch for it.
struct Step {
    ctx: Context,
    params: Params,
    decoder: Box<dyn Decoder>,
    optimiser: Optimiser,
    noise: Noise,
    graphs: StepGraphs,
    lr: [f64; 2],
    features: Tensor,
    steps: usize,
    batch: usize,
    tokens: Vec<u32>,
}

impl Step {
    fn new(
        config: Config,
        decoder: Box<dyn Decoder>,
        declare: Declarations,
        features: &[usize],
        steps: usize,
        vocabulary: u32,
    ) -> Self {
        let device = device();
        let params = declare.build(&device, DType::F32).unwrap();
        params.initialise(1).unwrap();
        let batch = features[0];
        let shape = showtell::Shape::new(features);
        let values: Vec<f32> = (0..shape.len())
            .map(|i| (i * 2_654_435_761 % 1000) as f32 * 1e-3)
            .collect();
        let mut features = Tensor::zeros(&device, shape, params.operands()).unwrap();
        features.copy_from_f32(&values).unwrap();
        let tokens = (0..steps * batch).map(|i| match i / batch {
            0 => SOS,
            _ => 4 + (i as u32 * 40_503) % (vocabulary - 4),
        });
        Step {
            optimiser: Optimiser::new(&config, &params).unwrap(),
            noise: Noise::new(&device, 1).unwrap(),
            graphs: StepGraphs::default(),
            lr: [config.lr, 0.0],
            features,
            tokens: tokens.collect(),
            ctx: Context::new(&device),
            params,
            decoder,
            steps,
            batch,
        }
    }

    fn run(&mut self) {
        self.ask().unwrap();
        self.ctx.reset().unwrap();
    }

    fn ask(&mut self) -> Result<()> {
        let (ctx, params, decoder) = (&self.ctx, &self.params, &self.decoder);
        let captions = Captions::upload(ctx, self.steps, self.batch, &self.tokens)?;
        self.noise.set_step(1)?;
        self.optimiser.begin_step(self.lr)?;
        let (noise, optimiser, features) = (&self.noise, &mut self.optimiser, &self.features);
        self.graphs.run(ctx, [self.batch, self.steps], || {
            let noise = Some(noise.clone());
            decoder.train(ctx, params, features, &captions, noise, None)?;
            optimiser.step(ctx, params)
        })
    }
}

/// A decoder by its recipe, for 8x8 cells of 2048 channels.
fn recipe(model: Model, features: &[usize], steps: usize, vocabulary: u32) -> Step {
    let config = Config::recipe(model);
    let mut declare = Declarations::default();
    let sizes = Sizes {
        features: 2048,
        map: [8, 8],
        embed: config.embed,
        hidden: config.hidden,
        vocabulary: vocabulary as usize,
    };
    let decoder = (model.declare)(&config.own, sizes, &mut declare).unwrap();
    Step::new(config, decoder, declare, features, steps, vocabulary)
}

/// B=128, 24 steps, the image first; V=7,702.
fn show_tell() -> Step {
    recipe(SHOW_TELL, &[128, 2048], 24, 7702)
}

/// B=32, 24 steps, 8x8 cells seen as 196 positions; V=8,915.
fn attend() -> Step {
    recipe(ATTEND, &[32, 64, 2048], 25, 8915)
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step");
    group.sample_size(10);
    type Case = (&'static str, u64, fn() -> Step);
    let models: [Case; 2] = [
        ("show-tell B=128 T=24 V=7702", 128, show_tell),
        ("attend B=32 T=24 P=196 V=8915", 32, attend),
    ];
    for (name, batch, make) in models {
        group.throughput(Throughput::Elements(batch));
        // Made once for all samples: its first steps are recorded and load kernels.
        let mut ready = None;
        group.bench_function(name, |bench| {
            let step = ready.get_or_insert_with(|| {
                let mut step = make();
                (0..3).for_each(|_| step.run());
                step
            });
            let device = step.ctx.device().clone();
            bench.iter_custom(|count| time(&device, count, || step.run()));
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
