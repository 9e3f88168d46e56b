//! Both decoders as wholes: every gradient against finite differences, dropout on, odd sizes.

mod support;

use proptest::prelude::*;
use showtell::nn::attend::{self, Attend};
use showtell::nn::captions::{Captions, EOS, Noise, PAD, SOS};
use showtell::nn::decoder::Decoder;
use showtell::nn::params::{Declarations, Params};
use showtell::nn::show_tell::{self, ShowTell};
use showtell::ops::attention::CellMix;
use showtell::{Context, DType, Tensor};
use support::{Numbers, check_gradient, cpu, zeros};

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
        params.value(id).clone().copy_from_slice(&values).unwrap();
    }
}

/// Keeps attend's k + q away from the kink of the relu, where differences mean nothing: products with numbers of at most 1 in
/// up to five columns stay below 0.5 each, and the keys' bias is beyond 1.2.
fn away_from_the_kink(params: &Params) {
    let change = |name: &str, to: &dyn Fn(f64) -> f64| {
        let id = params.find(name).unwrap();
        let values = params.value(id).to_vec::<f64>().unwrap();
        let values: Vec<f64> = values.into_iter().map(to).collect();
        params.value(id).clone().copy_from_slice(&values).unwrap();
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
    decoder: Decoder,
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
        let config = show_tell::Config {
            features: d, embed, hidden, layers, vocabulary: 9, embed_dropout: 0.3, lstm_dropout: 0.4,
        };
        let model = ShowTell::declare(config, &mut declare);
        let params = declare.build(ctx.device(), DType::F64).unwrap();
        randomise(&params, &mut numbers);
        let features = numbers.f64(&ctx, [batch, d]);
        let tokens = tokens(&mut numbers, steps, batch, 9);
        let noise = support::noise(&ctx, seed, 3);
        let decoder = Decoder::ShowTell(model);
        Case { ctx, params, decoder, features, steps, tokens, noise }.check();
    }

    #[test]
    fn attend_equals_finite_differences(
        batch in 1usize..4, steps in 3usize..6, d in 1usize..6, embed in 1usize..6, hidden in 1usize..6,
        attention in 1usize..6, h in 1usize..4, w in 1usize..4, seed: u64
    ) {
        let (ctx, mut numbers) = (cpu(), Numbers::new(seed));
        let mut declare = Declarations::default();
        let config = attend::Config {
            features: d, attention, embed, hidden, vocabulary: 9, dropout: 0.4, regulariser: 0.7,
            mix: CellMix::new([h, w], [4, 4]).unwrap(),
        };
        let model = Attend::declare(config, &mut declare);
        let params = declare.build(ctx.device(), DType::F64).unwrap();
        randomise(&params, &mut numbers);
        away_from_the_kink(&params);
        let features = numbers.f64(&ctx, [batch, h * w, d]);
        let tokens = tokens(&mut numbers, steps, batch, 9);
        let noise = support::noise(&ctx, seed, 3);
        let decoder = Decoder::Attend(model);
        Case { ctx, params, decoder, features, steps, tokens, noise }.check();
    }
}
