//! Pictures: attention is at the place of its weights, and curves and words are drawn. The pictures stay in target/tmp.

use image::RgbImage;
use showtell::data::image::{Rgb, decode};
use showtell::data::scenes::Scene;
use showtell::report::attention::{TILE, attention_grid, under_attention};
use showtell::report::curves::learning_curves;
use showtell::report::save;
use showtell::train::log::{EpochRecord, StepRecord, ValidationRecord};
use std::path::{Path, PathBuf};

const GRID: [usize; 2] = [14, 14];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn white(width: usize, height: usize) -> Rgb {
    let pixels = vec![255; width * height * 3];
    Rgb {
        width,
        height,
        pixels,
    }
}

/// Weights around a point of the image, which is given in shares of its width and height. Their sum is 1.
fn spot(centre: [f32; 2], width: f32) -> Vec<f32> {
    let [rows, columns] = GRID;
    let weight = |cell: usize| {
        let x = ((cell % columns) as f32 + 0.5) / columns as f32 - centre[0];
        let y = ((cell / columns) as f32 + 0.5) / rows as f32 - centre[1];
        (-(x * x + y * y) / (2.0 * width * width)).exp()
    };
    let weights: Vec<f32> = (0..rows * columns).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The centre of the brightness, minus that of the darkest pixel.
fn centre_of_light(tile: &RgbImage) -> [f64; 2] {
    let darkest = tile.pixels().map(|pixel| pixel.0[0]).min().unwrap();
    let (mut sums, mut total) = ([0.0; 2], 0.0);
    for (x, y, pixel) in tile.enumerate_pixels() {
        let light = f64::from(pixel.0[0] - darkest);
        sums = [
            sums[0] + light * (f64::from(x) + 0.5),
            sums[1] + light * (f64::from(y) + 0.5),
        ];
        total += light;
    }
    sums.map(|sum| sum / total)
}

/// A single weight makes a spot whose centre is that of its cell, also if width and height differ. The spot is three
/// cells wide. At the border a part of it is cut off, so cells at the border are not tested.
#[test]
fn a_single_weight_shines_at_its_cell() {
    let image = white(100, 50);
    let (width, height) = (f64::from(TILE), f64::from(TILE / 2));
    for (row, column) in [(2, 2), (2, 11), (11, 2), (6, 9), (11, 11)] {
        let mut map = vec![0.0; 14 * 14];
        map[row * 14 + column] = 1.0;
        let tile = under_attention(&image, &map, GRID).unwrap();
        assert_eq!(tile.dimensions(), (TILE, TILE / 2));
        let [x, y] = centre_of_light(&tile);
        let expected = [
            (column as f64 + 0.5) / 14.0 * width,
            (row as f64 + 0.5) / 14.0 * height,
        ];
        let off = (x - expected[0]).abs().max((y - expected[1]).abs());
        assert!(
            off < 0.5,
            "cell ({row}, {column}): ({x}, {y}), expected {expected:?}"
        );
        let brightest = tile.pixels().map(|pixel| pixel.0[0]).max().unwrap();
        assert_eq!(
            brightest, 255,
            "the largest weight leaves the image as it is"
        );
    }
}

#[test]
fn equal_weights_leave_the_image_as_it_is_and_none_make_it_dark() {
    let image = white(60, 60);
    let tile = under_attention(&image, &[1.0 / 196.0; 196], GRID).unwrap();
    assert!(tile.pixels().all(|pixel| pixel.0 == [255; 3]));
    let tile = under_attention(&image, &[0.0; 196], GRID).unwrap();
    assert!(tile.pixels().all(|pixel| pixel.0 == [77; 3]));
}

/// Neighbouring pixels of the enlarged map differ little, so that no edges of cells are visible.
#[test]
fn maps_are_enlarged_smoothly() {
    let map = spot([0.4, 0.6], 0.1);
    let tile = under_attention(&white(64, 64), &map, GRID).unwrap();
    let rows = tile.as_raw().chunks(3 * TILE as usize);
    let steps = rows.flat_map(|row| row.chunks(3).zip(row.chunks(3).skip(1)));
    let largest = steps.map(|(a, b)| a[0].abs_diff(b[0])).max().unwrap();
    // The steepest slope of the spot is 0.7 · 255 · e^(-1/2) / (0.1 · 224) = 4.8 per pixel.
    assert!(largest <= 7, "{largest}");
}

#[test]
fn the_grid_has_a_labelled_tile_for_every_word() {
    let scene = (0..)
        .map(|index| Scene::new(8, index))
        .find(|s| s.objects.len() == 2)
        .unwrap();
    let caption = scene.captions()[0].clone();
    let words: Vec<&str> = caption.split(' ').collect();
    let centres = scene
        .objects
        .iter()
        .map(|object| object.centre.map(|at| at / 64.0));
    let centres: Vec<[f32; 2]> = centres.collect();
    let half = words.len() / 2;
    let maps = (0..words.len()).map(|i| spot(centres[usize::from(i >= half)], 0.08));
    let maps: Vec<Vec<f32>> = maps.collect();
    let picture = attention_grid(&scene.draw(), &words, &maps, GRID).unwrap();
    let path = kept("attention.png");
    save(&picture, &path).unwrap();
    let read = decode(&path).unwrap();
    assert_eq!(read.pixels, *picture.as_raw());
    // Five tiles per row, 36 pixels for the label above each tile, 8 pixels between tiles.
    let rows = (words.len() + 1).div_ceil(5) as u32;
    assert_eq!(
        picture.dimensions(),
        (5 * (TILE + 8) + 8, rows * (TILE + 36) + 8)
    );
    let ink = |tile: u32| {
        let (left, top) = (8 + tile % 5 * (TILE + 8), tile / 5 * (TILE + 36));
        let label = (left..left + TILE).flat_map(|x| (top..top + 36).map(move |y| (x, y)));
        label
            .filter(|&(x, y)| picture.get_pixel(x, y).0[0] < 128)
            .count()
    };
    assert_eq!(ink(0), 0, "the image has no label");
    for (number, word) in words.iter().enumerate() {
        let dark = ink(number as u32 + 1);
        assert!(
            dark > if *word == "." { 3 } else { 25 },
            "{word}: {dark} dark pixels"
        );
    }
}

#[test]
fn words_that_are_too_long_are_made_to_fit() {
    let words = ["counterrevolutionaries", "é", "<unk>"];
    let maps = vec![spot([0.5, 0.5], 0.2); 3];
    let picture = attention_grid(&white(40, 80), &words, &maps, GRID).unwrap();
    save(&picture, &kept("attention-tall.png")).unwrap();
    let (left, right) = (8 + 112, 8 + 112 + 8);
    let gap = (left..right).flat_map(|x| (0..36).map(move |y| (x, y)));
    let dark = gap
        .filter(|&(x, y)| picture.get_pixel(x, y).0[0] < 128)
        .count();
    assert_eq!(dark, 0, "the label reaches into the gap");
}

#[test]
fn maps_that_do_not_fit_are_refused() {
    let image = white(8, 8);
    let message = attention_grid(&image, &["a"], &[], GRID)
        .unwrap_err()
        .to_string();
    assert!(message.contains("1 words, but 0 maps"), "{message}");
    let message = under_attention(&image, &[0.5; 195], GRID)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("195 weights for a grid of 14x14"),
        "{message}"
    );
    assert!(under_attention(&white(0, 8), &[0.5; 196], GRID).is_err());
}

fn steps(count: u64) -> Vec<StepRecord> {
    let loss = |step: u64| 1.0 + 3.0 * (-(step as f32) / 150.0).exp();
    // Deviations that change faster than any smoothing preserves.
    let noise = |step: u64| 0.3 * ((step * 7919 % 101) as f32 / 50.0 - 1.0);
    let record = |step| StepRecord {
        step,
        loss: loss(step) + noise(step),
        ce: loss(step),
        grad_norm: 1.0,
        lr: 1e-3,
        ms: 50.0,
    };
    (1..=count).map(record).collect()
}

fn epochs(count: usize, bleu: f64) -> Vec<EpochRecord> {
    let record = |epoch: usize| EpochRecord {
        epoch,
        step: 200 * epoch as u64,
        train_loss: 1.0,
        train_ce: 1.0,
        validation: Some(ValidationRecord {
            validation_loss: 1.2 + 2.0 / epoch as f64,
            validation_ce: 1.0,
            bleu: [1.0, 0.8, 0.6, 0.5].map(|b| b * bleu * (1.0 - 0.5 / epoch as f64)),
        }),
        lr: 1e-3,
        seconds: 10.0,
    };
    (1..=count).map(record).collect()
}

/// The pixels that have about this colour.
fn count(picture: &RgbImage, colour: [u8; 3]) -> usize {
    let near = |pixel: &&image::Rgb<u8>| {
        pixel
            .0
            .iter()
            .zip(colour)
            .all(|(&found, expected)| found.abs_diff(expected) < 12)
    };
    picture.pixels().filter(near).count()
}

#[test]
fn curves_show_losses_and_bleu() {
    let picture = learning_curves(&steps(1000), &epochs(5, 0.9)).unwrap();
    save(&picture, &kept("curves.png")).unwrap();
    let (training, validation, bleu4) = ([31, 119, 180], [214, 39, 40], [0, 90, 50]);
    for colour in [training, validation, bleu4] {
        let found = count(&picture, colour);
        assert!(found > 300, "{found} pixels of {colour:?}");
    }
}

#[test]
fn curves_are_drawn_without_validation_and_around_losses_that_are_not_numbers() {
    let mut records = steps(50);
    records[10].loss = f32::NAN;
    records[49].loss = f32::INFINITY;
    let narrow = learning_curves(&records, &[]).unwrap();
    save(&narrow, &kept("curves-training.png")).unwrap();
    let wide = learning_curves(&records, &epochs(1, 0.0)).unwrap();
    assert_eq!(wide.width(), 2 * narrow.width());
    assert!(learning_curves(&records[10..11], &[]).is_err());
    assert!(learning_curves(&records[..1], &[]).is_ok());
}
