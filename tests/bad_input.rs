//! Bad data and settings end in one clear line on stderr and exit status 1 (2 for wrong usage); what is only
//! unusual works. Weights, runs and disks are in `bad_files.rs`.

use crate::support;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use support::cli::{failed, misused, says, showtell, stderr, stdout, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

const TOKENS: &str = "Flickr8k.token.txt";

fn train_with(tiny: &Tiny, more: &[&str]) -> Output {
    tiny.train("run", &[&SHOW_TELL[..], more].concat())
}

#[test]
fn no_data() {
    let tiny = Tiny::new();
    fs::remove_dir_all(tiny.data()).unwrap();
    says(&failed(&tiny.train_once("run")), &["data: No such file"]);
    fs::create_dir(tiny.data()).unwrap();
    says(
        &failed(&tiny.train_once("run")),
        &["data: no captions: expected one of Flickr8k.token.txt, captions.txt, "],
    );
    assert!(!tiny.path("run").exists());
}

#[test]
fn no_lists() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.data().join("Flickr_8k.trainImages.txt")).unwrap();
    says(
        &failed(&tiny.train_once("run")),
        &["Flickr_8k.trainImages.txt: No such file"],
    );
    tiny.write("Flickr_8k.trainImages.txt", "");
    says(
        &failed(&tiny.train_once("run")),
        &["training list names no image"],
    );
}

#[test]
fn a_caption_without_an_image_is_left_out_with_a_warning() {
    let tiny = Tiny::new();
    tiny.append(TOKENS, "gone.jpg#0\tA lost caption\n");
    let text = succeeded(&tiny.train_once("run"));
    says(
        &text,
        &[
            "warning: ",
            "gone.jpg does not exist: its 1 caption is left out",
        ],
    );
}

#[test]
fn a_listed_image_without_a_file() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.images().join("c.jpg")).unwrap();
    says(
        &failed(&tiny.train_once("run")),
        &["c.jpg: this image of the train list does not exist"],
    );
}

/// After the error the same command works, once the file is repaired or with --skip-bad-images.
#[test]
fn a_corrupt_image() {
    let tiny = Tiny::new();
    let whole = fs::read(tiny.images().join("c.jpg")).unwrap();
    let noise: Vec<u8> = (0..whole.len())
        .map(|i| ((i * i * 97) >> 3) as u8)
        .collect();
    let frame = whole.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
    let headless = [&whole[..2], &whole[frame..]].concat();
    for content in [&whole[..whole.len() / 2], &noise, b"", &headless] {
        tiny.write_image("c.jpg", content);
        says(&failed(&tiny.train_once("run")), &["c.jpg: "]);
        says(&failed(&train_with(&tiny, &["--no-augment"])), &["c.jpg: "]);
    }
    let text = succeeded(&train_with(&tiny, &["--skip-bad-images"]));
    says(&text, &["warning: left out: ", "c.jpg"]);

    let image = tiny.images().join("c.jpg");
    let mut command = showtell();
    command.arg("caption").arg("--run").arg(tiny.path("run"));
    says(&failed(&command.arg(image).output().unwrap()), &["c.jpg"]);
}

#[test]
fn no_image_of_a_split_can_be_read() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    tiny.write_image("i.jpg", b"no image");
    says(&failed(&tiny.eval("run", &[])), &["i.jpg"]);
    says(
        &failed(&tiny.eval("run", &["--skip-bad-images"])),
        &["the only image cannot be read"],
    );
    for name in ["a.jpg", "b.png", "c.jpg", "d.png", "e.jpg", "f.png"] {
        tiny.write_image(name, b"no image");
    }
    let skipping = [&SHOW_TELL[..], &["--skip-bad-images", "--no-validate"]].concat();
    says(
        &failed(&tiny.train("random", &skipping)),
        &["none of the first 6 training images can be read"],
    );
    let encoder = tiny.path("run/last.safetensors");
    let encoder = ["--encoder-weights", encoder.to_str().unwrap()];
    let trained = [&skipping[..], &encoder].concat();
    says(
        &failed(&tiny.train("trained", &trained)),
        &["no training image"],
    );
    let fixed = [&trained[..], &["--no-augment"]].concat();
    says(
        &failed(&tiny.train("fixed", &fixed)),
        &["none of the 6 images"],
    );
}

fn golden(name: &str) -> PathBuf {
    let directory = support::data::root().join("tests/goldens/images");
    directory.join(name)
}

/// One pixel; 16 bits; CMYK, gray, palettes, alpha; EXIF orientation. What they decode to is tested with images.
#[test]
fn unusual_images_are_fine() {
    let tiny = Tiny::new();
    image::RgbImage::new(1, 1)
        .save(tiny.images().join("b.png"))
        .unwrap();
    let wide = image::ImageBuffer::<image::Rgb<u16>, _>::from_fn(9, 7, |x, y| {
        image::Rgb([x as u16 * 7000, y as u16 * 9000, 65535])
    });
    wide.save(tiny.images().join("d.png")).unwrap();
    let stored = [
        ("a.jpg", "cmyk.jpg"),
        ("c.jpg", "gray.jpg"),
        ("e.jpg", "exif-rotated.jpg"),
        ("f.png", "bits.png"),
        ("g.jpg", "progressive.jpg"),
        ("h.png", "palette.png"),
        ("i.jpg", "rgba.png"),
    ];
    for (name, golden_name) in stored {
        tiny.write_image(name, fs::read(golden(golden_name)).unwrap());
    }
    succeeded(&tiny.train_once("run"));
    succeeded(&tiny.eval("run", &[]));
}

/// Pixels are taken as they are stored, as Pillow and torchvision do.
#[test]
fn exif_orientation_is_ignored() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let plain = fs::read(golden("rgb.jpg")).unwrap();
    // Orientation 6, a quarter turn, in an application segment after the start of the image.
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
    exif.extend(b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], &[0xFF, 0xE1], &length, &exif, &plain[2..]].concat();
    tiny.write_image("plain.jpg", &plain);
    tiny.write_image("turned.jpg", &turned);
    let decode = |name| showtell::data::image::decode(&tiny.images().join(name)).unwrap();
    assert_eq!(decode("plain.jpg"), decode("turned.jpg"));
    let (with, without) = (
        tiny.images().join("turned.jpg"),
        tiny.images().join("plain.jpg"),
    );
    let mut command = showtell();
    command
        .arg("caption")
        .arg("--run")
        .arg(tiny.path("run"))
        .args([with, without]);
    let output = command.output().unwrap();
    succeeded(&output);
    let text = stdout(&output);
    let captions: Vec<&str> = text
        .lines()
        .map(|l| l.split_once('\t').unwrap().1)
        .collect();
    assert_eq!(captions[0], captions[1]);
}

/// CRC-32 as in the PNG specification.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            (c >> 1) ^ (0xEDB8_8320 * (c & 1))
        })
    })
}

fn chunk(kind: &[u8], content: &[u8]) -> Vec<u8> {
    let body = [kind, content].concat();
    let length = (content.len() as u32).to_be_bytes();
    [&length, &body[..], &crc(&body).to_be_bytes()].concat()
}

/// A hundred bytes that claim to be 50,000 x 50,000 pixels of 8 bytes each: 20 GB.
#[test]
fn a_decompression_bomb() {
    let tiny = Tiny::new();
    let side = 50_000u32.to_be_bytes();
    let header = [&side[..], &side, &[16, 6, 0, 0, 0]].concat();
    let zeros = b"\x78\x9c\x63\x00\x00\x00\x01\x00\x01";
    let start = &b"\x89PNG\r\n\x1a\n"[..];
    let chunks = [
        chunk(b"IHDR", &header),
        chunk(b"IDAT", zeros),
        chunk(b"IEND", b""),
    ];
    tiny.write_image("b.png", [start, &chunks.concat()].concat());
    says(&failed(&tiny.train_once("run")), &["b.png: ", "limit"]);
}

#[test]
fn captions_that_are_not_utf8() {
    let tiny = Tiny::new();
    let text = tiny.read(TOKENS).into_bytes();
    tiny.write(TOKENS, [&text, &b"a.jpg#5\tUn \xe9t\xe9\n"[..]].concat());
    says(
        &failed(&tiny.train_once("run")),
        &["Flickr8k.token.txt: line 46: ", "utf-8"],
    );
    let image = fs::read(tiny.images().join("a.jpg")).unwrap();
    tiny.write(TOKENS, image);
    says(
        &failed(&tiny.train_once("run")),
        &["Flickr8k.token.txt: has a zero byte in line 1"],
    );
}

#[test]
fn captions_of_no_word_and_of_five_hundred() {
    let tiny = Tiny::new();
    let words: Vec<String> = (0..500).map(|i| format!("word{i}")).collect();
    let long = words.join(" ");
    tiny.append(
        TOKENS,
        &format!("a.jpg#5\t{long}\na.jpg#6\t\ng.jpg#5\t{long}\ng.jpg#6\t\n"),
    );
    for model in ["show-tell", "attend"] {
        let options = [
            "--encoder-weights",
            "random",
            "--epochs",
            "1",
            "--model",
            model,
        ];
        succeeded(&tiny.train(model, &options));
        succeeded(&tiny.eval(model, &["--split", "dev"]));
    }
}

/// Show-tell's vocabulary is that of the training captions.
#[test]
fn captions_of_unknown_words_only() {
    let tiny = Tiny::new();
    let lines = tiny.read(TOKENS);
    let known = lines
        .lines()
        .filter(|l| !l.starts_with("g.jpg") && !l.starts_with("i.jpg"));
    let known: Vec<&str> = known.collect();
    tiny.write(TOKENS, known.join("\n"));
    tiny.append(TOKENS, "\ng.jpg#0\tquux zyzzyva\ni.jpg#0\tquux\n");
    succeeded(&tiny.train_once("run"));
    let output = tiny.eval("run", &[]);
    succeeded(&output);
    assert!(!stdout(&output).contains("NaN"), "{}", stdout(&output));
}

#[test]
fn settings_that_cannot_work() {
    let tiny = Tiny::new();
    for (flag, value) in [
        ("--batch-size", "0"),
        ("--dropout", "1"),
        ("--lr", "-1"),
        ("--lr", "nan"),
        ("--momentum", "inf"),
        ("--layers", "0"),
    ] {
        let given = format!("{flag}={value}");
        let error = misused(&train_with(&tiny, &[&given]));
        says(&error, &[&flag[2..]]);
    }
    for (flag, value) in [
        ("--batch-size", "many"),
        ("--model", "dream"),
        ("--colour", "1"),
    ] {
        let output = tiny.train("run", &[flag, value]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    assert!(!tiny.path("run").exists());
}
