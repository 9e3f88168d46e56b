//! Finds everything that is wrong with a data set, and where.
//!
//! [`Flickr8k::open`] stops at the first error. The check reads the same files by the same rules, and goes on
//! after an error.

use super::flickr8k::{self, Flickr8k, LISTS, Split, TABLE};
use super::image;
use super::vocabulary::tokenize;
use crate::error::Error;
use rayon::prelude::*;
use serde::Serialize;
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
    /// A line is not valid UTF-8.
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
    let captioned = check.captions(directory);
    let lists = check.lists(directory, &captioned);
    let files = check.files(directory, &captioned, &lists);
    let decoded = if decode { files.len() } else { 0 };
    for (done, files) in files.chunks(CHUNK).enumerate().take_while(|_| decode) {
        check.decode(files, &lists);
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

    /// The lines of a file that are valid text, with their numbers. `None` if the file cannot be read.
    fn lines(&mut self, path: &Path) -> Option<Vec<(usize, String)>> {
        use Problem::{MissingFile, NotUtf8};
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = error.to_string();
                self.add(Severity::Error, MissingFile, path, None, message);
                return None;
            }
        };
        let mut lines = Vec::new();
        for (number, line) in flickr8k::split_lines(&bytes) {
            match line {
                Ok(line) => lines.push((number, line.to_string())),
                Err(e) => {
                    let message = format!("is not UTF-8: {e}");
                    self.add(Severity::Error, NotUtf8, path, number, message);
                }
            }
        }
        Some(lines)
    }

    fn captions(&mut self, directory: &Path) -> Captioned {
        use Problem::{DuplicateLine, EmptySplit, MalformedLine, MissingFile};
        let mut captioned = Captioned::new();
        let (path, header, parse) = match flickr8k::captions_file(directory) {
            Ok(found) => found,
            Err(error) => {
                self.add_error(Severity::Error, MissingFile, error);
                return captioned;
            }
        };
        let lines = self.lines(&path).unwrap_or_default();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (number, line) in lines.iter().filter(|(number, _)| *number > header) {
            if line.trim().is_empty() {
                continue;
            }
            match parse(line) {
                Ok((name, caption)) => {
                    self.caption(&path, *number, &caption);
                    captioned.entry(name).or_default().push(*number);
                }
                Err(e) => self.add(Severity::Error, MalformedLine, &path, *number, e),
            }
            if let Some(first) = seen.insert(line, *number) {
                let message = format!("is the same as line {first}");
                self.add(Severity::Warning, DuplicateLine, &path, *number, message);
            }
        }
        if captioned.is_empty() {
            let message = "the file has no captions";
            self.add(Severity::Error, EmptySplit, &path, None, message);
        }
        self.caption_counts(&path, &captioned);
        captioned
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
    fn lists(&mut self, directory: &Path, captioned: &Captioned) -> Listed {
        let mut places: HashMap<String, (Split, usize)> = HashMap::new();
        let paths = LISTS.map(|(split, name)| (split, directory.join(name)));
        if directory.join(TABLE).exists() && paths.iter().all(|(_, path)| !path.exists()) {
            return splits_by_name(directory);
        }
        for (split, path) in paths {
            let Some(lines) = self.lines(&path) else {
                continue;
            };
            let names = lines.iter().map(|(number, line)| (*number, line.trim()));
            let names: Vec<_> = names.filter(|(_, name)| !name.is_empty()).collect();
            self.list(split, &path, &names, captioned, &mut places);
        }
        let splits = places.into_iter().map(|(name, (split, _))| (name, split));
        splits.collect()
    }

    fn list(
        &mut self,
        split: Split,
        path: &Path,
        names: &[(usize, &str)],
        captioned: &Captioned,
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
            if !captioned.contains_key(name) {
                let message = format!("image {name} has no captions");
                self.add(Severity::Error, ListedWithoutCaptions, path, line, message);
            }
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
    fn files(&mut self, directory: &Path, captioned: &Captioned, lists: &Listed) -> Vec<PathBuf> {
        use Problem::{CaptionsWithoutImage, ImageWithoutCaptions, ListedWithoutFile, MissingFile};
        let Some(images) = flickr8k::find_image_directory(directory) else {
            let error = flickr8k::no_image_directory(directory);
            self.add_error(Severity::Error, MissingFile, error);
            return Vec::new();
        };
        let files: HashSet<String> = match flickr8k::file_names(&images) {
            Ok(files) => files,
            Err(error) => {
                self.add_error(Severity::Error, MissingFile, error);
                return Vec::new();
            }
        };
        for (name, lines) in captioned.iter().filter(|(name, _)| !files.contains(*name)) {
            let path = images.join(name);
            match lists.get(name) {
                Some(&split) => {
                    let message = format!("is in the {split} list but does not exist");
                    self.add(severity(split), ListedWithoutFile, &path, None, message);
                }
                None => {
                    let message =
                        format!("does not exist: its {} captions are left out", lines.len());
                    self.add(
                        Severity::Warning,
                        CaptionsWithoutImage,
                        &path,
                        None,
                        message,
                    );
                }
            }
        }
        let mut unused: Vec<&String> = files
            .iter()
            .filter(|name| flickr8k::has_image_extension(name) && !captioned.contains_key(*name))
            .collect();
        unused.sort();
        for name in unused {
            let path = images.join(name);
            let message = "has no captions: it is left out";
            self.add(
                Severity::Warning,
                ImageWithoutCaptions,
                &path,
                None,
                message,
            );
        }
        let present = captioned.keys().filter(|name| files.contains(*name));
        present.map(|name| images.join(name)).collect()
    }

    fn decode(&mut self, files: &[PathBuf], lists: &Listed) {
        let sizes = files.par_iter().map(|path| {
            let image = image::decode(path)?;
            Ok((image.width, image.height))
        });
        let sizes: Vec<Result<_, Error>> = sizes.collect();
        for (path, size) in files.iter().zip(sizes) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match size {
                Ok((width, height)) => {
                    let (short, long) = (width.min(height), width.max(height));
                    if short < SHORT_SIDE || long > WIDE * short {
                        let message = format!("has {width} x {height} pixels");
                        self.add(Severity::Warning, Problem::OddSize, path, None, message);
                    }
                }
                Err(error) => {
                    let split = lists.get(&*name);
                    let severity = split.map_or(Severity::Warning, |&split| severity(split));
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
    let splits = LISTS.iter().flat_map(|&(split, _)| {
        let images = dataset.split(split).iter();
        images.map(move |&image| (image, split))
    });
    let name = |image: usize| dataset.images()[image].name.clone();
    splits.map(|(image, split)| (name(image), split)).collect()
}
