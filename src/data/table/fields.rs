//! A record of a table as fields.

use super::{Fault, image_name, malformed};
use crate::data::photos::has_image_extension;

/// The fields of the first record, and its length with its line end. The last of `most` fields goes to the end of the line,
/// unless it is in quotes. A record that cannot be read is one line long.
pub(super) fn record(
    text: &[u8],
    separator: u8,
    most: usize,
) -> (Result<Vec<String>, Fault>, usize) {
    let line = (text.iter().position(|&b| b == b'\n')).map_or(text.len(), |end| end + 1);
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let is_last = fields.len() + 1 == most;
        let (content, end) = match field(&text[start..], separator, is_last) {
            Ok(found) => found,
            Err(fault) => return (Err(fault), line),
        };
        match String::from_utf8(content) {
            Ok(content) => fields.push(content),
            Err(error) => return (Err(Fault::NotUtf8(error.utf8_error())), line),
        }
        start += end;
        match text.get(start) {
            Some(b'\n') => return (Ok(fields), start + 1),
            Some(_) => start += 1,
            None => return (Ok(fields), start),
        }
    }
}

/// The first field, and the place of the separator or line end after it. Only where fields are separated by commas are quotes
/// sure to enclose a field: elsewhere they enclose one or belong to it. The last field may have separators in it.
fn field(text: &[u8], separator: u8, is_last: bool) -> Result<(Vec<u8>, usize), Fault> {
    let spaces = text.iter().take_while(|&&b| b == b' ').count();
    if text.get(spaces) == Some(&b'"') {
        match quoted(text, spaces + 1, separator) {
            Err(_) if separator != b',' => {}
            found => return found,
        }
    }
    let end = end(text, 0, if is_last { b'\n' } else { separator });
    Ok((text[spaces.min(end)..end].to_vec(), end))
}

/// The field whose quote ends before `from`.
fn quoted(text: &[u8], mut from: usize, separator: u8) -> Result<(Vec<u8>, usize), Fault> {
    let mut content = Vec::new();
    loop {
        let Some(part) = text[from..].iter().position(|&b| b == b'"') else {
            return malformed("a double quote is not closed");
        };
        content.extend(&text[from..from + part]);
        from += part + 1;
        if text.get(from) != Some(&b'"') {
            break;
        }
        content.push(b'"');
        from += 1;
    }
    let end = end(text, from, separator);
    if text[from..end].iter().any(|&b| b != b' ') {
        return malformed("text after a closing double quote");
    }
    let is_image = |field: &[u8]| has_image_extension(image_name(&String::from_utf8_lossy(field)));
    let is_row =
        |line: &[u8]| line.contains(&separator) && line.split(|&b| b == separator).any(is_image);
    if content.contains(&b'\n') && content.split(|&b| b == b'\n').any(is_row) {
        return malformed(
            "a double quote opens here and closes behind rows of other images: one of the two quotes is alone",
        );
    }
    Ok((content, end))
}

/// The place of the first separator or line end from `from` on.
fn end(text: &[u8], from: usize, separator: u8) -> usize {
    let ends = |&b: &u8| b == separator || b == b'\n';
    let found = text[from..].iter().position(ends);
    found.map_or(text.len(), |n| from + n)
}
