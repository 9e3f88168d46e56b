//! The texts of a data set as people have them: bytes to lines, and a table of captions to rows.
//!
//! The fields of a table are separated by a comma, a tab, `;` or `|`: by the one with which most rows can be read. A field in
//! double quotes may contain separators, line ends and doubled double quotes (RFC 4180), and spaces may stand around it. The
//! first row is a header if it names the columns; otherwise it is a caption like all others.

mod columns;
mod fields;
mod separator;

use super::image::foreign;
use columns::Columns;
use fields::record;
use std::borrow::Cow;
use std::str::Utf8Error;

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
    /// The name of the image, and its captions in this row: one, or one for each column of captions.
    pub content: Result<(String, Vec<String>), Fault>,
}

/// A captions file.
pub(super) struct Table<'a> {
    pub rows: Vec<Row<'a>>,
    /// What is to be said about the file as a whole, if anything.
    pub note: Option<String>,
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
pub(super) fn tokens(text: &[u8]) -> Table<'_> {
    let content = |source| {
        let text = std::str::from_utf8(source).map_err(Fault::NotUtf8)?;
        let parts = text.split_once('\t');
        let named = parts.and_then(|(key, caption)| Some((without_number(key)?, caption)));
        match named {
            Some((name, caption)) => Ok((name.to_string(), vec![caption.to_string()])),
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
    Table {
        rows: full.map(row).collect(),
        note: None,
    }
}

/// `x.jpg` of `x.jpg#3`.
fn without_number(key: &str) -> Option<&str> {
    let (name, number) = key.rsplit_once('#')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (numbered && !name.is_empty()).then_some(name)
}

/// The rows of a table, without its header and without empty lines. `text` is [`plain_text`].
pub(super) fn table(text: &[u8]) -> Table<'_> {
    let (separator, start) = match separator::announced(text) {
        Some(announced) => announced,
        None => (separator::guess(text), 0),
    };
    let (mut rows, columns) = read(text, start, separator, usize::MAX);
    if columns.as_ref().is_some_and(|c| c.most() != usize::MAX) {
        refuse_more_columns(&mut rows, separator);
    }
    Table {
        rows,
        note: columns.and_then(|columns| columns.note()),
    }
}

/// Fewer rows than this may all have a separator in their captions.
const FEWEST_ROWS: usize = 3;

/// Captions that go to the end of the line may have separators in them, but not all of them: then there is another column
/// behind them, and nobody knows which one. The first row gets the fault of all.
fn refuse_more_columns(rows: &mut Vec<Row>, separator: u8) {
    let fields = |row: &Row| {
        record(row.source, separator, usize::MAX)
            .0
            .map_or(0, |all| all.len())
    };
    let least = rows.iter().map(fields).min().unwrap_or(0);
    if rows.len() < FEWEST_ROWS || least < 4 {
        return;
    }
    let message = format!(
        "every row has {least} fields or more, expected the image, the number of the caption and the caption: give the table a \
         header that names all columns, with one called image and one caption"
    );
    rows.truncate(1);
    rows[0].content = Err(Fault::Header(message));
}

/// The first rows, at most `most`, behind the byte `start`, and the columns that the first of them announces.
fn read(text: &[u8], start: usize, separator: u8, most: usize) -> (Vec<Row<'_>>, Option<Columns>) {
    let line_ends = |text: &[u8]| text.iter().filter(|&&b| b == b'\n').count();
    let mut rows = Vec::new();
    let mut columns: Option<Columns> = None;
    let (mut rest, mut line) = (&text[start..], 1 + line_ends(&text[..start]));
    while !rest.is_empty() && rows.len() < most {
        let fields = columns.as_ref().map_or(usize::MAX, Columns::most);
        let (fields, length) = record(rest, separator, fields);
        let (source, after) = rest.split_at(length);
        let here = line;
        line += line_ends(source);
        rest = after;
        if source.trim_ascii().is_empty() {
            continue;
        }
        let content = fields.and_then(|fields| match &columns {
            Some(columns) => columns.pick(&fields).map(Some),
            None => {
                let found = columns.insert(Columns::find(&fields)?);
                let again = || found.pick(&record(source, separator, found.most()).0?);
                found.names.is_none().then(again).transpose()
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
    (rows, columns)
}

/// The name of the image in a field: without spaces around it, and without the number of its caption.
fn image_name(field: &str) -> &str {
    let name = field.trim();
    without_number(name).unwrap_or(name)
}
