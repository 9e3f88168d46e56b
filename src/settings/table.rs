//! Tables of settings as TOML text.

use crate::error::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Reads a file of settings and checks every key and value of it by itself.
///
/// # Errors
/// When the file cannot be read or is not TOML; then the message has the line. When `check` refuses a key or its value;
/// then the message has the key.
pub fn read_file(path: &Path, check: impl Fn(&str, &Value) -> Result<()>) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let table: Table = toml::from_str(&text).map_err(|e: toml::de::Error| {
        let before = e.span().map_or("", |span| &text[..span.start]);
        let line = 1 + before.matches('\n').count();
        Error::file(path, format!("line {line}: {}", e.message()))
    })?;
    for (key, value) in &table {
        check(key, value).map_err(|e| Error::file(path, e.to_string()))?;
    }
    Ok(table)
}

/// The error for a key that is not one of `keys`. It names the most similar one.
pub fn unknown<'a>(key: &str, keys: impl IntoIterator<Item = &'a str>) -> Error {
    let message = match nearest(key, keys) {
        Some(nearest) => format!("there is no such setting; the nearest is {nearest}"),
        None => "there is no such setting".into(),
    };
    Error::setting(key, message)
}

/// The key that the fewest insertions, deletions and replacements of letters make of `key`.
fn nearest<'a>(key: &str, keys: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    keys.into_iter()
        .min_by_key(|other| strsim::levenshtein(key, other))
}
