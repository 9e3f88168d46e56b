//! Captions, splits, vocabulary and statistics: small invented data sets in both layouts, the tokeniser compared with
//! that of Python, and the counts of the real text.

use crate::support;
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::samples::{Limits, Samples};
use showtell::data::statistics::Statistics;
use showtell::data::vocabulary::{EOS, PAD, SOS, UNK, Vocabulary, tokenize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::data::{NAMES, captions, real_data, write_distributed};
use tempfile::TempDir;

/// The invented data set as `Images/` with `captions.txt`.
fn write_table(directory: &Path) {
    let mut table = "image,caption\r\n".to_string();
    for (name, captions) in NAMES.iter().zip(captions()) {
        for caption in captions {
            let quoted = format!("\"{}\"", caption.replace('"', "\"\""));
            let plain = !caption.contains([',', '"']);
            let field = if plain { *caption } else { &*quoted };
            table += &format!("{name},{field}\r\n");
        }
    }
    fs::write(directory.join("captions.txt"), table).unwrap();
}

fn names(dataset: &Flickr8k, split: Split) -> Vec<&str> {
    let images = dataset.split(split).iter();
    images.map(|&i| &*dataset.images()[i].name).collect()
}

#[test]
fn both_layouts_hold_the_same_captions() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_distributed(a.path());
    write_table(b.path());
    let (a, b) = (
        Flickr8k::open(a.path()).unwrap(),
        Flickr8k::open(b.path()).unwrap(),
    );
    assert_eq!(a.images(), b.images());
    assert_eq!(a.missing(), b.missing());
    assert!(a.all_captions().eq(b.all_captions()));
    assert_eq!(
        a.images()[0].captions[0],
        "a child, in red: \"jump!\" it shouts ."
    );
}

#[test]
fn splits_are_the_lists() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let dataset = Flickr8k::open(directory.path()).unwrap();
    assert_eq!(names(&dataset, Split::Train), ["b.jpg", "a.jpg"]);
    assert_eq!(names(&dataset, Split::Dev), ["d.jpg"]);
    assert_eq!(names(&dataset, Split::Test), ["e.png"]);
    assert_eq!(names(&dataset, Split::TestAndUnlisted), ["e.png", "c.jpg"]);
    for split in Split::ALL {
        assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
    }
    let error = "tests".parse::<Split>().unwrap_err().to_string();
    assert!(error.contains("test+unlisted"), "{error}");
}

#[test]
fn a_table_without_lists_is_split_by_name() {
    let directory = TempDir::new().unwrap();
    let line = |i: usize| format!("{:03}.jpg,caption {i}\n", (i * 37) % 101);
    let table: String = (0..101).map(line).collect();
    fs::write(
        directory.path().join("captions.txt"),
        format!("image,caption\n{table}"),
    )
    .unwrap();
    let dataset = Flickr8k::open(directory.path()).unwrap();
    let all: Vec<String> = (0..101).map(|i| format!("{i:03}.jpg")).collect();
    assert_eq!(names(&dataset, Split::Train), all[..75]);
    assert_eq!(names(&dataset, Split::Dev), all[75..87]);
    assert_eq!(names(&dataset, Split::Test), all[87..]);
    assert_eq!(names(&dataset, Split::TestAndUnlisted), all[87..]);
    write_distributed(directory.path());
    fs::remove_file(directory.path().join("Flickr8k.token.txt")).unwrap();
    write_table(directory.path());
    let dataset = Flickr8k::open(directory.path()).unwrap();
    assert_eq!(names(&dataset, Split::Train), ["b.jpg", "a.jpg"]);
}

#[test]
fn a_missing_image_is_told_once_and_makes_no_samples() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let dataset = Flickr8k::open(directory.path()).unwrap();
    let warnings = dataset.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].ends_with("image a.jpg.1 does not exist: its 2 captions are left out"),
        "{warnings:?}"
    );
    assert!(dataset.images().iter().all(|image| image.name != "a.jpg.1"));
    assert!(dataset.all_captions().any(|c| c == "a lost caption"));
    let error = dataset.image_paths().unwrap_err().to_string();
    assert!(error.contains("Flicker8k_Dataset"), "{error}");
}

#[test]
fn with_an_image_directory_its_files_decide() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let images = directory.path().join("Flicker8k_Dataset");
    fs::create_dir(&images).unwrap();
    for name in ["a.jpg", "d.jpg", "e.png"] {
        fs::write(images.join(name), "").unwrap();
    }
    let dataset = Flickr8k::open(directory.path()).unwrap();
    let missing: Vec<&str> = dataset.missing().iter().map(|i| &*i.name).collect();
    assert_eq!(missing, ["c.jpg", "a.jpg.1"]);
    assert_eq!(names(&dataset, Split::Train), ["b.jpg", "a.jpg"]);
    dataset.require_images(Split::TestAndUnlisted).unwrap();
    let error = dataset
        .require_images(Split::Train)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("b.jpg: this image of the train list does not exist"),
        "{error}"
    );
    let paths = dataset.image_paths().unwrap();
    assert_eq!(paths.len(), dataset.images().len());
    assert_eq!(paths[0], images.join("a.jpg"));
}

#[test]
fn errors_name_file_and_line() {
    let check = |file: &str, content: &[u8], expected: &[&str]| {
        let directory = TempDir::new().unwrap();
        write_distributed(directory.path());
        if file == "captions.txt" {
            fs::remove_file(directory.path().join("Flickr8k.token.txt")).unwrap();
        }
        fs::write(directory.path().join(file), content).unwrap();
        let error = Flickr8k::open(directory.path()).unwrap_err().to_string();
        for part in expected.iter().chain([&file]) {
            assert!(error.contains(part), "'{part}' in '{error}'");
        }
    };
    let tokens = "Flickr8k.token.txt";
    check(tokens, b"a.jpg#0\tyes\na.jpg no\n", &["line 2", "a tab"]);
    check(tokens, b"a.jpg#x\tno\n", &["line 1", "<file>#<k>"]);
    check(
        tokens,
        b"a.jpg#0\ta\n\na.jpg#1\t\xff\xfe\n",
        &["line 3", "utf-8"],
    );
    check(tokens, b"\n", &["no captions"]);
    check(
        "captions.txt",
        b"image,caption\na.jpg,one,two\n",
        &["line 2", "double quotes"],
    );
    check(
        "captions.txt",
        b"image,caption\na.jpg,\"one\n",
        &["line 2", "not closed"],
    );
    check(
        "captions.txt",
        b"image,caption\na.jpg,\"o\"e\n",
        &["line 2", "after a closing"],
    );
    check(
        "captions.txt",
        b"image,caption\na.jpg\n",
        &["line 2", "found one"],
    );
    check(
        "captions.txt",
        b"image,caption\n,x\n",
        &["line 2", "no name"],
    );
    let dev = "Flickr_8k.devImages.txt";
    check(dev, b"d.jpg\nx.jpg\n", &["line 2", "x.jpg has no captions"]);
    check(dev, b"a.jpg\n", &["line 1", "already in train"]);
    let empty = TempDir::new().unwrap();
    let error = Flickr8k::open(empty.path()).unwrap_err().to_string();
    assert!(
        error.contains("expected one of Flickr8k.token.txt, captions.txt, "),
        "{error}"
    );
    write_distributed(empty.path());
    fs::remove_file(empty.path().join(dev)).unwrap();
    let error = Flickr8k::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains(dev), "{error}");
}

#[test]
fn the_tokeniser_equals_pythons() {
    let golden = support::data::golden("data.json");
    let cases = golden["tokens"].as_array().unwrap();
    assert!(cases.len() > 50);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<String> = serde_json::from_value(case["tokens"].clone()).unwrap();
        assert_eq!(tokenize(text), expected, "{text:?}");
    }
}

#[test]
fn words_are_numbered_by_count_then_code_point() {
    let vocabulary = Vocabulary::build(["b b a z", "É a, Z z", "<unk> <pad>"]);
    let expected = ["<pad>", "<sos>", "<unk>", "<eos>", "a", "b", "z", ",", "é"];
    // "É" and "Z" are converted to lower case first, so z occurs three times.
    let mut by_count = expected.to_vec();
    by_count.swap(4, 6);
    by_count.swap(5, 6);
    assert_eq!(vocabulary.words(), by_count);
    assert_eq!(vocabulary.encode("Z nobody a"), [SOS, 4, UNK, 5, EOS]);
    assert_eq!(vocabulary.encode(""), [SOS, EOS]);
    let ids = [SOS, 4, UNK, 5, 1000, EOS, 4, PAD];
    assert_eq!(vocabulary.decode(&ids), "z <unk> a <unk>");
}

#[test]
fn a_vocabulary_survives_saving() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vocab.txt");
    let vocabulary = Vocabulary::build(["über dogs run .", "dogs"]);
    vocabulary.save(&path).unwrap();
    assert_eq!(Vocabulary::load(&path).unwrap(), vocabulary);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "<pad>\n<sos>\n<unk>\n<eos>\ndogs\n.\nrun\nüber\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    for (content, expected) in [
        ("a\nb\n", "must start with <pad> <sos> <unk> <eos>"),
        ("<pad>\n<sos>\n<unk>\n<eos>\na\na\n", "'a' occurs twice"),
        ("<pad>\n<sos>\n<unk>\n<eos>\na b\n", "word 4"),
    ] {
        fs::write(&path, content).unwrap();
        let error = Vocabulary::load(&path).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("vocab.txt"),
            "{error}"
        );
    }
}

#[test]
fn samples_follow_the_list_and_the_limits() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let dataset = Flickr8k::open(directory.path()).unwrap();
    let vocabulary = Vocabulary::build(dataset.captions(Split::Train));
    let all = Samples::new(&dataset, Split::Train, &vocabulary, Limits::default());
    let images: Vec<usize> = (0..all.len()).map(|s| all.image(s)).collect();
    assert_eq!(images, [1, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(all.tokens(7), vocabulary.encode(captions()[0][4]));
    assert_eq!(all.images(), [1, 0]);
    assert_eq!(all.longest(), 14);
    let limits = Limits {
        images: Some(1),
        captions_per_image: Some(2),
    };
    assert_eq!(
        Samples::new(&dataset, Split::Train, &vocabulary, limits).len(),
        2
    );
    let rest = all.without(&BTreeSet::from([1]));
    assert_eq!((rest.len(), rest.images()), (5, vec![0]));
    assert_eq!(rest.tokens(4), all.tokens(7));
}

#[test]
fn statistics_of_the_made_up_set() {
    let directory = TempDir::new().unwrap();
    write_distributed(directory.path());
    let statistics = Statistics::new(&Flickr8k::open(directory.path()).unwrap());
    let lines: usize = captions().iter().map(|c| c.len()).sum();
    assert_eq!((statistics.images, statistics.captions), (5, lines));
    assert_eq!(statistics.missing, ["a.jpg.1"]);
    assert_eq!(statistics.lengths.histogram.iter().sum::<usize>(), lines);
    let weighted = statistics.lengths.histogram.iter().enumerate();
    assert_eq!(
        weighted.map(|(n, count)| n * count).sum::<usize>(),
        statistics.tokens
    );
    assert_eq!(statistics.lengths.max, 12);
    assert_eq!(statistics.splits[0].captions, 8);
}

#[test]
fn the_real_text_has_the_published_counts() {
    let Some(data) = real_data("flickr8k-text") else {
        return;
    };
    let dataset = Flickr8k::open(data).unwrap();
    assert_eq!(dataset.warnings().len(), 1);
    let statistics = Statistics::new(&dataset);
    assert_eq!(statistics.images, 8091);
    assert_eq!(statistics.captions, 40_460);
    assert_eq!(statistics.tokens, 476_878);
    assert_eq!(statistics.missing, ["2258277193_586949ec62.jpg.1"]);
    assert_eq!(statistics.vocabulary.all_captions, 8915);
    assert_eq!(statistics.vocabulary.train_captions, 7702);
    assert_eq!(format!("{:.2}", statistics.lengths.mean), "11.79");
    assert_eq!(statistics.lengths.max, 38);
    let splits: Vec<(usize, usize)> = (statistics.splits.iter())
        .map(|split| (split.images, split.captions))
        .collect();
    assert_eq!(
        splits,
        [(6000, 30_000), (1000, 5000), (1000, 5000), (1091, 5455)]
    );
}
