//! A training step in its steady state allocates no tensor memory, on any device, and takes exactly as much of the arena as was
//! planned before the first step.

use crate::support;
use showtell::Device;
use showtell::data::flickr8k::Flickr8k;
use showtell::device::Precision;
use showtell::device::Uploads;
use showtell::model::Model;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::{Config, EncoderBatchNorm};
use showtell::train::step_memory::{DeviceMemory, Work};
use showtell::train::trainer;
use std::path::Path;
use support::training::{Steps, small, train};
use support::{cuda_with, pictures};

/// The CPU, and the CUDA device where its kernels were compiled. Only the caller uses them.
fn devices() -> Vec<Device> {
    let cuda = cuda_with(Precision::Bf16).map(|ctx| ctx.device().clone());
    [Some(Device::cpu()), cuda].into_iter().flatten().collect()
}

/// A run with what its device had allocated, and what had been copied to it, at the end of each step.
struct Observed {
    allocations: Vec<u64>,
    uploads: Vec<Uploads>,
    peak: usize,
}

fn observe(device: &Device, config: &Config, data: &Path) -> Observed {
    let out = tempfile::tempdir().unwrap();
    let (mut allocations, mut uploads) = (Vec::new(), Vec::new());
    let mut observer = Steps(|_: &_| {
        allocations.push(device.allocations());
        uploads.push(device.uploads());
    });
    let (config, run) = (config.clone(), out.path());
    let peak = train(device, config, data, run, 2, false, &mut observer);
    Observed {
        allocations,
        uploads,
        peak,
    }
}

/// What is reserved before the first step.
fn plan(device: &Device, config: &Config, data: &Path) -> usize {
    let dataset = Flickr8k::open(data).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let work = Work::new(config, &dataset, &vocabulary).unwrap();
    let memory = DeviceMemory::new(device, config, &vocabulary, &work).unwrap();
    memory.arena
}

/// Without validation the arena serves nothing but steps, once it has been reserved.
fn check(config: Config) {
    let data = pictures::temporary();
    let config = Config {
        validate: false,
        ..config
    };
    for device in devices() {
        let observed = observe(&device, &config, data.path());
        let Observed {
            allocations, peak, ..
        } = observed;
        let samples = pictures::TRAIN * pictures::CAPTIONS;
        let steps = config.epochs * samples.div_ceil(config.batch_size);
        let name = device.name();
        assert_eq!(allocations.len(), steps, "{name}");
        let constant = allocations.iter().all(|&n| n == allocations[0]);
        assert!(
            constant,
            "{name}: blocks allocated by each step: {allocations:?}"
        );
        let planned = plan(&device, &config, data.path());
        assert_eq!(peak, planned, "{name}: bytes of the arena");
    }
}

/// The encoder's output is computed once. Batches are large, so that the steps take more room than encoding.
fn from_features(model: Model) -> Config {
    Config {
        augment: false,
        image_size: 16,
        batch_size: 11,
        hidden: 80,
        ..small(model)
    }
}

/// A GPU keeps features, or photos. Once it has them, a step copies at most captions and `words` numbers for each image,
/// Philox's step, and the schedule. At the recipes' sizes that is less than 16 KB: 128 captions of 24 tokens and 7 numbers for
/// each image are 15.9 KB.
fn check_what_steps_are_given(config: Config, words: usize) {
    let Some(ctx) = cuda_with(Precision::Tf32) else {
        return;
    };
    let data = pictures::temporary();
    let config = Config {
        validate: false,
        epochs: 4,
        ..config
    };
    let Observed { uploads, .. } = observe(ctx.device(), &config, data.path());
    let longest = 4 * (config.batch_size * (pictures::LONGEST + words) + 1 + 4) as u64;
    // Between the records of the first epoch's last step and of the last step, no more than these steps were given.
    let begin = uploads.len() / config.epochs - 1;
    let steps = (uploads.len() - 1 - begin) as u64;
    let (first, last) = (uploads[begin], uploads[uploads.len() - 1]);
    let (copies, bytes) = (last.copies - first.copies, last.bytes - first.bytes);
    assert!(copies <= 3 * steps, "{copies} copies in {steps} steps");
    assert!(bytes <= longest * steps, "{bytes} bytes in {steps} steps");
}

#[test]
fn a_step_from_features_is_given_little() {
    check_what_steps_are_given(from_features(SHOW_TELL), 1);
    check_what_steps_are_given(from_features(ATTEND), 1);
}

#[test]
fn a_step_from_images_is_given_little() {
    check_what_steps_are_given(small(SHOW_TELL), 7);
    check_what_steps_are_given(small(ATTEND), 7);
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

/// The arena has its room before the first step, validation's included: there is never anything left to allocate.
#[test]
fn validation_does_not_unsettle_the_steps() {
    let data = pictures::temporary();
    for model in [SHOW_TELL, ATTEND] {
        let config = Config {
            epochs: 3,
            ..fine_tuned(model, EncoderBatchNorm::Running)
        };
        for device in devices() {
            let Observed { allocations, .. } = observe(&device, &config, data.path());
            let constant = allocations.iter().all(|&n| n == allocations[0]);
            let name = device.name();
            assert!(
                constant,
                "{name}: blocks allocated by each step: {allocations:?}"
            );
        }
    }
}
