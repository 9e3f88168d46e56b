//! Files of PyTorch: they are read correctly, refused with a reason if they are damaged or malicious, and never executed.

use crate::support::data::root;
use half::{bf16, f16};
use proptest::prelude::*;
use showtell::weights::{Format, StoredType, WeightFile};
use std::path::PathBuf;

fn stored(name: &str) -> PathBuf {
    root().join("tests/pth").join(name)
}

fn open(bytes: &[u8]) -> showtell::Result<WeightFile> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.pth");
    std::fs::write(&path, bytes).unwrap();
    WeightFile::open(path)
}

/// The error message for a file with this content, without the name of the file.
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).unwrap_err().to_string();
    let (_, reason) = message
        .split_once("weights.pth: ")
        .expect("the message names the file");
    reason.to_string()
}

/// A legacy file with this pickle and this pickled list of storages.
fn legacy(pickle: &[u8], keys: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let machine = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    [start, &machine[..], pickle, keys].concat()
}

/// How the archive of a test stores its records.
#[derive(Clone, Copy, PartialEq)]
enum Zip {
    /// Sizes and offsets in 32 bits.
    Narrow,
    /// Sizes and offsets in the records of zip64.
    Wide,
    Compressed,
}

fn archive(records: &[(&str, &[u8])], kind: Zip) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    let wide = kind == Zip::Wide;
    let narrow = |value: usize| if wide { u32::MAX } else { value as u32 }.to_le_bytes();
    for (name, content) in records {
        let (offset, size) = (bytes.len(), content.len());
        let method = if kind == Zip::Compressed { 8u16 } else { 0 };
        let name_bytes = (name.len() as u16).to_le_bytes();
        let numbers = [size, size, offset]
            .map(|n| (n as u64).to_le_bytes())
            .concat();
        let field = [&[7, 0, 1, 0, 9][..], &[1, 0, 24, 0], &numbers].concat();
        let extra: &[u8] = if wide { &field } else { &[] };
        let extra_bytes = (extra.len() as u16).to_le_bytes();
        let version_flags = [45, 0, 0, 0];
        let time_crc = [0; 8];
        let common = [
            &version_flags[..],
            &method.to_le_bytes(),
            &time_crc,
            &narrow(size),
            &narrow(size),
            &name_bytes,
        ]
        .concat();
        bytes.extend(
            [
                b"PK\x03\x04",
                &common[..],
                &[3, 0],
                name.as_bytes(),
                &[0; 3],
                content,
            ]
            .concat(),
        );
        let rest = [&extra_bytes[..], &[0; 10], &narrow(offset)].concat();
        let entry = [
            b"PK\x01\x02\x2d\x00",
            &common[..],
            &rest,
            name.as_bytes(),
            extra,
        ]
        .concat();
        directory.extend(entry);
    }
    let (start, size) = (bytes.len(), directory.len());
    bytes.extend(directory);
    if wide {
        let end = bytes.len() as u64;
        let place = [size, start].map(|n| (n as u64).to_le_bytes()).concat();
        bytes.extend([b"PK\x06\x06", &[0; 36][..], &place].concat());
        bytes.extend(
            [
                b"PK\x06\x07",
                &[0; 4][..],
                &end.to_le_bytes(),
                &[1, 0, 0, 0],
            ]
            .concat(),
        );
    }
    bytes.extend(
        [
            b"PK\x05\x06",
            &[0; 8][..],
            &narrow(size),
            &narrow(start),
            &[2, 0],
            b"hi",
        ]
        .concat(),
    );
    bytes
}

#[test]
fn both_containers_hold_what_pytorch_saved() {
    let expected = WeightFile::open(stored("expected.safetensors")).unwrap();
    for (name, format) in [
        ("zip.pth", Format::TorchZip),
        ("legacy.pth", Format::TorchLegacy),
    ] {
        let file = WeightFile::open(stored(name)).unwrap();
        assert_eq!(file.format(), format);
        let names: Vec<_> = file.tensors().map(|tensor| tensor.name()).collect();
        assert_eq!(
            names[..4],
            ["plain", "parameter", "head", "tail"],
            "in the dict's order"
        );
        assert_eq!(names.len(), expected.tensors().count());
        for theirs in expected.tensors() {
            let ours = file.tensor(theirs.name(), theirs.shape()).unwrap();
            assert_eq!(ours.dtype(), theirs.dtype(), "{ours:?}");
            assert_eq!(ours.bytes(), theirs.bytes(), "{ours:?} of {name}");
        }
    }
}

#[test]
fn tensors_are_read_as_numbers() {
    let file = WeightFile::open(stored("zip.pth")).unwrap();
    let floats = |name| file.find(name).unwrap().floats().unwrap().into_owned();
    assert_eq!(floats("column"), [0.25, 1.0, 1.75, 2.5]);
    assert_eq!(floats("transposed")[..5], [0.0, 0.75, 1.5, 2.25, 0.125]);
    for name in ["float64", "float16", "bfloat16"] {
        assert_eq!(floats(name), [1.0, 100.0, 3.0]);
    }
    let half = file.find("float16").unwrap().values::<f16>().unwrap();
    assert_eq!(half[1], f16::from_f32(100.0));
    let brain = file.find("bfloat16").unwrap().values::<bf16>().unwrap();
    assert_eq!(brain[1], bf16::from_f32(100.0));
    assert_eq!(file.find("count").unwrap().dtype(), StoredType::I64);
}

#[test]
fn a_state_dict_among_other_things_is_found() {
    let file = WeightFile::open(stored("nested.pth")).unwrap();
    let names: Vec<_> = file.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(
        names,
        [
            "0.weight",
            "0.bias",
            "1.weight",
            "1.bias",
            "1.running_mean",
            "1.running_var",
            "1.num_batches_tracked"
        ]
    );
    assert_eq!(
        *file
            .tensor("1.running_var", &[3])
            .unwrap()
            .floats()
            .unwrap(),
        [1.0; 3]
    );
}

#[test]
fn other_things_that_pytorch_saves_are_refused() {
    let refusal = |name| refusal(&std::fs::read(stored(name)).unwrap());
    let message = refusal("module.pth");
    assert!(
        message.contains(
            "names \"torch.nn.modules.container.Sequential\", which a state dict does not need; nothing was \
             executed. Save the model's state_dict() alone"
        ),
        "{message}"
    );
    assert_eq!(
        refusal("expanded.pth"),
        "tensor \"expanded\" of shape [5] has more elements than its storage (1): expanded tensors are not \
         read"
    );
    assert_eq!(
        refusal("script.pth"),
        "is a TorchScript program, expected a state dict"
    );
}

#[test]
fn a_pickle_that_would_run_something_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let witness = directory.path().join("witness");
    let command = format!("touch {}", witness.display());
    let text = [
        &[b'X'][..],
        &(command.len() as u32).to_le_bytes(),
        command.as_bytes(),
    ]
    .concat();
    let call = [b"\x80\x02cposix\nsystem\n", &text[..], b"\x85R."].concat();
    let by_stack = [
        b"\x80\x04\x8c\x02os\x8c\x06system\x93",
        &text[..],
        b"\x85R.",
    ]
    .concat();
    for (pickle, name) in [(call, "posix.system"), (by_stack, "os.system")] {
        let files = [
            legacy(&pickle, b"\x80\x02]."),
            archive(&[("m/data.pkl", &pickle)], Zip::Narrow),
        ];
        for file in files {
            let message = refusal(&file);
            let named = format!(
                "it names \"{name}\", which a state dict does not need; nothing was executed"
            );
            assert!(message.contains(&named), "{message}");
        }
    }
    assert!(!witness.exists());
}

/// `{"w": tensor}`, pickled as by `torch.save`, where the tensor has 6 floats with the key "0".
fn one_tensor(first: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let [a, b] = shape;
    let [c, d] = strides;
    [
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n",
        &b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK"[..],
        &[first, b'K', a, b'K', b, 0x86, b'K', c, b'K', d, 0x86],
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

fn six_floats() -> Vec<u8> {
    (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[test]
fn archives_with_narrow_and_wide_fields_are_read() {
    let (pickle, data) = (one_tensor(1, [2, 2], [1, 3]), six_floats());
    for kind in [Zip::Narrow, Zip::Wide] {
        let bytes = archive(&[("m/data.pkl", &pickle), ("m/data/0", &data)], kind);
        let file = open(&bytes).unwrap();
        assert_eq!(
            *file.tensor("w", &[2, 2]).unwrap().floats().unwrap(),
            [1., 4., 2., 5.]
        );
    }
    let bytes = archive(
        &[("m/data.pkl", &pickle), ("m/data/0", &data)],
        Zip::Compressed,
    );
    assert_eq!(
        refusal(&bytes),
        "has a compressed record m/data.pkl, which torch.save never writes"
    );
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let data = six_floats();
    let zipped = |pickle: &[u8], data: &[u8]| {
        refusal(&archive(
            &[("m/data.pkl", pickle), ("m/data/0", data)],
            Zip::Narrow,
        ))
    };
    let good = one_tensor(0, [2, 3], [3, 1]);
    assert!(
        open(&archive(
            &[("m/data.pkl", &good), ("m/data/0", &data)],
            Zip::Narrow
        ))
        .is_ok()
    );
    for (found, expected) in [
        (
            zipped(&one_tensor(1, [2, 3], [3, 1]), &data),
            "tensor \"w\" of shape [2, 3] with strides [3, 1] from element 1 reaches beyond its storage of 6 \
             elements",
        ),
        (
            zipped(&good, &data[..20]),
            "tensor \"w\" lies in a storage that should have 6 elements, has 5",
        ),
        (
            refusal(&archive(&[("m/data.pkl", &good)], Zip::Narrow)),
            "has no record m/data/0",
        ),
        (
            refusal(&archive(&[("m/other.pkl", &good)], Zip::Narrow)),
            "is a zip archive without data.pkl, so it is not from PyTorch",
        ),
        (
            refusal(&archive(
                &[
                    ("m/data.pkl", &good),
                    ("m/byteorder", b"big"),
                    ("m/data/0", &data),
                ],
                Zip::Narrow,
            )),
            "was saved on a big-endian machine, expected little-endian",
        ),
        (
            zipped(b"\x80\x02N.", &data),
            "holds None, expected a state dict",
        ),
        (
            zipped(b"\x80\x02}X\x05\x00\x00\x00epochK\x03s.", &data),
            "holds no tensors by name, expected a state dict, alone or under \"state_dict\", \"model_state_dict\", \
             \"model\", \"net\" or \"ema\"; found a dict of \"epoch\"",
        ),
        (
            zipped(b"\x80\x02}q\x00X\xff\xff\xff\xffab", &data),
            "has a pickle that cannot be read: it ends 4294967293 bytes early (before its byte 10)",
        ),
        (
            zipped(b"\x80\x02ibuiltins\neval\n.", &data),
            "has a pickle that cannot be read: it has the instruction 0x69, which a state dict does not need \
             (before its byte 3)",
        ),
        (
            zipped(b"\x80\x02(0.", &data),
            "has a pickle that cannot be read: it takes from an empty stack (before its byte 4)",
        ),
        (
            refusal(&legacy(&good, b"\x80\x02].")),
            "has no storage \"0\"",
        ),
        (
            refusal(
                &[
                    &legacy(&good, b"\x80\x02]X\x01\x00\x00\x000a.")[..],
                    &[6, 0, 0, 0, 0, 0, 0, 0],
                    &data[..23],
                ]
                .concat(),
            ),
            "is truncated: storage \"0\" from byte 202 reaches beyond the file's 225 bytes",
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn deeply_nested_values_do_not_exhaust_the_stack() {
    let pickle = [b"\x80\x02)", &vec![0x85; 2_000_000][..], b"."].concat();
    let message = refusal(&archive(&[("m/data.pkl", &pickle)], Zip::Narrow));
    assert_eq!(message, "holds a tuple, expected a state dict");
}

#[test]
fn truncated_files_are_refused() {
    for name in ["zip.pth", "legacy.pth", "nested.pth"] {
        let bytes = std::fs::read(stored(name)).unwrap();
        let lengths = (0..bytes.len())
            .step_by(37)
            .chain(bytes.len() - 40..bytes.len());
        for length in lengths {
            assert!(
                open(&bytes[..length]).is_err(),
                "{name} cut to {length} bytes"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever value one byte gets, opening the file and reading everything does not panic.
    #[test]
    fn one_changed_byte_never_panics(file in 0usize..3, at in 0usize..5000, to: u8) {
        let name = ["zip.pth", "legacy.pth", "nested.pth"][file];
        let mut bytes = std::fs::read(stored(name)).unwrap();
        let (at, size) = (at % bytes.len(), bytes.len());
        bytes[at] = to;
        if let Ok(file) = open(&bytes) {
            for tensor in file.tensors() {
                prop_assert!(tensor.bytes().len() <= size);
                let _ = tensor.floats();
            }
        }
    }
}
