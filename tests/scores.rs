//! Words, BLEU, ROUGE-L and CIDEr-D against pycocoevalcap (`goldens/scores.py`).

use crate::support;
use serde_json::Value;
use showtell::metrics::cider::CiderD;
use showtell::metrics::coco::{self, Pair};
use showtell::metrics::rouge::rouge_l;
use showtell::metrics::sight::{Sight, Verdict};
use showtell::metrics::treebank;
use support::data::{self, real_data};

/// A few sums of f64 in another order.
const TOLERANCE: f64 = 1e-9;

fn golden() -> Value {
    data::golden("scores.json")
}

fn assert_near(what: &str, got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (got - expected).abs() <= TOLERANCE,
        "{what}: {got} for {expected}"
    );
}

fn assert_scores(got: coco::Scores, expected: &Value) {
    for (n, bleu) in got.bleu.into_iter().enumerate() {
        assert_near(&format!("BLEU-{}", n + 1), bleu, &expected["bleu"][n]);
    }
    assert_near("ROUGE-L", got.rouge_l, &expected["rouge_l"]);
    assert_near("CIDEr-D", got.cider_d, &expected["cider_d"]);
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn words_are_those_of_stanfords_tokeniser() {
    for case in golden()["words"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        assert_eq!(treebank::words(text), strings(&case[1]), "{text}");
    }
}

/// Nothing at all, and signs of all kinds: every character of the text that is no blank comes out, in some form.
#[test]
fn strange_texts_have_words_too() {
    assert!(treebank::words("").is_empty());
    assert!(treebank::words(" \t . ,").is_empty());
    assert_eq!(treebank::words("狗 在跑"), ["狗", "在跑"]);
    for text in [
        "'", "n'", "'n", "n't", "a'", "<", "</", "<a", "@", "#", "-", "-1.", "+", "$", "1/", "a/",
        "www.", "&", "´",
    ] {
        assert!(!treebank::tokens(text).is_empty(), "{text}");
    }
}

#[test]
fn random_sets_have_pycocoevalcaps_scores() {
    for set in golden()["random"].as_array().unwrap() {
        let pairs = set["pairs"].as_array().unwrap().iter();
        let pairs: Vec<Pair> = pairs
            .map(|pair| Pair {
                caption: pair[0].as_str().unwrap().to_string(),
                references: strings(&pair[1]),
            })
            .collect();
        assert_scores(coco::scores(&pairs), &set["scores"]);
        let split = |text: &str| -> Vec<String> { text.split(' ').map(str::to_string).collect() };
        let references: Vec<Vec<Vec<String>>> = pairs
            .iter()
            .map(|pair| pair.references.iter().map(|text| split(text)).collect())
            .collect();
        let cider = CiderD::new(&references);
        for (i, (pair, references)) in pairs.iter().zip(&references).enumerate() {
            let caption = split(&pair.caption);
            let name = format!("{} against {:?}", pair.caption, pair.references);
            assert_near(&name, cider.score(&caption, references), &set["cider_d"][i]);
            assert_near(&name, rouge_l(&caption, references), &set["rouge_l"][i]);
        }
    }
}

/// Words may be strings or ids: the scores have the same bits, and the same twice.
#[test]
fn ids_score_as_words_do() {
    let texts = [
        ["a dog runs fast", "the dog is fast"],
        ["a cat sits", "a cat on a mat sits"],
    ];
    let words: Vec<Vec<Vec<&str>>> = texts
        .map(|of| of.map(|t| t.split(' ').collect()).to_vec())
        .to_vec();
    let id = |word: &&str| {
        word.bytes()
            .fold(7u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte))
    };
    let ids: Vec<Vec<Vec<u32>>> = words
        .iter()
        .map(|of| {
            of.iter()
                .map(|words| words.iter().map(id).collect())
                .collect()
        })
        .collect();
    let (of_words, of_ids) = (CiderD::new(&words), CiderD::new(&ids));
    for image in 0..2 {
        for caption in 0..2 {
            let by_words = of_words.score(&words[caption][0], &words[image]);
            let by_ids = of_ids.score(&ids[caption][0], &ids[image]);
            assert_eq!(by_words.to_bits(), by_ids.to_bits());
        }
    }
}

#[test]
fn no_captions_and_empty_captions_score_nothing() {
    let nothing = coco::scores(&[]);
    assert_eq!((nothing.rouge_l, nothing.cider_d), (0.0, 0.0));
    let pair = |caption: &str| Pair {
        caption: caption.to_string(),
        references: vec!["a dog runs".to_string()],
    };
    let scores = coco::scores(&[pair(""), pair(" . ")]);
    assert_eq!((scores.rouge_l, scores.cider_d), (0.0, 0.0));
    assert!(
        scores
            .bleu
            .iter()
            .all(|bleu| bleu.is_finite() && *bleu < 1e-3)
    );
}

/// The first caption of each image against the other four.
#[test]
fn real_captions_have_pycocoevalcaps_scores() {
    let Some(data) = real_data("flickr8k-text") else {
        return;
    };
    let text = std::fs::read_to_string(data.join("Flickr8k.token.txt")).unwrap();
    let mut pairs: Vec<(&str, Pair)> = Vec::new();
    for line in text.lines() {
        let (name, caption) = line.split_once('\t').unwrap();
        let name = name.split('#').next().unwrap();
        match pairs.last_mut() {
            Some((last, pair)) if *last == name => pair.references.push(caption.to_string()),
            _ => pairs.push((
                name,
                Pair {
                    caption: caption.to_string(),
                    references: Vec::new(),
                },
            )),
        }
    }
    let pairs: Vec<Pair> = pairs.into_iter().map(|(_, pair)| pair).collect();
    assert_scores(coco::scores(&pairs), &golden()["flickr8k"]);
}

/// Captions of one image each, with two references that share the words of the image.
fn scenes(count: usize, caption: impl Fn(usize) -> String) -> Vec<Pair> {
    let pair = |i: usize| Pair {
        caption: caption(i),
        references: vec![
            format!("a thing{i} of colour{} is here", i % 7),
            format!("there is a thing{i} of colour{}", i % 7),
        ],
    };
    (0..count).map(pair).collect()
}

#[test]
fn a_blind_model_is_told_from_one_that_sees() {
    let verdict = |pairs: &[Pair]| Sight::new(pairs).verdict;
    let sees = |i: usize| format!("a thing{i} of colour{}", i % 7);
    assert_eq!(verdict(&scenes(40, sees)), Verdict::Sees);
    assert_eq!(verdict(&scenes(19, sees)), Verdict::Unknown);
    assert_eq!(verdict(&[]), Verdict::Unknown);
    // One caption for all images, and captions that belong to others.
    assert_eq!(verdict(&scenes(40, |_| sees(3))), Verdict::Blind);
    let random = |i: usize| sees((i * 17 + 5) % 41);
    assert_eq!(verdict(&scenes(40, random)), Verdict::Blind);
    // Every third caption is right, the others are what all images share.
    let seldom = |i: usize| match i % 3 {
        0 => sees(i),
        _ => "there is a thing of colour1 here".to_string(),
    };
    let sight = Sight::new(&scenes(60, seldom));
    assert!(sight.gain > 3.0 * sight.error, "{sight:?}");
    assert_ne!(sight.verdict, Verdict::Blind);
}

/// No image keeps its caption, and the set of references is the same, so that a caption of words that are everywhere has the same score.
#[test]
fn shuffled_images_are_others() {
    let pairs = scenes(25, |i| format!("a thing{i} of colour{}", i % 7));
    let own = coco::scores(&pairs);
    let sight = Sight::new(&pairs);
    assert!((own.cider_d - sight.gain - sight.shuffled.cider_d).abs() < 1e-9);
    assert!(
        sight.shuffled.bleu[3] < own.bleu[3] / 2.0,
        "{sight:?} {own:?}"
    );
}
