//! The columns of a table: which ones hold images and captions, and what a row has in them.

use super::{Fault, image_name, malformed};
use crate::data::photos::has_image_extension;

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
/// What a column with captions is called. Several may share a name, or have numbers behind it: `caption`, `caption.1`.
const CAPTION_COLUMNS: [&str; 7] = [
    "caption",
    "caption_text",
    "captions",
    "comment",
    "description",
    "sentence",
    "text",
];

/// The places of the columns that are read.
pub(super) struct Columns {
    image: usize,
    captions: Vec<usize>,
    /// The number of all columns.
    count: usize,
    /// The names of the columns of captions, if the first row is a header.
    pub names: Option<Vec<String>>,
}

impl Columns {
    /// One column of each kind, which no header names.
    fn unnamed(image: usize, caption: usize, count: usize) -> Self {
        Columns {
            image,
            captions: vec![caption],
            count,
            names: None,
        }
    }

    /// The columns that the first row announces.
    pub fn find(fields: &[String]) -> Result<Self, Fault> {
        let count = fields.len();
        let number = |i: usize| fields[i].trim().parse::<u64>().is_ok();
        let is_image = |f: &String| has_image_extension(image_name(f));
        match (count, fields.iter().position(is_image)) {
            (2, Some(0)) => return Ok(Columns::unnamed(0, 1, 2)),
            (3.., Some(0)) if number(1) => return Ok(Columns::unnamed(0, 2, 3)),
            (3, Some(1)) if number(0) => return Ok(Columns::unnamed(1, 2, 3)),
            (3.., Some(_)) => return malformed(TOO_MANY),
            _ => {}
        }
        let (image, captions) = match (image_column(fields), caption_columns(fields)) {
            (Some(image), captions) if !captions.is_empty() => (image, captions),
            (Some(image), _) if count == 2 => (image, vec![1 - image]),
            (None, captions) if count == 2 && captions.len() == 1 => (1 - captions[0], captions),
            // Not a header: names of images may have no extension.
            _ if count == 2 => return Ok(Columns::unnamed(0, 1, 2)),
            _ if count == 1 => return malformed(TOO_FEW),
            _ => {
                let found = fields.join(", ");
                return Err(Fault::Header(format!(
                    "found the {count} columns {found}; expected a header in which one is called image and one caption"
                )));
            }
        };
        let name = |&place: &usize| fields[place].trim().to_string();
        Ok(Columns {
            image,
            names: Some(captions.iter().map(name).collect()),
            captions,
            count,
        })
    }

    /// The most fields of a row. A caption behind its number ends with the line, so that a separator may be a part of it.
    pub fn most(&self) -> usize {
        match (self.image, &*self.captions, self.count) {
            (0, [2], 3) => 3,
            _ => usize::MAX,
        }
    }

    /// What is to be said about the columns: that there are several with captions.
    pub fn note(&self) -> Option<String> {
        let names = self.names.as_ref().filter(|names| names.len() > 1)?;
        Some(format!(
            "the {} columns {} hold captions: all are read",
            names.len(),
            names.join(", ")
        ))
    }

    /// The image and the captions of a row. Where there are several columns of captions, empty fields are none.
    pub fn pick(&self, fields: &[String]) -> Result<(String, Vec<String>), Fault> {
        let mut captions: Vec<&str> = match (fields.len(), self.count) {
            (found, count) if found == count => {
                self.captions.iter().map(|&place| &*fields[place]).collect()
            }
            // The published results.csv of Flickr30k lacks a separator in one row.
            (2, 3) if (self.image, &*self.captions) == (0, &[2]) => vec![after_number(&fields[1])?],
            (1, 2) => return malformed(TOO_FEW),
            (_, 2) => return malformed(TOO_MANY),
            (found, count) => return malformed(format!("expected {count} fields, found {found}")),
        };
        if captions.iter().any(|caption| !caption.trim().is_empty()) && captions.len() > 1 {
            captions.retain(|caption| !caption.trim().is_empty());
        } else {
            captions.truncate(1);
        }
        match image_name(&fields[self.image]) {
            "" => malformed("the image has no name"),
            image => Ok((
                image.to_string(),
                captions.into_iter().map(String::from).collect(),
            )),
        }
    }
}

const TOO_FEW: &str = "expected two fields, image and caption, found one";
const TOO_MANY: &str = "expected two fields, image and caption, found more: a caption with a separator in it must be in double quotes";

/// The place of the column of images, if a field names one.
fn image_column(fields: &[String]) -> Option<usize> {
    let place = |name: &&str| fields.iter().position(|f| column_name(f) == **name);
    IMAGE_COLUMNS.iter().find_map(place)
}

/// The places of the columns of captions: all that share the first name that there is.
fn caption_columns(fields: &[String]) -> Vec<usize> {
    let names: Vec<String> = fields.iter().map(|f| column_name(f)).collect();
    let names: Vec<&str> = names.iter().map(|name| without_suffix(name)).collect();
    let first = CAPTION_COLUMNS.iter().find(|name| names.contains(*name));
    let place = |(place, name): (usize, &&str)| (Some(name) == first).then_some(place);
    names.iter().enumerate().filter_map(place).collect()
}

fn column_name(field: &str) -> String {
    let sign = |c: char| if c.is_alphanumeric() { c } else { '_' };
    field.trim().to_lowercase().chars().map(sign).collect()
}

/// `caption` of `caption_1` and `caption1`.
fn without_suffix(name: &str) -> &str {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.trim_end_matches('_')
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
