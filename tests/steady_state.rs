//! A training step in its steady state allocates no tensor memory, and takes as much of the arena as was planned
//! for it before the first step: no more, no less.

mod support;

use showtell::Device;
use showtell::data::batches::{Batches, Order};
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::samples::{Limits, Samples};
use showtell::model::Model;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::{Config, EncoderBatchNorm};
use showtell::train::{step_memory, trainer};
use std::path::Path;
use std::sync::Arc;
use support::pictures;
use support::training::{Steps, small, train};

/// A run with what its device had allocated at the end of each step.
struct Observed {
    allocations: Vec<u64>,
    peak: usize,
}

fn observe(config: &Config, data: &Path) -> Observed {
    let (device, out) = (Device::cpu(), tempfile::tempdir().unwrap());
    let mut allocations = Vec::new();
    let mut observer = Steps(|_: &_| allocations.push(device.allocations()));
    let (config, run) = (config.clone(), out.path());
    let peak = train(&device, config, data, run, 2, false, &mut observer);
    Observed { allocations, peak }
}

/// What is reserved before the first step.
fn plan(config: &Config, data: &Path) -> usize {
    let dataset = Flickr8k::open(data).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let samples = Samples::new(&dataset, Split::Train, &vocabulary, Limits::default());
    let batches = Batches::new(&Arc::new(samples), config.batch_size, Order::Listed).unwrap();
    step_memory::arena_bytes(&Device::cpu(), config, &vocabulary, &batches).unwrap()
}

/// Without validation the arena serves nothing but steps, once it has been reserved.
fn check(config: Config) {
    let data = pictures::temporary();
    let config = Config {
        validate: false,
        ..config
    };
    let Observed { allocations, peak } = observe(&config, data.path());
    let samples = pictures::TRAIN * pictures::CAPTIONS;
    let steps = config.epochs * samples.div_ceil(config.batch_size);
    assert_eq!(allocations.len(), steps);
    let constant = allocations.iter().all(|&n| n == allocations[0]);
    assert!(constant, "blocks allocated by each step: {allocations:?}");
    assert_eq!(peak, plan(&config, data.path()), "bytes of the arena");
}

/// The encoder's output is computed once. Large batches, lest encoding take more room than the steps.
fn from_features(model: Model) -> Config {
    Config {
        augment: false,
        image_size: 16,
        batch_size: 11,
        hidden: 80,
        ..small(model)
    }
}

#[test]
fn show_tell_from_features() {
    check(from_features(SHOW_TELL));
}

#[test]
fn attend_from_features() {
    check(from_features(ATTEND));
}

#[test]
fn show_tell_from_images() {
    check(small(SHOW_TELL));
}

#[test]
fn attend_from_images() {
    check(small(ATTEND));
}

fn fine_tuned(model: Model, encoder_batch_norm: EncoderBatchNorm) -> Config {
    Config {
        fine_tune: true,
        encoder_batch_norm,
        ..small(model)
    }
}

#[test]
fn show_tell_with_a_fine_tuned_encoder() {
    check(fine_tuned(SHOW_TELL, EncoderBatchNorm::Running));
    check(fine_tuned(SHOW_TELL, EncoderBatchNorm::Batch));
}

#[test]
fn attend_with_a_fine_tuned_encoder() {
    check(fine_tuned(ATTEND, EncoderBatchNorm::Running));
    check(fine_tuned(ATTEND, EncoderBatchNorm::Batch));
}

/// Validation may widen the arena once; after the first there is nothing left to allocate.
#[test]
fn validation_does_not_unsettle_the_steps() {
    let data = pictures::temporary();
    for model in [SHOW_TELL, ATTEND] {
        let config = Config {
            epochs: 3,
            ..fine_tuned(model, EncoderBatchNorm::Running)
        };
        let Observed { allocations, .. } = observe(&config, data.path());
        let later = &allocations[allocations.len() / config.epochs..];
        let constant = later.iter().all(|&n| n == later[0]);
        assert!(constant, "blocks allocated by each step: {allocations:?}");
    }
}
