//! Photos that go through the encoder in every step are decoded in the first epoch only, and kept on the device, or in the
//! host's memory where the device has no room.

use crate::support;
use showtell::device::{Device, Precision};
use showtell::model::attend::ATTEND;
use showtell::tensor::Tensor;
use showtell::train::config::{Config, EncoderWeights};
use showtell::train::memory_plan::Planner;
use showtell::train::trainer;
use showtell::{DType, data::flickr8k::Flickr8k};
use std::fs;
use std::path::Path;
use support::left::left;
use support::pictures;
use support::training::{Steps, small, train};
use support::{alone, contexts, cuda_with};

/// Everything random is switched on. The photos are larger than what the device takes for itself.
fn config() -> Config {
    let config = Config {
        epochs: 2,
        image_size: 64,
        encoder_blocks: vec![1],
        encoder_width: 4,
        encoder_weights: Some(EncoderWeights::Random),
        validate: false,
        ..small(ATTEND)
    };
    assert!(config.augment && config.shuffle);
    config
}

/// A run's losses and weights. `at_step` is called at the end of each step.
fn outcome(device: &Device, data: &Path, at_step: impl FnMut(usize)) -> [Vec<u8>; 2] {
    let out = tempfile::tempdir().unwrap();
    let mut at_step = at_step;
    let mut step = 0;
    let mut observer = Steps(|_: &_| {
        step += 1;
        at_step(step);
    });
    train(device, config(), data, out.path(), 2, true, &mut observer);
    let left = left(out.path());
    let [last, _] = left.checkpoints;
    [left.steps.join("\n").into_bytes(), last.unwrap()]
}

fn steps_of_an_epoch() -> usize {
    (pictures::TRAIN * pictures::CAPTIONS).div_ceil(config().batch_size)
}

/// Once every photo has come, the files may go.
#[test]
fn after_the_first_epoch_no_photo_is_read() {
    for ctx in contexts() {
        let (data, device) = (pictures::temporary(), ctx.device());
        let expected = outcome(device, data.path(), |_| ());
        let without = outcome(device, data.path(), |step| {
            if step == steps_of_an_epoch() {
                for i in 0..pictures::TRAIN {
                    fs::remove_file(pictures::path(data.path(), i)).unwrap();
                }
            }
        });
        assert!(expected == without, "{}", device.name());
    }
}

/// A GPU whose memory has room for the run and not for the photos: what is missing is taken by another program.
#[test]
fn photos_stay_in_host_memory_where_the_device_has_no_room() {
    let name = "photos_stay_in_host_memory_where_the_device_has_no_room";
    if !alone(name, &[("CUDA_EMULATOR_MEMORY", "32M")]) {
        return;
    }
    let open = || cuda_with(Precision::F32).map(|ctx| ctx.device().clone());
    let (Some(device), Some(other)) = (open(), open()) else {
        return;
    };
    let data = pictures::temporary();
    let dataset = Flickr8k::open(data.path()).unwrap();
    let vocabulary = trainer::vocabulary(ATTEND, &dataset);
    let planner = Planner {
        device: &device,
        dataset: &dataset,
        vocabulary: &vocabulary,
    };
    let plan = planner.plan(&config()).unwrap();
    let images = pictures::TRAIN * 3 * config().image_size.pow(2);
    assert_eq!((plan.device.photos, plan.photos), (images, 0));

    let room = plan.device.total() - images / 4;
    let free = device.free_memory().unwrap().unwrap();
    let taken = Tensor::zeros(&other, [free - room], DType::U8).unwrap();
    let plan = planner.plan(&config()).unwrap();
    assert_eq!((plan.device.photos, plan.photos), (0, images));
    let crowded = outcome(&device, data.path(), |_| ());
    // Every step was given its photos.
    let photos = config().epochs * images * pictures::CAPTIONS;
    assert!(device.uploads().bytes >= photos as u64);
    drop(taken);
    assert!(crowded == outcome(&device, data.path(), |_| ()));
}
