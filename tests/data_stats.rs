//! `showtell data stats`: its output and its errors.

use crate::support;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::cli::{ended, printed, showtell, stderr};
use support::data::{real_data, write_distributed};
use tempfile::TempDir;

fn stats(directory: &Path, options: &[&str]) -> Output {
    let mut command = showtell();
    let command = command.args(["data", "stats"]).arg(directory).args(options);
    command.output().unwrap()
}

#[test]
fn a_table_for_people() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let output = stats(directory.path(), &[]);
    let text = printed(&output);
    for line in [
        "train                2         8        72",
        "test+unlisted        2         6        45",
        "all                  5        20       150",
        "missing images: 1",
        "tokens per caption: mean 7.50, max 12",
    ] {
        assert!(text.contains(line), "'{line}' in:\n{text}");
    }
    let warnings = stderr(&output);
    assert_eq!(warnings.matches("a.jpg.1 does not exist").count(), 1);
}

#[test]
fn json_for_programs() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let output = stats(directory.path(), &["--json"]);
    let value: serde_json::Value = serde_json::from_str(&printed(&output)).unwrap();
    assert_eq!(value["captions"], 20);
    assert_eq!(value["splits"][3]["name"], "test+unlisted");
    assert_eq!(value["missing"][0], "a.jpg.1");
}

#[test]
fn a_directory_without_captions_fails() {
    let directory = TempDir::new().unwrap();
    let output = stats(directory.path(), &[]);
    let text = ended(1, &output);
    assert!(
        text.contains("expected one of Flickr8k.token.txt, captions.txt, "),
        "{text}"
    );
}

/// One line for every length would be hundreds of lines for one long caption.
#[test]
fn the_longest_captions_are_counted_together() {
    let directory = TempDir::new().unwrap();
    let caption = |words: usize| format!("a.jpg,{}\n", "word ".repeat(words));
    let table = |lengths: &[usize]| {
        let rows: String = lengths.iter().map(|&words| caption(words)).collect();
        fs::write(directory.path().join("captions.csv"), rows).unwrap();
        printed(&stats(directory.path(), &[]))
    };
    let text = table(&[59, 60, 60, 61, 5000]);
    let last: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(last[0], "more than 60: 2 captions");
    assert!(last[1].starts_with("  60       2  #"), "{text}");
    assert!(last[2].starts_with("  59       1  #"), "{text}");
    assert!(
        text.contains("tokens per caption: mean 1048.00, max 5000"),
        "{text}"
    );
    let text = table(&[60, 61]);
    assert!(text.ends_with("\nmore than 60: 1 caption\n"), "{text}");
    assert!(!table(&[60]).contains("more than"));
}

#[test]
fn the_real_text() {
    let Some(data) = real_data("flickr8k-text") else {
        return;
    };
    let output = stats(&data, &["--json"]);
    let value: serde_json::Value = serde_json::from_str(&printed(&output)).unwrap();
    assert_eq!(value["tokens"], 476_878);
    assert_eq!(value["vocabulary"]["all_captions"], 8915);
    assert_eq!(value["vocabulary"]["train_captions"], 7702);
}
