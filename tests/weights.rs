//! Weight files: the reference implementation of safetensors reads what we write, and we read what it writes. Every defect
//! is an error that says what is wrong and where, and what was expected and found.

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use showtell::DType;
use showtell::weights::safetensors::{Spec, write};
use showtell::weights::{Format, StoredType, WeightFile, torchvision};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory for one test, and the path of a file in it.
fn place(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

/// The error message for a file with this content.
fn refusal(content: &[u8]) -> String {
    let (_directory, path) = place("weights");
    std::fs::write(&path, content).unwrap();
    let message = WeightFile::open(&path).unwrap_err().to_string();
    let named = message.strip_prefix(&format!("{}: ", path.display()));
    named.expect("the message names the file").to_string()
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

fn spec(name: &str, dtype: impl Into<StoredType>, shape: &[usize]) -> Spec {
    Spec {
        name: name.into(),
        dtype: dtype.into(),
        shape: shape.to_vec(),
    }
}

/// Writes f32 tensors with the given shapes and the elements 0, 1, 2, …
fn write_counting(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let specs: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| spec(name, DType::F32, shape))
        .collect();
    let content = |i: usize| {
        let len: usize = specs[i].shape.iter().product();
        let values: Vec<f32> = (0..len).map(|x| x as f32).collect();
        Ok(Cow::Owned(bytemuck::cast_slice(&values).to_vec()))
    };
    write(path, &BTreeMap::new(), &specs, content).unwrap();
}

#[test]
fn the_reference_implementation_reads_what_is_written() {
    let (directory, path) = place("run.safetensors");
    let floats = [1.5f32, -2.0, 3.25, f32::MIN_POSITIVE, 0.0, 7.0];
    let pixels = [1u8, 2, 3];
    let ids = [7u32, 8];
    let contents: [&[u8]; 3] = [
        &pixels,
        bytemuck::cast_slice(&floats),
        bytemuck::cast_slice(&ids),
    ];
    let specs = [
        spec("pixels", DType::U8, &[3]),
        spec("floats", DType::F32, &[2, 3]),
        spec("ids", DType::U32, &[2]),
    ];
    let metadata = BTreeMap::from([("step".to_string(), "12 \"quoted\"".to_string())]);
    write(&path, &metadata, &specs, |i| Ok(Cow::Borrowed(contents[i]))).unwrap();

    let bytes = std::fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (spec, content) in specs.iter().zip(contents) {
        let tensor = theirs.tensor(&spec.name).unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&spec.shape[..], content));
    }
    let (_, about) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(about.metadata().as_ref().unwrap()["step"], "12 \"quoted\"");

    let ours = WeightFile::open(&path).unwrap();
    assert_eq!(ours.metadata(), &metadata);
    let names: Vec<_> = ours.tensors().map(|t| t.name()).collect();
    assert_eq!(names, ["floats", "ids", "pixels"], "wide types first");
    let tensor = ours.tensor("floats", &[2, 3]).unwrap();
    assert!(matches!(tensor.values::<f32>().unwrap(), Cow::Borrowed(values) if values == floats));
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing but the file is left: {left:?}");
}

#[test]
fn what_the_reference_implementation_writes_is_read() {
    let halves = [f16::from_f32(0.5), f16::from_f32(-1.25), f16::MAX];
    let brains = [
        bf16::from_f32(3.0),
        bf16::from_f32(-0.125),
        bf16::MIN_POSITIVE,
    ];
    let doubles = [1.0f64 / 3.0, -1e300, 2.0];
    let counts = [5i64];
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        (
            "f16",
            view(Dtype::F16, &[3, 1], bytemuck::cast_slice(&halves)),
        ),
        (
            "bf16",
            view(Dtype::BF16, &[3], bytemuck::cast_slice(&brains)),
        ),
        (
            "f64",
            view(Dtype::F64, &[1, 3], bytemuck::cast_slice(&doubles)),
        ),
        (
            "count",
            view(Dtype::I64, &[], bytemuck::cast_slice(&counts)),
        ),
        ("none", view(Dtype::F32, &[2, 0], &[])),
    ];
    let (_directory, path) = place("theirs");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.format(), Format::Safetensors);
    let floats = |name| file.find(name).unwrap().floats().unwrap();
    assert_eq!(*floats("f16"), [0.5, -1.25, 65504.0]);
    assert_eq!(*floats("bf16"), [3.0, -0.125, f32::MIN_POSITIVE]);
    assert_eq!(*floats("f64"), [1.0 / 3.0, f32::NEG_INFINITY, 2.0]);
    assert_eq!(floats("none").len(), 0);
    let count = file.tensor("count", &[]).unwrap();
    assert_eq!((count.dtype(), count.len()), (StoredType::I64, 1));
    let message = count.floats().unwrap_err().to_string();
    let expected = "tensor \"count\" should hold floats (f32, f16, bf16 or f64), holds i64";
    assert!(message.ends_with(expected), "{message}");
    let message = count.values::<f32>().unwrap_err().to_string();
    assert!(
        message.ends_with("\"count\" should hold f32, holds i64"),
        "{message}"
    );
}

#[test]
fn a_tensor_that_lies_unaligned_is_copied() {
    let values = [1.0f32, 2.0];
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#;
    let (_directory, path) = place("odd");
    std::fs::write(&path, with_header(header, bytemuck::cast_slice(&values))).unwrap();
    let file = WeightFile::open(&path).unwrap();
    assert_ne!((8 + header.len()) % 4, 0);
    assert!(matches!(file.find("a").unwrap().floats().unwrap(), Cow::Owned(v) if v == values));
}

#[test]
fn files_without_weights_are_refused() {
    let noise: Vec<u8> = (0u8..200)
        .map(|i| i.wrapping_mul(167).wrapping_add(13))
        .collect();
    assert!(refusal(&noise).starts_with("is not a weight file: its 200 bytes begin with [0d, b4,"));
    assert!(refusal(b"{}").starts_with("is not a weight file: its 2 bytes"));
    assert!(refusal(b"").starts_with("is empty: "));
    let directory = tempfile::tempdir().unwrap();
    let message = WeightFile::open(directory.path()).unwrap_err().to_string();
    assert!(
        message.ends_with(": is a directory, expected a file"),
        "{message}"
    );
    let missing = directory.path().join("missing.safetensors");
    let message = WeightFile::open(&missing).unwrap_err().to_string();
    assert!(
        message.contains("missing.safetensors: No such file"),
        "{message}"
    );
}

#[test]
fn headers_that_lie_are_refused() {
    let tensor = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let one = |about: String, data: usize| {
        refusal(&with_header(
            &format!(r#"{{"conv1":{about}}}"#),
            &vec![0; data],
        ))
    };
    let two =
        |a: String, b: String| refusal(&with_header(&format!(r#"{{"a":{a},"b":{b}}}"#), &[0; 16]));
    for (found, expected) in [
        (
            refusal(&[&u64::MAX.to_le_bytes()[..], b"{}      "].concat()),
            "is truncated, or not a safetensors file: its header should have 18446744073709551615 \
             bytes, but 8 are left",
        ),
        (
            refusal(&[&100u64.to_le_bytes()[..], b"{\"a\":"].concat()),
            "is truncated, or not a safetensors file: its header should have 100 bytes, but 5 are left",
        ),
        (
            one(tensor("F32", "[2,2]", 0, 16), 12),
            "is truncated: tensor \"conv1\" ends at byte 16 of the data, which has 12 bytes",
        ),
        (
            one(tensor("F32", "[2]", 0, 8), 9),
            "has 1 byte after its last tensor, expected none",
        ),
        (
            one(tensor("F32", "[3]", 0, 8), 8),
            "tensor \"conv1\" of f32[3] needs 12 bytes, has 8",
        ),
        (
            one(tensor("F32", "[4294967296,4294967296]", 0, 8), 8),
            "tensor \"conv1\" has an impossible shape [4294967296, 4294967296]",
        ),
        (
            one(tensor("F4", "[16]", 0, 8), 8),
            "tensor \"conv1\" has element type \"F4\", expected one of F64, F32, F16, BF16, I64, I32, \
             I16, I8, U64, U32, U16, U8, BOOL",
        ),
        (
            one(tensor("F32", "[2]", 8, 0), 8),
            "tensor \"conv1\" has offsets 8..0, expected to begin at 0: tensors should follow each other \
             without gaps or overlaps",
        ),
        (
            two(tensor("F32", "[2]", 0, 8), tensor("F32", "[3]", 4, 16)),
            "tensor \"b\" has offsets 4..16, expected to begin at 8: tensors should follow each other \
             without gaps or overlaps",
        ),
        (
            refusal(&with_header(
                &format!(
                    r#"{{"a":{0},"a":{1}}}"#,
                    tensor("U8", "[1]", 0, 1),
                    tensor("U8", "[1]", 1, 2)
                ),
                &[0; 2],
            )),
            "holds tensor \"a\" twice",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let message = one(
        r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}"#.into(),
        8,
    );
    assert!(
        message.starts_with("has an unreadable entry for tensor \"conv1\": "),
        "{message}"
    );
    let message = refusal(&with_header("{\"a\": ??", &[0; 4]));
    assert!(
        message.starts_with("has an unreadable header: "),
        "{message}"
    );
}

#[test]
fn a_wrong_shape_and_a_missing_tensor_are_named() {
    let (_directory, path) = place("weights");
    write_counting(&path, &[("output.bias".into(), vec![4])]);
    let file = WeightFile::open(&path).unwrap();
    let message = file.tensor("output.bias", &[5]).unwrap_err().to_string();
    assert!(message.ends_with("weights: tensor \"output.bias\" should have shape [5], has [4]"));
    let message = file
        .tensor("output.weight", &[5, 2])
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("weights: has no tensor \"output.weight\" of shape [5, 2]"));
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let (directory, path) = place("best.safetensors");
    write_counting(&path, &[("a".into(), vec![3])]);
    let before = std::fs::read(&path).unwrap();
    let specs = [spec("a", DType::F32, &[1]), spec("b", DType::F32, &[2])];
    let short = |_| Ok(Cow::Borrowed(&[0u8; 4][..]));
    let message = write(&path, &BTreeMap::new(), &specs, short)
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("tensor \"b\" should have 8 bytes, has 4"),
        "{message}"
    );
    let twice = [spec("a", DType::F32, &[1]), spec("a", DType::F32, &[1])];
    let message = write(&path, &BTreeMap::new(), &twice, short)
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("cannot hold tensor \"a\" twice"),
        "{message}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    let nowhere = directory.path().join("missing/best.safetensors");
    let message = write(&nowhere, &BTreeMap::new(), &specs, short)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("missing/best.safetensors: No such file"),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever value one byte gets, opening the file and reading everything does not panic.
    #[test]
    fn one_changed_byte_never_panics(at in 0usize..300, to: u8) {
        let (_directory, path) = place("mutated");
        write_counting(&path, &[("a.weight".into(), vec![3, 2]), ("b".into(), vec![7])]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        std::fs::write(&path, bytes).unwrap();
        if let Ok(file) = WeightFile::open(&path) {
            for tensor in file.tensors() {
                prop_assert!(tensor.bytes().len() <= 52);
                let _ = tensor.floats();
            }
        }
    }
}

/// The tensors of a ResNet with bottlenecks under torchvision's names, without the classifier.
fn resnet(blocks: [usize; 4], width: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let mut unit = |conv: &str, bn: &str, dims: [usize; 4]| {
        tensors.push((format!("{conv}.weight"), dims.to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{bn}.{part}"), vec![dims[0]]));
        }
    };
    unit("conv1", "bn1", [width, 3, 7, 7]);
    let mut inputs = width;
    for (stage, count) in blocks.into_iter().enumerate() {
        let middle = width << stage;
        for block in 0..count {
            let at = format!("layer{}.{block}", stage + 1);
            unit(
                &format!("{at}.conv1"),
                &format!("{at}.bn1"),
                [middle, inputs, 1, 1],
            );
            unit(
                &format!("{at}.conv2"),
                &format!("{at}.bn2"),
                [middle, middle, 3, 3],
            );
            unit(
                &format!("{at}.conv3"),
                &format!("{at}.bn3"),
                [middle * 4, middle, 1, 1],
            );
            if block == 0 {
                let (conv, bn) = (format!("{at}.downsample.0"), format!("{at}.downsample.1"));
                unit(&conv, &bn, [middle * 4, inputs, 1, 1]);
            }
            inputs = middle * 4;
        }
    }
    tensors
}

/// Opens a file with these tensors. It can be read after its directory is removed.
fn file_with(tensors: &[(String, Vec<usize>)]) -> WeightFile {
    let (_directory, path) = place("resnet.safetensors");
    write_counting(&path, tensors);
    WeightFile::open(&path).unwrap()
}

#[test]
fn an_encoder_is_matched_whatever_its_order_and_extras() {
    let expected = resnet([1, 1, 1, 1], 4);
    let mut stored = expected.clone();
    stored.reverse();
    stored.push(("fc.weight".into(), vec![10, 128]));
    stored.push(("fc.bias".into(), vec![10]));
    stored.push(("bn1.num_batches_tracked".into(), vec![]));
    let plain = file_with(&stored);
    let matched = torchvision::match_encoder(&plain, &expected, "tiny").unwrap();
    let names: Vec<_> = matched
        .tensors
        .iter()
        .map(|t| (t.name().to_string(), t.shape().to_vec()))
        .collect();
    assert_eq!(names, expected);

    let mut ours: Vec<_> = stored
        .iter()
        .map(|(name, shape)| (format!("encoder.{name}"), shape.clone()))
        .collect();
    ours.push(("embedding.weight".into(), vec![9, 3]));
    let ours = file_with(&ours);
    let matched = torchvision::match_encoder(&ours, &expected, "tiny").unwrap();
    assert_eq!(matched.tensors[0].name(), "encoder.conv1.weight");
}

#[test]
fn another_encoder_is_refused_with_what_differs() {
    let expected = resnet([1, 1, 1, 1], 4);
    let refusal = |stored: &[(String, Vec<usize>)]| {
        let file = file_with(stored);
        torchvision::match_encoder(&file, &expected, "tiny")
            .unwrap_err()
            .to_string()
    };
    let mut missing = expected.clone();
    missing.remove(5);
    let message = refusal(&missing);
    let end = "resnet.safetensors: has no tensor \"layer1.0.conv1.weight\", expected one of shape \
               [4, 4, 1, 1] (tiny)";
    assert!(message.ends_with(end), "{message}");
    let mut reshaped = expected.clone();
    reshaped[0].1 = vec![4, 1, 7, 7];
    let message = refusal(&reshaped);
    let end = "tensor \"conv1.weight\" should have shape [4, 3, 7, 7], has [4, 1, 7, 7] (tiny)";
    assert!(message.ends_with(end), "{message}");
    let mut extra = expected.clone();
    extra.push(("layer1.0.se.weight".into(), vec![4]));
    let message = refusal(&extra);
    let end = "has a tensor \"layer1.0.se.weight\" of shape [4], expected none (tiny)";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn another_resnet_is_recognised() {
    // Tensors that do not identify the ResNet are small.
    let small = |blocks| -> Vec<(String, Vec<usize>)> {
        let named = resnet(blocks, 64).into_iter();
        named
            .map(|(name, shape)| match name.as_str() {
                "layer1.0.conv2.weight" | "conv1.weight" => (name, shape),
                _ => (name, vec![1]),
            })
            .collect()
    };
    let file = file_with(&small([3, 4, 23, 3]));
    let expected = resnet([3, 4, 6, 3], 64);
    let message = torchvision::match_encoder(&file, &expected, "resnet50")
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("(resnet50): the file looks like ResNet-101"),
        "{message}"
    );
    let file = file_with(&small([3, 4, 6, 3]));
    let message = torchvision::match_encoder(&file, &expected, "resnet50")
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("should have shape [64], has [1] (resnet50)"),
        "{message}"
    );
}
