//! Whatever a user or a file gets wrong ends in one clear line on stderr and exit status 1 (2 for wrong usage),
//! and takes nothing along that was there before.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::tiny::{Tiny, failed, showtell, stderr, stdout, succeeded};

const TOKENS: &str = "Flickr8k.token.txt";

/// One epoch of show-tell on a random encoder.
const SHOW_TELL: [&str; 6] = [
    "--model",
    "show-tell",
    "--encoder-weights",
    "random",
    "--epochs",
    "1",
];

fn train(tiny: &Tiny) -> Output {
    tiny.train("run", &SHOW_TELL)
}

fn train_with(tiny: &Tiny, more: &[&str]) -> Output {
    tiny.train("run", &[&SHOW_TELL[..], more].concat())
}

fn train_on(tiny: &Tiny, weights: &Path) -> Output {
    let weights = weights.to_str().unwrap();
    let options = ["--model", "show-tell", "--encoder-weights", weights];
    tiny.train("run", &options)
}

#[track_caller]
fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "'{word}' in: {error}");
    }
}

#[test]
fn no_data() {
    let tiny = Tiny::new();
    fs::remove_dir_all(tiny.data()).unwrap();
    says(&failed(&train(&tiny)), &["data: No such file"]);
    fs::create_dir(tiny.data()).unwrap();
    says(
        &failed(&train(&tiny)),
        &["data: no captions: expected Flickr8k.token.txt or captions.txt"],
    );
    assert!(!tiny.path("run").exists());
}

#[test]
fn no_lists() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.data().join("Flickr_8k.trainImages.txt")).unwrap();
    says(
        &failed(&train(&tiny)),
        &["Flickr_8k.trainImages.txt: No such file"],
    );
    tiny.write("Flickr_8k.trainImages.txt", "");
    says(&failed(&train(&tiny)), &["training list names no image"]);
}

#[test]
fn a_caption_without_an_image_is_left_out_with_a_warning() {
    let tiny = Tiny::new();
    tiny.append(TOKENS, "gone.jpg#0\tA lost caption\n");
    let text = succeeded(&train(&tiny));
    says(
        &text,
        &["warning: ", "gone.jpg does not exist: its 1 captions"],
    );
}

#[test]
fn a_listed_image_without_a_file() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.images().join("c.jpg")).unwrap();
    says(
        &failed(&train(&tiny)),
        &["c.jpg: this image of the train list does not exist"],
    );
}

/// After the error the same command works, once the file is repaired or with --skip-bad-images.
#[test]
fn a_corrupt_image() {
    let tiny = Tiny::new();
    let whole = fs::read(tiny.images().join("c.jpg")).unwrap();
    let noise: Vec<u8> = (0..whole.len()).map(|i| ((i * i * 97) >> 3) as u8).collect();
    let frame = whole.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
    let headless = [&whole[..2], &whole[frame..]].concat();
    for content in [&whole[..whole.len() / 2], &noise, b"", &headless] {
        tiny.write_image("c.jpg", content);
        says(&failed(&train(&tiny)), &["c.jpg: "]);
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
    succeeded(&train(&tiny));
    tiny.write_image("i.jpg", b"no image");
    says(&failed(&tiny.eval("run", &[])), &["i.jpg"]);
    says(
        &failed(&tiny.eval("run", &["--skip-bad-images"])),
        &["none of the 1 images"],
    );
    for name in ["a.jpg", "b.png", "c.jpg", "d.png", "e.jpg", "f.png"] {
        tiny.write_image(name, b"no image");
    }
    let skipping = [&SHOW_TELL[..], &["--skip-bad-images", "--no-validate"]].concat();
    says(
        &failed(&tiny.train("other", &skipping)),
        &["no training image"],
    );
    let fixed = [&skipping[..], &["--no-augment"]].concat();
    says(
        &failed(&tiny.train("other", &fixed)),
        &["none of the 6 images"],
    );
}

fn golden(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/images");
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
    succeeded(&train(&tiny));
    succeeded(&tiny.eval("run", &[]));
}

/// Pillow's, and torchvision's, way: pixels as they are stored.
#[test]
fn exif_orientation_is_ignored() {
    let tiny = Tiny::new();
    succeeded(&train(&tiny));
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

/// CRC-32 as PNG wants it.
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
    says(&failed(&train(&tiny)), &["b.png: ", "limit"]);
}

#[test]
fn captions_that_are_not_utf8() {
    let tiny = Tiny::new();
    let text = tiny.read(TOKENS).into_bytes();
    tiny.write(TOKENS, [&text, &b"a.jpg#5\tUn \xe9t\xe9\n"[..]].concat());
    says(
        &failed(&train(&tiny)),
        &["Flickr8k.token.txt: line 46: ", "utf-8"],
    );
    let image = fs::read(tiny.images().join("a.jpg")).unwrap();
    tiny.write(TOKENS, image);
    says(&failed(&train(&tiny)), &["Flickr8k.token.txt: line 1: "]);
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
    succeeded(&train(&tiny));
    let output = tiny.eval("run", &[]);
    succeeded(&output);
    assert!(!stdout(&output).contains("NaN"), "{}", stdout(&output));
}

#[test]
fn weights_that_are_none_or_of_another_net() {
    let tiny = Tiny::new();
    let file = tiny.path("weights");
    says(&failed(&train_on(&tiny, &file)), &["weights: No such file"]);
    says(
        &failed(&train_on(&tiny, &tiny.data())),
        &["data: is a directory"],
    );
    let noise: Vec<u8> = (0..4096u32).map(|i| ((i * i * 97) >> 3) as u8).collect();
    let huge = [&u64::MAX.to_le_bytes()[..], b"{\"a\":", &noise].concat();
    let long = [&(1u64 << 40).to_le_bytes()[..], b"{\"a\":1}"].concat();
    for content in [
        b"",
        &noise[..],
        &huge,
        &long,
        b"PK\x03\x04",
        b"\x80\x02\x8a\x0a",
    ] {
        fs::write(&file, content).unwrap();
        says(&failed(&train_on(&tiny, &file)), &["weights: "]);
    }
    // A tiny captioner's checkpoint, whose encoder is another.
    succeeded(&train(&tiny));
    let checkpoint = tiny.path("run/last.safetensors");
    let checkpoint = checkpoint.to_str().unwrap();
    let mut wide = tiny.train_args("wide").join(" ");
    wide = wide.replace("--encoder-width 4", "--encoder-width 8");
    let options = [
        "train",
        "--model",
        "show-tell",
        "--encoder-weights",
        checkpoint,
    ];
    let output = showtell()
        .args(options)
        .args(wide.split(' '))
        .output()
        .unwrap();
    says(
        &failed(&output),
        &["last.safetensors: ", "should have shape"],
    );
    let mut deep = tiny.train_args("deep").join(" ");
    deep = deep.replace("--encoder-blocks 1", "--encoder-blocks 2");
    let output = showtell()
        .args(options)
        .args(deep.split(' '))
        .output()
        .unwrap();
    says(&failed(&output), &["last.safetensors: ", "has no tensor"]);
    let output = tiny.train("attend", &["--model", "attend", "--init", checkpoint]);
    says(
        &failed(&output),
        &["last.safetensors: ", "the model has no"],
    );
    assert!(!tiny.path("attend").exists());
}

fn replace(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_that_is_not_what_it_should_be() {
    let tiny = Tiny::new();
    says(
        &failed(&tiny.eval("none", &[])),
        &["none: is not the directory of a run"],
    );
    succeeded(&train(&tiny));
    says(&failed(&train(&tiny)), &["run: holds a run already"]);
    let best = tiny.path("run/best.safetensors");
    let checkpoint = fs::read(&best).unwrap();
    replace(
        &best,
        "\"showtell.format\":\"1\"",
        "\"showtell.format\":\"9\"",
    );
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: checkpoint of format version 9"],
    );
    replace(&best, "\"showtell.format\"", "\"shewtell.format\"");
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: these are weights, not a checkpoint"],
    );
    fs::write(&best, &checkpoint[..checkpoint.len() - 5]).unwrap();
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: is truncated"],
    );
    fs::write(&best, &checkpoint).unwrap();

    let config = tiny.path("run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.clone() + "colour = \"blue\"\n").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["colour"]);
    fs::write(&config, "model = ").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["config.toml"]);
    fs::write(&config, text).unwrap();
    let words = tiny.path("run/vocab.txt");
    let text = fs::read_to_string(&words).unwrap();
    fs::write(&words, text.clone() + "more\n").unwrap();
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors", "shape"],
    );
    fs::write(&words, "nothing\n").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["vocab.txt"]);
    fs::write(&words, text).unwrap();
    succeeded(&tiny.eval("run", &[]));
}

/// Below a file nothing can be made, even by root.
#[test]
fn nowhere_to_write() {
    let tiny = Tiny::new();
    says(
        &failed(&tiny.train("data/Flickr8k.token.txt/run", &SHOW_TELL)),
        &["Not a directory"],
    );
    succeeded(&train(&tiny));
    for out in [
        "missing/captions.txt",
        "data/Flickr8k.token.txt/captions.txt",
    ] {
        let out = tiny.path(out);
        let error = failed(&tiny.eval("run", &["--out", out.to_str().unwrap()]));
        says(&error, &["captions.txt: "]);
    }
    let directory = tiny.data();
    says(
        &failed(&tiny.eval("run", &["--out", directory.to_str().unwrap()])),
        &["data: "],
    );
    let cache = tiny.data().join("Flickr8k.token.txt/cache");
    let error = failed(&tiny.eval("run", &["--feature-cache", cache.to_str().unwrap()]));
    says(&error, &["cache: Not a directory"]);
}

/// `command` with no file growing beyond so many blocks of 512 bytes: what a full disk does, without one.
fn limited(command: &Command, blocks: usize) -> Output {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    shell.args(["-c", &script, "sh"]).arg(command.get_program());
    shell.args(command.get_args()).output().unwrap()
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let tiny = Tiny::new();
    succeeded(&train(&tiny));
    let mut files: Vec<PathBuf> = fs::read_dir(tiny.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();

    // The checkpoint does not fit: the run fails, its records stay, no half of a file.
    let run = limited(&tiny.train_command("full", &SHOW_TELL), 16);
    says(&failed(&run), &[".safetensors: File too large"]);
    let records = fs::read_to_string(tiny.path("full/steps.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 1);
    let left = fs::read_dir(tiny.path("full")).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in left {
        assert!(
            !name.ends_with(".tmp") && !name.ends_with(".safetensors"),
            "{name}"
        );
    }

    // Captions that do not fit leave those of before.
    let captions = tiny.path("captions.txt");
    fs::write(&captions, "as they were").unwrap();
    let mut eval = showtell();
    eval.arg("eval").arg("--run").arg(tiny.path("run"));
    eval.arg("--data")
        .arg(tiny.data())
        .arg("--out")
        .arg(&captions);
    says(
        &failed(&limited(&eval, 0)),
        &["captions.txt: File too large"],
    );
    assert_eq!(fs::read_to_string(&captions).unwrap(), "as they were");

    // A feature cache that does not fit leaves nothing.
    let cache = tiny.path("cache");
    eval.arg("--feature-cache").arg(&cache);
    says(&failed(&limited(&eval, 0)), &[".features: File too large"]);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);

    let mut after: Vec<PathBuf> = fs::read_dir(tiny.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    after.sort();
    assert_eq!(files, after);
}

/// A device that is always full, and one that is there for all.
#[test]
fn devices_are_written_to_and_stay() {
    let tiny = Tiny::new();
    succeeded(&train(&tiny));
    let error = failed(&tiny.eval("run", &["--out", "/dev/full"]));
    says(&error, &["/dev/full: No space left"]);
    succeeded(&tiny.eval("run", &["--out", "/dev/null"]));
    for device in ["/dev/full", "/dev/null"] {
        assert!(
            !fs::metadata(device).unwrap().is_file(),
            "{device} was replaced"
        );
    }
    let output = tiny.eval("run", &["--out", "/dev/stdout"]);
    succeeded(&output);
    assert!(
        stdout(&output).starts_with("i.jpg\t"),
        "{}",
        stdout(&output)
    );

    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let mut stats = showtell();
    stats
        .args(["data", "stats"])
        .arg(tiny.data())
        .stdout(full())
        .stderr(Stdio::piped());
    let output = stats.spawn().unwrap().wait_with_output().unwrap();
    says(&failed(&output), &["No space left"]);
    // Progress that nobody can read does not stop a run.
    let mut run = tiny.train_command("silent", &SHOW_TELL);
    assert!(
        run.stdout(Stdio::null())
            .stderr(full())
            .status()
            .unwrap()
            .success()
    );
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
        let error = failed(&train_with(&tiny, &[&given]));
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
