//! `showtell score`: captions and references in the forms in which programs leave them give the same scores, and what does not fit
//! together is refused by name.

use crate::support;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::cli;

/// Three images, their references and a caption of each.
const IMAGES: [(&str, [&str; 2], &str); 3] = [
    (
        "a.jpg",
        ["A dog runs fast.", "the dog isn't slow"],
        "a dog runs",
    ),
    (
        "b.jpg",
        ["Two cats sit on a mat", "cats on a mat"],
        "two cats on a mat",
    ),
    ("c.jpg", ["a red ball", "The ball is red!"], "a ball, red"),
];

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<str>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text.as_ref()).unwrap();
        path
    }
}

fn score(references: &Path, captions: &Path) -> Value {
    let paths = [references, captions].map(|path| path.to_str().unwrap());
    let output = cli::run(["score", paths[0], paths[1], "--json"]);
    serde_json::from_str(&cli::printed(&output)).unwrap()
}

#[track_caller]
fn refused(references: &Path, captions: &Path, expected: &[&str]) {
    let paths = [references, captions].map(|path| path.to_str().unwrap());
    let output = cli::run(["score", paths[0], paths[1]]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[test]
fn every_form_gives_the_same_scores() {
    let files = Files::new();
    let images = IMAGES.iter().enumerate();
    let annotations = images.clone().flat_map(|(i, (_, references, _))| {
        let of = |text: &&str| json!({"id": 70 + i, "image_id": 10 + i, "caption": text});
        references.iter().map(of).collect::<Vec<_>>()
    });
    let coco = json!({
        "images": images.clone().map(|(i, (name, ..))| json!({"id": 10 + i, "file_name": name})).collect::<Vec<_>>(),
        "annotations": annotations.collect::<Vec<_>>(),
    });
    let karpathy = json!({"images": images.clone().map(|(i, (name, references, _))| json!({
        "filename": name,
        "imgid": 11 - i,
        "cocoid": 10 + i,
        "sentences": references.map(|text| json!({"raw": text, "tokens": []})),
    })).collect::<Vec<_>>()});
    let by_name: Value = IMAGES
        .iter()
        .map(|(name, of, _)| (name.to_string(), json!(of)))
        .collect();
    let table: String = IMAGES
        .iter()
        .flat_map(|(name, of, _)| of.map(|text| format!("{name}#0\t{text}\n")))
        .collect();
    let references = [
        files.write("coco.json", coco.to_string()),
        files.write("karpathy.json", karpathy.to_string()),
        files.write("names.json", format!("\n {by_name}")),
        files.write("table.tsv", table),
    ];
    let with = |key: &str, value: fn(usize, &str) -> Value| -> String {
        let elements = IMAGES.iter().enumerate();
        let elements = elements
            .map(|(i, (name, _, caption))| json!({key: value(i, name), "caption": caption}));
        Value::Array(elements.collect()).to_string()
    };
    let plain: Value = IMAGES
        .iter()
        .map(|(name, _, caption)| (name.to_string(), json!(caption)))
        .collect();
    let lists: Value = IMAGES
        .iter()
        .map(|(name, _, caption)| (name.to_string(), json!([{"caption": caption}])))
        .collect();
    let table: String = IMAGES
        .iter()
        .map(|(name, _, caption)| format!("{name}\t{caption}\n"))
        .collect();
    let captions = [
        files.write("eval.json", with("file", |_, name| json!(name))),
        files.write("plain.json", plain.to_string()),
        files.write("lists.json", lists.to_string()),
        files.write("captions.txt", table),
    ];
    let expected = score(&references[0], &captions[0]);
    assert_eq!(
        (&expected["images"], &expected["references"]),
        (&json!(3), &json!(6))
    );
    assert!(expected["cider_d"].as_f64().unwrap() > 0.1, "{expected}");
    for references in &references {
        for captions in &captions {
            assert_eq!(
                score(references, captions),
                expected,
                "{references:?} {captions:?}"
            );
        }
    }
    // COCO's results know images by their ids.
    let results = files.write("results.json", with("image_id", |i, _| json!(10 + i)));
    for references in &references[..2] {
        assert_eq!(score(references, &results), expected);
    }
    let shown = cli::run([
        "score",
        references[0].to_str().unwrap(),
        results.to_str().unwrap(),
    ]);
    let shown = cli::printed(&shown);
    assert!(
        shown.starts_with("3 images, 6 references\nBLEU-1/2/3/4  "),
        "{shown}"
    );
}

#[test]
fn a_data_set_holds_the_references() {
    let data = support::pictures::temporary();
    let captions: Value = {
        let dataset = showtell::data::flickr8k::Flickr8k::open(data.path()).unwrap();
        let of = |image: &showtell::data::flickr8k::Image| {
            (image.name.clone(), json!(image.captions[0]))
        };
        dataset.images().iter().skip(1).map(of).collect()
    };
    let files = Files::new();
    let captions = files.write("captions.json", captions.to_string());
    let found = score(data.path(), &captions);
    assert_eq!(found["without_caption"], 1);
    // Each caption is one of its references.
    for (n, bleu) in found["bleu"].as_array().unwrap().iter().enumerate() {
        assert!(
            (bleu.as_f64().unwrap() - 1.0).abs() < 1e-6,
            "BLEU-{}: {bleu}",
            n + 1
        );
    }
    assert_eq!(found["rouge_l"], 1.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let files = Files::new();
    let references = files.write("references.json", r#"{"a.jpg": ["a dog"], "b.jpg": []}"#);
    for (name, text, expected) in [
        (
            "cut.json",
            r#"{"a.jpg": "a d"#,
            &["cut.json", "begins as JSON and is none"][..],
        ),
        (
            "unknown.json",
            r#"{"z.jpg": "x", "a.jpg": "y"}"#,
            &["1 of 2 images", "z.jpg", "such as a.jpg"],
        ),
        (
            "two.json",
            r#"{"a.jpg": ["x", "y"]}"#,
            &["image a.jpg has 2 captions, expected one"],
        ),
        (
            "none.json",
            r#"{"b.jpg": "x"}"#,
            &["image b.jpg has no reference"],
        ),
        ("empty.json", "{}", &["empty.json", "has no captions"]),
        (
            "number.json",
            r#"{"a.jpg": 7}"#,
            &["\"a.jpg\" should have a caption", "has a number"],
        ),
        (
            "list.json",
            "[3]",
            &["element 0 of the list should be an object, is a number"],
        ),
        (
            "nameless.json",
            r#"[{"caption": "x"}]"#,
            &["names no image", "image_id, file"],
        ),
        (
            "dumb.json",
            r#"[{"file": "a.jpg"}]"#,
            &["element 0 of the list has no caption"],
        ),
        ("blank.txt", "\n", &["has no captions"]),
    ] {
        let captions = files.write(name, text);
        refused(&references, &captions, expected);
    }
    let captions = files.write("captions.json", r#"{"a.jpg": "a dog"}"#);
    let twice = r#"[{"file": "a.jpg", "id": 7, "captions": ["x"]}, {"file": "b.jpg", "id": 7, "captions": ["y"]}]"#;
    let twice = files.write("twice.json", twice);
    refused(
        &twice,
        &captions,
        &["twice.json", "two images are called 7"],
    );
    refused(
        &files.write("no.json", "[]"),
        &captions,
        &["no.json", "has no captions"],
    );
    refused(
        &files.0.path().join("absent.json"),
        &captions,
        &["absent.json"],
    );
}
