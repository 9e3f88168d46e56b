//! Data sets with one fault that concerns everything in them, and folders as archives leave them: what `data check` says, it
//! says once, and training says it too.

use crate::support;
use serde_json::Value;
use showtell::data::flickr8k::Flickr8k;
use std::fs;
use support::checked::{checked, rename, rename_files, unusable, usable};
use support::cli::{failed, says, showtell, stderr, stdout};
use support::tiny::{SHOW_TELL, Tiny};
use tempfile::TempDir;

const TOKENS: &str = "Flickr8k.token.txt";
const TRAIN: &str = "Flickr_8k.trainImages.txt";

/// The rows are those that Python's csv module reads.
#[test]
fn tables_are_read_as_python_reads_them() {
    let tables = support::data::golden("tables.json");
    let tables = tables.as_array().unwrap();
    assert!(tables.len() > 100);
    for table in tables {
        let text = table["text"].as_str().unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("captions.csv"), text).unwrap();
        let dataset = Flickr8k::open(folder.path()).unwrap_or_else(|e| panic!("{e}: {text}"));
        let rows: Vec<(String, String)> = serde_json::from_value(table["rows"].clone()).unwrap();
        let count: usize = dataset.images().iter().map(|i| i.captions.len()).sum();
        assert_eq!(count, rows.len(), "{text}");
        for image in dataset.images() {
            let of_image = rows.iter().filter(|(name, _)| *name == image.name);
            let expected: Vec<String> = of_image.map(|(_, words)| words.to_lowercase()).collect();
            assert_eq!(image.captions, expected, "{text}");
        }
    }
}

/// Excel writes such tables on a Mac.
#[test]
fn line_feeds_in_quotes_are_none_of_the_lines_that_returns_end() {
    let folder = TempDir::new().unwrap();
    let table = "image,caption\ra.jpg,\"two\nlines\"\rb.jpg,one\r";
    fs::write(folder.path().join("captions.csv"), table).unwrap();
    let dataset = Flickr8k::open(folder.path()).unwrap();
    let captions: Vec<&str> = dataset.all_captions().collect();
    assert_eq!(captions, ["two\nlines", "one"]);
}

/// Numbers of images often stand before the names of their files.
#[test]
fn the_column_of_files_is_taken_before_that_of_numbers() {
    let folder = TempDir::new().unwrap();
    let table = "image_id,id,caption,file_name\n17,1,A dog,a.jpg\n";
    fs::write(folder.path().join("captions.csv"), table).unwrap();
    let dataset = Flickr8k::open(folder.path()).unwrap();
    assert_eq!(dataset.images()[0].name, "a.jpg");
}

/// `data check` has this one error, and training refuses with the same words.
fn one_error(tiny: &Tiny, file: &str, words: &[&str]) {
    unusable(tiny, 1, words);
    let text = stdout(&checked(&tiny.data()));
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    let first = text.lines().next().unwrap();
    says(first, &[file]);
    says(&failed(&tiny.train_once("run")), words);
}

#[test]
fn a_file_that_is_no_text_is_named_for_what_it_is() {
    let zeros_after = |text: &str| [text.as_bytes(), &[0; 300]].concat();
    let kinds: [(Vec<u8>, &str); 7] = [
        (b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), "is a zip archive"),
        (
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(),
            "is a file compressed by gzip",
        ),
        (
            b"\n<!DOCTYPE html>\n<html><body>a, b</body></html>\n".to_vec(),
            "is a web page",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 99\n".to_vec(),
            "is a pointer of Git LFS: `git lfs pull`",
        ),
        (b"%PDF-1.7\n".to_vec(), "is a PDF document"),
        (vec![0; 400], "is a file of zero bytes only"),
        (
            zeros_after("a.jpg#0\tA dog\n"),
            "has a zero byte in line 2, as no text has",
        ),
    ];
    for (content, words) in kinds {
        let tiny = Tiny::new();
        tiny.write(TOKENS, &content);
        one_error(&tiny, TOKENS, &[words]);
        let tiny = Tiny::new();
        tiny.write(TRAIN, &content);
        one_error(&tiny, TRAIN, &[words]);
    }
}

#[test]
fn one_cause_in_many_lines_is_one_finding() {
    // Another encoding.
    let tiny = Tiny::new();
    let latin = tiny.read(TOKENS).replace("square", "caf\u{e9}");
    let latin: Vec<u8> = latin.chars().map(|c| c as u8).collect();
    tiny.write(TOKENS, latin);
    let words = ["is not UTF-8: save the file again with that encoding"];
    one_error(&tiny, "Flickr8k.token.txt line 1: ", &words);
    says(
        &stdout(&checked(&tiny.data())),
        &["44 more lines are like it"],
    );
    // Another form.
    let tiny = Tiny::new();
    tiny.write(TOKENS, tiny.read(TOKENS).replace('\t', " "));
    one_error(
        &tiny,
        "Flickr8k.token.txt line 1: ",
        &["expected <file>#<k>, a tab"],
    );
    // A list of other images.
    let tiny = Tiny::new();
    tiny.write(TRAIN, "1.jpg\n2.jpg\n3.jpg\n");
    one_error(
        &tiny,
        "Flickr_8k.trainImages.txt line 1: ",
        &["image 1.jpg has no captions"],
    );
    says(
        &stdout(&checked(&tiny.data())),
        &["2 more lines are like it"],
    );
}

#[test]
fn names_of_which_none_fits_are_told_once() {
    let long = |name: &str| format!("1000268201_693b08cb0e_{name}");
    let words = [
        "none of the 9 images that ",
        "Flickr8k.token.txt names exists: it names 1000268201_693b08cb0e_a.jpg",
    ];
    let tiny = Tiny::new();
    rename(&tiny, long);
    rename_files(&tiny, |name| format!("0{}", long(name)));
    one_error(&tiny, "Flicker8k_Dataset: ", &words);
    let similar = "have names such as 01000268201_693b08cb0e_a.jpg; the most similar name is 01000268201_693b08cb0e_a.jpg";
    one_error(&tiny, "Flicker8k_Dataset: ", &[similar]);
    // Without lists training has no image at all; it says why, even if it may skip some.
    for list in ["train", "dev", "test"] {
        fs::remove_file(tiny.data().join(format!("Flickr_8k.{list}Images.txt"))).unwrap();
    }
    let table = tiny.read(TOKENS);
    fs::remove_file(tiny.data().join(TOKENS)).unwrap();
    tiny.write("captions.tsv", table);
    one_error(
        &tiny,
        "Flicker8k_Dataset: ",
        &["none of the 9 images that ", similar],
    );
    let options = [&SHOW_TELL[..], &["--skip-bad-images"]].concat();
    says(
        &failed(&tiny.train("run", &options)),
        &["none of the 9 images that "],
    );
    fs::remove_dir_all(tiny.images()).unwrap();
    fs::create_dir(tiny.images()).unwrap();
    one_error(
        &tiny,
        "Flicker8k_Dataset: ",
        &["but there is no image here"],
    );
}

/// A similar name is looked for only for the first of them, which a user may notice: each is compared with all names.
#[test]
fn many_missing_images_are_summed_up() {
    let tiny = Tiny::new();
    let name = |i: usize| format!("1000268201_693b08cb0e_{i:05}.jpg");
    let rows: String = (0..3000)
        .map(|i| format!("{}#0\tA dog\n", name(i)))
        .collect();
    tiny.append(TOKENS, &rows);
    for i in 0..3000 {
        tiny.write_image(&format!("x{}", name(i)), b"");
    }
    let output = showtell()
        .args(["data", "check", "--quick", "--json"])
        .arg(tiny.data())
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let missing = findings
        .iter()
        .filter(|f| f["problem"] == "captions-without-image");
    let messages: Vec<&str> = missing.map(|f| f["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3000);
    let hints = messages
        .iter()
        .filter(|m| m.contains("the most similar name is x"));
    assert_eq!(hints.count(), 20);
    let trained = tiny.train_once("run");
    let warnings = stderr(&trained);
    assert_eq!(
        warnings
            .matches("does not exist: its 1 caption is left out")
            .count(),
        10
    );
    says(
        &warnings,
        &["2990 more images do not exist: `showtell data check` names them"],
    );
}

#[test]
fn images_may_lie_beside_the_folder_of_captions() {
    let tiny = Tiny::new();
    let texts = tiny.data().join("Flickr_Data/Flickr8k_text");
    fs::create_dir_all(&texts).unwrap();
    for name in [
        TOKENS,
        TRAIN,
        "Flickr_8k.devImages.txt",
        "Flickr_8k.testImages.txt",
    ] {
        fs::rename(tiny.data().join(name), texts.join(name)).unwrap();
    }
    usable(&tiny, &tiny.data());
    let images = tiny.data().join("Flickr_Data/Images");
    fs::rename(tiny.images(), &images).unwrap();
    let tiny_two = tiny.train("second", &SHOW_TELL);
    support::cli::succeeded(&tiny_two);
    says(
        &stdout(&checked(&tiny.data())),
        &["9 images decoded: 0 errors, 0 warnings, usable"],
    );
}

#[test]
fn a_file_is_no_data_set() {
    let tiny = Tiny::new();
    let output = checked(&tiny.data().join(TOKENS));
    says(
        &stdout(&output),
        &["Flickr8k.token.txt: is a file; expected the folder of a data set"],
    );
}

#[test]
fn an_image_in_several_folders_is_told_so() {
    let tiny = Tiny::new();
    for folder in ["one", "two"] {
        fs::create_dir(tiny.images().join(folder)).unwrap();
        fs::copy(
            tiny.images().join("a.jpg"),
            tiny.images().join(folder).join("a.jpg"),
        )
        .unwrap();
    }
    fs::remove_file(tiny.images().join("a.jpg")).unwrap();
    one_error(
        &tiny,
        "a.jpg: ",
        &["; several folders hold a file a.jpg: say in the captions which"],
    );
}

/// Validation reads its images after the first epoch, which may take hours.
#[test]
fn a_missing_image_of_the_dev_list_is_told_before_training() {
    let tiny = Tiny::new();
    fs::remove_file(tiny.images().join("h.png")).unwrap();
    let error = failed(&tiny.train_once("run"));
    says(
        &error,
        &["h.png: this image of the dev list does not exist"],
    );
    let options = [&SHOW_TELL[..], &["--no-validate"]].concat();
    support::cli::succeeded(&tiny.train("run", &options));
}
