//! What cannot work is refused before it is begun, by the name of the setting, with its range or with what to do.

use crate::support;
use safetensors::SafeTensors;
use showtell::model::MODELS;
use showtell::settings::{Kind, Setting};
use showtell::train::config::Config;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::cli::{failed, misused, says, showtell, stderr, stdout, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

/// Show-tell with these options, which count more than those before them.
fn train(tiny: &Tiny, run: &str, more: &[&str]) -> Output {
    tiny.train(run, &[&SHOW_TELL[..], more].concat())
}

/// Images of 4 pixels have features of 1 x 1, and 30 samples in batches of 29 leave one.
#[test]
fn a_batch_of_one_value_per_channel_is_refused_and_the_advice_works() {
    let tiny = Tiny::new();
    let by_batch = ["--image-size=4", "--encoder-batch-norm=batch"];
    let with = |size: &'static str| train(&tiny, "run", &[&by_batch[..], &[size]].concat());
    let error = misused(&with("--batch-size=29"));
    let advice = [
        "--batch-size 28",
        "larger --image-size",
        "--encoder-batch-norm running",
    ];
    says(&error, &["--batch-size: found 29", "a single sample of 30"]);
    says(&error, &advice);
    says(
        &misused(&with("--batch-size=1")),
        &["--batch-size: found 1", "--batch-size 2,"],
    );
    assert!(!tiny.path("run").exists());
    succeeded(&with("--batch-size=28"));

    // The statistics that a random encoder begins with are those of training images, too.
    let one = ["--image-size=4", "--limit-images=1"];
    says(
        &misused(&train(&tiny, "one", &one)),
        &["--image-size: found 4", "or more images"],
    );
    succeeded(&train(
        &tiny,
        "one",
        &["--image-size=8", "--limit-images=1"],
    ));
}

/// Of a run that needs too much, with batches of one value where a batch has one sample.
#[test]
#[cfg(target_os = "linux")]
fn too_little_memory_names_only_what_helps() {
    let tiny = Tiny::new();
    let huge = [
        "--hidden=65536",
        "--image-size=4",
        "--encoder-batch-norm=batch",
        "--batch-size=28",
    ];
    let error = failed(&train(
        &tiny,
        "run",
        &[&huge[..], &["--no-augment"]].concat(),
    ));
    says(&error, &[" of this machine's memory, ", "--batch-size 3 ("]);
    assert!(
        !error.contains("--batch-size 1 ("),
        "it cannot work: {error}"
    );
    let huge = ["--hidden=65536", "--no-augment", "--optimizer=adam"];
    let error = failed(&train(&tiny, "run", &huge));
    says(&error, &["--optimizer sgd ("]);
    assert!(
        !error.contains("--feature-cache"),
        "it saves next to nothing: {error}"
    );
    // Nothing of this size is tried to find out.
    let images = [
        "--image-size=16384",
        "--batch-size=65536",
        "--encoder-width=4096",
    ];
    says(
        &failed(&train(&tiny, "run", &images)),
        &["this run needs about"],
    );
    says(
        &failed(&train(
            &tiny,
            "run",
            &[&images[..], &["--no-augment"]].concat(),
        )),
        &["this run needs about"],
    );
}

/// Values that a setting cannot have, and the range that the error must tell.
fn beyond(setting: &Setting) -> (Vec<String>, String) {
    let whole = |least: u64, most: Option<u64>| {
        let most = most.unwrap_or_else(|| panic!("{} has no largest value", setting.key));
        let least_but_one = (least > 1).then(|| (least - 1).to_string());
        let mut values = vec![
            (i128::from(most) + 1).to_string(),
            u64::MAX.to_string(),
            "-1".into(),
        ];
        values.extend(least_but_one);
        (values, format!("from {least} to {most}"))
    };
    match setting.kind {
        Kind::Integer { least, most } | Kind::Integers { least, most } => whole(least, most),
        Kind::Number { least, below } if below.is_finite() => {
            let values = [below.to_string(), "nan".into(), "-1".into(), "1e400".into()];
            (values.to_vec(), format!("from {least} on, below {below}"))
        }
        Kind::Number { least, .. } => {
            let values = ["1e39", "nan", "-1", "1e400"].map(str::to_string);
            (values.to_vec(), format!("from {least} to 3.4e38"))
        }
        _ => (Vec::new(), String::new()),
    }
}

#[test]
fn every_number_beyond_its_range_is_refused_by_name_with_the_range() {
    let tiny = Tiny::new();
    let of_models = MODELS.iter().flat_map(|model| model.settings);
    for setting in Config::SETTINGS.iter().chain(of_models) {
        let (values, range) = beyond(setting);
        for value in values {
            let flag = format!("--{}={value}", setting.key);
            let output = train(&tiny, "run", &["--model=show-tell", &flag]);
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{flag}: {text}");
            says(&text, &[&format!("--{}", setting.key), &range]);
            assert!(!text.contains("panicked") && text.len() < 600, "{text}");
        }
    }
    let deep = format!("--encoder-blocks={}", ["1"; 40].join(","));
    says(
        &misused(&train(&tiny, "run", &[&deep])),
        &["--encoder-blocks: found 40 stages", "at most 8"],
    );
    assert!(!tiny.path("run").exists());
    let max = u64::MAX.to_string();
    let other: [(&[&str], &str); 5] = [
        (&["demo", "--seed", &max], "from 0 to 9223372036854775807"),
        (&["demo", "--scenes", "4294967296"], "from 1 to 1000000"),
        (&["demo", "--steps", "0"], "from 1 to 1000000"),
        (
            &["caption", "--run=run", "x.jpg", "--beam", &max],
            "from 1 to 100",
        ),
        (
            &[
                "eval",
                "--run=run",
                "--data=x",
                "--beam=2",
                "--length-penalty",
                "nan",
            ],
            "from 0 to 3.4e38",
        ),
    ];
    for (arguments, range) in other {
        let output = showtell().args(arguments).output().unwrap();
        let flag = arguments[arguments.len() - 2];
        assert_eq!(output.status.code(), Some(2));
        says(&stderr(&output), &[flag, range]);
    }
}

/// What cannot work whatever the files hold has another exit status than what fails.
#[test]
fn flags_that_do_not_go_together_are_wrong_usage() {
    let tiny = Tiny::new();
    let together: [(&[&str], &[&str]); 5] = [
        (
            &["--clip-norm=1", "--clip-value=1"],
            &["--clip-norm: ", "--clip-value; set one"],
        ),
        (
            &["--schedule=linear"],
            &["--max-steps: is needed by --schedule linear"],
        ),
        (
            &["--fine-tune", "--fine-tune-from=9"],
            &["--fine-tune-from: found 9, but the encoder has 1 stage"],
        ),
        (
            &["--feature-cache=cache", "--augment"],
            &["--feature-cache: ", "--augment"],
        ),
        (&["--precision=bf16"], &["--precision: ", "--device cuda"]),
    ];
    for (flags, words) in together {
        says(&misused(&train(&tiny, "run", flags)), words);
    }
    let mut without_data = showtell();
    let config = tiny.path("config.toml");
    fs::write(&config, "model = \"show-tell\"\n").unwrap();
    without_data
        .args(["train", "--out=x", "--config"])
        .arg(&config);
    let output = without_data.output().unwrap();
    says(&misused(&output), &["--data: is not given"]);
    assert!(!tiny.path("run").exists());
    // The same flags in a file are an error of the file or of the run.
    fs::write(&config, "lr = -1").unwrap();
    let output = without_data.output().unwrap();
    says(&failed(&output), &["config.toml: lr: found -1"]);
    let missing = tiny.path("missing");
    let flags = ["--data", missing.to_str().unwrap()];
    says(&failed(&train(&tiny, "run", &flags)), &["missing: "]);
}

/// Text that is not UTF-8, wherever a text is expected.
#[test]
#[cfg(unix)]
fn a_flag_whose_text_is_not_utf8_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let commands: [(&[&str], &[&str]); 3] = [
        (
            &["train", "--out=x"],
            &[
                "--data",
                "--model",
                "--lr",
                "--schedule",
                "--device",
                "--seed",
                "--encoder-weights",
            ],
        ),
        (
            &["eval", "--run=x", "--data=y"],
            &["--split", "--beam", "--feature-type", "--threads"],
        ),
        (&["demo"], &["--seed", "--scenes", "--precision"]),
    ];
    for (start, flags) in commands {
        for flag in flags {
            let mut command = showtell();
            command
                .args(start)
                .arg(flag)
                .arg(OsStr::from_bytes(b"caf\xe9"));
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            says(&stderr(&output), &["invalid value", &format!("'{flag} <")]);
        }
    }
}

/// Gives every element of a tensor in a checkpoint a value by its place.
fn fill(checkpoint: &Path, name: &str, value: impl Fn(usize) -> f32) {
    let mut bytes = fs::read(checkpoint).unwrap();
    let range = {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor(name).unwrap().data().as_ptr_range();
        let start = bytes.as_ptr() as usize;
        data.start as usize - start..data.end as usize - start
    };
    for (i, element) in bytes[range].chunks_exact_mut(4).enumerate() {
        element.copy_from_slice(&value(i).to_le_bytes());
    }
    fs::write(checkpoint, bytes).unwrap();
}

/// Weights that are finite and give numbers that are not.
#[test]
fn numbers_that_are_not_finite_are_blamed_on_what_gives_them() {
    let tiny = Tiny::new();
    succeeded(&train(&tiny, "run", &[]));
    let last = tiny.path("run/last.safetensors");
    let good = fs::read(&last).unwrap();
    let damaged = tiny.path("damaged.safetensors");
    let init = [
        "--model=show-tell",
        "--epochs=1",
        "--init",
        damaged.to_str().unwrap(),
    ];
    let begin = |run: &str, more: &[&str]| failed(&tiny.train(run, &[&init[..], more].concat()));

    fs::write(&damaged, &good).unwrap();
    fill(&damaged, "encoder.bn1.running_var", |_| -1.0);
    let error = begin("fixed", &["--no-augment"]);
    says(
        &error,
        &[
            "a.jpg: the encoder gives NaN for this image",
            "--encoder-weights",
        ],
    );
    let error = begin("images", &[]);
    says(
        &error,
        &[
            "NaN at step 1, before training has changed any weight",
            "--encoder-weights",
        ],
    );
    assert!(!error.contains("--lr"), "{error}");
    // A run that begins with such an encoder without computing anything: `caption` is the first to see its numbers.
    let untrained = [&init[..], &["--epochs=0"]].concat();
    succeeded(&tiny.train("untrained", &untrained));
    let mut caption = showtell();
    caption
        .args(["caption", "--device=cpu", "--run"])
        .arg(tiny.path("untrained"));
    let output = caption.arg(tiny.images().join("i.jpg")).output().unwrap();
    says(
        &failed(&output),
        &["i.jpg: the encoder gives NaN for this image"],
    );

    fill(&last, "optimizer.momentum_buffer.output.bias", |_| f32::NAN);
    let mut resume = showtell();
    resume.args(["train", "--resume", "--epochs=2", "--device=cpu", "--out"]);
    let error = failed(&resume.arg(tiny.path("run")).output().unwrap());
    says(
        &error,
        &[
            "last.safetensors: ",
            "momentum_buffer.output.bias",
            "expected finite numbers",
        ],
    );
}

#[test]
fn an_evaluation_without_finite_losses_fails() {
    let tiny = Tiny::new();
    succeeded(&train(&tiny, "run", &[]));
    let best = tiny.path("run/best.safetensors");
    // Their difference is more than 32 bits hold.
    fill(
        &best,
        "output.bias",
        |i| if i % 2 == 0 { 3e38 } else { -3e38 },
    );
    let output = tiny.eval("run", &[]);
    says(
        &failed(&output),
        &[
            "run: the loss on the split test is ",
            "evaluate another run",
        ],
    );
    assert_eq!(stdout(&output), "");
    assert!(!tiny.path("run/captions-test.txt").exists());
}
