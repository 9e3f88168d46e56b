//! Both decoders as wholes: every gradient against finite differences, dropout on, odd sizes.

use crate::support;
use proptest::prelude::*;
use showtell::data::vocabulary::{EOS, PAD, SOS};
use showtell::device::Precision;
use showtell::model::attend::{self, Attend};
use showtell::model::show_tell::{self, ShowTell};
use showtell::model::{Captions, Decoder, Sizes};
use showtell::nn::noise::Noise;
use showtell::nn::params::{Declarations, Params};
use showtell::{Context, DType, Shape, Tensor};
use support::typed::to_f64;
use support::{Numbers, check_gradient, cpu, cuda_with, noise, zeros};

/// Captions (T, B) of random words and lengths, the first of full length.
fn tokens(numbers: &mut Numbers, steps: usize, batch: usize, vocabulary: usize) -> Vec<u32> {
    let mut tokens = vec![PAD; steps * batch];
    for b in 0..batch {
        let len = if b == 0 {
            steps
        } else {
            2 + numbers.below(steps - 1)
        };
        for t in 0..len {
            tokens[t * batch + b] = match t {
                0 => SOS,
                t if t + 1 == len => EOS,
                _ => 4 + numbers.below(vocabulary - 4) as u32,
            };
        }
    }
    tokens
}

/// Random values instead of the initial ones: no bias or row is zero by chance.
fn randomise(params: &Params, numbers: &mut Numbers) {
    for id in params.ids() {
        let values: Vec<f64> = numbers.vec(params.value(id).len());
        params.value(id).handle().copy_from_slice(&values).unwrap();
    }
}

/// Keeps attend's k + q away from the kink of the relu, where differences mean nothing: products with numbers of at most 1 in
/// up to five columns stay below 0.5 each, and the keys' bias is beyond 1.2.
fn away_from_the_kink(params: &Params) {
    let change = |name: &str, to: &dyn Fn(f64) -> f64| {
        let id = params.find(name).unwrap();
        let values = params.value(id).to_vec::<f64>().unwrap();
        let values: Vec<f64> = values.into_iter().map(to).collect();
        params.value(id).handle().copy_from_slice(&values).unwrap();
    };
    for name in [
        "encoder_att.weight",
        "decoder_att.weight",
        "decoder_att.bias",
    ] {
        change(name, &|v| 0.1 * v);
    }
    change("encoder_att.bias", &|v| v + v.signum() * 1.2);
}

struct Case {
    ctx: Context,
    params: Params,
    decoder: Box<dyn Decoder>,
    features: Tensor,
    steps: usize,
    tokens: Vec<u32>,
    noise: Noise,
}

impl Case {
    /// The loss by the forward pass that training takes, dropout included.
    fn loss(&self) -> f64 {
        let (loss, _) = self.train();
        loss
    }

    fn train(&self) -> (f64, Tensor) {
        let Case {
            ctx,
            params,
            decoder,
            features,
            ..
        } = self;
        let mut d_features = zeros(ctx, features.shape(), DType::F64);
        let batch = features.shape().dims()[0];
        let loss = {
            let captions = Captions::upload(ctx, self.steps, batch, &self.tokens).unwrap();
            let (noise, wanted) = (Some(self.noise.clone()), Some(&mut d_features));
            let losses = decoder
                .train(ctx, params, features, &captions, noise, wanted)
                .unwrap();
            losses.loss.to_vec::<f64>().unwrap()[0]
        };
        ctx.reset().unwrap();
        (loss, d_features)
    }

    fn check(&self) {
        let (_, d_features) = self.train();
        let mut gradients = Vec::new();
        for id in self.params.ids() {
            let gradient = self.params.gradient(id);
            let values = gradient.to_vec::<f64>().unwrap();
            let copy = Tensor::from_slice(self.ctx.device(), gradient.shape(), &values).unwrap();
            gradients.push((id, copy));
        }
        check_gradient("features", &self.features, &d_features, || self.loss());
        for (id, gradient) in gradients {
            let name = self.params.name(id);
            if name == "embedding.weight" {
                // The padding row is read for padded steps, but no gradient reaches it.
                let row = gradient
                    .index(PAD as usize)
                    .unwrap()
                    .to_vec::<f64>()
                    .unwrap();
                assert!(row.iter().all(|&g| g == 0.0), "{name}: padding row");
            }
            check_gradient(name, self.params.value(id), &gradient, || self.loss());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn show_tell_equals_finite_differences(
        batch in 1usize..4, steps in 3usize..7, d in 1usize..6, embed in 1usize..6, hidden in 1usize..6,
        layers in 1usize..4, seed: u64
    ) {
        let (ctx, mut numbers) = (cpu(), Numbers::new(seed));
        let mut declare = Declarations::default();
        let settings = show_tell::Settings { layers, embed_dropout: 0.3, lstm_dropout: 0.4 };
        let sizes = Sizes { features: d, map: [1, 1], embed, hidden, vocabulary: 9 };
        let model = ShowTell::declare(settings, sizes, &mut declare);
        let params = declare.build(ctx.device(), DType::F64).unwrap();
        randomise(&params, &mut numbers);
        let features = numbers.f64(&ctx, [batch, d]);
        let tokens = tokens(&mut numbers, steps, batch, 9);
        let noise = support::noise(&ctx, seed, 3);
        let decoder = Box::new(model);
        Case { ctx, params, decoder, features, steps, tokens, noise }.check();
    }

    #[test]
    fn attend_equals_finite_differences(
        batch in 1usize..4, steps in 3usize..6, d in 1usize..6, embed in 1usize..6, hidden in 1usize..6,
        attention in 1usize..6, h in 1usize..4, w in 1usize..4, seed: u64
    ) {
        let (ctx, mut numbers) = (cpu(), Numbers::new(seed));
        let mut declare = Declarations::default();
        let settings = attend::Settings { attention, positions: 4, dropout: 0.4, regulariser: 0.7 };
        let sizes = Sizes { features: d, map: [h, w], embed, hidden, vocabulary: 9 };
        let model = Attend::declare(settings, sizes, &mut declare).unwrap();
        let params = declare.build(ctx.device(), DType::F64).unwrap();
        randomise(&params, &mut numbers);
        away_from_the_kink(&params);
        let features = numbers.f64(&ctx, [batch, h * w, d]);
        let tokens = tokens(&mut numbers, steps, batch, 9);
        let noise = support::noise(&ctx, seed, 3);
        let decoder = Box::new(model);
        Case { ctx, params, decoder, features, steps, tokens, noise }.check();
    }
}

/// Odd sizes, one set for each model.
fn decoder(attend: bool, declare: &mut Declarations) -> (Box<dyn Decoder>, Vec<usize>) {
    if attend {
        let settings = attend::Settings {
            attention: 20,
            positions: 4,
            dropout: 0.4,
            regulariser: 0.7,
        };
        let sizes = Sizes {
            features: 36,
            map: [3, 2],
            embed: 12,
            hidden: 28,
            vocabulary: 44,
        };
        let model = Attend::declare(settings, sizes, declare).unwrap();
        (Box::new(model), vec![5, 6, 36])
    } else {
        let settings = show_tell::Settings {
            layers: 2,
            embed_dropout: 0.3,
            lstm_dropout: 0.4,
        };
        let sizes = Sizes {
            features: 37,
            map: [1, 1],
            embed: 21,
            hidden: 19,
            vocabulary: 43,
        };
        let model = ShowTell::declare(settings, sizes, declare);
        (Box::new(model), vec![5, 37])
    }
}

/// By name: the loss and every gradient of a training step with dropout, and logits (and attention) of three words of
/// generation.
fn outcome(ctx: &Context, attend: bool, dtype: DType) -> Vec<(String, Vec<f64>)> {
    let mut numbers = Numbers::new(41);
    let mut declare = Declarations::default();
    let (decoder, shape) = decoder(attend, &mut declare);
    let params = declare.build(ctx.device(), dtype).unwrap();
    let mut values = |len: usize, scale: f64| -> Vec<f32> {
        let values = numbers.vec(len);
        values.iter().map(|&v| (scale * v) as f32).collect()
    };
    for id in params.ids() {
        let len = params.value(id).len();
        params.import(id, &values(len, 0.4)).unwrap();
    }
    let mut features = zeros(ctx, Shape::new(&shape), params.operands());
    features
        .copy_from_f32(&values(features.len(), 1.0))
        .unwrap();
    let (steps, batch) = (6, shape[0]);
    let tokens = tokens(&mut numbers, steps, batch, 43);
    let captions = Captions::upload(ctx, steps, batch, &tokens).unwrap();
    let mut d_features = zeros(ctx, features.shape(), dtype);
    let (noise, wanted) = (Some(noise(ctx, 7, 3)), Some(&mut d_features));
    let losses = decoder
        .train(ctx, &params, &features, &captions, noise, wanted)
        .unwrap();
    let mut named = vec![
        ("loss".to_string(), to_f64(&losses.loss)),
        ("features".to_string(), to_f64(&d_features)),
    ];
    for id in params.ids() {
        named.push((params.name(id).to_string(), to_f64(&params.gradient(id))));
    }
    let mut generation = decoder.start(ctx, &params, &features).unwrap();
    for word in 5u32..8 {
        let words = Tensor::from_slice(ctx.device(), [batch], &vec![word; batch]).unwrap();
        generation.step(&words).unwrap();
        named.push((format!("logits after {word}"), to_f64(generation.logits())));
        if let Some(alpha) = generation.attention() {
            named.push((format!("alpha after {word}"), to_f64(alpha)));
        }
    }
    named
}

/// The CUDA device against the CPU in f64, relative to the norm. With u the rounding of what products read (in f32, of their
/// sums), a product of numbers of random signs is off by about u; what is compared has come through S = 6 steps of up to
/// five of them, whose roundings are independent: √30 u, and twice that. The bias of the score has no gradient but the rounding
/// of others, of size 0.01 and more.
#[test]
fn the_cuda_device_trains_and_generates_as_the_cpu() {
    let precisions = [
        (Precision::F32, 2f64.powi(-23)),
        (Precision::Tf32, 2f64.powi(-11)),
        (Precision::Bf16, 2f64.powi(-8)),
    ];
    for attend in [false, true] {
        let expected = outcome(&cpu(), attend, DType::F64);
        for (precision, unit) in precisions {
            let Some(ctx) = cuda_with(precision) else {
                return;
            };
            let got = outcome(&ctx, attend, DType::F32);
            for ((name, got), (_, expected)) in got.iter().zip(&expected) {
                let square = |v: f64| v * v;
                let differences = got.iter().zip(expected).map(|(g, e)| square(g - e));
                let off = differences.sum::<f64>().sqrt();
                let norm = expected.iter().map(|&e| square(e)).sum::<f64>().sqrt();
                assert!(
                    off <= 11.0 * unit * norm.max(0.01),
                    "{precision}: {name} is off by {off} of {norm}"
                );
            }
        }
    }
}
