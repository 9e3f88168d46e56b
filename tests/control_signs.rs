//! Names of files and captions with control characters: a terminal that shows messages about them obeys none.

#![cfg(unix)]

use crate::support;
use serde_json::Value;
use std::fs;
use std::process::Output;
use support::cli::{ended, is_plain, says, showtell, stderr, stdout, succeeded};
use support::tiny::Tiny;

/// It would clear the screen, begin a line of its own, and colour it.
const NAME: &str = "x\u{1b}[2J\nshowtell: all is well\r\u{9b}31m.jpg";
const SHOWN: &str = "x\\u{1b}[2J\\nshowtell: all is well\\r\\u{9b}31m.jpg";

/// Both texts that a command printed, of which neither moves a cursor.
fn printed(output: &Output) -> String {
    is_plain(&stdout(output));
    is_plain(&stderr(output));
    let text = stdout(output) + &stderr(output);
    assert!(!text.contains("\nshowtell: all is well"), "{text}");
    text
}

#[test]
fn names_in_messages_are_shown_and_not_obeyed() {
    let tiny = Tiny::new();
    let mut table = "image,caption\n".to_string();
    for line in tiny.read("Flickr8k.token.txt").lines() {
        let (image, caption) = line.split_once('\t').unwrap();
        table += &format!("{},\"{caption}\"\n", image.split('#').next().unwrap());
    }
    // Line ends cannot be in a table as carriage returns.
    let lost = "y\u{1b}]0;title\u{7}\nz.jpg";
    table += &format!("\"{lost}\",\"\u{1b}[31mred\u{1b}[0m\"\n");
    fs::remove_file(tiny.data().join("Flickr8k.token.txt")).unwrap();
    for list in ["train", "dev", "test"] {
        fs::remove_file(tiny.data().join(format!("Flickr_8k.{list}Images.txt"))).unwrap();
    }
    tiny.write("captions.csv", table);
    tiny.write_image(NAME, b"");
    let data = tiny.data().display().to_string();
    let run = |arguments: &[&str]| showtell().args(arguments).output().unwrap();
    let lost = "y\\u{1b}]0;title\\u{7}\\nz.jpg";

    let checked = printed(&run(&["data", "check", &data]));
    says(&checked, &[SHOWN, lost, "0 errors"]);
    says(&printed(&run(&["data", "stats", &data])), &[lost]);
    let trained = tiny.train_once("run");
    succeeded(&trained);
    says(&printed(&trained), &[lost]);
    let evaluated = tiny.eval("run", &["--out", tiny.path(NAME).to_str().unwrap()]);
    succeeded(&evaluated);
    says(&printed(&evaluated), &[SHOWN]);

    let photo = tiny.images().join(NAME);
    let model = tiny.path("run");
    let caption = |more: &[&str]| {
        let mut command = showtell();
        command.arg("caption").arg("--run").arg(&model).arg(&photo);
        command.args(more).output().unwrap()
    };
    ended(1, &caption(&[]));
    says(&printed(&caption(&[])), &[SHOWN]);
    fs::copy(tiny.images().join("a.jpg"), &photo).unwrap();
    let line = printed(&caption(&[]));
    says(&line, &[SHOWN]);
    let output = caption(&["--json"]);
    printed(&output);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["image"], photo.to_str().unwrap());
    says(
        &printed(&run(&["weights", "inspect", photo.to_str().unwrap()])),
        &[SHOWN],
    );
    for command in [
        ["data", "check", &data, "--json"],
        ["data", "stats", &data, "--json"],
    ] {
        let output = run(&command);
        let _: Value = serde_json::from_str(&stdout(&output)).unwrap();
        printed(&output);
    }
}
