//! Settings: values, TOML, the rules for resuming and the README all agree with the declarations.

use crate::support::data::root;
use proptest::prelude::*;
use showtell::model::attend::{self, ATTEND};
use showtell::model::show_tell::{self, SHOW_TELL};
use showtell::model::{Architecture, MODELS, Model, VocabularyOf};
use showtell::settings::{Kind, Setting, Table, Value, integer};
use showtell::train::config::{
    Config, EncoderBatchNorm, EncoderWeights, FeatureType, Monitor, OptimiserKind, Schedule,
};
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    let folder = root().join("tests/settings");
    folder.join(name)
}

fn read(name: &str) -> Config {
    let table = Config::read_settings(MODELS, &fixture(name), &[]).unwrap();
    Config::from_settings(table).unwrap()
}

/// Every declaration: those of all runs, and those of the decoders.
pub fn declared() -> impl Iterator<Item = &'static Setting> {
    let own = MODELS.iter().flat_map(|model| model.settings);
    Config::SETTINGS.iter().chain(own)
}

/// What the version before settings were declared wrote, with every default in it.
#[test]
fn an_older_file_with_defaults_is_read_to_the_same_values() {
    let expected = Config {
        data: Some("/data".into()),
        encoder_weights: Some(EncoderWeights::Random),
        encoder_blocks: vec![1, 1],
        encoder_width: 4,
        encoder_stem: 3,
        image_size: 32,
        embed: 8,
        hidden: 8,
        epochs: 0,
        ..Config::recipe(ATTEND)
    };
    let found = read("attend.toml");
    assert_eq!(found, expected);
    assert_eq!((found.max_steps, &found.feature_cache), (None, &None));
    assert_eq!((found.clip_norm, found.clip_value), (None, Some(5.0)));
    let own = attend::Settings::read(&found.own).unwrap();
    assert_eq!((own.attention, own.positions), (256, 14));
    assert_eq!((own.dropout, own.regulariser), (0.5, 1.0));
}

#[test]
fn an_older_file_with_other_values_is_read_to_the_same_values() {
    let expected = Config {
        data: Some("/data".into()),
        encoder_weights: Some(EncoderWeights::Random),
        standalone: true,
        encoder_blocks: vec![1, 1],
        encoder_width: 4,
        encoder_stem: 3,
        image_size: 32,
        embed: 8,
        hidden: 8,
        clip_norm: Some(0.5),
        epsilon: 1e-7,
        schedule: Schedule::Linear,
        monitor: Monitor::Bleu4,
        epochs: 0,
        max_steps: Some(7),
        checkpoint_every: None,
        limit_images: Some(2),
        captions_per_image: Some(3),
        augment: false,
        shuffle: false,
        skip_bad_images: true,
        feature_cache: Some("/data/cache".into()),
        feature_type: FeatureType::Bf16,
        seed: 123,
        ..Config::recipe(SHOW_TELL)
    };
    let found = read("show-tell.toml");
    let own = show_tell::Settings::read(&found.own).unwrap();
    assert_eq!(
        (own.layers, own.embed_dropout, own.lstm_dropout),
        (1, 0.1, 0.3)
    );
    let expected = expected.with("layers", 1).unwrap();
    assert_eq!(found, expected.with("embed-dropout", 0.1).unwrap());
}

/// The published numbers, as they were before recipes were declared.
#[test]
fn recipes_are_the_published_ones() {
    let attend = Config::recipe(ATTEND);
    assert_eq!(attend.encoder_blocks, [3, 4, 23, 3]);
    assert_eq!((attend.encoder_width, attend.encoder_stem), (64, 7));
    assert_eq!(
        (attend.embed, attend.hidden, attend.image_size),
        (512, 512, 256)
    );
    assert_eq!(
        (attend.optimizer, attend.lr, attend.encoder_lr),
        (OptimiserKind::Adam, 4e-4, 1e-4)
    );
    assert_eq!(
        (attend.beta1, attend.beta2, attend.epsilon),
        (0.9, 0.999, 1e-8)
    );
    assert_eq!(
        (attend.weight_decay, attend.encoder_weight_decay),
        (1e-5, 0.0)
    );
    assert_eq!((attend.schedule_factor, attend.schedule_from), (0.8, 11));
    assert_eq!((attend.batch_size, attend.epochs, attend.seed), (32, 15, 8));
    let show_tell = Config::recipe(SHOW_TELL);
    assert_eq!(show_tell.encoder_blocks, [3, 4, 6, 3]);
    assert_eq!((show_tell.embed, show_tell.hidden), (256, 256));
    assert_eq!(
        (show_tell.optimizer, show_tell.lr),
        (OptimiserKind::Sgd, 0.9)
    );
    assert_eq!((show_tell.momentum, show_tell.weight_decay), (0.9, 1e-6));
    assert_eq!(
        (show_tell.clip_norm, show_tell.clip_value),
        (Some(0.25), None)
    );
    assert_eq!(
        (show_tell.schedule_factor, show_tell.schedule_from),
        (0.2, 1)
    );
    assert_eq!((show_tell.batch_size, show_tell.epochs), (128, 20));
    for config in [attend, show_tell] {
        assert_eq!(config.encoder_batch_norm, EncoderBatchNorm::Running);
        assert_eq!((config.fine_tune, config.fine_tune_from), (false, 2));
        assert_eq!(config.checkpoint_every, Some(500));
        assert!(config.augment && config.shuffle && config.validate);
        assert!(!config.skip_bad_images && !config.standalone);
    }
}

#[test]
fn declarations_are_complete() {
    let mut keys = HashSet::from(["model"]);
    for setting in declared() {
        let key = setting.key;
        assert!(keys.insert(key), "{key} is declared twice");
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(key.chars().all(kebab), "{key}");
        let help = setting.help();
        let sentence = help.chars().next().is_some_and(char::is_uppercase) && !help.ends_with('.');
        assert!(sentence && help.len() > 8, "{key}: {help}");
        assert!(
            setting
                .details()
                .is_none_or(|details| details.ends_with('.')),
            "{key}"
        );
        assert!(!setting.heading.is_empty(), "{key}");
        for model in MODELS {
            if let Some(default) = model.default_of(setting) {
                let value = if setting.none == Some(default) {
                    setting.none_value()
                } else {
                    setting.parse(default).ok()
                };
                let value = value.unwrap_or_else(|| panic!("{key}: {default}"));
                setting.check(&value).unwrap();
            }
        }
    }
    for model in MODELS {
        for (key, _) in model.defaults {
            let common = Config::SETTINGS.iter().any(|setting| setting.key == *key);
            assert!(common, "{}: a default for {key}", model.name);
        }
    }
}

/// Values that a setting takes.
fn values(setting: &'static Setting) -> BoxedStrategy<Value> {
    let to = |least: u64, most: Option<u64>| {
        let most = most.map_or(i64::MAX, |most| most as i64);
        (least as i64..=most).prop_map(Value::Integer)
    };
    match setting.kind {
        Kind::Switch { .. } => any::<bool>().prop_map(Value::Boolean).boxed(),
        Kind::Integer { least, most } => to(least, most).boxed(),
        Kind::Number { least, below } => (least..below.min(1e30)).prop_map(Value::Float).boxed(),
        Kind::Integers { least, most } => proptest::collection::vec(to(least, most), 1..6)
            .prop_map(Value::Array)
            .boxed(),
        Kind::Choice(words) => (0..words.len()).prop_map(|i| words[i].0.into()).boxed(),
        // Whatever a path may hold, quotes and line ends too.
        Kind::Path { .. } => "[^\0]{1,20}".prop_map(Value::String).boxed(),
        Kind::Text { .. } => unreachable!("no run has a setting of free text"),
    }
}

fn entry(setting: &'static Setting) -> BoxedStrategy<(String, Value)> {
    values(setting)
        .prop_map(|value| (setting.key.to_string(), value))
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every key of a model, at once, keeps its value through the text of config.toml.
    #[test]
    fn every_setting_survives_toml(
        (model, table) in (0..MODELS.len()).prop_flat_map(|index| {
            let model: Model = MODELS[index];
            let settings = Config::SETTINGS.iter().chain(model.settings);
            let entries: Vec<_> = settings.map(entry).collect();
            entries.prop_map(move |entries| (model, entries.into_iter().collect::<Table>()))
        }),
    ) {
        let mut config = Config::recipe(model);
        for (key, value) in &table {
            config = config.with(key, value.clone()).unwrap();
        }
        let text = config.to_toml();
        let back: Table = text.parse().unwrap();
        for (key, value) in &table {
            prop_assert_eq!(back.get(key), Some(value), "{}", key);
        }
        prop_assert_eq!(back.len(), table.len() + 1, "the model's name and every key");
        let mut again = Config::recipe(model);
        for (key, value) in back.iter().filter(|(key, _)| *key != "model") {
            again = again.with(key, value.clone()).unwrap();
        }
        prop_assert_eq!(again, config);
    }

    /// The text of a flag gives the same value as the same setting in a file.
    #[test]
    fn a_flag_and_a_file_mean_the_same(
        (setting, value) in (0..declared().count()).prop_flat_map(|index| {
            let setting = declared().nth(index).unwrap();
            values(setting).prop_map(move |value| (setting, value))
        }),
    ) {
        let flag = match &value {
            Value::String(text) => text.trim().to_string(),
            Value::Array(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(Value::to_string).collect();
                numbers.join(",")
            }
            value => value.to_string(),
        };
        prop_assume!(!flag.is_empty());
        let expected = match value {
            Value::String(_) => flag.as_str().into(),
            value => value,
        };
        prop_assert_eq!(setting.parse(&flag).unwrap(), expected);
    }
}

fn refused(text: &str) -> String {
    let given: Table = text.parse().unwrap();
    Config::from_settings(given).unwrap_err().to_string()
}

#[test]
fn errors_name_the_key_what_was_found_and_what_was_expected() {
    let about = |text: &str| refused(&format!("model = \"attend\"\n{text}"));
    let expected = "batch-size: found 0, expected a whole number from 1 to 65536";
    assert_eq!(about("batch-size = 0"), expected);
    let expected = "dropout: found 1.0, expected a number from 0 on, below 1";
    assert_eq!(about("dropout = 1"), expected);
    let expected = "lr: found \"fast\", expected a number from 0 to 3.4e38";
    assert_eq!(about("lr = \"fast\""), expected);
    let expected =
        "max-steps: found -1, expected a whole number from 1 to 4294967295, or 0 for none";
    assert_eq!(about("max-steps = -1"), expected);
    let expected = "schedule: found \"cosine\", expected plateau, linear or none";
    assert_eq!(about("schedule = \"cosine\""), expected);
    let expected =
        "encoder-blocks: found [3, 0], expected one or more whole numbers from 1 to 1000";
    assert_eq!(about("encoder-blocks = [3, 0]"), expected);
    // Sizes beyond this wrap in a shape, or need more memory than any machine has.
    for (key, most) in [
        ("image-size", 16384),
        ("positions", 1024),
        ("hidden", 65536),
    ] {
        let expected = format!("{key}: found 4294967296, expected a whole number from 1 to {most}");
        assert_eq!(about(&format!("{key} = 4294967296")), expected);
    }
    let expected = "hiden: there is no such setting; the nearest is hidden";
    assert_eq!(about("hiden = 3"), expected);
    let expected = "model: found \"attent\", expected show-tell or attend";
    assert_eq!(refused("model = \"attent\""), expected);
    assert_eq!(
        refused(""),
        "model: found nothing, expected show-tell or attend"
    );
    for (together, key) in [
        (
            "clip-norm = 1",
            "clip-norm: cannot be used together with `clip-value`",
        ),
        ("schedule = \"linear\"", "max-steps: "),
        (
            "monitor = \"bleu4\"\nvalidate = false",
            "monitor: `bleu4` is measured on the validation images",
        ),
        (
            "fine-tune = true\nfine-tune-from = 5",
            "fine-tune-from: found 5",
        ),
        ("feature-cache = \"c\"\nfine-tune = true", "feature-cache: "),
    ] {
        assert!(about(together).starts_with(key), "{}", about(together));
    }
}

#[test]
fn what_may_change_when_a_run_is_resumed_is_declared() {
    let config = Config::recipe(ATTEND);
    for setting in Config::SETTINGS.iter().chain(ATTEND.settings) {
        let value: Value = match setting.kind {
            Kind::Switch { .. } => {
                let before = config.to_settings();
                (before.get(setting.key) == Some(&false.into())).into()
            }
            Kind::Integer { .. } => 77.into(),
            Kind::Number { .. } => 0.123.into(),
            Kind::Integers { .. } => vec![1, 2, 3].into(),
            Kind::Choice(words) => {
                let before = config.to_settings();
                let other =
                    |&&(word, _): &&(&str, &str)| before[setting.key].as_str() != Some(word);
                words.iter().find(other).unwrap().0.into()
            }
            _ => "elsewhere".into(),
        };
        let given = Table::from_iter([(setting.key.to_string(), value.clone())]);
        match config.resumed(given) {
            Ok(resumed) => {
                assert!(setting.may_change, "{} changed", setting.key);
                assert_eq!(resumed.to_settings().get(setting.key), Some(&value));
            }
            Err(error) => {
                assert!(!setting.may_change, "{error}");
                // Some values would not work at all, whether a run is resumed or not.
                let expected = format!("{}: ", setting.key);
                let alone = ["schedule", "clip-norm", "feature-cache"].contains(&setting.key);
                assert!(alone || error.to_string().starts_with(&expected), "{error}");
            }
        }
    }
    let same = config.to_settings();
    assert_eq!(config.resumed(same).unwrap(), config);
    let linear = Config {
        schedule: Schedule::Linear,
        max_steps: Some(9),
        ..config
    };
    let longer = Table::from_iter([("max-steps".to_string(), 10.into())]);
    let error = linear.resumed(longer).unwrap_err().to_string();
    assert!(
        error.starts_with("max-steps: found 10, but this run was started with 9"),
        "{error}"
    );
}

showtell::settings! {
    /// The settings of a decoder that showtell does not have.
    pub struct Own {}
    "Decoder of this test" {
        /// Slots of the memory
        memory_slots: usize = integer(1).default("12");
        /// Slots that are left out
        dropout: usize = integer(1).default("2");
    }
}

static OWN: Architecture = Architecture {
    name: "own",
    help: "A decoder of this test",
    settings: Own::SETTINGS,
    defaults: &[
        ("encoder-blocks", "1"),
        ("embed", "8"),
        ("hidden", "8"),
        ("optimizer", "adam"),
        ("lr", "0.1"),
        ("weight-decay", "0"),
        ("schedule-factor", "0.5"),
        ("schedule-from", "1"),
        ("batch-size", "4"),
        ("epochs", "1"),
    ],
    vocabulary: VocabularyOf::TrainingCaptions,
    declare: |_, _, _| unreachable!("only its settings are used"),
};

#[test]
fn a_decoder_of_another_program_has_settings_of_its_own() {
    let models: &[Model] = &[SHOW_TELL, ATTEND, &OWN];
    let given: Table = "model = \"own\"\nmemory-slots = 3".parse().unwrap();
    let config = Config::from_settings_of(models, given).unwrap();
    assert_eq!(
        (config.model.name, config.embed, config.lr),
        ("own", 8, 0.1)
    );
    assert_eq!(Own::read(&config.own).unwrap().memory_slots, 3);
    assert!(config.to_toml().contains("memory-slots = 3"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, config.to_toml()).unwrap();
    let table = Config::read_settings(models, &file, &[]).unwrap();
    assert_eq!(Config::from_settings_of(models, table).unwrap(), config);
    let error = Config::read_settings(MODELS, &file, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("config.toml: "), "{error}");
    let shared: Table = "model = \"own\"\ndropout = 7".parse().unwrap();
    let config_of = |model: &str| {
        let mut given = shared.clone();
        given.insert("model".into(), model.into());
        Config::from_settings_of(models, given)
    };
    let own = Own::read(&config_of("own").unwrap().own).unwrap();
    assert_eq!(own.dropout, 7, "attend has a setting of that key too");
    let error = config_of("attend").unwrap_err().to_string();
    assert!(error.starts_with("dropout: found 7"), "{error}");
    let other = Table::from_iter([("memory-slots".to_string(), 4.into())]);
    let error = config.resumed(other).unwrap_err().to_string();
    assert!(
        error.starts_with("memory-slots: found 4, but this run was started with 3"),
        "{error}"
    );
}
