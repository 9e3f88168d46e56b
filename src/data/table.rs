//! The texts of a data set as people have them: bytes to lines, and a table of captions to rows.
//!
//! The fields of a table are separated by a comma, a tab, `;` or `|`, whichever comes first in the file. A field in double
//! quotes may contain separators, line ends and doubled double quotes (RFC 4180), and spaces may stand around it. The first
//! row is a header if it names the columns; otherwise it is a caption like all others.

use super::image::foreign;
use super::photos::has_image_extension;
use std::borrow::Cow;
use std::str::Utf8Error;

const SEPARATORS: &[u8] = b",\t;|";
/// What the column with the names of images is called, in lower case with `_` for other signs. The earlier name counts if a
/// table has several of them: numbers often stand beside the names of files.
const IMAGE_COLUMNS: [&str; 10] = [
    "image",
    "image_name",
    "image_file",
    "image_path",
    "file_name",
    "filename",
    "file",
    "path",
    "img",
    "image_id",
];
/// What the column with the captions is called.
const CAPTION_COLUMNS: [&str; 7] = [
    "caption",
    "caption_text",
    "captions",
    "comment",
    "description",
    "sentence",
    "text",
];

/// Why a row has no caption.
#[derive(Debug)]
pub(super) enum Fault {
    Malformed(String),
    /// The first row names no columns, so that no row can be read.
    Header(String),
    NotUtf8(Utf8Error),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Malformed(message) | Fault::Header(message) => f.write_str(message),
            Fault::NotUtf8(error) => write!(
                f,
                "is not UTF-8: save the file again with that encoding ({error})"
            ),
        }
    }
}

fn malformed<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Malformed(message.into()))
}

/// A row of a captions file.
pub(super) struct Row<'a> {
    /// The number of its first line, counted from 1.
    pub line: usize,
    /// Its bytes in the file.
    pub source: &'a [u8],
    /// The name of the image, and the caption.
    pub content: Result<(String, String), Fault>,
}

/// The text of a file, without byte-order mark and with `\n` at the end of each line. Carriage returns alone end lines, too:
/// Excel writes such tables on a Mac, with line feeds inside quotes.
///
/// # Errors
/// When the file as a whole is no text in UTF-8: what it is, and what to do.
pub(super) fn plain_text(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if let Some(kind) = foreign::no_text(bytes) {
        return Err(format!(
            "is {kind}; expected a text in UTF-8, as a spreadsheet exports it"
        ));
    }
    if is_utf16(bytes) {
        return Err("is UTF-16, expected UTF-8: save it again with that encoding".into());
    }
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        let line = 1 + bytes[..at].iter().filter(|&&b| b == b'\n').count();
        return Err(format!(
            "has a zero byte in line {line}, as no text has: it was not copied whole, or is another kind of file"
        ));
    }
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if !text.contains(&b'\r') {
        return Ok(Cow::Borrowed(text));
    }
    let mut unix = text.to_vec();
    let mut next = text.iter().skip(1).chain([&0]);
    unix.retain(|&b| next.next() != Some(&b'\n') || b != b'\r');
    let returns = unix.iter_mut().filter(|b| **b == b'\r');
    returns.for_each(|b| *b = b'\n');
    Ok(Cow::Owned(unix))
}

/// Whether a file is UTF-16, the text of some editors and of PowerShell: it begins with a byte-order mark, or many bytes in
/// the same half of each unit are zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let begin = &bytes[..bytes.len().min(256)];
    let zeros = |half: usize| begin[half.min(begin.len())..].iter().step_by(2);
    let zeros = [0, 1].map(|half| zeros(half).filter(|&&b| b == 0).count());
    let halves = zeros.contains(&0) && zeros[0] + zeros[1] > begin.len() / 4;
    bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") || halves
}

/// The lines of a [`plain_text`] with their numbers, counted from 1.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Result<&str, Utf8Error>)> {
    let lines = text.split(|&b| b == b'\n');
    (1..).zip(lines.map(std::str::from_utf8))
}

/// The rows of a file of lines `<image>#<k>\t<caption>`, without empty lines. `text` is [`plain_text`].
pub(super) fn token_rows(text: &[u8]) -> Vec<Row<'_>> {
    let content = |source| {
        let text = std::str::from_utf8(source).map_err(Fault::NotUtf8)?;
        let parts = text.split_once('\t');
        let named = parts.and_then(|(key, caption)| Some((without_number(key)?, caption)));
        match named {
            Some((name, caption)) => Ok((name.to_string(), caption.to_string())),
            None => malformed("expected <file>#<k>, a tab and a caption"),
        }
    };
    let row = |(line, source)| Row {
        line,
        source,
        content: content(source),
    };
    let lines = (1..).zip(text.split(|&b| b == b'\n'));
    let full = lines.filter(|(_, source)| !source.trim_ascii().is_empty());
    full.map(row).collect()
}

/// `x.jpg` of `x.jpg#3`.
fn without_number(key: &str) -> Option<&str> {
    let (name, number) = key.rsplit_once('#')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (numbered && !name.is_empty()).then_some(name)
}

/// The rows of a table, without its header and without empty lines. `text` is [`plain_text`].
pub(super) fn rows(text: &[u8]) -> Vec<Row<'_>> {
    let first = text.iter().find(|b| SEPARATORS.contains(b));
    let separator = first.copied().unwrap_or(b',');
    let mut rows = Vec::new();
    let mut columns: Option<Columns> = None;
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let most = columns.map_or(usize::MAX, Columns::most);
        let (fields, length) = record(rest, separator, most);
        let (source, after) = rest.split_at(length);
        let here = line;
        line += source.iter().filter(|&&b| b == b'\n').count();
        rest = after;
        if source.trim_ascii().is_empty() {
            continue;
        }
        let content = fields.and_then(|fields| match &columns {
            Some(columns) => pick(&fields, columns).map(Some),
            None => {
                let (found, header) = find_columns(&fields)?;
                columns = Some(found);
                let again = || pick(&record(source, separator, found.most()).0?, &found);
                (!header).then(again).transpose()
            }
        });
        if matches!(content, Err(Fault::Header(_))) {
            rest = &[];
        }
        if let Some(content) = content.transpose() {
            rows.push(Row {
                line: here,
                source: source.strip_suffix(b"\n").unwrap_or(source),
                content,
            });
        }
    }
    rows
}

/// The places of the two columns that are read, and the number of all columns.
#[derive(Clone, Copy)]
struct Columns {
    image: usize,
    caption: usize,
    count: usize,
}

impl Columns {
    /// The most fields of a row. A caption behind its number ends with the line, so that a separator may be a part of it.
    fn most(self) -> usize {
        match (self.image, self.caption, self.count) {
            (0, 2, 3) => 3,
            _ => usize::MAX,
        }
    }
}

/// The columns that the first row announces, and whether it is a header.
fn find_columns(fields: &[String]) -> Result<(Columns, bool), Fault> {
    let count = fields.len();
    let columns = |image, caption| Columns {
        image,
        caption,
        count,
    };
    let number = |i: usize| fields[i].trim().parse::<u64>().is_ok();
    let is_image = |f: &String| has_image_extension(image_name(f));
    match (count, fields.iter().position(is_image)) {
        (2, Some(0)) => return Ok((columns(0, 1), false)),
        (3.., Some(0)) if number(1) => {
            let columns = Columns {
                count: 3,
                ..columns(0, 2)
            };
            return Ok((columns, false));
        }
        (3, Some(1)) if number(0) => return Ok((columns(1, 2), false)),
        (3.., Some(_)) => return malformed(TOO_MANY),
        _ => {}
    }
    let place = |name: &&str| fields.iter().position(|f| column_name(f) == **name);
    let named = |names: &[&str]| names.iter().find_map(place);
    match (named(&IMAGE_COLUMNS), named(&CAPTION_COLUMNS)) {
        (Some(image), Some(caption)) => Ok((columns(image, caption), true)),
        (Some(image), None) if count == 2 => Ok((columns(image, 1 - image), true)),
        (None, Some(caption)) if count == 2 => Ok((columns(1 - caption, caption), true)),
        // Not a header: names of images may have no extension.
        _ if count == 2 => Ok((columns(0, 1), false)),
        _ if count == 1 => malformed(TOO_FEW),
        _ => Err(Fault::Header(format!(
            "found the {count} columns {}; expected a header in which one is called image and one caption",
            fields.join(", ")
        ))),
    }
}

const TOO_FEW: &str = "expected two fields, image and caption, found one";
const TOO_MANY: &str = "expected two fields, image and caption, found more: a caption with a separator in it must be in double quotes";

fn column_name(field: &str) -> String {
    let sign = |c: char| if c.is_alphanumeric() { c } else { '_' };
    field.trim().to_lowercase().chars().map(sign).collect()
}

/// The name of the image in a field: without spaces around it, and without the number of its caption.
fn image_name(field: &str) -> &str {
    let name = field.trim();
    without_number(name).unwrap_or(name)
}

/// The image and the caption of a row.
fn pick(fields: &[String], columns: &Columns) -> Result<(String, String), Fault> {
    let &Columns {
        image,
        caption,
        count,
    } = columns;
    let caption = match (fields.len(), count) {
        (found, _) if found == count => fields[caption].as_str(),
        // The published results.csv of Flickr30k lacks a separator in one row.
        (2, 3) if (image, caption) == (0, 2) => after_number(&fields[1])?,
        (1, 2) => return malformed(TOO_FEW),
        (_, 2) => return malformed(TOO_MANY),
        (found, _) => return malformed(format!("expected {count} fields, found {found}")),
    };
    match image_name(&fields[image]) {
        "" => malformed("the image has no name"),
        image => Ok((image.to_string(), caption.to_string())),
    }
}

/// The caption in a field that begins with its number.
fn after_number(field: &str) -> Result<&str, Fault> {
    let caption = field
        .trim()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    if caption.len() < field.trim().len() && caption.starts_with("  ") {
        return Ok(caption.trim_start());
    }
    malformed("expected 3 fields, found 2")
}

/// The fields of the first record, and its length with its line end. The last of `most` fields goes to the end of the line,
/// unless it is in quotes. A record that cannot be read is one line long.
fn record(text: &[u8], separator: u8, most: usize) -> (Result<Vec<String>, Fault>, usize) {
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
    let begins_row = |line: &[u8]| {
        let field = line.split(|&b| b == separator).next().unwrap_or(line);
        field.len() < line.len() && has_image_extension(image_name(&String::from_utf8_lossy(field)))
    };
    if content.split(|&b| b == b'\n').skip(1).any(begins_row) {
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
