//! Weight files that were damaged at random: reading them gives tensors or an error that names the file, never a panic, and
//! never needs much more memory than the file is long.

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

/// A change of a file. Positions count modulo the length.
#[derive(Clone, Debug)]
enum Change {
    /// One byte gets a value.
    Set(usize, u8),
    /// A number of four or eight bytes gets a value.
    Number(usize, u64, bool),
    /// A part is left out.
    Cut(usize, usize),
    /// A part of another file is put in, or written over what is there.
    Splice(usize, usize, usize, usize, bool),
    /// A part is there many times.
    Repeat(usize, usize, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = || 0usize..6000;
    // Numbers close to the limits of their types say the worst of sizes and positions.
    let near_limit = (0u32..65, -3i64..4)
        .prop_map(|(bits, by)| 1u64.checked_shl(bits).unwrap_or(0).wrapping_add_signed(by));
    let number = prop_oneof![near_limit, any::<u64>()];
    let change = prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, to)| Change::Set(at, to)),
        2 => (at(), number, any::<bool>()).prop_map(|(at, to, wide)| Change::Number(at, to, wide)),
        1 => (at(), 1usize..200).prop_map(|(at, length)| Change::Cut(at, length)),
        2 => (0..FILES.len(), at(), 1usize..200, at(), any::<bool>())
            .prop_map(|(file, from, length, to, over)| Change::Splice(file, from, length, to, over)),
        1 => (at(), 1usize..60, 2usize..50).prop_map(|(at, length, n)| Change::Repeat(at, length, n)),
    ];
    proptest::collection::vec(change, 1..5)
}

fn part(bytes: &[u8], at: usize, length: usize) -> std::ops::Range<usize> {
    let at = at % bytes.len().max(1);
    at..(at + length).min(bytes.len())
}

fn apply(bytes: &mut Vec<u8>, change: &Change, files: &[Vec<u8>]) {
    match *change {
        Change::Set(at, to) => {
            let at = part(bytes, at, 1);
            bytes[at].fill(to);
        }
        Change::Number(at, to, wide) => {
            let at = part(bytes, at, if wide { 8 } else { 4 });
            let length = at.len();
            bytes[at].copy_from_slice(&to.to_le_bytes()[..length]);
        }
        Change::Cut(at, length) => {
            let at = part(bytes, at, length);
            bytes.drain(at);
        }
        Change::Splice(file, from, length, to, over) => {
            let inserted = &files[file][part(&files[file], from, length)];
            let to = part(bytes, to, if over { length } else { 0 });
            bytes.splice(to, inserted.iter().copied());
        }
        Change::Repeat(at, length, n) => {
            let at = part(bytes, at, length);
            let repeated = bytes[at.clone()].repeat(n);
            bytes.splice(at, repeated);
        }
    }
}

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pth");
    FILES.map(|name| fs::read(folder.join(name)).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The variable PROPTEST_CASES asks for more cases.
    #[test]
    fn damaged_files_never_panic(file in 0..FILES.len(), changes in changes()) {
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
