//! Weights move both ways between the program and PyTorch: `--init` takes what PyTorch wrote (the goldens), a
//! checkpoint holds the same names, shapes and values again, and `weights inspect` shows them.

use crate::support;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{cli, pictures};

/// Name, shape, f32 values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The floats of a file, read by the reference implementation of the format; without PyTorch's counters of batches.
fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let named = file.tensors().into_iter();
    let floats = named.filter(|(_, view)| view.dtype() == Dtype::F32);
    let tensor = |(name, view): (String, TensorView)| {
        let values = view.data().chunks_exact(4);
        let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        (name, (view.shape().to_vec(), values.collect()))
    };
    floats.map(tensor).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.clone(), shape.clone(), bytes)
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// What PyTorch wrote for its small model, with a vocabulary of `words` instead of its own: rows repeat.
fn pytorch(golden: &str, words: usize) -> Tensors {
    let path = support::data::root().join("tests/goldens").join(golden);
    let mut tensors = read(&path);
    for name in ["embedding.weight", "output.weight", "output.bias"] {
        let (shape, values) = tensors.get_mut(name).unwrap();
        let row = shape[1..].iter().product::<usize>();
        shape[0] = words;
        *values = values.iter().copied().cycle().take(words * row).collect();
    }
    tensors
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    cli::printed(&cli::run(arguments))
}

/// The model that the goldens are of.
const GOLDEN: &[&str] = &[
    "--encoder-blocks=1,2,1,1",
    "--encoder-width=4",
    "--image-size=64",
    "--embed=12",
    "--attention=10",
];

fn moves_both_ways(model: &str, golden: &str, hidden: &str, fine_tune: bool) {
    let place = pictures::temporary();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_string();
    let data = place.path().to_str().unwrap();
    let train = |out: &str, init: &str, epochs: &str| {
        let out = path(out);
        let mut arguments = vec!["train", "--model", model, "--data", data, "--out", &out];
        arguments.extend(["--init", init, "--epochs", epochs, "--hidden", hidden]);
        arguments.extend(GOLDEN);
        arguments.extend(fine_tune.then_some("--fine-tune"));
        printed(&arguments);
        Path::new(&out).join("last.safetensors")
    };
    let stats: Value = serde_json::from_str(&printed(&["data", "stats", data, "--json"])).unwrap();
    let from = if model == "attend" {
        "all_captions"
    } else {
        "train_captions"
    };
    let words = stats["vocabulary"][from].as_u64().unwrap() as usize;
    let given = pytorch(golden, words);
    write(Path::new(&path("init.safetensors")), &given);

    let untouched = train("untouched", &path("init.safetensors"), "0");
    let mut held = read(&untouched);
    held.retain(|name, _| !name.starts_with("optimizer."));
    assert_eq!(
        given.keys().collect::<Vec<_>>(),
        held.keys().collect::<Vec<_>>()
    );
    for (name, tensor) in &given {
        assert!(
            *tensor == held[name],
            "{name}: shape {:?}, {:?}",
            tensor.0,
            held[name].0
        );
    }

    let trained = train("trained", &path("init.safetensors"), "1");
    let after = read(&trained);
    let moved = |name: &str| after[name] != given[name];
    assert!(moved("output.weight") && moved("embedding.weight"));
    assert_eq!(moved("encoder.layer3.0.conv2.weight"), fine_tune);
    assert!(!moved("encoder.conv1.weight") && !moved("encoder.layer1.0.bn1.weight"));

    let copied = read(&train("copied", trained.to_str().unwrap(), "0"));
    for name in given.keys() {
        assert!(copied[name] == after[name], "{name}");
    }
    inspect(&trained, &after);
}

/// `weights inspect` lists every tensor.
fn inspect(file: &Path, tensors: &Tensors) {
    let file = file.to_str().unwrap();
    let found: Value =
        serde_json::from_str(&printed(&["weights", "inspect", file, "--json"])).unwrap();
    let listed = found["tensors"].as_array().unwrap();
    assert_eq!(listed.len(), tensors.len());
    for tensor in listed {
        let (shape, _) = &tensors[tensor["name"].as_str().unwrap()];
        assert_eq!(tensor["shape"], serde_json::json!(shape));
        assert_eq!(tensor["dtype"], "f32");
    }
    assert!(printed(&["weights", "inspect", file]).contains("encoder.layer1.0.conv3.weight"));
}

#[test]
fn show_tell() {
    moves_both_ways("show-tell", "show_tell.init.safetensors", "16", false);
}

#[test]
fn attend() {
    moves_both_ways("attend", "attend.init.safetensors", "14", false);
}

#[test]
fn attend_with_a_fine_tuned_encoder() {
    moves_both_ways("attend", "attend.init.safetensors", "14", true);
}

/// Names of files need not be UTF-8 on Linux, and JSON must be: other bytes become U+FFFD, and nothing panics.
#[cfg(target_os = "linux")]
mod names_that_are_not_utf8 {
    use super::*;
    use crate::support::tiny::{SHOW_TELL, Tiny};
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    /// `caf\xe9` in Latin-1, with an ending.
    fn cafe(tiny: &Tiny, ending: &str) -> PathBuf {
        let name = [b"caf\xe9", ending.as_bytes()].concat();
        tiny.path("").join(OsString::from_vec(name))
    }

    fn json(command: &mut std::process::Command) -> Value {
        let printed = cli::printed(&command.output().unwrap());
        serde_json::from_str(&printed).unwrap()
    }

    #[test]
    fn every_command_prints_json() {
        let tiny = Tiny::new();
        cli::succeeded(&tiny.train_once("run"));
        let ends = |value: &Value, end: &str| {
            let text = value.as_str().unwrap();
            assert!(text.ends_with(end), "{text}");
        };
        let run = cafe(&tiny, ".run");
        fs::rename(tiny.path("run"), &run).unwrap();
        let checkpoint = run.join("last.safetensors");
        let found = json(
            cli::showtell()
                .args(["weights", "inspect", "--json"])
                .arg(checkpoint),
        );
        ends(&found["file"], "caf\u{fffd}.run/last.safetensors");

        let image = cafe(&tiny, ".jpg");
        fs::copy(tiny.images().join("a.jpg"), &image).unwrap();
        let device = ["--device", "cpu", "--threads", "1", "--json"];
        let found = json(
            cli::showtell()
                .arg("caption")
                .args(device)
                .arg("--run")
                .arg(&run)
                .arg(image),
        );
        ends(&found["image"], "/caf\u{fffd}.jpg");

        let eval = |data: &Path| {
            let mut command = cli::showtell();
            command
                .arg("eval")
                .args(device)
                .arg("--run")
                .arg(&run)
                .arg("--data")
                .arg(data);
            json(&mut command)
        };
        let found = eval(&tiny.data());
        ends(&found["captions"], "caf\u{fffd}.run/captions-test.json");
        let data = cafe(&tiny, ".data");
        fs::rename(tiny.data(), &data).unwrap();
        eval(&data);
        json(cli::showtell().args(["data", "stats", "--json"]).arg(&data));
        fs::remove_file(data.join("Flicker8k_Dataset/a.jpg")).unwrap();
        let checked = cli::showtell()
            .args(["data", "check", "--json"])
            .arg(&data)
            .output()
            .unwrap();
        cli::ended(1, &checked);
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert!(
            checked["findings"].to_string().contains("caf\u{fffd}.data"),
            "{checked}"
        );
    }

    /// A run's config.toml holds paths, so that they must be UTF-8.
    #[test]
    fn train_refuses_them_and_names_them() {
        let tiny = Tiny::new();
        let data = cafe(&tiny, ".data");
        fs::rename(tiny.data(), &data).unwrap();
        let mut command = cli::showtell();
        let train = command
            .arg("train")
            .args(SHOW_TELL)
            .args(["--out", "run", "--data"]);
        let message = cli::ended(2, &train.arg(&data).output().unwrap());
        cli::says(
            &message,
            &["caf\u{fffd}.data' for '--data <DIR>'", "it is not UTF-8"],
        );
        let mut command = cli::showtell();
        let train = command.current_dir(&data).arg("train").args(SHOW_TELL);
        let output = train
            .args(["--out", "run", "--data", "."])
            .output()
            .unwrap();
        cli::says(
            &cli::misused(&output),
            &[
                "showtell: --data: found ",
                "caf\u{fffd}.data",
                "it is not UTF-8",
            ],
        );
    }
}

/// A file with the encoder of a run, under a prefix, and with one element of a tensor changed.
fn encoder_of(run: &Path, file: &Path, prefix: &str, change: Option<f32>) {
    let tensors = read(&run.join("last.safetensors")).into_iter();
    let encoder = tensors.filter_map(|(name, tensor)| {
        let name = name.strip_prefix("encoder.")?;
        Some((format!("{prefix}{name}"), tensor))
    });
    let mut encoder: Tensors = encoder.collect();
    if let Some(change) = change {
        encoder.get_mut(&format!("{prefix}bn1.weight")).unwrap().1[2] = change;
    }
    write(file, &encoder);
}

#[test]
fn a_prefix_is_said_and_numbers_that_are_not_finite_are_refused() {
    let tiny = crate::support::tiny::Tiny::new();
    cli::succeeded(&tiny.train_once("run"));
    let file = tiny.path("encoder.safetensors");
    let path = file.to_str().unwrap();
    let options = [
        "--model",
        "show-tell",
        "--encoder-weights",
        path,
        "--epochs",
        "1",
    ];
    encoder_of(&tiny.path("run"), &file, "module.", None);
    let told = cli::succeeded(&tiny.train("prefixed", &options));
    let note = "encoder.safetensors: the names of the encoder's tensors begin with \"module.\", which is left out\n";
    cli::says(&told, &[note]);
    let table = printed(&["weights", "inspect", path]);
    cli::says(
        &table,
        &["begin with \"module.\", which training leaves out\n"],
    );
    let found = printed(&["weights", "inspect", path, "--json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["encoder_prefix"], "module.");

    for (value, spelled) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        encoder_of(&tiny.path("run"), &file, "", Some(value));
        let message = cli::failed(&tiny.train("bad", &options));
        let end = format!("elements, the first one ({spelled}) at [2]; expected finite numbers");
        cli::says(
            &message,
            &[
                "encoder.safetensors: tensor \"bn1.weight\" holds an infinity or NaN in 1 of ",
                &end,
            ],
        );
        assert!(!tiny.path("bad").exists());
    }
}
