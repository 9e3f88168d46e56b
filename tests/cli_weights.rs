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
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(golden);
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
