//! `showtell data check` finds every fault, says where it is, and fails if, and only if, training fails.

use crate::support;
use serde_json::Value;
use std::fs;
use std::process::Output;
use support::cli::{failed, showtell, stderr, stdout, succeeded};
use support::data::real_data;
use support::tiny::Tiny;

fn check(tiny: &Tiny, options: &[&str]) -> Output {
    let mut command = showtell();
    command
        .args(["data", "check"])
        .arg(tiny.data())
        .args(options);
    command.output().unwrap()
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_str(&stdout(output)).unwrap();
    report["findings"].as_array().unwrap().clone()
}

/// Makes one fault, and expects exactly one finding, with this file and line and these words. Training must fail if,
/// and only if, the finding is an error.
fn expect(problem: &str, file: &str, line: Option<u64>, words: &str, spoil: impl Fn(&Tiny)) {
    let tiny = Tiny::new();
    spoil(&tiny);
    let output = check(&tiny, &["--json"]);
    let findings = findings(&output);
    let found: Vec<&Value> = findings
        .iter()
        .filter(|f| f["problem"] == problem)
        .collect();
    assert_eq!(found.len(), 1, "{problem}: {findings:#?}");
    assert!(
        found[0]["file"].as_str().unwrap().ends_with(file),
        "{findings:#?}"
    );
    assert_eq!(found[0]["line"].as_u64(), line, "{findings:#?}");
    assert!(
        found[0]["message"].as_str().unwrap().contains(words),
        "{findings:#?}"
    );
    assert_eq!(findings.len(), 1, "{findings:#?}");

    let text = stdout(&check(&tiny, &[]));
    let place = line.map_or(format!("{file}: "), |line| format!("{file} line {line}: "));
    assert!(text.lines().next().unwrap().contains(&place), "{text}");

    let error = found[0]["severity"] == "error";
    assert_eq!(output.status.code(), Some(i32::from(error)), "{problem}");
    let options = "--model show-tell --encoder-weights random --epochs 1".split_whitespace();
    let trained = tiny.train("run", &options.collect::<Vec<_>>());
    if error {
        failed(&trained);
    } else {
        succeeded(&trained);
    }
}

#[test]
fn a_good_data_set_has_no_findings() {
    let tiny = Tiny::new();
    let output = check(&tiny, &[]);
    succeeded(&output);
    assert_eq!(
        stdout(&output),
        "9 images, 45 captions, 9 images decoded: 0 errors, 0 warnings, usable\n"
    );
    assert!(stdout(&check(&tiny, &["--quick"])).contains("45 captions, 0 images decoded"));
}

const TOKENS: &str = "Flickr8k.token.txt";
const TRAIN: &str = "Flickr_8k.trainImages.txt";
const DEV: &str = "Flickr_8k.devImages.txt";
const TEST: &str = "Flickr_8k.testImages.txt";

#[test]
fn faults_of_lists() {
    expect("missing-file", DEV, None, "No such file", |tiny| {
        fs::remove_file(tiny.data().join(DEV)).unwrap();
    });
    expect("listed-without-captions", DEV, Some(3), "x.jpg", |tiny| {
        tiny.append(DEV, "x.jpg\n");
    });
    expect(
        "listed-twice",
        TRAIN,
        Some(7),
        "b.png is already in line 2",
        |tiny| {
            tiny.append(TRAIN, "b.png\n");
        },
    );
    expect(
        "lists-overlap",
        TEST,
        Some(2),
        "c.jpg is also in the train list, line 3",
        |tiny| {
            tiny.append(TEST, "c.jpg\n");
        },
    );
    expect("empty-split", TRAIN, None, "names no image", |tiny| {
        tiny.write(TRAIN, "\n");
    });
    expect("empty-split", DEV, None, "names no image", |tiny| {
        tiny.write(DEV, "")
    });
    expect("not-utf8", TEST, Some(2), "UTF-8", |tiny| {
        tiny.write(TEST, b"i.jpg\n\xff\n")
    });
}

#[test]
fn faults_of_caption_lines() {
    expect(
        "malformed-line",
        TOKENS,
        Some(46),
        "expected <file>#<k>",
        |tiny| {
            tiny.append(TOKENS, "a.jpg\tA caption\n");
        },
    );
    expect("not-utf8", TOKENS, Some(1), "UTF-8", |tiny| {
        tiny.write(
            TOKENS,
            [b"a.jpg#0\t\xe9t\xe9\n", tiny.read(TOKENS).as_bytes()].concat(),
        );
    });
    expect(
        "captions-without-image",
        "x.jpg",
        None,
        "its 5 captions",
        |tiny| {
            let captions = (0..5).map(|k| format!("x.jpg#{k}\tA lost caption {k}\n"));
            tiny.append(TOKENS, &captions.collect::<String>());
        },
    );
    expect(
        "number-of-captions",
        TOKENS,
        Some(1),
        "a.jpg has 6 captions, but most images have 5",
        |tiny| {
            tiny.append(TOKENS, "a.jpg#5\tOne more\n");
        },
    );
    let replace = |tiny: &Tiny, caption: &str| {
        let text = tiny.read(TOKENS);
        tiny.write(
            TOKENS,
            text.replacen("A red square , number 0 .", caption, 1),
        );
    };
    expect("empty-caption", TOKENS, Some(1), "empty", |tiny| {
        replace(tiny, " ")
    });
    expect("long-caption", TOKENS, Some(1), "500 words", |tiny| {
        replace(tiny, &"word ".repeat(500));
    });
    expect("duplicate-line", TOKENS, Some(2), "line 1", |tiny| {
        let text = tiny.read(TOKENS);
        let lines: Vec<&str> = text.lines().collect();
        tiny.write(
            TOKENS,
            [&[lines[0], lines[0]], &lines[2..]].concat().join("\n"),
        );
    });
}

/// Masks of dropout reach so far; training says so before it begins.
#[test]
fn a_caption_that_is_too_long_to_train_on() {
    let tiny = Tiny::new();
    tiny.append(TOKENS, &format!("a.jpg#5\t{}\n", "word ".repeat(4095)));
    let output = check(&tiny, &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "a caption of image a.jpg has 4095 words and punctuation marks; at most 4094 can be trained on";
    assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    let error = failed(&tiny.train_once("run"));
    assert!(error.contains(expected), "{error}");
    assert!(!tiny.path("run").exists());
}

#[test]
fn faults_of_images() {
    expect(
        "missing-file",
        "data",
        None,
        "expected one of Flicker8k_Dataset",
        |tiny| {
            fs::rename(tiny.images(), tiny.path("elsewhere")).unwrap();
        },
    );
    expect(
        "listed-without-file",
        "h.png",
        None,
        "in the dev list",
        |tiny| {
            fs::remove_file(tiny.images().join("h.png")).unwrap();
        },
    );
    expect(
        "listed-without-file",
        "i.jpg",
        None,
        "in the test list",
        |tiny| {
            fs::remove_file(tiny.images().join("i.jpg")).unwrap();
        },
    );
    expect(
        "image-without-captions",
        "x.PNG",
        None,
        "left out",
        |tiny| {
            tiny.write_image("x.PNG", b"");
        },
    );
    expect(
        "undecodable-image",
        "e.jpg",
        None,
        "not a JPEG, PNG, WebP, GIF or BMP image",
        |tiny| {
            tiny.write_image("e.jpg", b"GIF");
        },
    );
    expect("undecodable-image", "i.jpg", None, "truncated", |tiny| {
        let whole = fs::read(tiny.images().join("i.jpg")).unwrap();
        tiny.write_image("i.jpg", &whole[..whole.len() / 2]);
    });
    expect("odd-size", "d.png", None, "1 x 1", |tiny| {
        image::RgbImage::new(1, 1)
            .save(tiny.images().join("d.png"))
            .unwrap();
    });
    expect("odd-size", "d.png", None, "300 x 40", |tiny| {
        image::RgbImage::new(300, 40)
            .save(tiny.images().join("d.png"))
            .unwrap();
    });
}

/// Nothing else is said about a folder without captions.
#[test]
fn an_empty_folder_and_a_missing_folder() {
    let tiny = Tiny::new();
    fs::remove_dir_all(tiny.data()).unwrap();
    for _ in ["absent", "empty"] {
        let output = check(&tiny, &["--json"]);
        assert_eq!(output.status.code(), Some(1));
        let findings = findings(&output);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0]["problem"], "missing-file");
        fs::create_dir_all(tiny.data()).unwrap();
    }
}

#[test]
fn a_data_set_without_lists_is_split_by_name() {
    let tiny = Tiny::new();
    for list in [TRAIN, DEV, TEST] {
        fs::remove_file(tiny.data().join(list)).unwrap();
    }
    let text = tiny.read(TOKENS);
    let lines = text.lines().map(|line| {
        let (key, caption) = line.split_once('\t').unwrap();
        format!("{},\"{caption}\"\n", key.rsplit_once('#').unwrap().0)
    });
    tiny.write(
        "captions.txt",
        format!("image,caption\n{}", lines.collect::<String>()),
    );
    fs::remove_file(tiny.data().join(TOKENS)).unwrap();
    assert!(stdout(&check(&tiny, &[])).contains(": 0 errors, 0 warnings, usable"));
    // The last image in alphabetical order is a test image.
    tiny.write_image("i.jpg", b"GIF");
    assert!(stdout(&check(&tiny, &[])).contains(": 0 errors, 1 warning, usable"));
    tiny.write_image("a.jpg", b"GIF");
    assert!(stdout(&check(&tiny, &[])).contains(": 1 error, 1 warning, training would fail"));
}

#[test]
fn many_findings_of_a_kind_are_summed_up() {
    let tiny = Tiny::new();
    let lines = (0..30).map(|i| format!("line {i}\n"));
    tiny.append(TOKENS, &lines.collect::<String>());
    let output = check(&tiny, &[]);
    let text = stdout(&output);
    assert_eq!(text.matches("error: ").count(), 10, "{text}");
    assert!(
        text.contains("… and 20 more malformed lines: --json lists all"),
        "{text}"
    );
    assert_eq!(findings(&check(&tiny, &["--json"])).len(), 30);
    let tiny = Tiny::new();
    let lines = (0..11).map(|i| format!("line {i}\n"));
    tiny.append(TOKENS, &lines.collect::<String>());
    let text = stdout(&check(&tiny, &[]));
    assert_eq!(text.matches("error: ").count(), 11, "{text}");
    assert!(!text.contains("more"), "{text}");
    assert!(stderr(&output).is_empty());
}

#[test]
fn real_photos_pass() {
    let Some(data) = real_data("flickr8k-mini") else {
        return;
    };
    let output = showtell()
        .args(["data", "check"])
        .arg(data)
        .output()
        .unwrap();
    succeeded(&output);
    assert!(stdout(&output).contains("150 images, 750 captions, 150 images decoded: 0 errors"));
}
