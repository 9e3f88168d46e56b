//! Finds everything that is wrong with a data set, and where.
//!
//! [`Flickr8k::open`] stops at the first error. The check reads the same files by the same rules, and goes on after an
//! error, unless all that follows would only be its consequence. In the end it opens the data set as training does, so that
//! nothing that training refuses is called usable.

mod captions;
mod findings;

pub use findings::{Finding, Problem, Report, Severity};

use super::flickr8k::{self, Flickr8k, Split};
use super::image;
use super::layout::Layout;
use super::photos::{Names, has_image_extension};
use super::table::{self, Fault, plain_text};
use crate::error::Error;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Images with a shorter side, in pixels, are reported: an encoder sees little in them.
const SHORT_SIDE: usize = 32;
/// Images with a larger ratio of longer to shorter side are reported: resizing them to a square distorts them.
const WIDE: usize = 4;
/// The most names for which similar ones are looked for: each is compared with all names.
const MOST_HINTS: usize = 20;
/// Number of images decoded between two reports of progress.
const CHUNK: usize = 64;

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
                let lists = check.lists(directory, &layout, &captioned);
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
    let mut findings = check.findings;
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
struct Check {
    findings: Vec<Finding>,
    /// The names that similar ones were looked for.
    hints: usize,
}

impl Check {
    fn add(
        &mut self,
        severity: Severity,
        problem: Problem,
        file: &Path,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            problem,
            file: file.to_path_buf(),
            line: line.into(),
            message: message.into(),
        });
    }

    /// Adds the first of some faults of lines, with the number of the others.
    fn add_as_one<M: ToString>(&mut self, problem: Problem, file: &Path, faults: &[(usize, M)]) {
        let Some((line, message)) = faults.first() else {
            return;
        };
        let message = match faults.len() - 1 {
            0 => message.to_string(),
            1 => format!("{}; 1 more line is like it", message.to_string()),
            more => format!("{}; {more} more lines are like it", message.to_string()),
        };
        self.add(Severity::Error, problem, file, *line, message);
    }

    /// [`Names::hint`], for the first names of a check.
    fn hint(&mut self, names: &Names, name: &str) -> String {
        self.hints += 1;
        if self.hints > MOST_HINTS {
            return String::new();
        }
        names.hint(name)
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
        let (mut lines, mut faults) = (Vec::new(), Vec::new());
        for (number, line) in table::lines(&text) {
            match line {
                Ok(line) => lines.push((number, line.to_string())),
                Err(e) => faults.push((number, Fault::NotUtf8(e))),
            }
        }
        self.add_as_one(Problem::NotUtf8, path, &faults);
        Some(lines)
    }

    fn plain_text<'a>(&mut self, path: &Path, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let text = plain_text(bytes);
        let report = |message| self.add(Severity::Error, Problem::NotUtf8, path, None, message);
        text.map_err(report).ok()
    }

    /// Checks the lists, and returns the split of each image.
    fn lists(&mut self, directory: &Path, layout: &Layout, captioned: &Captioned) -> Listed {
        let mut places: HashMap<String, (Split, usize)> = HashMap::new();
        let Some(lists) = &layout.lists else {
            return splits_by_name(directory);
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
        use Problem::{EmptySplit, ListedTwice, ListsOverlap};
        if names.is_empty() {
            let severity = match split {
                Split::Train => Severity::Error,
                _ => Severity::Warning,
            };
            self.add(severity, EmptySplit, path, None, "the list names no image");
        }
        self.without_captions(path, names, known);
        for &(line, name) in names {
            let found = known.find(name);
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

    /// Reports the names of a list that are not among `known`; if none is, that is one finding.
    fn without_captions(&mut self, path: &Path, names: &[(usize, &str)], known: &Names) {
        let unknown = names.iter().filter(|(_, name)| known.find(name).is_none());
        let unknown = unknown.map(|&(line, name)| {
            let hint = self.hint(known, name);
            (line, format!("image {name} has no captions{hint}"))
        });
        let (problem, unknown) = (Problem::ListedWithoutCaptions, unknown.collect::<Vec<_>>());
        if unknown.len() == names.len() {
            return self.add_as_one(problem, path, &unknown);
        }
        for (line, message) in unknown {
            self.add(Severity::Error, problem, path, line, message);
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
        for unread in files.unread() {
            let (folder, message) = (&unread.folder, unread.to_string());
            self.add(
                Severity::Warning,
                Problem::MissingFile,
                folder,
                None,
                message,
            );
        }
        let pairs = files.pair(captioned.keys().map(String::as_str));
        if let (true, Some(first)) = (pairs.is_empty(), captioned.keys().next()) {
            let message = flickr8k::none_exists(layout, &files, captioned.len(), first);
            let problem = Problem::MissingFile;
            self.add(Severity::Error, problem, images, None, message);
            return Vec::new();
        }
        let lost = captioned
            .iter()
            .filter(|(name, _)| !pairs.contains_key(&***name));
        for (name, lines) in lost {
            let hint = self.hint(&files, name);
            let (severity, problem, message) = without_file(lists.get(name), lines.len(), &hint);
            self.add(severity, problem, &images.join(name), None, message);
        }
        let used: HashSet<&str> = pairs.values().copied().collect();
        let unused = files.iter().filter(|file| !used.contains(file));
        for name in unused.filter(|file| has_image_extension(file)) {
            let message = "has no captions: it is left out";
            let (path, problem) = (images.join(name), Problem::ImageWithoutCaptions);
            self.add(Severity::Warning, problem, &path, None, message);
        }
        let photo = |(name, file): (&str, &str)| (images.join(file), lists.get(name).copied());
        let mut photos: Vec<Photo> = pairs.into_iter().map(photo).collect();
        photos.sort_by(|(a, _), (b, _)| a.cmp(b));
        photos
    }

    /// Opens the data set as training does. What it refuses is an error, unless an error was found before.
    fn open(&mut self, directory: &Path) {
        let opened = Flickr8k::open(directory);
        let refused = opened.and_then(|data| data.require_training(&[Split::Train, Split::Dev]));
        match refused {
            Err(error)
                if self
                    .findings
                    .iter()
                    .all(|found| found.severity != Severity::Error) =>
            {
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

/// What is said of an image that has captions but no file.
fn without_file(
    listed: Option<&Split>,
    captions: usize,
    hint: &str,
) -> (Severity, Problem, String) {
    match listed {
        Some(&split) => (
            severity(split),
            Problem::ListedWithoutFile,
            format!("is in the {split} list but does not exist{hint}"),
        ),
        None => (
            Severity::Warning,
            Problem::CaptionsWithoutImage,
            format!("does not exist: {}{hint}", flickr8k::left_out(captions)),
        ),
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
