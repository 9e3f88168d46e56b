//! The flags of settings: each is explained, each works, the later of two counts, and a file can stand in for them.

use crate::support;
use showtell::model::{MODELS, Model};
use showtell::settings::{Kind, Setting, Value};
use showtell::train::config::Config;
use showtell::train::run::RunDirectory;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::cli::{failed, misused, says, showtell, stderr, stdout, succeeded};
use support::tiny::Tiny;

/// A value for every setting of a run, as a flag would be given it, and another one before it that must not count. All
/// second values work together.
const GIVEN: [(&str, &str, &str); 42] = [
    ("image-size", "16", "32"),
    ("limit-images", "1", "3"),
    ("captions-per-image", "1", "2"),
    ("augment", "true", "false"),
    ("shuffle", "true", "false"),
    ("skip-bad-images", "false", "true"),
    ("encoder-weights", "absent.pth", "random"),
    ("encoder-blocks", "3,4", "1,1"),
    ("encoder-width", "8", "4"),
    ("encoder-stem", "5", "3"),
    ("encoder-batch-norm", "batch", "running"),
    ("fine-tune", "true", "false"),
    ("fine-tune-from", "0", "1"),
    ("feature-cache", "none", "/nowhere/cache"),
    ("feature-type", "f32", "bf16"),
    ("optimizer", "sgd", "adam"),
    ("lr", "1", "0.25"),
    ("encoder-lr", "1", "2.5e-3"),
    ("momentum", "0.1", "0.7"),
    ("beta1", "0.5", "0.8"),
    ("beta2", "0.5", "0.99"),
    ("epsilon", "1", "1e-6"),
    ("weight-decay", "1", "0.125"),
    ("encoder-weight-decay", "1", "0.0625"),
    ("clip-norm", "1", "0"),
    ("clip-value", "1", "3"),
    ("schedule", "none", "linear"),
    ("schedule-factor", "1", "0.375"),
    ("schedule-from", "1", "4"),
    ("batch-size", "1", "5"),
    ("epochs", "7", "0"),
    ("max-steps", "0", "9"),
    ("checkpoint-every", "1", "11"),
    ("validate", "true", "false"),
    ("monitor", "bleu4", "loss"),
    ("standalone", "false", "true"),
    ("seed", "1", "77"),
    ("embed", "4", "6"),
    ("hidden", "4", "10"),
    ("layers", "1", "3"),
    ("embed-dropout", "0.1", "0.2"),
    ("lstm-dropout", "0.1", "0.4"),
];
const GIVEN_TO_ATTEND: [(&str, &str, &str); 4] = [
    ("attention", "4", "9"),
    ("positions", "3", "5"),
    ("dropout", "0.1", "0.2"),
    ("regulariser", "2", "0.75"),
];

fn values() -> Vec<(&'static str, &'static str, &'static str)> {
    [&GIVEN[..], &GIVEN_TO_ATTEND].concat()
}

/// The settings of a run with this model.
fn settings(model: Model) -> impl Iterator<Item = &'static Setting> {
    Config::SETTINGS.iter().chain(model.settings)
}

/// A setting as a flag with its value.
fn flag(setting: &Setting, value: &str) -> String {
    match (setting.kind, value) {
        (Kind::Switch { .. }, "true") => format!("--{}", setting.key),
        (Kind::Switch { .. }, _) => format!("--no-{}", setting.key),
        _ => format!("--{}={value}", setting.key),
    }
}

#[test]
fn every_flag_works_and_the_later_of_two_counts() {
    let tiny = Tiny::new();
    for model in MODELS {
        let (out, cache) = (tiny.path(model.name), tiny.path("cache"));
        let mut command = showtell();
        command.args([
            "train",
            "--model",
            model.name,
            "--device=cpu",
            "--threads=1",
        ]);
        command
            .arg("--out")
            .arg(tiny.path("other"))
            .arg("--out")
            .arg(&out);
        command.arg("--data=absent").arg("--data").arg(tiny.data());
        for setting in settings(model).filter(|s| !["data", "init"].contains(&s.key)) {
            let found = values().into_iter().find(|(key, ..)| *key == setting.key);
            let (key, first, second) =
                found.unwrap_or_else(|| panic!("no values for {}", setting.key));
            command.arg(flag(setting, first));
            let second = second.replace("/nowhere/cache", cache.to_str().unwrap());
            command.arg(flag(setting, &second));
            assert_ne!(first, second, "{key}");
        }
        succeeded(&command.output().unwrap());
        let written = RunDirectory::open(&out).unwrap().read_config().unwrap();
        let written = written.to_settings();
        for setting in settings(model) {
            let Some((key, _, second)) = values().into_iter().find(|(key, ..)| *key == setting.key)
            else {
                continue;
            };
            let expected =
                setting.parse(&second.replace("/nowhere/cache", cache.to_str().unwrap()));
            assert_eq!(written.get(key), Some(&expected.unwrap()), "{key}");
        }
        assert!(!tiny.path("other").exists());
    }
}

#[test]
fn initial_weights_are_named_by_a_flag() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("first"));
    let weights = tiny.path("first").join("last.safetensors");
    let init = format!("--init={}", weights.display());
    let options = ["--model=show-tell", "--epochs=0", &init];
    succeeded(&tiny.train("second", &options));
    let config = RunDirectory::open(tiny.path("second"))
        .unwrap()
        .read_config()
        .unwrap();
    assert_eq!(config.init, Some(weights));
}

const COMMANDS: [&[&str]; 8] = [
    &["train"],
    &["eval"],
    &["caption"],
    &["demo"],
    &["devices"],
    &["data", "stats"],
    &["data", "check"],
    &["weights", "inspect"],
];

fn help(command: &[&str], how: &str) -> String {
    let output = showtell().args(command).arg(how).output().unwrap();
    succeeded(&output);
    stdout(&output)
}

/// The flags in a text of help: heading, flag, and the explanation.
fn flags(text: &str) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut heading = String::new();
    for line in text.lines() {
        let is_heading = line.ends_with(':') && !line.starts_with(' ');
        if is_heading {
            heading = line.trim_end_matches(':').into();
        }
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if trimmed.starts_with('-') && (2..=6).contains(&indent) {
            let name = trimmed.split("--").nth(1).unwrap_or("");
            let name: String = name.chars().take_while(|c| !" =[".contains(*c)).collect();
            let explained = trimmed.split_once("  ").map_or("", |(_, text)| text.trim());
            found.push((heading.clone(), name, explained.into()));
        } else if let Some((.., explained)) = found.last_mut().filter(|_| !is_heading) {
            *explained += trimmed;
        }
    }
    found
}

#[test]
fn every_flag_of_every_command_is_explained() {
    for command in COMMANDS {
        for how in ["-h", "--help"] {
            let found = flags(&help(command, how));
            assert!(
                found.iter().any(|(_, name, _)| name == "help"),
                "{command:?}"
            );
            for (heading, name, explained) in found {
                assert!(explained.len() > 8, "{command:?} --{name}: '{explained}'");
                assert!(!heading.is_empty(), "{command:?} --{name}");
            }
        }
    }
}

#[test]
fn the_help_of_train_is_grouped_as_declared() {
    let short = flags(&help(&["train"], "-h"));
    let long = flags(&help(&["train"], "--help"));
    let own = MODELS.iter().flat_map(|model| model.settings);
    for setting in Config::SETTINGS.iter().chain(own) {
        let named = |found: &[(String, String, String)], name: &str| -> (String, String) {
            let found = found.iter().find(|(_, found, _)| found == name);
            let (heading, _, explained) = found.unwrap_or_else(|| panic!("no --{name}")).clone();
            (heading, explained)
        };
        let (heading, explained) = named(&short, setting.key);
        assert_eq!(heading, setting.heading, "{}", setting.key);
        assert!(explained.starts_with(&setting.help()), "{explained}");
        let (heading, explained) = named(&long, setting.key);
        assert_eq!(heading, setting.heading, "{}", setting.key);
        // Line breaks are left out here, and the spaces that they stand for with them.
        let plain = |text: &str| text.replace([' ', '\n'], "");
        let details = setting.details().unwrap_or_default();
        assert!(plain(&explained).contains(&plain(&details)), "{explained}");
        if let Kind::Switch { off } = setting.kind {
            let (_, explained) = named(&short, &format!("no-{}", setting.key));
            assert!(explained.starts_with(off), "{explained}");
        }
    }
    let ungrouped = short.iter().filter(|(heading, ..)| heading == "Options");
    let ungrouped: Vec<&String> = ungrouped.map(|(_, name, _)| name).collect();
    assert_eq!(ungrouped, ["help"]);
}

#[test]
fn every_command_takes_the_later_of_two_flags() {
    let tiny = Tiny::new();
    let twice = |command: &[&str]| -> Output {
        let output = showtell().args(command).output().unwrap();
        succeeded(&output);
        output
    };
    twice(&["devices", "--json", "--json"]);
    let data = tiny.data();
    let data = data.to_str().unwrap();
    twice(&["data", "stats", "--json", data, "--json"]);
    twice(&["data", "check", "--quick", data, "--quick"]);
    succeeded(&tiny.train_once("run"));
    let run = tiny.path("run");
    let run = run.to_str().unwrap();
    let output = tiny.eval(
        "run",
        &["--split=train", "--split=dev", "--beam=2", "--beam=1"],
    );
    succeeded(&output);
    says(&stdout(&output), &["dev: 2 images"]);
    let images = ["a.jpg", "c.jpg"].map(|name| tiny.images().join(name));
    let images = images.each_ref().map(|image| image.to_str().unwrap());
    let two = [
        "caption",
        "--run=absent",
        "--run",
        run,
        images[0],
        images[1],
    ];
    assert_eq!(
        stdout(&twice(&two)).lines().count(),
        2,
        "images do not replace each other"
    );
}

/// A file of settings, written as TOML.
fn config_file(tiny: &Tiny, name: &str, lines: &[(&str, Value)]) -> String {
    let lines = lines
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"));
    let path = tiny.path(name);
    fs::write(&path, lines.collect::<String>()).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn a_file_can_give_the_folder_and_the_device_too() {
    let tiny = Tiny::new();
    let text = |path: &Path| Value::from(path.to_str().unwrap());
    let (by_file, by_flag) = (tiny.path("by-file"), tiny.path("by-flag"));
    let lines = [
        ("model", "show-tell".into()),
        ("data", text(&tiny.data())),
        ("encoder-weights", "random".into()),
        ("encoder-blocks", vec![1].into()),
        ("encoder-width", 4.into()),
        ("image-size", 32.into()),
        ("epochs", 0.into()),
        ("out", text(&by_file)),
        ("device", "cpu".into()),
        ("precision", "f32".into()),
        ("threads", 1.into()),
    ];
    let config = config_file(&tiny, "mine.toml", &lines);
    let train = |more: &[&str]| {
        showtell()
            .args(["train", "--config", &config])
            .args(more)
            .output()
            .unwrap()
    };
    let told = succeeded(&train(&[]));
    assert!(
        !told.contains("computing on the CPU"),
        "the device was given: {told}"
    );
    succeeded(&train(&["--out", by_flag.to_str().unwrap(), "--seed=9"]));
    let read = |run: &Path| RunDirectory::open(run).unwrap().read_config().unwrap();
    assert_eq!((read(&by_file).seed, read(&by_flag).seed), (8, 9));
    let written = fs::read_to_string(by_file.join("config.toml")).unwrap();
    for key in ["out", "device", "precision", "threads"] {
        let begins = format!("{key} = ");
        assert!(
            !written.lines().any(|line| line.starts_with(&begins)),
            "{written}"
        );
    }
    // Another device is no change of the run.
    let resume = train(&["--resume", "--threads=2"]);
    says(&succeeded(&resume), &["this run is finished"]);
    let nowhere = config_file(&tiny, "nowhere.toml", &lines[..7]);
    let output = showtell()
        .args(["train", "--config", &nowhere])
        .output()
        .unwrap();
    says(&misused(&output), &["--out: "]);
}

#[test]
fn what_a_file_says_of_folder_and_device_is_checked() {
    let tiny = Tiny::new();
    for (key, value, expected) in [
        (
            "threads",
            Value::from(0),
            "threads: found 0, expected a whole number from 1 to 4096",
        ),
        (
            "device",
            "tpu".into(),
            "device: found \"tpu\", expected auto, cpu, cuda or cuda:N",
        ),
        (
            "outt",
            "x".into(),
            "outt: there is no such setting; the nearest is out",
        ),
    ] {
        let file = config_file(&tiny, "wrong.toml", &[(key, value)]);
        let output = showtell()
            .args(["train", "--config", &file, "--out", "x"])
            .output()
            .unwrap();
        says(&failed(&output), &["wrong.toml: ", expected]);
    }
}

#[test]
fn settings_of_another_decoder_are_checked_and_have_no_effect() {
    let tiny = Tiny::new();
    let options = [
        "--model=show-tell",
        "--encoder-weights=random",
        "--epochs=0",
        "--regulariser=3",
    ];
    let told = succeeded(&tiny.train("run", &options));
    says(&told, &["warning: --regulariser is a setting of attend"]);
    let config = RunDirectory::open(tiny.path("run"))
        .unwrap()
        .read_config()
        .unwrap();
    assert!(!config.to_settings().contains_key("regulariser"));
    let wrong = [
        "--model=show-tell",
        "--encoder-weights=random",
        "--regulariser=-1",
    ];
    says(
        &misused(&tiny.train("other", &wrong)),
        &["--regulariser: found -1"],
    );
}

#[test]
fn messages_spell_settings_as_flags() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let output = tiny.train("run", &["--resume", "--lr=0.5"]);
    let expected = [
        "--lr: found 0.5, but this run was started with 0.9",
        "--max-steps",
    ];
    says(&misused(&output), &expected);
    let output = tiny.train("none", &["--model=attend", "--epochs=0"]);
    says(&misused(&output), &["--encoder-weights: "]);
    let output = tiny.train(
        "none",
        &[
            "--model=attend",
            "--encoder-weights=random",
            "--encoder-batch-norm=batch",
            "--feature-cache=c",
        ],
    );
    let error = misused(&output);
    says(
        &error,
        &[
            "--feature-cache: ",
            "--augment, --fine-tune or --encoder-batch-norm batch",
        ],
    );
    assert!(!stderr(&output).contains('`'), "{error}");
}

/// Every command in the README has only flags that its command has.
#[test]
fn the_commands_in_the_readme_have_flags_that_exist() {
    let readme = support::data::root().join("README.md");
    let readme = fs::read_to_string(readme).unwrap().replace("\\\n", " ");
    let mut checked = 0;
    for line in readme.lines() {
        let Some((_, command)) = line.split_once("showtell ") else {
            continue;
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let Some(command) = COMMANDS.iter().find(|command| words.starts_with(command)) else {
            continue;
        };
        let known = flags(&help(command, "-h"));
        for word in words.iter().filter_map(|word| word.strip_prefix("--")) {
            let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(known.iter().any(|(_, known, _)| known == name), "{line}");
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} flags");
}
