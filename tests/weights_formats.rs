//! The weight files that people have: those of old versions of PyTorch, checkpoints with other things beside the weights,
//! names under a prefix, and files that are no weights but are taken for them.

use crate::support::data::root;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use showtell::weights::{Format, WeightFile, torchvision};
use std::fs;
use std::path::PathBuf;

fn stored(name: &str) -> PathBuf {
    root().join("tests/pth").join(name)
}

fn open(bytes: &[u8]) -> showtell::Result<WeightFile> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights");
    fs::write(&path, bytes).unwrap();
    WeightFile::open(path)
}

/// The error message for a file with this content, without the name of the file.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).unwrap_err().to_string();
    let (_, reason) = message.split_once("weights: ").expect("the file is named");
    reason.to_string()
}

/// A zip archive of PyTorch with this pickle, and "0", a storage of six floats, 0 to 5.
fn archive(records: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in records {
        let size = (content.len() as u32).to_le_bytes();
        let [offset, length] = [bytes.len() as u32, name.len() as u32].map(u32::to_le_bytes);
        let about = [&[45, 0, 0, 0, 0, 0][..], &[0; 8], &size, &size, &length].concat();
        bytes.extend([b"PK\x03\x04", &about[..], name.as_bytes(), content].concat());
        let rest = [&[0; 10][..], &offset, name.as_bytes()].concat();
        directory.extend([b"PK\x01\x02\x2d\x00", &about[..], &rest].concat());
    }
    let [start, size] = [bytes.len(), directory.len()].map(|n| (n as u32).to_le_bytes());
    [
        bytes,
        directory,
        [b"PK\x05\x06", &[0; 8][..], &size, &start, &[0; 2]].concat(),
    ]
    .concat()
}

fn zipped(pickle: &[u8]) -> Vec<u8> {
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    archive(&[("m/data.pkl", pickle), ("m/data/0", &floats)])
}

/// The instruction that pushes a text.
fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

/// The instructions that push `{"w": tensor}` with all six floats.
fn state_dict() -> Vec<u8> {
    [
        b"}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n",
        &b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00"[..],
        b"K\x06\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs",
    ]
    .concat()
}

/// A pickle of a dict with these entries, whose values are instructions.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}".to_vec();
    for (key, value) in entries {
        pickle.extend([&text(key)[..], value, b"s"].concat());
    }
    pickle.push(b'.');
    pickle
}

/// That a file has the tensors of tests/pth/make_old.py.
#[track_caller]
fn holds_what_was_saved(name: &str) {
    let file = WeightFile::open(stored(name)).unwrap();
    assert_eq!(file.format(), Format::TorchLegacy);
    let names: Vec<_> = file.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["a", "b", "c"], "{name}");
    let floats = |name, shape: &[usize]| file.tensor(name, shape).unwrap().floats().unwrap();
    assert_eq!(*floats("a", &[2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(*floats("b", &[3, 2]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(*floats("c", &[2]), [0.5, -0.5]);
}

#[test]
fn files_of_the_first_versions_of_pytorch_are_read() {
    for style in ["rebuild", "parameter", "arguments", "tensor", "python2"] {
        holds_what_was_saved(&format!("old_{style}.pth"));
    }
}

/// A tensor of a class of the user's own: `_rebuild_from_type_v2(function, class, arguments, state)`.
#[test]
fn a_tensor_of_another_class_is_read() {
    let tensor = state_dict();
    let [call, arguments] = [7..40, 40..tensor.len() - 2].map(|range| tensor[range].to_vec());
    let tensor = [
        &b"ctorch._tensor\n_rebuild_from_type_v2\n("[..],
        &call,
        b"c__main__\nBuffer\n",
        &arguments,
        b"}tR",
    ]
    .concat();
    let file = open(&zipped(&dict(&[("w", tensor)]))).unwrap();
    assert_eq!(file.tensor("w", &[6]).unwrap().floats().unwrap()[5], 5.0);
}

#[test]
fn what_lies_beside_a_state_dict_is_skipped() {
    holds_what_was_saved("neighbours.pth");
}

#[test]
fn a_state_dict_is_found_under_the_usual_keys() {
    for key in ["state_dict", "model_state_dict", "model", "net", "ema"] {
        let pickle = dict(&[("epoch", b"K\x05".to_vec()), (key, state_dict())]);
        let file = open(&zipped(&pickle)).unwrap();
        assert_eq!(file.state_dict_keys(), [key]);
        assert_eq!(
            *file.tensor("w", &[6]).unwrap().floats().unwrap(),
            [0., 1., 2., 3., 4., 5.]
        );
    }
    // One inside another, and an object under the key that comes first.
    let inner = dict(&[
        ("state_dict", b"c__main__\nModel\n)\x81".to_vec()),
        ("net", state_dict()),
    ]);
    let pickle = dict(&[("model", inner[2..inner.len() - 1].to_vec())]);
    let file = open(&zipped(&pickle)).unwrap();
    assert!(file.find("w").is_some());
    assert_eq!(file.state_dict_keys(), ["model", "net"]);
    let message = refusal(&zipped(&dict(&[("optimizer", state_dict())])));
    let expected = "holds no tensors by name, expected a state dict, alone or under \"state_dict\", \
        \"model_state_dict\", \"model\", \"net\" or \"ema\"; found a dict of \"optimizer\"";
    assert_eq!(message, expected);
}

#[test]
fn an_object_instead_of_a_state_dict_is_named() {
    let model = b"cmodels.yolo\nModel\n)\x81".to_vec();
    let expected = "holds an object, expected a state dict: it names \"models.yolo.Model\", which a state dict does \
        not need; nothing was executed. Save the model's state_dict() alone";
    assert_eq!(
        refusal(&zipped(&dict(&[("model", model.clone())]))),
        expected
    );
    assert_eq!(
        refusal(&zipped(&[b"\x80\x02", &model[..], b"."].concat())),
        expected
    );
}

#[test]
fn something_harmful_beside_a_state_dict_is_refused() {
    for name in [
        "posix\nsystem",
        "os.path\njoin",
        "subprocess\nPopen",
        "builtins\neval",
        "__builtin__\nopen",
    ] {
        let call = [b"c", name.as_bytes(), b"\n", &text("a")[..], b"\x85R"].concat();
        let message = refusal(&zipped(&dict(&[("state_dict", state_dict()), ("x", call)])));
        let named = format!("it names \"{}\"", name.replace('\n', "."));
        assert!(
            message.contains(&named) && message.contains("nothing was executed"),
            "{message}"
        );
    }
}

#[test]
fn a_tensor_without_content_and_an_impossible_state_are_refused() {
    let empty = dict(&[("w", b"ctorch\nFloatTensor\n)\x81".to_vec())]);
    assert_eq!(refusal(&zipped(&empty)), "tensor \"w\" never got a content");
    let wrong = dict(&[("w", b"ctorch\nFloatTensor\n)\x81K\x01b".to_vec())]);
    let message = refusal(&zipped(&wrong));
    assert!(
        message.contains("it gives a tensor the content 1"),
        "{message}"
    );
    let pairs = b"ccollections\nOrderedDict\n]K\x01a\x85R".to_vec();
    let message = refusal(&zipped(&dict(&[("w", pairs)])));
    assert!(
        message.contains("it makes a dict from a list, expected a list of pairs"),
        "{message}"
    );
}

#[test]
fn files_that_are_taken_for_weights_are_named() {
    let tar = |name: &str| {
        let mut tar = vec![0; 1024];
        tar[..name.len()].copy_from_slice(name.as_bytes());
        tar[257..262].copy_from_slice(b"ustar");
        tar
    };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 102502400\n";
    let page = "\u{feff} \n<!DOCTYPE html>\n<html><head><title>Access denied</title></head></html>";
    let index = "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {\"fc.weight\": \"model-00001-of-00002.safetensors\"}}";
    let cases: [(Vec<u8>, &str, &str); 16] = [
        (b"".to_vec(), "is empty", "get it again"),
        (
            pointer.into(),
            "is a Git LFS pointer to a file of 102502400 bytes",
            "git lfs pull",
        ),
        (
            page.into(),
            "is a web page, not weights",
            "download the weights again",
        ),
        (
            b"<?xml version=\"1.0\"?><Error/>".to_vec(),
            "is a web page, not weights",
            "again",
        ),
        (
            index.into(),
            "is the index of weights that are split over several files",
            "in one file",
        ),
        (
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(),
            "is compressed by gzip",
            "gunzip",
        ),
        (b"BZh91AY&SY".to_vec(), "is compressed by bzip2", "bunzip2"),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "is compressed by xz", "unxz"),
        (
            b"\x28\xb5\x2f\xfd\x04".to_vec(),
            "is compressed by Zstandard",
            "unzstd",
        ),
        (
            tar("resnet50.pth\0"),
            "is a tar archive",
            "unpack it with tar -xf",
        ),
        (
            tar("sys_info\0"),
            "is a tar archive of the first versions of PyTorch",
            "save its state_dict() again",
        ),
        (
            archive(&[("conv1.npy", b"\x93NUMPY")]),
            "is an archive of NumPy arrays (npz)",
            "expected safetensors",
        ),
        (
            archive(&[("a/resnet50.pth", b"")]),
            "is a zip archive with \"a/resnet50.pth\" inside",
            "unpack it",
        ),
        (
            b"\x93NUMPY\x01\0".to_vec(),
            "is a NumPy array (npy)",
            "expected safetensors",
        ),
        (
            b"\x89HDF\r\n\x1a\n".to_vec(),
            "is an HDF5 file, as Keras writes them",
            "expected safetensors",
        ),
        (
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0}.".to_vec(),
            "is a pickle that was not written by torch.save",
            "torch.save",
        ),
    ];
    for (bytes, what, advice) in cases {
        let message = refusal(&bytes);
        assert!(
            message.starts_with(what) && message.contains(advice),
            "{message}"
        );
    }
}

/// A safetensors file with these names, all of them of one f32.
fn named(names: &[String]) -> WeightFile {
    let view = || TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let tensors = names.iter().map(|name| (name, view()));
    open(&safetensors::serialize(tensors, None).unwrap()).unwrap()
}

fn expected() -> Vec<(String, Vec<usize>)> {
    let names = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias"];
    names.map(|name| (name.to_string(), vec![1])).into()
}

fn under(prefix: &str) -> Vec<String> {
    let names = expected()
        .into_iter()
        .map(|(name, _)| format!("{prefix}{name}"));
    names.chain([format!("{prefix}fc.weight")]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any sequence of the usual parts is one prefix, and what lies beside it does not matter.
    #[test]
    fn a_common_prefix_is_left_out(parts in proptest::collection::vec(0usize..5, 0..4), beside: bool) {
        let known = ["module.", "_orig_mod.", "model.", "backbone.", "encoder."];
        let prefix: String = parts.iter().map(|&part| known[part]).collect();
        let mut names = under(&prefix);
        if beside && !prefix.is_empty() {
            names.push("head.weight".into());
        }
        let file = named(&names);
        let matched = torchvision::match_encoder(&file, &expected(), "tiny").unwrap();
        prop_assert_eq!(matched.prefix, &prefix);
        prop_assert_eq!(torchvision::encoder_prefix(&file), &prefix);
        let found: Vec<_> = matched.tensors.iter().map(|t| t.name().to_string()).collect();
        prop_assert_eq!(&found[..], &under(&prefix)[..3]);
    }
}

#[test]
fn two_encoders_and_an_unusual_prefix_are_refused() {
    let refusal = |names: &[String]| {
        let file = named(names);
        let error = torchvision::match_encoder(&file, &expected(), "tiny").unwrap_err();
        error.to_string()
    };
    let message = refusal(&[under("model."), under("encoder.")].concat());
    let twice = "has the encoder's tensors twice, under \"encoder.\" and under \"model.\": save the state dict of the one";
    assert!(message.contains(twice), "{message}");
    let message = refusal(&under("net.trunk."));
    let unusual = "has no tensor \"conv1.weight\", expected one of shape [1]; it has \"net.trunk.conv1.weight\": save the \
        state dict without \"net.trunk.\" in its names (tiny)";
    assert!(message.ends_with(unusual), "{message}");
    let mut lacking = under("module.");
    lacking.remove(1);
    let message = refusal(&lacking);
    let missing =
        "has no tensor \"module.layer1.0.conv1.weight\", expected one of shape [1] (tiny)";
    assert!(message.ends_with(missing), "{message}");
    let mut extra = under("module.");
    extra.push("module.layer1.0.se.weight".into());
    let message = refusal(&extra);
    assert!(
        message.contains("has a tensor \"module.layer1.0.se.weight\" of shape [1], expected none"),
        "{message}"
    );
}

#[test]
fn numbers_that_are_not_finite_are_counted_and_located() {
    let values = [1.0, 2.0, f32::NAN, 4.0, f32::INFINITY, f32::NEG_INFINITY];
    let bytes: &[u8] = bytemuck::cast_slice(&values);
    let huge = [1e300f64, 0.5];
    let tensors = [
        ("w", TensorView::new(Dtype::F32, vec![2, 3], bytes).unwrap()),
        (
            "good",
            TensorView::new(Dtype::F32, vec![2], &bytes[..8]).unwrap(),
        ),
        (
            "huge",
            TensorView::new(Dtype::F64, vec![2], bytemuck::cast_slice(&huge)).unwrap(),
        ),
    ];
    let file = open(&safetensors::serialize(tensors, None).unwrap()).unwrap();
    let finite = |name| file.find(name).unwrap().finite_floats();
    assert_eq!(*finite("good").unwrap(), [1.0, 2.0]);
    let message = finite("w").unwrap_err().to_string();
    let expected = "weights: tensor \"w\" holds an infinity or NaN in 3 of 6 elements, the first one (NaN) at \
        [0, 2]; expected finite numbers";
    assert!(message.contains(expected), "{message}");
    let message = finite("huge").unwrap_err().to_string();
    assert!(
        message.contains("\"huge\" holds an infinity or NaN in 1 of 2")
            && message.contains("(inf) at [0]"),
        "{message}"
    );
}
