//! A plan says to the byte what a run takes on its device: for both models, frozen and fine-tuned, on the CPU and on the
//! CUDA device in every precision. Sizes are odd, so that no two of the numbers are the same by chance.

use crate::support;
use showtell::data::flickr8k::Flickr8k;
use showtell::device::cuda::Facts;
use showtell::device::{Device, Precision};
use showtell::model::Model;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::{Config, EncoderBatchNorm, EncoderWeights};
use showtell::train::memory_plan::{MemoryPlan, Planner};
use showtell::train::trainer;
use std::path::Path;
use support::training::{Steps, small, train};
use support::{alone, cuda_with, pictures};

fn plan(device: &Device, config: &Config, data: &Path) -> MemoryPlan {
    let dataset = Flickr8k::open(data).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let planner = Planner {
        device,
        dataset: &dataset,
        vocabulary: &vocabulary,
    };
    planner.plan(config).unwrap()
}

/// Runs `config` on a device that nothing else uses, and compares.
fn check(device: &Device, config: &Config) {
    assert_eq!(device.bytes_in_use(), 0);
    let data = pictures::temporary();
    let planned = plan(device, config, data.path()).device;
    assert_eq!(device.allocations(), 0, "a plan allocates nothing");
    let out = tempfile::tempdir().unwrap();
    let calibrate = config.encoder_weights.is_some();
    let mut observer = Steps(|_: &_| ());
    let (settings, run) = (config.clone(), out.path());
    let arena = train(
        device,
        settings,
        data.path(),
        run,
        2,
        calibrate,
        &mut observer,
    );
    let name = format!("{} on {}: {planned:?}", config.model.name, device.name());
    assert_eq!(arena, planned.arena, "arena of {name}");
    assert_eq!(device.peak_bytes(), planned.total(), "peak of {name}");
}

/// Every way to train `model`, each short: from images with a random encoder, from features, fine-tuned with running
/// and with batch statistics. Where nothing is validated, the steps need the most memory.
fn ways(model: Model) -> [Config; 4] {
    let short = Config {
        batch_size: 9,
        max_steps: Some(4),
        epochs: 1,
        ..small(model)
    };
    let fine_tuned = |encoder_batch_norm, validate| Config {
        fine_tune: true,
        fine_tune_from: 1,
        encoder_batch_norm,
        validate,
        ..short.clone()
    };
    [
        Config {
            encoder_weights: Some(EncoderWeights::Random),
            ..short.clone()
        },
        Config {
            augment: false,
            image_size: 16,
            validate: false,
            hidden: 88,
            ..short.clone()
        },
        fine_tuned(EncoderBatchNorm::Running, false),
        fine_tuned(EncoderBatchNorm::Batch, true),
    ]
}

fn check_all(device: impl Fn() -> Option<Device>) {
    for model in [SHOW_TELL, ATTEND] {
        for config in ways(model) {
            let Some(device) = device() else { return };
            check(&device, &config);
        }
    }
}

#[test]
fn the_cpus_peak_is_planned() {
    check_all(|| Some(Device::cpu()));
}

fn cuda(precision: Precision) -> Option<Device> {
    cuda_with(precision).map(|ctx| ctx.device().clone())
}

#[test]
fn the_gpus_peak_is_planned_in_f32() {
    check_all(|| cuda(Precision::F32));
}

#[test]
fn the_gpus_peak_is_planned_in_tf32() {
    check_all(|| cuda(Precision::Tf32));
}

#[test]
fn the_gpus_peak_is_planned_in_bf16() {
    check_all(|| cuda(Precision::Bf16));
}

/// A GPU without room for the run: what helps, and that the CPU would do.
fn check_a_small_gpu(data: &Path) {
    let facts = Facts {
        ordinal: 0,
        name: "a small GPU".into(),
        capability: (8, 0),
        multiprocessors: 8,
        memory: 1 << 20,
        shared: 160 << 10,
    };
    let device = Device::planning_cuda(facts, Precision::F32);
    let config = Config {
        augment: false,
        ..small(ATTEND)
    };
    let dataset = Flickr8k::open(data).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let planner = Planner {
        device: &device,
        dataset: &dataset,
        vocabulary: &vocabulary,
    };
    let plan = planner.plan(&config).unwrap();
    let shortage = planner
        .shortage(&config, &plan)
        .unwrap()
        .expect("1 MiB is too little");
    let text = shortage.to_string();
    assert!(
        text.contains(" of the GPU's memory, 1.0 MiB are available"),
        "{text}"
    );
    // The features lie in the machine's memory, so that keeping them elsewhere gives the GPU nothing.
    assert!(!text.contains("feature-cache"), "{text}");
    for remedy in &shortage.remedies {
        assert!(remedy.needed < plan.device.total(), "{remedy:?}");
    }
    if cfg!(target_os = "linux") {
        let on_cpu = shortage.on_cpu.expect("the machine has room");
        let cpu = Planner {
            device: &Device::cpu(),
            ..planner
        };
        assert_eq!(on_cpu, cpu.plan(&config).unwrap().total());
        assert!(text.contains("`device = \"cpu\"`"), "{text}");
    }
}

/// Neither a driver nor compiled kernels are needed: this process has loaded no emulator.
#[test]
fn a_gpu_that_is_not_here_can_be_planned_for() {
    if !alone("a_gpu_that_is_not_here_can_be_planned_for", &[]) {
        return;
    }
    let gpu = |multiprocessors, precision| {
        let facts = Facts {
            ordinal: 0,
            name: "a GPU elsewhere".into(),
            capability: (9, 0),
            multiprocessors,
            memory: 80 << 30,
            shared: 227 << 10,
        };
        Device::planning_cuda(facts, precision)
    };
    let data = pictures::temporary();
    let config = Config {
        fine_tune: true,
        ..Config::recipe(ATTEND)
    };
    let planned = |device: &Device| plan(device, &config, data.path()).device;
    let [f32s, bf16s] = [Precision::F32, Precision::Bf16].map(|p| planned(&gpu(132, p)));
    assert_eq!(f32s.gradients, bf16s.gradients);
    assert!(bf16s.arena < f32s.arena, "{bf16s:?} {f32s:?}");
    // Fewer multiprocessors cut sums into fewer parts, which take less scratch.
    let smaller = planned(&gpu(8, Precision::F32));
    assert!(smaller.arena < f32s.arena, "{smaller:?} {f32s:?}");
    let device = gpu(132, Precision::Tf32);
    assert!(device.is_planning() && device.records());
    assert_eq!(device.free_memory().unwrap(), Some(80 << 30));
    assert_eq!(device.name(), "a dry run of a GPU elsewhere, tf32");
    check_a_small_gpu(data.path());
}
