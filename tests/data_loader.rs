//! Batches and the loader: order, padding, thread counts, bad images, early ends.

use crate::support;
use showtell::data::batches::{Batch, Batches, Order};
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::image::load;
use showtell::data::loader::{ImageBatch, Known, Loader, LoaderOptions};
use showtell::data::random::Epoch;
use showtell::data::samples::{Limits, Samples};
use showtell::data::vocabulary::{EOS, PAD, SOS, Vocabulary};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use support::Numbers;
use support::data::{real_data, write_distributed};
use tempfile::TempDir;

const SEED: u64 = 11;

fn epoch(epoch: u32) -> Epoch {
    Epoch { seed: SEED, epoch }
}

/// An invented data set whose images are noise, and its training samples.
fn dataset() -> (TempDir, Arc<Samples>, Arc<[PathBuf]>) {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let images = directory.path().join("Images");
    fs::create_dir(&images).unwrap();
    let mut numbers = Numbers::new(1);
    for (i, name) in ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.png"]
        .iter()
        .enumerate()
    {
        let (width, height) = (20 + 3 * i as u32, 30 - i as u32);
        let noise = image::RgbImage::from_fn(width, height, |_, _| {
            image::Rgb([0; 3].map(|_: i32| numbers.below(256) as u8))
        });
        noise.save(images.join(name)).unwrap();
    }
    let dataset = Flickr8k::open(directory.path()).unwrap();
    let vocabulary = Vocabulary::build(dataset.all_captions());
    let samples = Samples::new(&dataset, Split::Train, &vocabulary, Limits::default());
    (directory, Arc::new(samples), dataset.image_paths().unwrap())
}

fn options(threads: usize) -> LoaderOptions {
    LoaderOptions {
        size: 16,
        threads,
        ..LoaderOptions::default()
    }
}

#[test]
fn an_epoch_visits_every_sample_once_in_an_order_of_its_own() {
    let n = 30_000;
    let samples = Arc::new(Samples::of_images(0..n));
    let order = |epoch| -> Vec<usize> {
        let batches = Batches::new(&samples, 128, Order::Shuffled(epoch)).unwrap();
        assert_eq!(batches.len(), 235);
        assert_eq!(batches.get(234).len(), 48);
        batches.iter().flat_map(|batch| batch.samples).collect()
    };
    let first = order(epoch(0));
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..n));
    assert_eq!(first, order(epoch(0)));
    let same = |other: &[usize]| first.iter().zip(other).filter(|(a, b)| a == b).count();
    // The number of places where two random orders agree has about a Poisson distribution with mean 1.
    assert!(same(&order(epoch(1))) < 12);
    let other = Epoch {
        seed: SEED + 1,
        epoch: 0,
    };
    assert!(same(&order(other)) < 12);
    assert_eq!(
        Batches::new(&samples, 32, Order::Listed).unwrap().len(),
        938
    );
    assert!(Batches::new(&samples, 0, Order::Listed).is_err());
}

/// All 24 orders of 4 occur about equally often: χ² with 23 degrees of freedom stays below its 1 - 1e-5
/// quantile, 62.
#[test]
fn the_shuffle_is_uniform() {
    let mut counts = std::collections::BTreeMap::new();
    let epochs = 24_000;
    for e in 0..epochs {
        *counts.entry(epoch(e).permutation(4)).or_insert(0u32) += 1;
    }
    assert_eq!(counts.len(), 24);
    let expected = f64::from(epochs) / 24.0;
    let chi2: f64 = counts
        .values()
        .map(|&c| (f64::from(c) - expected).powi(2) / expected)
        .sum();
    assert!(chi2 < 62.0, "{chi2}");
}

#[test]
fn captions_are_padded_to_the_longest_of_the_batch() {
    let (_directory, samples, _) = dataset();
    let batches = Batches::new(&samples, 3, Order::Listed).unwrap();
    assert_eq!(batches.len(), 3);
    for (index, batch) in batches.iter().enumerate() {
        let lengths: Vec<usize> = batch
            .samples
            .iter()
            .map(|&s| samples.tokens(s).len())
            .collect();
        assert_eq!(batch.steps, *lengths.iter().max().unwrap());
        let time_major = batch.time_major();
        for (b, &sample) in batch.samples.iter().enumerate() {
            assert_eq!(sample, 3 * index + b);
            assert_eq!(batch.images[b], samples.image(sample));
            let row = &batch.tokens[b * batch.steps..][..batch.steps];
            let (caption, padding) = row.split_at(lengths[b]);
            assert_eq!(caption, samples.tokens(sample));
            assert_eq!((caption[0], caption[lengths[b] - 1]), (SOS, EOS));
            assert!(padding.iter().all(|&id| id == PAD));
            for t in 0..batch.steps {
                assert_eq!(time_major[t * batch.len() + b], row[t]);
            }
        }
    }
    let shapes = batches.iter().map(|b| (b.len(), b.steps)).collect();
    assert_eq!(batches.shapes(), shapes);
}

#[test]
fn images_alone_have_no_steps() {
    let samples = Arc::new(Samples::of_images([4, 2, 7]));
    let batches = Batches::new(&samples, 2, Order::Listed).unwrap();
    let expected = Batch {
        samples: vec![2],
        images: vec![7],
        steps: 0,
        tokens: vec![],
    };
    assert_eq!(batches.get(1), expected);
    assert!(batches.get(0).time_major().is_empty());
}

fn load_all(threads: usize, prefetch: usize, known: Option<Known>) -> Vec<ImageBatch> {
    let (_directory, samples, paths) = dataset();
    let batches = Batches::new(&samples, 3, Order::Shuffled(epoch(5))).unwrap();
    let options = LoaderOptions {
        prefetch,
        known,
        ..options(threads)
    };
    let loader = Loader::new(batches, paths, options).unwrap();
    loader.map(Result::unwrap).collect()
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    for known in [None, Some(Known::default())] {
        let one = load_all(1, 0, known.clone());
        assert_eq!(one.len(), 3);
        for (threads, prefetch) in [(2, 1), (3, 0), (7, 9), (0, usize::MAX)] {
            let other = load_all(threads, prefetch, known.clone());
            assert!(one == other, "{threads} threads");
        }
    }
}

/// An image comes with the first batch that needs it, and what the caller has does not come at all.
#[test]
fn images_that_are_kept_are_decoded_once() {
    let all = load_all(3, 1, None);
    let once = load_all(3, 1, Some(Known::default()));
    let mut kept = BTreeMap::new();
    for (all, once) in all.iter().zip(&once) {
        assert_eq!(all.batch, once.batch);
        assert_eq!(all.decoded, all.batch.images);
        let photos = once.pixels.chunks_exact(16 * 16 * 3).map(<[u8]>::to_vec);
        assert_eq!(photos.len(), once.decoded.len());
        for (&image, photo) in once.decoded.iter().zip(photos) {
            assert!(
                kept.insert(image, photo).is_none(),
                "image {image} came again"
            );
        }
        let images = &all.batch.images;
        let assembled: Vec<u8> = images
            .iter()
            .flat_map(|image| kept[image].clone())
            .collect();
        assert!(all.pixels == assembled);
    }
    assert!(
        once.last().unwrap().decoded.is_empty(),
        "a test of images that come again"
    );
    let kept = kept.into_keys().collect();
    let known = Known {
        kept,
        ..Known::default()
    };
    let none = load_all(2, 3, Some(known));
    assert!(
        none.iter()
            .zip(&all)
            .all(|(none, all)| none.batch == all.batch)
    );
    assert!(none.iter().all(|none| none.pixels.is_empty()));
}

#[test]
fn pixels_are_those_of_the_batchs_images() {
    let (_directory, samples, paths) = dataset();
    let batches = Batches::new(&samples, 5, Order::Listed).unwrap();
    let loader = Loader::new(batches.clone(), paths.clone(), options(2)).unwrap();
    for (index, loaded) in loader.enumerate() {
        let loaded = loaded.unwrap();
        assert_eq!(loaded.batch, batches.get(index));
        for (&image, pixels) in loaded
            .batch
            .images
            .iter()
            .zip(loaded.pixels.chunks(16 * 16 * 3))
        {
            assert_eq!(pixels, load(&paths[image], 16).unwrap().pixels);
        }
    }
}

#[test]
fn an_unreadable_image_ends_the_epoch_with_its_name_in_the_error() {
    let (directory, samples, paths) = dataset();
    let bad = directory.path().join("Images/a.jpg");
    let bytes = fs::read(&bad).unwrap();
    fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    let batches = Batches::new(&samples, 2, Order::Listed).unwrap();
    for threads in [1, 4] {
        let mut loader = Loader::new(batches.clone(), paths.clone(), options(threads)).unwrap();
        assert_eq!(loader.next().unwrap().unwrap().batch.samples, [0, 1]);
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("a.jpg") && error.contains("truncated"),
            "{error}"
        );
        assert!(loader.next().is_none());
    }
}

#[test]
fn bad_images_can_be_skipped() {
    let (directory, samples, paths) = dataset();
    fs::remove_file(directory.path().join("Images/a.jpg")).unwrap();
    let batches = Batches::new(&samples, 2, Order::Listed).unwrap();
    let load = |known| {
        let options = LoaderOptions {
            skip_bad_images: true,
            known,
            ..options(3)
        };
        let mut loader = Loader::new(batches.clone(), paths.clone(), options).unwrap();
        let loaded: Vec<ImageBatch> = loader.by_ref().map(Result::unwrap).collect();
        // First come three captions of b.jpg, then five of a.jpg. The second batch keeps one sample, and the others none.
        let kept: Vec<&[usize]> = loaded.iter().map(|l| &*l.batch.samples).collect();
        assert_eq!(kept, [&[0, 1][..], &[2]]);
        assert_eq!(loaded[1].batch.steps, samples.tokens(2).len());
        (loaded[1].pixels.len(), loader.take_skipped())
    };
    // The image of the second batch is the first one's.
    for (known, pixels) in [(None, 16 * 16 * 3), (Some(Known::default()), 0)] {
        let (found, skipped) = load(known);
        assert_eq!(found, pixels);
        let [skipped] = &skipped[..] else {
            panic!("{skipped:?}");
        };
        assert_eq!(skipped.image, 0);
        assert!(skipped.error.to_string().contains("a.jpg"));
    }
    // In the next epoch nobody is told again.
    let (_, skipped) = load(Some(Known {
        unreadable: HashSet::from([0]),
        ..Known::default()
    }));
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[test]
fn a_loader_dropped_early_ends_its_threads() {
    let (_directory, samples, paths) = dataset();
    let batches = Batches::new(&samples, 1, Order::Listed).unwrap();
    for taken in 0..4 {
        let mut loader = Loader::new(batches.clone(), paths.clone(), options(3)).unwrap();
        for _ in 0..taken {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
        // Every thread has held a clone of the paths.
        assert_eq!(Arc::strong_count(&paths), 1);
    }
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let (_directory, samples, paths) = dataset();
    let batches = Batches::new(&samples, 1, Order::Listed).unwrap();
    let no_size = LoaderOptions {
        size: 0,
        ..options(1)
    };
    assert!(Loader::new(batches.clone(), paths.clone(), no_size).is_err());
    let few = paths[..1].into();
    let error = Loader::new(batches, few, options(1))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("image 1 has no path"), "{error}");
    let empty = Batches::new(&Arc::new(Samples::default()), 4, Order::Listed).unwrap();
    assert_eq!(Loader::new(empty, paths, options(2)).unwrap().count(), 0);
}

#[test]
fn real_photos_load() {
    let Some(data) = real_data("flickr8k-mini") else {
        return;
    };
    let dataset = Flickr8k::open(data).unwrap();
    dataset.require_images(Split::Train).unwrap();
    let samples = Arc::new(Samples::of_images(
        dataset.split(Split::Test).iter().copied(),
    ));
    let batches = Batches::new(&samples, 8, Order::Listed).unwrap();
    let loader = Loader::new(
        batches,
        dataset.image_paths().unwrap(),
        LoaderOptions::default(),
    );
    let sizes: Vec<usize> = (loader.unwrap())
        .map(|loaded| loaded.unwrap().pixels.len() / (256 * 256 * 3))
        .collect();
    assert_eq!(sizes, [8, 7]);
}

/// Images before the first requested batch are not even opened.
#[test]
fn a_loader_can_begin_in_the_middle_of_an_epoch() {
    let (directory, samples, paths) = dataset();
    let batches = Batches::new(&samples, 2, Order::Listed).unwrap();
    let all: Vec<ImageBatch> = Loader::new(batches.clone(), paths.clone(), options(2))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for first in 0..=all.len() + 1 {
        let options = LoaderOptions {
            first,
            ..options(2)
        };
        let mut loader = Loader::new(batches.clone(), paths.clone(), options).unwrap();
        assert_eq!(loader.taken(), first);
        let rest: Vec<ImageBatch> = loader.by_ref().map(Result::unwrap).collect();
        assert!(rest == all[first.min(all.len())..], "from batch {first}");
        assert_eq!(loader.taken(), first.max(all.len()));
    }
    // The list begins with b.jpg and its three captions, of which the last one shares a batch with a.jpg.
    fs::write(directory.path().join("Images/b.jpg"), "no picture").unwrap();
    let from = |first| {
        let options = LoaderOptions {
            first,
            ..options(2)
        };
        Loader::new(batches.clone(), paths.clone(), options).unwrap()
    };
    assert!(from(1).any(|batch| batch.is_err()));
    let rest: Vec<ImageBatch> = from(2).map(Result::unwrap).collect();
    assert!(rest == all[2..]);
}
