//! The published numbers of trainable parameters, counted on the planning device: nothing is allocated.

use showtell::model::Captioner;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::Config;
use showtell::train::run::structure;
use showtell::{DType, Device};

/// Words of Flickr8k's training captions, and of all its captions.
const SHOW_TELL_WORDS: usize = 7_702;
const ATTEND_WORDS: usize = 8_915;

fn trained(config: &Config, vocabulary: usize) -> usize {
    let (_, declarations) = Captioner::declare(&structure(config, vocabulary)).unwrap();
    let params = declarations
        .build(&Device::cpu().planning(), DType::F32)
        .unwrap();
    params.trained_count()
}

#[test]
fn show_tell() {
    let config = Config::recipe(SHOW_TELL);
    assert_eq!(trained(&config, SHOW_TELL_WORDS), 5_528_342);
}

#[test]
fn attend() {
    let config = Config::recipe(ATTEND);
    assert_eq!(trained(&config, ATTEND_WORDS), 19_238_356);
}

#[test]
fn attend_with_a_fine_tuned_encoder() {
    let config = Config {
        fine_tune: true,
        ..Config::recipe(ATTEND)
    };
    assert_eq!(trained(&config, ATTEND_WORDS), 61_513_172);
}
