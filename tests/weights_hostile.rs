//! Weight files that were damaged at random: reading them gives tensors or an error that names the file, never a panic, and
//! never needs much more memory than the file is long.

use crate::support::damage::{apply, changes};
use proptest::prelude::*;
use showtell::weights::WeightFile;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// Files in all formats, under tests/pth.
const FILES: [&str; 11] = [
    "expected.safetensors",
    "zip.pth",
    "nested.pth",
    "module.pth",
    "legacy.pth",
    "neighbours.pth",
    "old_rebuild.pth",
    "old_parameter.pth",
    "old_arguments.pth",
    "old_tensor.pth",
    "old_python2.pth",
];

/// Reads everything in a file with this content.
fn read(path: &Path, bytes: &[u8]) -> Result<(), TestCaseError> {
    fs::write(path, bytes).unwrap();
    match WeightFile::open(path) {
        Ok(file) => {
            for tensor in file.tensors() {
                prop_assert!(tensor.bytes().len() <= bytes.len());
                let _ = (tensor.floats(), tensor.finite_floats());
            }
        }
        Err(error) => {
            let (path, message) = (path.display().to_string(), error.to_string());
            prop_assert!(message.starts_with(&path), "{message}");
            // Names from the file can be in it, lists of the whole file cannot.
            prop_assert!(message.len() < 20_000, "{} bytes", message.len());
        }
    }
    Ok(())
}

/// The files without damage.
static GOOD: LazyLock<[Vec<u8>; FILES.len()]> = LazyLock::new(|| {
    let folder = crate::support::data::root().join("tests/pth");
    FILES.map(|name| fs::read(folder.join(name)).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The variable PROPTEST_CASES asks for more cases.
    #[test]
    fn damaged_files_never_panic(file in 0..FILES.len(), changes in changes(FILES.len(), 6000)) {
        let mut bytes = GOOD[file].clone();
        for change in &changes {
            apply(&mut bytes, change, &GOOD[..]);
        }
        let directory = tempfile::tempdir().unwrap();
        read(&directory.path().join("weights"), &bytes)?;
    }
}

/// A list is made once, and a dict is made from it by 30 bytes, again and again.
#[test]
fn a_small_pickle_cannot_copy_a_list_without_end() {
    let start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let machine = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    let list = [b"](", &b"K\x00K\x01\x86".repeat(2000)[..], b"eq\x000"].concat();
    let calls = b"ccollections\nOrderedDict\nh\x00\x85R".repeat(1000);
    let file = [
        start,
        &machine[..],
        b"\x80\x02",
        &list,
        b"(",
        &calls,
        b"t.\x80\x02].",
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights");
    fs::write(&path, file).unwrap();
    let message = WeightFile::open(&path).unwrap_err().to_string();
    assert!(
        message.contains(
            "weights: has a pickle that cannot be read: it copies more than 1048576 values"
        ),
        "{message}"
    );
}
