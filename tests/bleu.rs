//! BLEU compared with torchmetrics: random sentences, edge cases, and real captions compared with each other.

use crate::support;
use serde::Deserialize;
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::metrics::bleu;

#[derive(Deserialize)]
struct Golden {
    corpora: Vec<Corpus>,
    real: Real,
}

#[derive(Deserialize)]
struct Corpus {
    pairs: Vec<(String, Vec<String>)>,
    #[serde(flatten)]
    scores: Scores,
}

#[derive(Deserialize)]
struct Real {
    dev: Scores,
    test: Scores,
}

#[derive(Deserialize)]
struct Scores {
    corpus: [f64; 4],
    sentence_mean: [f64; 4],
}

/// torchmetrics computes in f32 from exact counts: a few rounding errors of 6e-8 in numbers of at most 1.
fn check(name: &str, pairs: &[(String, Vec<String>)], expected: &Scores) {
    let same = |kind: &str, got: [f64; 4], expected: [f64; 4]| {
        for (got, expected) in got.into_iter().zip(expected) {
            assert!(
                (got - expected).abs() <= 1e-6,
                "{name}, {kind}: {got} for {expected}"
            );
        }
    };
    same("corpus", bleu::corpus(pairs), expected.corpus);
    same("mean", bleu::sentence_mean(pairs), expected.sentence_mean);
}

fn golden() -> Golden {
    serde_json::from_value(support::data::golden("bleu.json")).unwrap()
}

#[test]
fn scores_equal_torchmetrics() {
    let golden = golden();
    assert!(golden.corpora.len() > 20);
    for corpus in &golden.corpora {
        check(
            &format!("{:?}", corpus.pairs),
            &corpus.pairs,
            &corpus.scores,
        );
    }
}

#[test]
fn real_captions_score_as_in_torchmetrics() {
    let Some(data) = support::data::real_data("flickr8k-text") else {
        return;
    };
    let dataset = Flickr8k::open(data).unwrap();
    let real = golden().real;
    for (split, expected) in [(Split::Dev, real.dev), (Split::Test, real.test)] {
        let images = dataset.split(split).iter().map(|&i| &dataset.images()[i]);
        let pair = |captions: &[String]| (captions[0].clone(), captions[1..].to_vec());
        let pairs: Vec<_> = images.map(|image| pair(&image.captions)).collect();
        check(&split.to_string(), &pairs, &expected);
    }
}

#[test]
fn an_empty_hypothesis_scores_zero() {
    let none: [(&str, Vec<&str>); 0] = [];
    assert_eq!(bleu::corpus(&none), [0.0; 4]);
    assert_eq!(bleu::sentence_mean(&none), [0.0; 4]);
    assert_eq!(bleu::corpus(&[("a dog", Vec::<&str>::new())]), [0.0; 4]);
}
