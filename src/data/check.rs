//! What is wrong with a data set, all of it, in plain words and with the place.
//!
//! [`Flickr8k::open`] stops at the first thing it cannot use. This reads the same files by the same rules and
//! goes on.

use super::flickr8k::{self, Flickr8k, LISTS, Split, TABLE};
use super::image;
use super::vocabulary::tokenize;
use crate::error::Error;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A longer caption, in tokens, makes every batch it is in as long. Flickr8k's longest has 38.
const LONG_CAPTION: usize = 60;
/// A shorter side leaves an encoder little to see.
const SHORT_SIDE: usize = 32;
/// Longer to shorter side; beyond, squeezing to a square distorts.
const WIDE: usize = 4;
/// Images decoded between two reports of progress.
const CHUNK: usize = 64;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Training would fail.
    Error,
    /// Training goes on, perhaps with less than was meant.
    Warning,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A file of the data set that must be there is missing.
    MissingFile,
    /// A line does not have the form that it should have.
    MalformedLine,
    /// A file is not UTF-8 text.
    NotUtf8,
    /// A list names an image that has no captions.
    ListedWithoutCaptions,
    /// A list names an image more than once.
    ListedTwice,
    /// Two lists name the same image.
    ListsOverlap,
    /// A list names an image whose file does not exist.
    ListedWithoutFile,
    /// A list names no image that can be used.
    EmptySplit,
    /// An image cannot be decoded.
    UndecodableImage,
    /// Captions name an image whose file does not exist.
    CaptionsWithoutImage,
    /// An image file has no captions.
    ImageWithoutCaptions,
    /// A caption line occurs more than once.
    DuplicateLine,
    /// Images have different numbers of captions.
    NumberOfCaptions,
    /// A caption has no words.
    EmptyCaption,
    /// A caption is so long that it makes its batches slow.
    LongCaption,
    /// An image is very small, or much longer in one direction than in the other.
    OddSize,
}

/// One thing that is wrong with a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Whether training would fail.
    pub severity: Severity,
    /// What is wrong.
    pub problem: Problem,
    /// The file that it was found in.
    pub file: PathBuf,
    /// From 1.
    pub line: Option<usize>,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// What a check found, the worst first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether one could train on it: there are no errors.
    pub usable: bool,
    /// Images with captions.
    pub images: usize,
    /// Captions of these images.
    pub captions: usize,
    /// Images that were decoded, or could not be.
    pub decoded: usize,
    /// The errors, then the warnings.
    pub findings: Vec<Finding>,
}

/// Checks the data set in `directory`; with `decode` all images, too, on all of rayon's threads. `progress` is
/// told how many images of how many are done.
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

/// The lines where an image's captions are, by its name.
type Captioned = BTreeMap<String, Vec<usize>>;

/// Which split an image is in, by its name.
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

    /// Takes over a library error.
    fn add_error(&mut self, severity: Severity, problem: Problem, error: Error) {
        let (path, message) = match error {
            Error::File { path, message } => (path, message),
            Error::Io { path, cause } => (path, cause.to_string()),
            error => (PathBuf::new(), error.to_string()),
        };
        self.add(severity, problem, &path, None, message);
    }

    /// A file's lines that are text, with their numbers.
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
            let message = "no captions in it";
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

    /// Finds images that have not as many captions as most have.
    fn caption_counts(&mut self, path: &Path, captioned: &Captioned) {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for lines in captioned.values() {
            *counts.entry(lines.len()).or_default() += 1;
        }
        let usual = counts.iter().max_by_key(|&(_, images)| images);
        let usual = usual.map_or(0, |(&count, _)| count);
        for (name, lines) in captioned.iter().filter(|(_, lines)| lines.len() != usual) {
            let message = format!(
                "image {name} has {} captions, most images have {usual}",
                lines.len()
            );
            let problem = Problem::NumberOfCaptions;
            self.add(Severity::Warning, problem, path, lines[0], message);
        }
    }

    /// Which image is in which split.
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
            self.add(severity, EmptySplit, path, None, "names no image");
        }
        for &(line, name) in names {
            if !captioned.contains_key(name) {
                let message = format!("image {name} has no captions");
                self.add(Severity::Error, ListedWithoutCaptions, path, line, message);
            }
            match places.get(name) {
                Some((before, first)) if *before == split => {
                    let message = format!("image {name} is in line {first} already");
                    self.add(Severity::Error, ListedTwice, path, line, message);
                }
                Some((before, first)) => {
                    let message =
                        format!("image {name} is in the {before} list, line {first}, too");
                    self.add(Severity::Error, ListsOverlap, path, line, message);
                }
                None => drop(places.insert(name.to_string(), (split, line))),
            }
        }
    }

    /// Compares names with files. Gives the captioned images that are there.
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

/// How bad it is that an image of this split cannot be used: training reads no test images.
fn severity(split: Split) -> Severity {
    match split {
        Split::Train | Split::Dev => Severity::Error,
        Split::Test | Split::TestAndUnlisted => Severity::Warning,
    }
}

/// The splits of a data set without lists; none when it cannot be read, which is an error found elsewhere.
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
