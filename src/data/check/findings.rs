//! What a check finds.

use serde::Serialize;
use std::path::PathBuf;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Training would fail.
    Error,
    /// Training works, perhaps with less data than intended.
    Warning,
}

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A file or directory of the data set is missing or cannot be read.
    MissingFile,
    /// A line of the captions file does not have the expected form.
    MalformedLine,
    /// A file, or a line of it, is not valid UTF-8.
    NotUtf8,
    /// A list names an image that has no captions.
    ListedWithoutCaptions,
    /// A list names an image more than once.
    ListedTwice,
    /// Two lists name the same image.
    ListsOverlap,
    /// A list names an image that has no file.
    ListedWithoutFile,
    /// A list names no image, or the captions file has no captions.
    EmptySplit,
    /// An image cannot be decoded.
    UndecodableImage,
    /// Captions name an image that does not exist and is in no list.
    CaptionsWithoutImage,
    /// An image has no captions.
    ImageWithoutCaptions,
    /// A line of the captions file occurs twice.
    DuplicateLine,
    /// An image has another number of captions than most images.
    NumberOfCaptions,
    /// A caption has no words.
    EmptyCaption,
    /// A caption is unusually long.
    LongCaption,
    /// Several columns of a table hold captions.
    CaptionColumns,
    /// Most captions are of a script without spaces between words.
    NoSpaces,
    /// An image is very small or very far from square.
    OddSize,
}

/// Something that is wrong with a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub severity: Severity,
    /// What kind of problem it is.
    pub problem: Problem,
    /// The file or directory it concerns.
    #[serde(serialize_with = "crate::files::serialize_lossy")]
    pub file: PathBuf,
    /// The line in the file, counted from 1, if it concerns one line.
    pub line: Option<usize>,
    /// What is wrong, for people.
    pub message: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether training would work: there are no errors.
    pub usable: bool,
    /// Number of images with captions.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of images that the check tried to decode.
    pub decoded: usize,
    /// Everything that was found, errors first.
    pub findings: Vec<Finding>,
}
