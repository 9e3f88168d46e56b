//! Decoding and resizing, compared with Pillow, which made the checksums of the goldens, and what augmentation draws.

use crate::support;
use serde_json::Value;
use showtell::data::augment::Augmentation;
use showtell::data::image::{decode, load};
use showtell::data::random::Epoch;
use showtell::data::resize::resize;
use std::fs;
use std::path::{Path, PathBuf};
use support::data::{golden, real_data};
use support::picture::{checksum, synthetic};
use tempfile::TempDir;

fn pair(value: &Value) -> (usize, usize) {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn resizing_equals_pillow_bit_for_bit() {
    let golden = golden("data.json");
    for case in golden["resize"].as_array().unwrap() {
        let ((w, h), (width, height)) = (pair(&case["from"]), pair(&case["to"]));
        let resized = resize(&synthetic(w, h), width, height);
        assert_eq!((resized.width, resized.height), (width, height));
        assert_eq!(checksum(&resized), case["fnv"], "{case}");
    }
}

/// The frequencies are within five standard deviations of the probabilities.
#[test]
fn augmentation_has_the_recipes_distribution() {
    let epoch = Epoch { seed: 3, epoch: 1 };
    let n = 20_000;
    let draws: Vec<Augmentation> = (0..n).map(|i| Augmentation::draw(epoch, i)).collect();
    let share = |count: usize, p: f64| {
        let deviation = (p * (1.0 - p) / n as f64).sqrt();
        assert!(
            (count as f64 / n as f64 - p).abs() < 5.0 * deviation,
            "{count} for {p}"
        );
    };
    share(draws.iter().filter(|a| a.flip).count(), 0.5);
    share(draws.iter().filter(|a| a.grayscale).count(), 0.1);
    share(draws.iter().filter(|a| a.flip && a.grayscale).count(), 0.05);
    assert!(draws.iter().all(|a| a.degrees.abs() < 15.0));
    for bound in [-10.0, -5.0, 0.0, 5.0, 10.0] {
        let below = draws.iter().filter(|a| a.degrees < bound).count();
        share(below, (bound + 15.0) / 30.0);
    }
}

#[test]
fn augmentation_depends_on_seed_epoch_and_sample_alone() {
    let draw = |seed, epoch, sample| Augmentation::draw(Epoch { seed, epoch }, sample);
    assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
    for other in [
        draw(2, 2, 3),
        draw(1, 3, 3),
        draw(1, 2, 4),
        draw(1 << 32, 2, 3),
    ] {
        assert_ne!(draw(1, 2, 3).degrees, other.degrees);
    }
}

fn goldens() -> PathBuf {
    support::data::root().join("tests/goldens/images")
}

/// PNG is exact. Two JPEG decoders differ in the rounding of the inverse cosine transform and of the colour conversion,
/// and in how they enlarge subsampled chroma.
#[test]
fn every_way_to_store_colour_becomes_rgb() {
    let golden = golden("data.json");
    let files = golden["files"].as_object().unwrap();
    assert!(files.len() >= 10);
    for (name, expected) in files {
        let image = decode(&goldens().join(name)).unwrap();
        assert_eq!(
            (image.width, image.height),
            pair(&expected["size"]),
            "{name}"
        );
        let hex = expected["rgb"].as_str().unwrap();
        let byte = |i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
        let difference = (image.pixels.iter().enumerate())
            .map(|(i, &pixel)| pixel.abs_diff(byte(i)))
            .max();
        println!("{name}: largest difference {difference:?}");
        let allowed = if name.ends_with(".png") { 0 } else { 4 };
        assert!(difference.unwrap() <= allowed, "{name}: {difference:?}");
    }
}

#[test]
fn samples_of_sixteen_bits_keep_their_high_byte() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wide.png");
    let wide = [0x0102u16, 0x80ff, 0xff00, 0x00ff, 0x7f80, 0xffff];
    let buffer = image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(2, 1, wide.to_vec()).unwrap();
    buffer.save(&path).unwrap();
    assert_eq!(decode(&path).unwrap().pixels, wide.map(|v| (v >> 8) as u8));
    let gray = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(3, 2, wide.to_vec()).unwrap();
    gray.save(&path).unwrap();
    assert_eq!(
        decode(&path).unwrap().pixels,
        wide.map(|v| [(v >> 8) as u8; 3]).concat()
    );
}

fn error_of(path: &Path, bytes: &[u8]) -> String {
    fs::write(path, bytes).unwrap();
    let error = load(path, 8).unwrap_err().to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.contains(name), "{error}");
    error
}

#[test]
fn a_file_cut_short_is_an_error_wherever_it_is_cut() {
    let directory = TempDir::new().unwrap();
    for name in ["rgb.jpg", "progressive.jpg", "cmyk.jpg", "gray.jpg"] {
        let bytes = fs::read(goldens().join(name)).unwrap();
        for end in (3..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            let error = error_of(&directory.path().join(name), &bytes[..end]);
            assert!(error.contains("truncated"), "{error}");
        }
    }
    let bytes = fs::read(goldens().join("rgba.png")).unwrap();
    for end in 0..bytes.len() - 16 {
        error_of(&directory.path().join("rgba.png"), &bytes[..end]);
    }
}

#[test]
fn files_that_are_not_images_are_errors() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.jpg");
    for content in [&b""[..], b"hello"] {
        assert!(error_of(&path, content).contains("not a JPEG, PNG, WebP, GIF or BMP image"));
    }
    fs::remove_file(&path).unwrap();
    assert!(load(&path, 8).unwrap_err().to_string().contains("x.jpg"));
}

/// A header that claims 65,000 x 65,000 pixels, without any data after it.
#[test]
fn a_huge_image_is_refused_before_it_is_decoded() {
    let directory = TempDir::new().unwrap();
    let mut bytes = fs::read(goldens().join("rgb.jpg")).unwrap();
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xFD, 0xE8, 0xFD, 0xE8]);
    let error = error_of(&directory.path().join("bomb.jpg"), &bytes);
    assert!(
        error.contains("65000 x 65000") && error.contains("178956970"),
        "{error}"
    );
}

/// The mean absolute difference from Pillow's decoding and resizing, averaged over photos.
#[test]
fn real_photos_come_out_as_pillows() {
    let Some(data) = real_data("flickr8k-mini") else {
        return;
    };
    let golden = golden("data.json");
    let photos = golden["photos"].as_object().unwrap();
    for (name, expected) in photos {
        let image = load(&data.join("Flicker8k_Dataset").join(name), 256).unwrap();
        for channel in 0..3 {
            let values = image.pixels.iter().skip(channel).step_by(3);
            let mean = values.map(|&v| f64::from(v)).sum::<f64>() / (256.0 * 256.0);
            let expected = expected[channel].as_f64().unwrap();
            assert!(
                (mean - expected).abs() < 0.05,
                "{name}: {mean} for {expected}"
            );
        }
    }
}
