//! What separates the fields of a table.

use super::{Row, read};
use crate::data::photos::has_image_extension;
use std::cmp::Reverse;

const SEPARATORS: [u8; 4] = *b",\t;|";
/// The rows that are read with every separator to find the right one.
const SAMPLE: usize = 1000;

/// The separator that a first line `sep=;` names, as spreadsheet programs write it, and the bytes of that line.
pub(super) fn announced(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().position(|&b| b == b'\n').unwrap_or(text.len());
    let line = text[..end].strip_prefix(b"\"").unwrap_or(&text[..end]);
    let (key, value) = line.split_at_checked(4)?;
    let &separator = value.first()?;
    let rest = value[1..].strip_prefix(b"\"").unwrap_or(&value[1..]);
    let separates = SEPARATORS.contains(&separator) || separator.is_ascii_punctuation();
    let announces = key.eq_ignore_ascii_case(b"sep=") && rest.iter().all(|&b| b == b' ');
    (announces && separates && separator != b'"').then_some((separator, (end + 1).min(text.len())))
}

/// The separator of a text: the one with which most of the first rows name images and have captions, and of equals the one
/// that occurs first. A name or a caption may have other separators in it, even in the first row.
pub(super) fn guess(text: &[u8]) -> u8 {
    let place = |&separator: &u8| {
        let first = text.iter().position(|&b| b == separator)?;
        Some((first, separator))
    };
    let present: Vec<(usize, u8)> = SEPARATORS.iter().filter_map(place).collect();
    match *present {
        [] => b',',
        [(_, only)] => only,
        _ => {
            let value = |&(first, separator): &(usize, u8)| (fit(text, separator), Reverse(first));
            let best = present.iter().max_by_key(|place| value(place));
            best.map_or(b',', |&(_, separator)| separator)
        }
    }
}

/// How well a separator fits: the rows that name an image by its extension, whether there is a header, and the rows that can
/// be read at all.
fn fit(text: &[u8], separator: u8) -> (usize, bool, usize) {
    let (rows, columns) = read(text, 0, separator, SAMPLE);
    let readable: Vec<&String> = rows.iter().filter_map(name).collect();
    let images = readable.iter().filter(|name| has_image_extension(name));
    let has_header = columns.is_some_and(|columns| columns.names.is_some());
    (images.count(), has_header, readable.len())
}

fn name<'a>(row: &'a Row) -> Option<&'a String> {
    let (name, _) = row.content.as_ref().ok()?;
    Some(name)
}
