//! Finds everything that is wrong with a data set, and where.
//!
//! [`Flickr8k::open`] stops at the first error. The check reads the same files by the same rules, and goes on after an
//! error, unless all that follows would only be its consequence. In the end it opens the data set as training does, so that
//! nothing that training refuses is called usable.

use super::flickr8k::{self, Flickr8k, Split};
use super::image;
use super::layout::Layout;
use super::photos::{Names, has_image_extension};
use super::table::{self, Fault, Row, plain_text};
use super::vocabulary::tokenize;
use crate::error::Error;
use rayon::prelude::*;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Captions with more tokens are reported, because one long caption lengthens its whole batch. The longest
/// caption of Flickr8k has 38.
const LONG_CAPTION: usize = 60;
/// Images with a shorter side, in pixels, are reported: an encoder sees little in them.
const SHORT_SIDE: usize = 32;
/// Images with a larger ratio of longer to shorter side are reported: resizing them to a square distorts them.
const WIDE: usize = 4;
/// Number of images decoded between two reports of progress.
const CHUNK: usize = 64;

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

/// Checks the data set in `directory`. With `decode`, all images are decoded, too, on all threads of rayon.
/// `progress` is called with the number of images that are done and the number of all images.
pub fn check(directory: &Path, decode: bool, mut progress: impl FnMut(usize, usize)) -> Report {
    let mut check = Check::default();
    let (mut captioned, mut files) = (Captioned::new(), Vec::new());
    match Layout::find(directory) {
        Err(error) => check.add_error(Severity::Error, Problem::MissingFile, error),
        Ok(layout) => {
            captioned = check.captions(&layout);
            if !captioned.is_empty() {
                let lists = check.lists(&layout, &captioned);
                files = check.files(&layout, &captioned, &lists);
            }
        }
    }
    check.open(directory);
    let decoded = if decode { files.len() } else { 0 };
    for (done, files) in files.chunks(CHUNK).enumerate().take_while(|_| decode) {
        check.decode(files);
        progress((done * CHUNK + files.len()).min(decoded), decoded);
    }
    let mut findings = check.0;
    findings.sort_by_key(|finding| (finding.severity, finding.problem));
    Report {
        usable: findings.iter().all(|f| f.severity != Severity::Error),
        images: captioned.len(),
        captions: captioned.values().map(|places| places.len()).sum(),
        decoded,
        findings,
    }
}

/// The lines of an image's captions, by the name of the image.
type Captioned = BTreeMap<String, Vec<usize>>;

/// The file of an image that has captions, and its split.
type Photo = (PathBuf, Option<Split>);

/// The split of an image, by the name of the image.
type Listed = HashMap<String, Split>;

#[derive(Default)]
struct Check(Vec<Finding>);

impl Check {
    fn add(
        &mut self,
        severity: Severity,
        problem: Problem,
        file: &Path,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity,
            problem,
            file: file.to_path_buf(),
            line: line.into(),
            message: message.into(),
        });
    }

    /// Adds an error of the library as a finding.
    fn add_error(&mut self, severity: Severity, problem: Problem, error: Error) {
        let (path, message) = match error {
            Error::File { path, message } => (path, message),
            Error::Io { path, cause } => (path, cause.to_string()),
            error => (PathBuf::new(), error.to_string()),
        };
        self.add(severity, problem, &path, None, message);
    }

    /// The content of a file. `None` if it cannot be read.
    fn bytes(&mut self, path: &Path) -> Option<Vec<u8>> {
        let bytes = std::fs::read(path);
        let report = |error: &std::io::Error| {
            let (problem, message) = (Problem::MissingFile, error.to_string());
            self.add(Severity::Error, problem, path, None, message);
        };
        bytes.inspect_err(report).ok()
    }

    /// The lines of a file that are valid text, with their numbers. `None` if the file cannot be read.
    fn lines(&mut self, path: &Path) -> Option<Vec<(usize, String)>> {
        let bytes = self.bytes(path)?;
        let text = self.plain_text(path, &bytes)?;
        let mut lines = Vec::new();
        for (number, line) in table::lines(&text) {
            match line {
                Ok(line) => lines.push((number, line.to_string())),
                Err(e) => {
                    let message = format!("is not UTF-8: {e}");
                    self.add(Severity::Error, Problem::NotUtf8, path, number, message);
                }
            }
        }
        Some(lines)
    }

    fn plain_text<'a>(&mut self, path: &Path, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let report = |message: &&str| {
            self.add(Severity::Error, Problem::NotUtf8, path, None, *message);
        };
        plain_text(bytes).inspect_err(report).ok()
    }

    fn captions(&mut self, layout: &Layout) -> Captioned {
        let path = &layout.captions;
        let bytes = self.bytes(path).unwrap_or_default();
        let Some(text) = self.plain_text(path, &bytes) else {
            return Captioned::new();
        };
        let rows = (layout.read_rows)(&text);
        self.duplicates(path, &rows);
        let texts = rows.iter().filter_map(|row| row.content.as_ref().ok());
        if let Some(message) = flickr8k::unspaced(texts.map(|(_, caption)| &**caption)) {
            self.add(Severity::Warning, Problem::NoSpaces, path, None, message);
        }
        let (mut captioned, faults) = (Captioned::new(), self.0.len());
        for Row { line, content, .. } in rows {
            match content {
                Ok((name, caption)) => {
                    self.caption(path, line, &caption);
                    captioned.entry(name).or_default().push(line);
                }
                Err(fault) => {
                    let problem = match fault {
                        Fault::Malformed(_) | Fault::Header(_) => Problem::MalformedLine,
                        Fault::NotUtf8(_) => Problem::NotUtf8,
                    };
                    self.add(Severity::Error, problem, path, line, fault.to_string());
                }
            }
        }
        if captioned.is_empty() && self.0.len() == faults {
            let message = "the file has no captions";
            self.add(Severity::Error, Problem::EmptySplit, path, None, message);
        }
        self.caption_counts(path, &captioned);
        captioned
    }

    fn duplicates(&mut self, path: &Path, rows: &[Row]) {
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        for &Row { line, source, .. } in rows {
            if let Some(first) = seen.insert(source, line) {
                let (problem, message) = (
                    Problem::DuplicateLine,
                    format!("is the same as line {first}"),
                );
                self.add(Severity::Warning, problem, path, line, message);
            }
        }
    }

    fn caption(&mut self, path: &Path, number: usize, caption: &str) {
        use Problem::{EmptyCaption, LongCaption};
        let tokens = tokenize(caption).len();
        if tokens == 0 {
            let message = "the caption is empty";
            self.add(Severity::Warning, EmptyCaption, path, number, message);
        } else if tokens > LONG_CAPTION {
            let message = format!("the caption has {tokens} words and punctuation marks");
            self.add(Severity::Warning, LongCaption, path, number, message);
        }
    }

    /// Finds images that have another number of captions than most images.
    fn caption_counts(&mut self, path: &Path, captioned: &Captioned) {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for lines in captioned.values() {
            *counts.entry(lines.len()).or_default() += 1;
        }
        let usual = counts.iter().max_by_key(|&(_, images)| images);
        let usual = usual.map_or(0, |(&count, _)| count);
        for (name, lines) in captioned.iter().filter(|(_, lines)| lines.len() != usual) {
            let message = format!(
                "image {name} has {} captions, but most images have {usual}",
                lines.len()
            );
            let problem = Problem::NumberOfCaptions;
            self.add(Severity::Warning, problem, path, lines[0], message);
        }
    }

    /// Checks the lists, and returns the split of each image.
    fn lists(&mut self, layout: &Layout, captioned: &Captioned) -> Listed {
        let mut places: HashMap<String, (Split, usize)> = HashMap::new();
        let Some(lists) = &layout.lists else {
            return splits_by_name(&layout.directory);
        };
        let known = Names::new(captioned.keys().cloned().collect());
        for (split, path) in lists {
            let Some(lines) = self.lines(path) else {
                continue;
            };
            let names = lines.iter().map(|(number, line)| (*number, line.trim()));
            let names: Vec<_> = names.filter(|(_, name)| !name.is_empty()).collect();
            self.list(*split, path, &names, &known, &mut places);
        }
        let splits = places.into_iter().map(|(name, (split, _))| (name, split));
        splits.collect()
    }

    fn list(
        &mut self,
        split: Split,
        path: &Path,
        names: &[(usize, &str)],
        known: &Names,
        places: &mut HashMap<String, (Split, usize)>,
    ) {
        use Problem::{EmptySplit, ListedTwice, ListedWithoutCaptions, ListsOverlap};
        if names.is_empty() {
            let severity = match split {
                Split::Train => Severity::Error,
                _ => Severity::Warning,
            };
            self.add(severity, EmptySplit, path, None, "the list names no image");
        }
        for &(line, name) in names {
            let found = known.find(name);
            if found.is_none() {
                let message = format!("image {name} has no captions{}", known.hint(name));
                self.add(Severity::Error, ListedWithoutCaptions, path, line, message);
            }
            let name = found.unwrap_or(name);
            match places.get(name) {
                Some((before, first)) if *before == split => {
                    let message = format!("image {name} is already in line {first}");
                    self.add(Severity::Error, ListedTwice, path, line, message);
                }
                Some((before, first)) => {
                    let message =
                        format!("image {name} is also in the {before} list, line {first}");
                    self.add(Severity::Error, ListsOverlap, path, line, message);
                }
                None => drop(places.insert(name.to_string(), (split, line))),
            }
        }
    }

    /// Compares the names with the files. Returns the paths of the images that have captions and exist.
    fn files(&mut self, layout: &Layout, captioned: &Captioned, lists: &Listed) -> Vec<Photo> {
        let found = layout.require_images();
        let found = found.and_then(|images| Ok((images, Names::of_files(images)?)));
        let (images, files) = match found {
            Ok(found) => found,
            Err(error) => {
                self.add_error(Severity::Error, Problem::MissingFile, error);
                return Vec::new();
            }
        };
        let pairs = files.pair(captioned.keys().map(String::as_str));
        for (name, lines) in captioned
            .iter()
            .filter(|(name, _)| !pairs.contains_key(&***name))
        {
            let (path, hint) = (images.join(name), files.hint(name));
            let (severity, problem, message) = match lists.get(name) {
                Some(&split) => (
                    severity(split),
                    Problem::ListedWithoutFile,
                    format!("is in the {split} list but does not exist{hint}"),
                ),
                None => (
                    Severity::Warning,
                    Problem::CaptionsWithoutImage,
                    format!(
                        "does not exist: its {} captions are left out{hint}",
                        lines.len()
                    ),
                ),
            };
            self.add(severity, problem, &path, None, message);
        }
        let used: HashSet<&str> = pairs.values().copied().collect();
        let unused = files.iter().filter(|file| !used.contains(file));
        for name in unused.filter(|file| has_image_extension(file)) {
            let (problem, message) = (
                Problem::ImageWithoutCaptions,
                "has no captions: it is left out",
            );
            self.add(
                Severity::Warning,
                problem,
                &images.join(name),
                None,
                message,
            );
        }
        let photo = |(name, file): (&str, &str)| (images.join(file), lists.get(name).copied());
        let mut photos: Vec<Photo> = pairs.into_iter().map(photo).collect();
        photos.sort_by(|(a, _), (b, _)| a.cmp(b));
        photos
    }

    /// Opens the data set as training does. What it refuses is an error, unless an error was found before.
    fn open(&mut self, directory: &Path) {
        let opened = Flickr8k::open(directory).and_then(|dataset| {
            dataset.require_images(Split::Train)?;
            if dataset.split(Split::Train).is_empty() {
                let message = "there are too few images: none is left for training";
                return Err(Error::file(directory, message));
            }
            Ok(())
        });
        match opened {
            Err(error) if self.0.iter().all(|found| found.severity != Severity::Error) => {
                self.add_error(Severity::Error, Problem::EmptySplit, error);
            }
            _ => {}
        }
    }

    fn decode(&mut self, files: &[Photo]) {
        let sizes = files.par_iter().map(|(path, _)| {
            let image = image::decode(path)?;
            Ok((image.width, image.height))
        });
        let sizes: Vec<Result<_, Error>> = sizes.collect();
        for ((path, split), size) in files.iter().zip(sizes) {
            match size {
                Ok((width, height)) => {
                    let (short, long) = (width.min(height), width.max(height));
                    if short < SHORT_SIDE || long > WIDE * short {
                        let message = format!("has {width} x {height} pixels");
                        self.add(Severity::Warning, Problem::OddSize, path, None, message);
                    }
                }
                Err(error) => {
                    let severity = split.map_or(Severity::Warning, severity);
                    self.add_error(severity, Problem::UndecodableImage, error);
                }
            }
        }
    }
}

/// How serious it is that an image of this split cannot be used. Training reads no test images.
fn severity(split: Split) -> Severity {
    match split {
        Split::Train | Split::Dev => Severity::Error,
        Split::Test | Split::TestAndUnlisted => Severity::Warning,
    }
}

/// The splits of a data set without lists. Empty if the data set cannot be read, which another part of the
/// check reports.
fn splits_by_name(directory: &Path) -> Listed {
    let Ok(dataset) = Flickr8k::open(directory) else {
        return Listed::new();
    };
    let splits = [Split::Train, Split::Dev, Split::Test]
        .into_iter()
        .flat_map(|split| {
            let images = dataset.split(split).iter();
            images.map(move |&image| (image, split))
        });
    let name = |image: usize| dataset.images()[image].name.clone();
    splits.map(|(image, split)| (name(image), split)).collect()
}
