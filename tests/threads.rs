//! Results do not depend on the number of threads: whole runs, with everything random switched on, give the same
//! bits on any number of computing and of decoding threads.

use crate::support;
use showtell::Device;
use showtell::model::Model;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::{Config, EncoderBatchNorm};
use showtell::train::log::{self, EpochRecord, StepRecord};
use std::path::Path;
use support::pictures;
use support::training::{Steps, small, train};

/// All that a run leaves behind, but for its times.
#[derive(Debug, PartialEq)]
struct Outcome {
    steps: Vec<StepRecord>,
    epochs: Vec<EpochRecord>,
    best: Vec<u8>,
    last: Vec<u8>,
}

fn outcome(config: &Config, data: &Path, threads: usize, loader_threads: usize) -> Outcome {
    let out = tempfile::tempdir().unwrap();
    let run = out.path();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(|| {
        let (device, mut observer) = (Device::cpu(), Steps(|_: &_| {}));
        let config = config.clone();
        train(
            &device,
            config,
            data,
            run,
            loader_threads,
            true,
            &mut observer,
        );
    });
    let mut steps: Vec<StepRecord> = log::read(run.join("steps.jsonl")).unwrap();
    let mut epochs: Vec<EpochRecord> = log::read(run.join("epochs.jsonl")).unwrap();
    steps.iter_mut().for_each(|step| step.ms = 0.0);
    epochs.iter_mut().for_each(|epoch| epoch.seconds = 0.0);
    let bytes = |name: &str| std::fs::read(run.join(name)).unwrap();
    Outcome {
        steps,
        epochs,
        best: bytes("best.safetensors"),
        last: bytes("last.safetensors"),
    }
}

fn check(config: Config) {
    assert!(config.augment && config.shuffle);
    let data = pictures::temporary();
    let one = outcome(&config, data.path(), 1, 1);
    let finite = |step: &StepRecord| step.loss.is_finite() && step.grad_norm > 0.0;
    assert!(one.steps.iter().all(finite), "{:?}", one.steps);
    for (threads, loader_threads) in [(1, 3), (2, 1), (2, 2), (3, 3)] {
        let more = outcome(&config, data.path(), threads, loader_threads);
        let name = format!("{threads} threads, {loader_threads} loader threads");
        assert_eq!(one.steps, more.steps, "{name}");
        assert_eq!(one.epochs, more.epochs, "{name}");
        assert!(one.best == more.best, "{name}: best.safetensors differs");
        assert!(one.last == more.last, "{name}: last.safetensors differs");
    }
    let otherwise = Config {
        seed: config.seed + 1,
        ..config
    };
    let other = outcome(&otherwise, data.path(), 2, 2);
    assert!(one.steps != other.steps, "the seed decides");
}

/// Wide enough for products to be split among threads.
fn wide(model: Model, encoder_batch_norm: EncoderBatchNorm) -> Config {
    Config {
        fine_tune: true,
        fine_tune_from: 1,
        encoder_batch_norm,
        hidden: 72,
        embed: 56,
        ..small(model)
    }
}

#[test]
fn show_tell() {
    check(wide(SHOW_TELL, EncoderBatchNorm::Running));
}

#[test]
fn show_tell_with_batch_statistics() {
    check(wide(SHOW_TELL, EncoderBatchNorm::Batch));
}

#[test]
fn attend() {
    check(wide(ATTEND, EncoderBatchNorm::Running));
}

#[test]
fn attend_with_batch_statistics() {
    check(wide(ATTEND, EncoderBatchNorm::Batch));
}

#[test]
fn attend_with_a_frozen_encoder() {
    let config = wide(ATTEND, EncoderBatchNorm::Running);
    check(Config {
        fine_tune: false,
        ..config
    });
}
