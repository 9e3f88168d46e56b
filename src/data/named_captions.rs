//! Captions by image from one file, in the forms in which programs leave them: JSON, or a table as data sets have it.
//!
//! | | |
//! |---|---|
//! | COCO's annotations | `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}` |
//! | Karpathy's splits | `{"images": [{"filename", "cocoid" or "imgid", "sentences": [{"raw"}]}]}` |
//! | COCO's results, `showtell eval --json` | `[{"image_id" or "file" …, "caption" or "captions"}]` |
//! | by name | `{"name": "caption" or ["caption", …] or [{"caption"}, …]}` |
//!
//! A number and its digits are the same name.

use super::table;
use crate::error::{Error, Result};
use crate::files;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// What an element of a list calls its image, the most common first.
const IMAGE_KEYS: [&str; 7] = [
    "image_id",
    "file",
    "file_name",
    "filename",
    "image",
    "name",
    "id",
];

/// What it calls its captions.
const CAPTION_KEYS: [&str; 4] = ["caption", "captions", "references", "sentences"];

/// An image's captions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedCaptions {
    /// What the image is called; a file with ids may give a file's name, too.
    pub names: Vec<String>,
    /// All captions of it, in the order of the file.
    pub captions: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, or has none of these forms: what was found, and where.
pub fn read(path: &Path) -> Result<Vec<NamedCaptions>> {
    let bytes = files::map(path)?;
    let text = table::plain_text(&bytes).map_err(|message| Error::file(path, message))?;
    let mut found = Found::default();
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let added = match first {
        Some(b'{' | b'[') => serde_json::from_slice(&text)
            .map_err(|error| format!("begins as JSON and is none: {error}"))
            .and_then(|value| found.add(&value)),
        _ => found.add_table(&text),
    };
    added.map_err(|message| Error::file(path, message))?;
    Ok(found.images)
}

#[derive(Default)]
struct Found {
    images: Vec<NamedCaptions>,
    by_name: HashMap<String, usize>,
}

impl Found {
    fn add(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Object(object) => match (object.get("annotations"), object.get("images")) {
                (Some(Value::Array(annotations)), images) => {
                    self.add_list(annotations, "annotations")?;
                    self.add_file_names(images);
                    Ok(())
                }
                (_, Some(Value::Array(images))) => self.add_list(images, "images"),
                _ => self.add_by_name(object),
            },
            Value::Array(list) => self.add_list(list, "the list"),
            other => Err(format!(
                "should be a list or an object of captions, is {}",
                kind(other)
            )),
        }
    }

    fn add_table(&mut self, text: &[u8]) -> Result<(), String> {
        for row in table::table(text).rows {
            let line = row.line;
            let (name, captions) =
                (row.content).map_err(|fault| format!("line {line}: {fault}"))?;
            self.push(vec![name], captions);
        }
        Ok(())
    }

    fn add_by_name(&mut self, object: &Map<String, Value>) -> Result<(), String> {
        for (name, captions) in object {
            let captions = texts(captions).ok_or_else(|| {
                format!(
                    "{name:?} should have a caption or a list of them, has {}",
                    kind(captions)
                )
            })?;
            self.push(vec![name.clone()], captions);
        }
        Ok(())
    }

    fn add_list(&mut self, list: &[Value], place: &str) -> Result<(), String> {
        for (i, element) in list.iter().enumerate() {
            let at = || format!("element {i} of {place}");
            let Value::Object(object) = element else {
                return Err(format!(
                    "{} should be an object, is {}",
                    at(),
                    kind(element)
                ));
            };
            let names = names(object);
            if names.is_empty() {
                return Err(format!(
                    "{} names no image: it should have one of {}",
                    at(),
                    IMAGE_KEYS.join(", ")
                ));
            }
            let given = CAPTION_KEYS.iter().find_map(|key| object.get(*key));
            let captions = given.and_then(texts).ok_or_else(|| {
                format!(
                    "{} has no caption: it should have one of {}",
                    at(),
                    CAPTION_KEYS.join(", ")
                )
            })?;
            self.push(names, captions);
        }
        Ok(())
    }

    /// The names of the files of images that annotations have by their id.
    fn add_file_names(&mut self, images: Option<&Value>) {
        for image in images.and_then(Value::as_array).into_iter().flatten() {
            let of = |key: &str| image.get(key).and_then(name);
            let (Some(id), Some(file)) = (of("id"), of("file_name")) else {
                continue;
            };
            if let Some(&at) = self.by_name.get(&id) {
                self.images[at].names.push(file);
            }
        }
    }

    fn push(&mut self, names: Vec<String>, captions: Vec<String>) {
        let at = *self.by_name.entry(names[0].clone()).or_insert_with(|| {
            self.images.push(NamedCaptions {
                names,
                captions: Vec::new(),
            });
            self.images.len() - 1
        });
        self.images[at].captions.extend(captions);
    }
}

/// All that an element calls its image. COCO's annotations have an id of their own, which is none.
fn names(object: &Map<String, Value>) -> Vec<String> {
    // Karpathy's ids of COCO's images are COCO's; `imgid` counts the images of the file, and may be another one's `cocoid`.
    let id = ["cocoid", "imgid"]
        .into_iter()
        .find(|key| object.contains_key(*key));
    let keys = IMAGE_KEYS.iter().copied().chain(id);
    let mut names: Vec<String> = keys
        .filter(|key| *key != "id" || !object.contains_key("image_id"))
        .filter_map(|key| object.get(key).and_then(name))
        .collect();
    names.dedup();
    names
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A caption, several, or objects with one each.
fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => {
            let text = object.get("raw").or_else(|| object.get("caption"))?;
            text.as_str().map(str::to_string)
        }
        _ => None,
    };
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        one => Some(vec![text(one)?]),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
