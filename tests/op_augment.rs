//! Augmentation: Pillow's pixels, made once on every device, and each device against the CPU.

use crate::support;
use showtell::data::image::Rgb;
use showtell::ops::augment::{self, Change};
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::data::golden;
use support::picture::{checksum, synthetic};
use support::{Numbers, alone, contexts, counters, cpu, cuda, zeros};

/// The changed photos (B, H, W, 3). Rows of `changes` are padded: what lies between them belongs to nothing.
fn changed(ctx: &Context, photos: &Tensor, changes: &[Change]) -> Vec<u8> {
    let [h, w] = [1, 2].map(|i| photos.shape().dims()[i]);
    let whole = zeros(ctx, [7, changes.len() + 3], DType::U32);
    let mut words = whole.columns(1, changes.len()).unwrap();
    let columns = augment::words(changes, [h, w]);
    words.copy_from_slice(&columns).unwrap();
    let mut y = zeros(ctx, [changes.len(), h, w, 3], DType::U8);
    augment::forward(ctx, photos, &words, &mut y).unwrap();
    y.to_vec::<u8>().unwrap()
}

/// One picture among others.
fn of_picture(ctx: &Context, picture: &Rgb, change: Change) -> Rgb {
    let (width, height) = (picture.width, picture.height);
    let mut pixels: Vec<u8> = picture.pixels.iter().map(|&v| !v).collect();
    pixels.extend(&picture.pixels);
    let photos = Tensor::from_slice(ctx.device(), [2, height, width, 3], &pixels).unwrap();
    let pixels = changed(ctx, &photos, &[Change { photo: 1, ..change }]);
    Rgb {
        pixels,
        width,
        height,
    }
}

#[test]
fn rotation_equals_pillow_bit_for_bit() {
    for ctx in contexts() {
        for case in golden("data.json")["rotate"].as_array().unwrap() {
            let (w, h) = serde_json::from_value(case["size"].clone()).unwrap();
            let rotation = Change {
                degrees: case["degrees"].as_f64().unwrap(),
                ..Change::none(0)
            };
            let rotated = of_picture(&ctx, &synthetic(w, h), rotation);
            let device = ctx.device().name();
            assert_eq!(checksum(&rotated), case["fnv"], "{device}: {case}");
        }
    }
}

#[test]
fn flip_and_grayscale_equal_torchvision() {
    let golden = golden("data.json");
    for ctx in contexts() {
        let apply = |flip, grayscale| {
            let change = Change {
                flip,
                grayscale,
                ..Change::none(0)
            };
            checksum(&of_picture(&ctx, &synthetic(40, 30), change))
        };
        assert_eq!(apply(true, false), golden["flip"]);
        assert_eq!(apply(false, true), golden["grayscale"]);
        assert_eq!(apply(false, false), checksum(&synthetic(40, 30)));
    }
}

/// A flip comes before a rotation: flipped, a picture that is turned by an angle is the one that is turned by the
/// opposite angle, flipped. Photos come in any order, any number of times.
#[test]
fn every_device_makes_the_same_pixels() {
    let cpu = cpu();
    for [count, height, width] in [[3, 13, 20], [2, 32, 32], [4, 9, 7], [1, 1, 1]] {
        let mut numbers = Numbers::new(width as u64);
        let shape = Shape::from([count, height, width, 3]);
        let pixels: Vec<u8> = (0..shape.len()).map(|_| numbers.below(256) as u8).collect();
        let mut changes: Vec<Change> = (0..11)
            .map(|_| Change {
                photo: numbers.below(count),
                flip: numbers.below(2) == 1,
                degrees: 400.0 * numbers.uniform() - 200.0,
                grayscale: numbers.below(2) == 1,
            })
            .collect();
        // One behind the last, and one far away.
        changes.push(Change::none(count));
        changes.push(Change::none(u32::MAX as usize));
        let on = |ctx: &Context| {
            let photos = Tensor::from_slice(ctx.device(), shape, &pixels).unwrap();
            changed(ctx, &photos, &changes)
        };
        let expected = on(&cpu);
        let black = &expected[11 * 3 * height * width..];
        assert!(black.iter().all(|&v| v == 0));
        for ctx in contexts() {
            let device = ctx.device().name();
            assert!(on(&ctx) == expected, "{device}: {width}x{height}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let ctx = cpu();
    let refusal = |photos: [usize; 4], words: [usize; 2], y: [usize; 4]| {
        let (photos, words) = (
            zeros(&ctx, photos, DType::U8),
            zeros(&ctx, words, DType::U32),
        );
        let mut y = zeros(&ctx, y, DType::U8);
        augment::forward(&ctx, &photos, &words, &mut y)
            .unwrap_err()
            .to_string()
    };
    for (photos, words, y, expected) in [
        (
            [2, 3, 4, 3],
            [7, 2],
            [2, 4, 3, 3],
            "y should have shape [2, 3, 4, 3]",
        ),
        (
            [2, 3, 4, 1],
            [7, 2],
            [2, 3, 4, 3],
            "photos should have shape [2, 3, 4, 3]",
        ),
        (
            [2, 3, 4, 3],
            [6, 2],
            [2, 3, 4, 3],
            "changes should have shape [7, 2]",
        ),
        (
            [1, 1, 16_385, 3],
            [7, 1],
            [1, 1, 16_385, 3],
            "at most 16384",
        ),
    ] {
        let error = refusal(photos, words, y);
        assert!(error.contains(expected), "{error}");
    }
}

/// Every byte of the result is stored once, in whole sectors; of the photo, nothing is asked for that does not show.
#[test]
fn photos_are_stored_in_whole_sectors() {
    if !alone("photos_are_stored_in_whole_sectors", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let photos = zeros(&ctx, [1, 64, 64, 3], DType::U8);
    let words = augment::words(&[Change::none(0), Change::none(0)], [64, 64]);
    let words = Tensor::from_slice(ctx.device(), [7, 2], &words).unwrap();
    let mut y = zeros(&ctx, [2, 64, 64, 3], DType::U8);
    let counted = counters(|| augment::forward(&ctx, &photos, &words, &mut y).unwrap());
    let Some(counted) = counted else { return };
    let kernel = &counted["augment_forward_four"];
    assert_eq!(kernel["launches"], 1);
    assert_eq!(kernel["global_store_sectors"], 3 * y.len() / 32);
}
