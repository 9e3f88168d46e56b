//! Files that are damaged at random.

use proptest::prelude::*;

/// A change of a file. Positions count modulo the length.
#[derive(Clone, Debug)]
pub enum Change {
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

/// A few changes of one of `files` files of at most `longest` bytes.
pub fn changes(files: usize, longest: usize) -> impl Strategy<Value = Vec<Change>> {
    let at = move || 0..longest;
    // Numbers close to the limits of their types say the worst of sizes and positions.
    let near_limit = (0u32..65, -3i64..4)
        .prop_map(|(bits, by)| 1u64.checked_shl(bits).unwrap_or(0).wrapping_add_signed(by));
    let number = prop_oneof![near_limit, any::<u64>()];
    let change = prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, to)| Change::Set(at, to)),
        2 => (at(), number, any::<bool>()).prop_map(|(at, to, wide)| Change::Number(at, to, wide)),
        1 => (at(), 1usize..200).prop_map(|(at, length)| Change::Cut(at, length)),
        2 => (0..files, at(), 1usize..200, at(), any::<bool>())
            .prop_map(|(file, from, length, to, over)| Change::Splice(file, from, length, to, over)),
        1 => (at(), 1usize..60, 2usize..50).prop_map(|(at, length, n)| Change::Repeat(at, length, n)),
    ];
    proptest::collection::vec(change, 1..5)
}

fn part(bytes: &[u8], at: usize, length: usize) -> std::ops::Range<usize> {
    let at = at % bytes.len().max(1);
    at..(at + length).min(bytes.len())
}

/// Makes a change. `files` are those that a part can be taken of.
pub fn apply(bytes: &mut Vec<u8>, change: &Change, files: &[Vec<u8>]) {
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
