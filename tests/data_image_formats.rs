//! Every layout of JPEG and every format of image gives Pillow's pixels, or an error that says what the file is. The files
//! come from tests/goldens/images.py.

use crate::support;
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::SafeTensors;
use showtell::data::image::{Rgb, decode};
use std::fs;
use std::path::Path;
use support::cli::{failed, printed, showtell};
use support::tiny::Tiny;
use tempfile::TempDir;

struct File {
    name: String,
    bytes: Vec<u8>,
    pixels: Vec<u8>,
}

fn files() -> Vec<File> {
    let path = support::data::root().join("tests/goldens/images.safetensors");
    let bytes = fs::read(path).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let tables = golden.tensor("tables").unwrap().data();
    let tensors = golden.tensors();
    let files = tensors.iter().filter_map(|(name, file)| {
        let (picture, _) = name.split_once('/')?;
        let data = file.data();
        let bytes = if picture.starts_with("jpeg") {
            [&data[..2], tables, &data[2..]].concat()
        } else {
            data.to_vec()
        };
        let pixels = golden.tensor(picture).unwrap().data().to_vec();
        let name = name.clone();
        Some(File {
            name,
            bytes,
            pixels,
        })
    });
    files.collect()
}

/// What the decoder makes of these bytes, or its message.
fn decoded(directory: &TempDir, bytes: &[u8]) -> Result<Rgb, String> {
    let path = directory.path().join("image.jpg");
    fs::write(&path, bytes).unwrap();
    decode(&path).map_err(|error| error.to_string())
}

fn file(name: &str) -> File {
    let mut files = files().into_iter();
    files.find(|file| file.name == name).unwrap()
}

/// Two JPEG decoders differ in the rounding of the inverse cosine transform and of the colour conversion; other formats
/// have nothing to round.
#[test]
fn all_files_give_pillows_pixels() {
    let directory = TempDir::new().unwrap();
    let (mut wrong, files) = (Vec::new(), files());
    assert!(files.len() > 200);
    for File {
        name,
        bytes,
        pixels,
    } in &files
    {
        let allowed = if name.starts_with("jpeg") { 4 } else { 0 };
        match decoded(&directory, bytes) {
            Ok(image) if image.pixels.len() == pixels.len() => {
                let pairs = image.pixels.iter().zip(pixels);
                let most = pairs.map(|(&got, &expected)| got.abs_diff(expected)).max();
                if most > Some(allowed) {
                    wrong.push(format!("{name}: differs by {most:?}"));
                }
            }
            Ok(image) => wrong.push(format!("{name}: {} bytes", image.pixels.len())),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Some cameras leave zero bytes where the end-of-image marker belongs. All pixels are there; after a download that
/// stopped they are not.
#[test]
fn zero_bytes_may_stand_for_the_end_but_not_for_pixels() {
    let directory = TempDir::new().unwrap();
    let progressive = file("jpeg-420-36x21/progressive").bytes;
    let padded = [&progressive[..progressive.len() - 2], &[0; 64]].concat();
    let error = decoded(&directory, &padded).unwrap_err();
    assert!(error.contains("progressive"), "{error}");
    for layout in ["one", "each"] {
        let File { bytes, .. } = file(&format!("jpeg-420-36x21/{layout}"));
        let end = bytes.len() - 2;
        let whole = decoded(&directory, &bytes).unwrap();
        let padded = decoded(&directory, &[&bytes[..end], &[0; 64]].concat()).unwrap();
        let pairs = whole.pixels.iter().zip(&padded.pixels);
        assert!(pairs.map(|(a, b)| a.abs_diff(*b)).max() <= Some(4));
        for missing in 1..200 {
            let cut = [&bytes[..end - missing], &[0; 64]].concat();
            match decoded(&directory, &cut) {
                // Where the bytes that are missing decide no pixel.
                Ok(image) => assert_eq!(image, padded, "{layout}, {missing} bytes missing"),
                Err(error) => {
                    let told = ["truncated", "damaged"].iter().any(|w| error.contains(w));
                    assert!(told, "{layout}: {error}");
                }
            }
        }
    }
}

/// Replaces the first byte after `marker` by the given distance.
fn patched(bytes: &[u8], marker: [u8; 2], distance: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let start = bytes.windows(2).position(|w| w == marker).unwrap();
    bytes[start + distance] = value;
    bytes
}

#[test]
fn what_is_not_read_is_named() {
    let directory = TempDir::new().unwrap();
    let jpeg = file("jpeg-420-36x21/one").bytes;
    let kind = |sof| patched(&jpeg, [0xFF, 0xC0], 1, sof);
    let brand =
        |brand: &[u8; 4]| [&b"\0\0\0\x18ftyp"[..], &brand[..], b"\0\0\0\0mif1miaf"].concat();
    let cases: [(Vec<u8>, &str); 22] = [
        (kind(0xC9), "arithmetic coding"),
        (kind(0xCA), "arithmetic coding"),
        (kind(0xC3), "without loss"),
        (kind(0xC5), "hierarchy"),
        (patched(&jpeg, [0xFF, 0xC0], 4, 12), "12 bits per sample"),
        (patched(&jpeg, [0xFF, 0xC0], 9, 2), "2 components"),
        (
            patched(&jpeg, [0xFF, 0xC0], 11, 0x44),
            "more than ten blocks",
        ),
        (
            patched(&jpeg, [0xFF, 0xC0], 11, 0x02),
            "sampling 0x2 1x1 1x1",
        ),
        (Vec::new(), "the file is empty"),
        (vec![0; 100], "zero bytes only"),
        (brand(b"heic"), "a HEIC image"),
        (brand(b"avif"), "an AVIF image"),
        (b"II*\0\x08\0\0\0".to_vec(), "a TIFF image"),
        (b"MM\0*\0\0\0\x08".to_vec(), "a TIFF image"),
        (b"\0\0\0\x0CJXL \r\n\x87\n".to_vec(), "a JXL image"),
        (b"\n<!DOCTYPE html><html>".to_vec(), "a web page"),
        (b"<?xml version='1.0'?><svg/>".to_vec(), "an SVG drawing"),
        (
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            "a pointer of Git LFS",
        ),
        (b"%PDF-1.7".to_vec(), "a PDF document"),
        (b"PK\x03\x04".to_vec(), "a zip archive"),
        (b"\x1f\x8b\x08".to_vec(), "gzip"),
        (b"8BPS\0\x01".to_vec(), "a PSD image"),
    ];
    for (bytes, words) in cases {
        let error = decoded(&directory, &bytes).unwrap_err();
        assert!(
            error.contains("image.jpg") && error.contains(words),
            "{words}: {error}"
        );
    }
}

/// A scan that is missing, or there twice.
#[test]
fn every_component_has_one_scan() {
    let directory = TempDir::new().unwrap();
    let jpeg = file("jpeg-420-36x21/each").bytes;
    let scans = |w: &[u8]| w == [0xFF, 0xDA];
    let starts: Vec<usize> = (0..jpeg.len() - 1)
        .filter(|&i| scans(&jpeg[i..i + 2]))
        .collect();
    let [_, second, third] = starts[..] else {
        panic!("{starts:?}");
    };
    let missing = [&jpeg[..second], &jpeg[third..]].concat();
    let twice = [&jpeg[..third], &jpeg[second..]].concat();
    for (bytes, words) in [
        (missing, "no scan for component 2"),
        (twice, "component 2 in several"),
    ] {
        let error = decoded(&directory, &bytes).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

/// A file of some bytes cannot hold 170 million pixels, and no memory is taken for them.
#[test]
fn a_small_file_that_claims_a_huge_image_is_refused() {
    let directory = TempDir::new().unwrap();
    for layout in ["one", "each", "progressive"] {
        let mut bytes = file(&format!("jpeg-420-36x21/{layout}")).bytes;
        let frame = |w: &[u8]| w == [0xFF, 0xC0] || w == [0xFF, 0xC2];
        let frame = bytes.windows(2).position(frame).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x32, 0xC8, 0x33, 0x90]);
        let error = decoded(&directory, &bytes).unwrap_err();
        assert!(error.contains("too few for 13200 x 13000"), "{error}");
    }
}

/// 12,000 x 9,000 pixels, as phones make them, and a little more than Pillow reads.
#[test]
fn a_photo_of_108_megapixels_is_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("image.png");
    image::GrayImage::from_fn(12_000, 9_000, |x, _| image::Luma([(x / 50) as u8]))
        .save(&path)
        .unwrap();
    let image = showtell::data::image::load(&path, 4).unwrap();
    // The means of x / 50, rounded down, about x = 1,500, 4,500, 7,500 and 10,500. At both borders the triangle of the filter is
    // cut off at half its width, which moves its centre inwards by 2/21 of 3,000 pixels: 5.7 levels.
    let row = [35, 90, 150, 204];
    assert_eq!((image.width, image.height), (4, 4));
    for (pixel, expected) in image.pixels.chunks(3).zip(row.iter().cycle()) {
        assert!(
            pixel.iter().all(|v| v.abs_diff(*expected) <= 2),
            "{pixel:?} for {expected}"
        );
    }
}

#[cfg(unix)]
fn pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

/// Opening a pipe would wait for a writer for ever.
#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let directory = TempDir::new().unwrap();
    let (fifo, link) = (
        directory.path().join("a.jpg"),
        directory.path().join("b.jpg"),
    );
    pipe(&fifo);
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    for path in [&fifo, &link, Path::new("/dev/zero")] {
        let error = decode(path).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
    let error = decode(directory.path()).unwrap_err().to_string();
    assert!(error.contains("folder"), "{error}");
    let file = file("jpeg-444-36x21/one");
    fs::write(directory.path().join("c.jpg"), &file.bytes).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(directory.path().join("c.jpg"), &link).unwrap();
    decode(&link).unwrap();
}

/// The check of a data set sees what training would refuse.
#[cfg(unix)]
#[test]
fn data_check_names_what_is_not_read() {
    let tiny = Tiny::new();
    let jpeg = file("jpeg-420-36x21/one").bytes;
    tiny.write_image("a.jpg", patched(&jpeg, [0xFF, 0xC0], 1, 0xC9));
    fs::remove_file(tiny.images().join("c.jpg")).unwrap();
    pipe(&tiny.images().join("c.jpg"));
    let mut command = showtell();
    let output = command
        .args(["data", "check"])
        .arg(tiny.data())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = support::cli::stdout(&output);
    assert!(text.contains("arithmetic coding"), "{text}");
    assert!(text.contains("not a regular file"), "{text}");
}

/// Changes of a file: a byte set to a value, a part cut out, a part of another file put in.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index, usize),
    Splice(Index, Index, Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![any::<u8>(), Just(0), Just(0xFF), 0xC0..=0xDDu8];
    prop_oneof![
        4 => (any::<Index>(), value).prop_map(|(at, value)| Change::Set(at, value)),
        1 => (any::<Index>(), 1..200usize).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => (any::<Index>(), any::<Index>(), any::<Index>(), 1..400usize)
            .prop_map(|(at, file, from, length)| Change::Splice(at, file, from, length)),
    ]
}

fn changed(files: &[File], bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes
        .iter()
        .filter(|_| bytes.len() > 1)
        .collect::<Vec<_>>()
    {
        match change {
            _ if bytes.is_empty() => {}
            Change::Set(at, value) => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Change::Cut(at, length) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + length);
                bytes.drain(at..end);
            }
            Change::Splice(at, file, from, length) => {
                let other = &files[file.index(files.len())].bytes;
                let from = from.index(other.len());
                let part = &other[from..other.len().min(from + length)];
                let at = at.index(bytes.len());
                bytes.splice(at..at, part.iter().copied());
            }
        }
    }
    bytes
}

/// Damaged files give an image or an error, never a panic of ours. `PROPTEST_CASES` makes it longer.
#[test]
fn damaged_files_are_errors_or_images() {
    let directory = TempDir::new().unwrap();
    let files = files();
    let strategy = (any::<Index>(), proptest::collection::vec(change(), 1..8));
    let mut runner = proptest::test_runner::TestRunner::default();
    let result = runner.run(&strategy, |(index, changes)| {
        let file = &files[index.index(files.len())];
        match decoded(&directory, &changed(&files, &file.bytes, &changes)) {
            Ok(image) => prop_assert_eq!(image.pixels.len(), 3 * image.width * image.height),
            Err(error) => prop_assert!(error.contains("image.jpg"), "{}", error),
        }
        Ok(())
    });
    result.unwrap();
}

/// One bad photo among good ones is named, and the others are captioned.
#[test]
fn a_bad_photo_does_not_end_caption() {
    let tiny = Tiny::new();
    support::cli::succeeded(&tiny.train_once("run"));
    let (a, i) = (tiny.images().join("a.jpg"), tiny.images().join("i.jpg"));
    let bad = tiny.path("bad.jpg");
    fs::write(&bad, b"").unwrap();
    let caption = |images: &[&Path]| {
        let mut command = showtell();
        command.arg("caption").arg("--run").arg(tiny.path("run"));
        command.args(images).output().unwrap()
    };
    let good = printed(&caption(&[&a, &i]));
    let output = caption(&[&a, &bad, &i]);
    let error = failed(&output);
    assert!(
        error.contains("1 of 3 images") && error.contains("bad.jpg"),
        "{error}"
    );
    let warned = support::cli::stderr(&output);
    assert!(
        warned.contains("bad.jpg: ") && warned.contains("empty"),
        "{warned}"
    );
    assert_eq!(support::cli::stdout(&output), good);
}

/// A GIF of two colours: its screen, and a picture of the second colour at this place.
fn gif(screen: [u16; 2], place: [u16; 4], transparent: Option<u8>) -> Vec<u8> {
    let palette = [10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0];
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, screen[0], screen[1], &palette).unwrap();
    let [left, top, width, height] = place;
    let frame = gif::Frame {
        left,
        top,
        width,
        height,
        transparent,
        buffer: vec![1; usize::from(width) * usize::from(height)].into(),
        ..gif::Frame::default()
    };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    bytes
}

/// As Pillow 13 does: what the picture leaves free has the transparent colour, or else the first of the palette; a picture that
/// is larger than the screen is whole.
#[test]
fn a_gif_that_does_not_fill_its_screen_has_pillows_colours() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.gif");
    for (screen, place, transparent, size, free) in [
        ([5, 4], [1, 2, 3, 1], None, [5, 4], [10, 20, 30]),
        ([5, 4], [1, 2, 3, 1], Some(2), [5, 4], [70, 80, 90]),
        ([2, 2], [1, 0, 4, 3], None, [5, 3], [10, 20, 30]),
    ] {
        fs::write(&path, gif(screen, place, transparent)).unwrap();
        let image = decode(&path).unwrap();
        assert_eq!([image.width, image.height], size);
        let [left, top, width, height] = place.map(usize::from);
        for (i, pixel) in image.pixels.chunks_exact(3).enumerate() {
            let (x, y) = (i % size[0], i / size[0]);
            let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
            let expected = if inside { [40, 50, 60] } else { free };
            assert_eq!(pixel, expected, "{x}, {y} of {place:?}");
        }
    }
}
