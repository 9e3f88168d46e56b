//! The files of a run, damaged at random: reading them gives what they say or an error that names the file, never a panic.
//! The variable PROPTEST_CASES asks for more cases.

use crate::support::damage::{apply, changes};
use crate::support::pictures;
use crate::support::training::{Steps, small, train};
use proptest::prelude::*;
use showtell::data::flickr8k::Flickr8k;
use showtell::data::vocabulary::Vocabulary;
use showtell::model::Engine;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::{Config, EncoderWeights};
use showtell::train::run::{RunDirectory, structure};
use showtell::train::trainer::{Setup, Trainer};
use showtell::{Device, Error};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A run of one epoch on the data set beside it. Nothing changes these files.
static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    pictures::write(&data);
    let config = Config {
        encoder_blocks: vec![1],
        encoder_width: 2,
        image_size: 8,
        embed: 3,
        hidden: 4,
        epochs: 1,
        augment: false,
        encoder_weights: Some(EncoderWeights::Random),
        ..small(SHOW_TELL)
    };
    let run = folder.path().join("run");
    let mut observer = Steps(|_: &_| ());
    train(&Device::cpu(), config, &data, &run, 1, true, &mut observer);
    folder
});

fn good(name: &str) -> Vec<u8> {
    fs::read(RUN.path().join("run").join(name)).unwrap()
}

/// A copy of the run in which one file has another content.
fn with(name: &str, content: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(RUN.path().join("run")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

/// An error about a file names it, and does not print the whole of it.
fn check_error(error: &Error, path: &Path) -> Result<(), TestCaseError> {
    let message = error.to_string();
    let name = path.display().to_string();
    prop_assert!(message.starts_with(&name), "{message}");
    prop_assert!(message.len() < 20_000, "{} bytes", message.len());
    Ok(())
}

fn damaged(name: &str, changes: &[crate::support::damage::Change]) -> Vec<u8> {
    let good = good(name);
    let mut bytes = good.clone();
    for change in changes {
        apply(&mut bytes, change, std::slice::from_ref(&good));
    }
    bytes
}

/// Texts that may stand behind a key of `config.toml`, most of them wrong.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}").replace("NaN", "nan")),
        (0u32..64, -1i64..2).prop_map(|(bits, by)| (1i64 << bits).wrapping_add(by).to_string()),
    ];
    let list = (1usize..80, 1i64..4).prop_map(|(length, of)| format!("{:?}", vec![of; length]));
    let text = prop_oneof![
        Just("\"none\"".to_string()),
        "\"[a-z.,/#\\\\u0-9]{0,8}\"",
        ".{0,12}"
    ];
    prop_oneof![
        number,
        list,
        text,
        Just("true".into()),
        Just("{ a = [1] }".into())
    ]
}

/// The text of `config.toml` with other values behind some keys.
fn config_text() -> impl Strategy<Value = String> {
    let texts = [SHOW_TELL, ATTEND].map(|model| Config::recipe(model).to_toml());
    let changed = proptest::collection::vec((any::<prop::sample::Index>(), value()), 1..4);
    (prop::sample::select(texts.to_vec()), changed).prop_map(|(text, changed)| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        for (at, value) in changed {
            let line = at.index(lines.len());
            let (key, _) = lines[line].split_once(" = ").unwrap_or((&lines[line], ""));
            lines[line] = format!("{key} = {value}");
        }
        lines.join("\n")
    })
}

fn read_config(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, bytes).unwrap();
    let run = RunDirectory::open(folder.path()).unwrap();
    match run.read_config() {
        Ok(config) => {
            fs::write(&path, config.to_toml()).unwrap();
            prop_assert_eq!(&run.read_config().unwrap(), &config);
            let structure = structure(&config, 10);
            let _ = (structure.encoder.channels(), structure.encoder.name());
        }
        Err(error) => check_error(&error, &path)?,
    }
    Ok(())
}

/// Goes on from the last checkpoint of a run for at most a few steps.
fn go_on(folder: &Path) -> Result<(), Error> {
    let run = RunDirectory::open(folder).unwrap();
    let config = Config {
        epochs: 2,
        max_steps: Some(5),
        ..run.read_config().unwrap()
    };
    let dataset = Flickr8k::open(RUN.path().join("data")).unwrap();
    let Some(checkpoint) = run.open_last()? else {
        return Ok(());
    };
    if run.is_finished(&config, &checkpoint.position)? {
        return Ok(());
    }
    let vocabulary = run.read_vocabulary(&checkpoint)?;
    let structure = structure(&config, vocabulary.len());
    let engine = Engine::new(&Device::cpu(), &structure, vocabulary)?;
    let setup = Setup {
        config,
        dataset: &dataset,
        run,
        loader_threads: 1,
    };
    let mut observer = Steps(|_: &_| ());
    Trainer::resume(setup, engine, &checkpoint, &mut observer)?.train(&mut observer)?;
    Ok(())
}

/// Any number in the place of one number of the position.
fn position() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        (0u32..64, -1i64..3)
            .prop_map(|(bits, by)| (1u64 << bits).wrapping_add_signed(by).to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        Just("null".to_string()),
        Just("-1".to_string()),
    ];
    (any::<prop::sample::Index>(), number).prop_map(|(at, number)| {
        let bytes = good("last.safetensors");
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
        let start = header.find("\"showtell.position\"").unwrap();
        let end = start + header[start..].find("}\"").unwrap();
        let is_number = |c: char| c.is_ascii_digit() || ".-e".contains(c);
        let starts = |at: usize| {
            let rest = &header[at..];
            rest.starts_with(|c: char| c.is_ascii_digit())
                && header[..at].ends_with([':', '[', ','])
        };
        let places: Vec<usize> = (start..end)
            .filter(|&at| header.is_char_boundary(at) && starts(at))
            .collect();
        let place = places[at.index(places.len())];
        let rest = header[place..].trim_start_matches(is_number);
        let changed = format!("{}{number}{rest}", &header[..place]);
        let padded = format!(
            "{changed:width$}",
            width = changed.len().next_multiple_of(8)
        );
        let mut file = (padded.len() as u64).to_le_bytes().to_vec();
        file.extend(padded.as_bytes());
        file.extend(&bytes[8 + length..]);
        file
    })
}

/// Found by the test of damaged checkpoints below: it was the configuration that was said to be damaged.
#[test]
fn a_checkpoint_whose_settings_are_damaged_is_named() {
    let mut bytes = good("best.safetensors");
    let model = b"model = ";
    let at = bytes
        .windows(model.len())
        .position(|window| window == model);
    bytes[at.unwrap()] = b' ';
    let folder = with("best.safetensors", &bytes);
    let run = RunDirectory::open(folder.path()).unwrap();
    let error = run.engine(&Device::cpu()).err().unwrap().to_string();
    let expected = format!("{}: damaged settings", run.best().display());
    assert!(error.starts_with(&expected), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_vocabulary_is_read_or_named(changes in changes(1, 200)) {
        let bytes = damaged("vocab.txt", &changes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        fs::write(&path, &bytes).unwrap();
        match Vocabulary::load(&path) {
            Ok(vocabulary) => {
                prop_assert!(vocabulary.len() <= bytes.len());
                let again: PathBuf = folder.path().join("again.txt");
                vocabulary.save(&again).unwrap();
                let again = Vocabulary::load(&again).unwrap();
                prop_assert_eq!(again.sha256(), vocabulary.sha256());
                prop_assert_eq!(again, vocabulary);
            }
            Err(error) => check_error(&error, &path)?,
        }
    }

    #[test]
    fn a_damaged_configuration_is_read_or_named(changes in changes(1, 1000)) {
        read_config(&damaged("config.toml", &changes))?;
    }

    #[test]
    fn any_value_of_a_configuration_is_read_or_named(text in config_text()) {
        read_config(text.as_bytes())?;
    }

    #[test]
    fn a_damaged_checkpoint_is_read_or_named(changes in changes(1, 8000)) {
        let folder = with("best.safetensors", &damaged("best.safetensors", &changes));
        let run = RunDirectory::open(folder.path()).unwrap();
        if let Err(error) = run.engine(&Device::cpu()) {
            // Where two files disagree, either may be the damaged one: the message begins with the other, and names both.
            let best = run.best();
            let message = error.to_string();
            let others = [run.vocabulary(), run.config()];
            let other = others.iter().find(|path| message.starts_with(&*path.to_string_lossy()));
            prop_assert!(message.contains(&*best.to_string_lossy()), "{message}");
            check_error(&error, other.unwrap_or(&best))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_run_goes_on_from_a_damaged_position_or_says_why_not(bytes in position()) {
        let folder = with("last.safetensors", &bytes);
        let _ = go_on(folder.path());
    }
}
