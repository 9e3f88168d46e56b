//! What computing in bf16 saves a decoder: bytes of what every step of attend reads.

use crate::support;
use showtell::data::vocabulary::SOS;
use showtell::device::Precision;
use showtell::model::attend::{self, Attend};
use showtell::model::{Captions, Decoder, Sizes};
use showtell::nn::params::Declarations;
use support::{Numbers, alone, counters, cuda_with};

/// Images of a batch.
const BATCH: usize = 8;

/// The recipe's sizes, each of them a quarter: so weights, features and activations of a step have the shares that they have
/// there.
fn declared(declare: &mut Declarations) -> (Attend, [usize; 3]) {
    let settings = attend::Settings {
        attention: 64,
        positions: 14,
        dropout: 0.5,
        regulariser: 1.0,
    };
    let sizes = Sizes {
        features: 512,
        map: [8, 8],
        embed: 128,
        hidden: 128,
        vocabulary: 64,
    };
    let decoder = Attend::declare(settings, sizes, declare).unwrap();
    (decoder, [BATCH, 64, sizes.features])
}

/// Sectors of 32 bytes that the launches of a training step touch, each launch its own, with captions of so many words.
fn sectors(precision: Precision, steps: usize) -> Option<u64> {
    let ctx = cuda_with(precision)?;
    let mut declare = Declarations::default();
    let (decoder, shape) = declared(&mut declare);
    let params = declare.build(ctx.device(), showtell::DType::F32).unwrap();
    params.initialise(1).unwrap();
    let mut features = support::zeros(&ctx, shape, params.operands());
    let values = Numbers::new(2).vec(features.len());
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    features.copy_from_f32(&values).unwrap();
    let words: Vec<u32> = (0..steps * BATCH)
        .map(|i| if i < BATCH { SOS } else { 4 + i as u32 % 60 })
        .collect();
    let captions = Captions::upload(&ctx, steps, BATCH, &words).unwrap();
    let noise = Some(support::noise(&ctx, 3, 1));
    let counted = counters(|| {
        let losses = decoder.train(&ctx, &params, &features, &captions, noise, None);
        losses.unwrap();
    })?;
    let kernels = counted.as_object().unwrap().values();
    Some(
        kernels
            .map(|kernel| kernel["distinct_sectors"].as_u64().unwrap())
            .sum(),
    )
}

/// Weights, features and keys are half as long: with what stays f32 a step touches at most 0.55 of the sectors.
#[test]
fn a_step_of_attend_touches_half_of_the_sectors() {
    if !alone("a_step_of_attend_touches_half_of_the_sectors", &[]) {
        return;
    }
    let of_a_step = |precision| Some(sectors(precision, 5)? - sectors(precision, 3)?);
    let (Some(exact), Some(rounded)) = (of_a_step(Precision::Tf32), of_a_step(Precision::Bf16))
    else {
        return;
    };
    let share = rounded as f64 / exact as f64;
    println!("{exact} and {rounded} sectors of two steps: {share:.3}");
    assert!(share <= 0.55, "{share}");
}
