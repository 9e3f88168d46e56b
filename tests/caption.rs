//! `showtell caption` and `eval` with a beam; attention as pictures and as numbers.

use crate::support;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use support::cli::{misused, showtell, stderr, stdout, succeeded};
use support::tiny::Tiny;

/// Side of the grid of positions of the tiny captioner.
const POSITIONS: u64 = 4;

fn trained(model: &str) -> Tiny {
    let tiny = Tiny::new();
    let options = ["--encoder-weights", "random", "--epochs", "2", "--model"];
    succeeded(&tiny.train("run", &[&options[..], &[model]].concat()));
    tiny
}

fn caption(tiny: &Tiny, images: &[&str], options: &[&str]) -> Output {
    let mut command: Command = showtell();
    command.arg("caption").arg("--run").arg(tiny.path("run"));
    command.args(images.iter().map(|image| tiny.path(image)));
    command.args(options).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    succeeded(output);
    let text = stdout(output);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn maps_and_pictures_follow_the_words() {
    let tiny = trained("attend");
    for (folder, number) in [("here", 1), ("there", 2)] {
        fs::create_dir(tiny.path(folder)).unwrap();
        let image = tiny.image(number);
        image.save(tiny.path(folder).join("Same.png")).unwrap();
        image.save(tiny.path(folder).join("same-2.png")).unwrap();
    }
    let images = ["here/Same.png", "there/Same.png", "here/same-2.png"];
    let pictures = tiny.path("new/pictures");
    let drawn = ["--attention-out", pictures.to_str().unwrap()];
    let options = ["--json", "--maps", "--beam", "3", "--length-penalty", "0.7"];
    let said = lines(&caption(&tiny, &images, &[&options[..], &drawn].concat()));
    assert_eq!(said.len(), images.len());
    let silent = said.iter().all(|line| line["caption"] == "");
    assert!(!silent, "there is a word to look at");
    let names = ["Same", "Same-2", "same-2-2"].map(|name| format!("{name}.attention.png"));
    for (line, name) in said.iter().zip(&names) {
        let attention = &line["attention"];
        assert_eq!(attention["grid"], serde_json::json!([POSITIONS, POSITIONS]));
        let words = attention["words"].as_array().unwrap();
        let maps = attention["maps"].as_array().unwrap();
        assert_eq!(words.len(), maps.len());
        let spoken: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(spoken.join(" "), line["caption"].as_str().unwrap());
        for map in maps {
            let weights = map.as_array().unwrap();
            assert_eq!(weights.len() as u64, POSITIONS * POSITIONS);
            let sum: f64 = weights.iter().map(|w| w.as_f64().unwrap()).sum();
            // Sixteen roundings of f32.
            assert!((sum - 1.0).abs() < 16.0 * f64::from(f32::EPSILON), "{sum}");
        }
        let picture = pictures.join(name);
        assert_eq!(line["picture"], picture.to_str().unwrap());
        let picture = image::open(&picture).unwrap();
        let tiles = words.len() as u32 + 1;
        assert!(picture.width() >= tiles.min(5) * showtell::report::attention::TILE);
    }
    let files = fs::read_dir(&pictures).unwrap().count();
    assert_eq!(files, names.len(), "nothing else is left there");

    let bare = lines(&caption(&tiny, &images, &["--json"]));
    let keys: Vec<_> = bare[0].as_object().unwrap().keys().collect();
    let expected = [
        "caption",
        "confidence",
        "image",
        "length",
        "log_probability",
    ];
    assert_eq!(keys, expected);
}

/// The caption is the first of the best, which fall in probability; words and confidence fit the sentence; greedy has one of them.
#[test]
fn the_best_sentences_are_told_with_their_odds() {
    let tiny = trained("show-tell");
    tiny.image(1).save(tiny.path("one.png")).unwrap();
    let said = lines(&caption(
        &tiny,
        &["one.png"],
        &["--json", "--beam", "4", "--best", "3"],
    ));
    let best = said[0]["best"].as_array().unwrap();
    assert!((1..=3).contains(&best.len()), "{said:?}");
    for key in ["caption", "confidence", "length", "log_probability"] {
        assert_eq!(best[0][key], said[0][key], "{key}");
    }
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    let odds: Vec<f64> = best
        .iter()
        .map(|line| number(line, "log_probability"))
        .collect();
    assert!(
        odds.is_sorted_by(|a, b| a >= b) && odds[0] <= 0.0,
        "{odds:?}"
    );
    for line in best {
        let words = line["caption"].as_str().unwrap().split_whitespace().count();
        assert_eq!(line["length"], words);
        // The end of the sentence is counted, if it has one, and what show-tell says before its first word.
        let said = number(line, "log_probability") / number(line, "confidence").ln();
        assert!(
            (said - said.round()).abs() < 1e-6 && said.round() as usize >= words,
            "{said}"
        );
    }
    let greedy = lines(&caption(&tiny, &["one.png"], &["--json", "--best", "1"]));
    assert_eq!(greedy[0]["best"].as_array().unwrap().len(), 1);
    let wrong = caption(
        &tiny,
        &["one.png"],
        &["--json", "--beam", "2", "--best", "3"],
    );
    assert!(misused(&wrong).contains("--best: found 3, expected at most --beam, which is 2"));
}

/// File systems limit the length of a name, and the picture's is longer than the image's.
#[test]
fn a_long_name_has_a_picture_too() {
    let tiny = trained("attend");
    let names = ["a", "b"].map(|end| format!("{}ä{end}.png", "x".repeat(240)));
    for name in &names {
        tiny.image(1).save(tiny.path(name)).unwrap();
    }
    let pictures = tiny.path("pictures");
    let options = ["--json", "--attention-out", pictures.to_str().unwrap()];
    let images = names.each_ref().map(String::as_str);
    let said = lines(&caption(&tiny, &images, &options));
    let drawn: Vec<_> = said
        .iter()
        .map(|line| line["picture"].as_str().unwrap())
        .collect();
    assert_ne!(drawn[0], drawn[1]);
    for path in drawn {
        image::open(path).unwrap();
    }
}

/// The name is shown with a replacement character.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_shown_nevertheless() {
    use std::os::unix::ffi::OsStrExt;
    let tiny = trained("attend");
    let image = tiny
        .path("x")
        .with_file_name(std::ffi::OsStr::from_bytes(b"caf\xe9.jpg"));
    fs::copy(tiny.images().join("a.jpg"), &image).unwrap();
    let pictures = tiny.path("pictures");
    for options in [
        &[][..],
        &["--json", "--attention-out", pictures.to_str().unwrap()],
    ] {
        let mut command = showtell();
        command.arg("caption").arg("--run").arg(tiny.path("run"));
        let output = command.arg(&image).args(options).output().unwrap();
        succeeded(&output);
        assert!(stdout(&output).contains("caf\u{fffd}.jpg"));
    }
    assert_eq!(fs::read_dir(&pictures).unwrap().count(), 1);
}

#[test]
fn eval_and_caption_find_the_same_with_a_beam() {
    for model in ["attend", "show-tell"] {
        let tiny = trained(model);
        let beam = ["--beam", "4", "--length-penalty", "1", "--json"];
        succeeded(&tiny.eval("run", &[&["--split", "dev"], &beam[..]].concat()));
        let file = fs::read_to_string(tiny.path("run/captions-dev.json")).unwrap();
        let evaluated: Vec<Value> = serde_json::from_str(&file).unwrap();
        let images: Vec<String> = (evaluated.iter())
            .map(|line| format!("data/Flicker8k_Dataset/{}", line["file"].as_str().unwrap()))
            .collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let said = lines(&caption(&tiny, &images, &beam));
        assert_eq!(said.len(), evaluated.len());
        for (said, evaluated) in said.iter().zip(&evaluated) {
            assert_eq!(said["caption"], evaluated["caption"], "{model}");
        }
    }
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let tiny = trained("show-tell");
    let image = ["data/Flicker8k_Dataset/a.jpg"];
    let pictures = tiny.path("pictures");
    let drawn = ["--attention-out", pictures.to_str().unwrap()];
    for options in [&drawn[..], &["--json", "--maps"]] {
        let message = misused(&caption(&tiny, &image, options));
        assert!(
            message.contains("show-tell captioner has no attention"),
            "{message}"
        );
    }
    assert!(!pictures.exists());
    let negative = ["--beam", "2", "--length-penalty=-1"];
    let message = stderr(&caption(&tiny, &image, &negative));
    assert!(
        message.contains("'--length-penalty <X>': expected a number from 0"),
        "{message}"
    );
    let wrong: [&[&str]; 4] = [
        &["--beam", "0"],
        &negative,
        &["--maps"],
        &["--length-penalty", "1"],
    ];
    for options in wrong {
        let output = caption(&tiny, &image, options);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}
