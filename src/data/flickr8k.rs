//! The captions and splits of Flickr8k, in both of its common layouts.
//!
//! The original layout has `Flickr8k.token.txt` (`<file>#<k>\t<caption>`),
//! `Flickr_8k.{train,dev,test}Images.txt` (one file name per line) and the images in `Flicker8k_Dataset` (so
//! spelled). The other layout has `captions.txt` (CSV `image,caption`, quoted where needed) and the images in
//! `Images`. Its splits are the same lists if they are in the same directory. Otherwise the images are sorted
//! by name, and the first six eighths are train, the next eighth is dev, and the rest is test.
//!
//! Only text is read here; the images themselves may be absent.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::{FromStr, Utf8Error};
use std::sync::Arc;

const TOKENS: &str = "Flickr8k.token.txt";
pub(super) const TABLE: &str = "captions.txt";
pub(super) const LISTS: [(Split, &str); 3] = [
    (Split::Train, "Flickr_8k.trainImages.txt"),
    (Split::Dev, "Flickr_8k.devImages.txt"),
    (Split::Test, "Flickr_8k.testImages.txt"),
];
const IMAGE_DIRECTORIES: [&str; 3] = ["Flicker8k_Dataset", "Flickr8k_Dataset", "Images"];
const IMAGE_EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

words! {
    /// A part of the data set.
    pub enum Split {
        /// The training images.
        Train = "train",
        /// The images for validation.
        Dev = "dev",
        /// The images of the official test list.
        Test = "test",
        /// The official test list, followed by every image that is in no list, in the order of the captions. These
        /// are all images in neither train nor dev, which the published test figures used.
        TestAndUnlisted = "test+unlisted",
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Split::ALL.into_iter().find(|s| s.to_string() == name);
        found.ok_or_else(|| {
            Error::Config(format!(
                "unknown split '{name}', expected train, dev, test or test+unlisted"
            ))
        })
    }
}

/// An image and its captions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name of its file in the image directory.
    pub name: String,
    /// The captions in the order of the file, in lower case and otherwise unchanged. They are the references
    /// of BLEU.
    pub captions: Vec<String>,
}

/// The text of the data set: images by name, their captions, and the splits.
#[derive(Clone, Debug)]
pub struct Flickr8k {
    directory: PathBuf,
    image_directory: Option<PathBuf>,
    images: Vec<Image>,
    missing: Vec<Image>,
    splits: [Vec<usize>; 4],
    /// Images that a list names but that have no file in the image directory.
    absent: HashSet<usize>,
}

impl Flickr8k {
    /// Reads captions and splits from `directory`.
    ///
    /// # Errors
    /// When a file is missing or a line has the wrong form; the error names the file and the line.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        let named = read_captions(&directory)?;
        let image_directory = find_image_directory(&directory);
        let files = image_directory.as_deref().map(file_names).transpose()?;
        let lists = read_lists(&directory)?;
        let listed: HashSet<&str> = match &lists {
            Some(lists) => lists.iter().flat_map(|l| &l.names).map(|n| &**n).collect(),
            None => HashSet::new(),
        };
        // An image that a list names is kept even without a file. The data set is then incomplete, and
        // `require_images` reports it.
        let exists = |name: &str| match &files {
            Some(files) => files.contains(name),
            None => has_image_extension(name),
        };
        let (images, missing): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|image| listed.contains(&*image.name) || exists(&image.name));
        let absent = |(i, image): (usize, &Image)| (!exists(&image.name)).then_some(i);
        let absent = images.iter().enumerate().filter_map(absent).collect();
        let splits = match &lists {
            Some(lists) => splits_by_lists(&images, lists)?,
            None => splits_by_name(&images),
        };
        Ok(Flickr8k {
            directory,
            image_directory,
            images,
            missing,
            splits,
            absent,
        })
    }

    /// Every image that exists or that a list names, in the order in which the captions name them.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The images of `split`, as indices into [`images`](Self::images), in the order of the list.
    pub fn split(&self, split: Split) -> &[usize] {
        &self.splits[split as usize]
    }

    /// Images that captions name but that do not exist and are in no list. They are left out of the samples.
    ///
    /// An image exists if its file exists or, without an image directory, if its name has the extension of an
    /// image.
    pub fn missing(&self) -> &[Image] {
        &self.missing
    }

    /// Warnings for the user, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |image: &Image| {
            format!(
                "{}: image {} does not exist: its {} captions are left out",
                self.directory.display(),
                image.name,
                image.captions.len()
            )
        };
        self.missing.iter().map(warning).collect()
    }

    /// Every caption, including those of missing images. The vocabulary of attend is built from them.
    pub fn all_captions(&self) -> impl Iterator<Item = &str> {
        let images = self.images.iter().chain(&self.missing);
        images.flat_map(|image| &image.captions).map(String::as_str)
    }

    /// The captions of `split`. The vocabulary of show-tell is built from those of [`Split::Train`].
    pub fn captions(&self, split: Split) -> impl Iterator<Item = &str> {
        let images = self.split(split).iter().map(|&i| &self.images[i]);
        images.flat_map(|image| &image.captions).map(String::as_str)
    }

    /// The files of the images, one path for each of [`images`](Self::images).
    ///
    /// # Errors
    /// When there is no image directory.
    pub fn image_paths(&self) -> Result<Arc<[PathBuf]>> {
        let directory = self.image_directory.as_ref();
        let directory = directory.ok_or_else(|| no_image_directory(&self.directory))?;
        let paths = self.images.iter().map(|image| directory.join(&image.name));
        Ok(paths.collect())
    }

    /// Checks that the images of `split` exist, so that an incomplete data set is reported early.
    ///
    /// # Errors
    /// When a file of `split` is not in the image directory, or when there is no image directory.
    pub fn require_images(&self, split: Split) -> Result<()> {
        let paths = self.image_paths()?;
        let mut absent = self.split(split).iter().filter(|i| self.absent.contains(i));
        let Some(&first) = absent.next() else {
            return Ok(());
        };
        let message = match absent.count() {
            0 => format!("this image of the {split} list does not exist"),
            more => format!("this image of the {split} list and {more} more do not exist"),
        };
        Err(Error::file(&paths[first], message))
    }
}

/// The list of a split, with its path for error messages.
struct List {
    split: Split,
    path: PathBuf,
    names: Vec<String>,
}

fn read_lists(directory: &Path) -> Result<Option<Vec<List>>> {
    let paths = LISTS.map(|(split, name)| (split, directory.join(name)));
    if directory.join(TABLE).exists() && paths.iter().all(|(_, path)| !path.exists()) {
        return Ok(None);
    }
    let read = |(split, path): (Split, PathBuf)| {
        let lines = read_lines(&path)?;
        let names = lines.into_iter().map(|line| line.trim().to_string());
        let names = names.collect();
        Ok(List { split, path, names })
    };
    paths.into_iter().map(read).collect::<Result<_>>().map(Some)
}

fn splits_by_lists(images: &[Image], lists: &[List]) -> Result<[Vec<usize>; 4]> {
    let index: HashMap<&str, usize> = (images.iter().enumerate())
        .map(|(i, image)| (&*image.name, i))
        .collect();
    let mut splits: [Vec<usize>; 4] = Default::default();
    let mut owner: BTreeMap<usize, Split> = BTreeMap::new();
    for list in lists {
        for (line, name) in list.names.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let refuse = |message| Error::file(&list.path, format!("line {}: {message}", line + 1));
            let &image = (index.get(&**name))
                .ok_or_else(|| refuse(format!("image {name} has no captions")))?;
            if let Some(before) = owner.insert(image, list.split) {
                return Err(refuse(format!("image {name} is already in {before}")));
            }
            splits[list.split as usize].push(image);
        }
    }
    let unlisted = (0..images.len()).filter(|i| !owner.contains_key(i));
    splits[Split::TestAndUnlisted as usize] = splits[Split::Test as usize]
        .iter()
        .copied()
        .chain(unlisted)
        .collect();
    Ok(splits)
}

/// Splits by ascending name in the proportions of the official lists, 6 : 1 : 1.
fn splits_by_name(images: &[Image]) -> [Vec<usize>; 4] {
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by_key(|&i| &images[i].name);
    let (train, dev) = (images.len() * 6 / 8, images.len() / 8);
    let test = order.split_off(train + dev);
    let dev = order.split_off(train);
    [order, dev, test.clone(), test]
}

/// Reads the image name and the caption of a line.
pub(super) type ParseLine = fn(&str) -> Result<(String, String), String>;

/// The file with the captions, the number of lines before the first caption, and how to read a line.
pub(super) fn captions_file(directory: &Path) -> Result<(PathBuf, usize, ParseLine)> {
    std::fs::read_dir(directory).map_err(Error::io(directory))?;
    let (tokens, table) = (directory.join(TOKENS), directory.join(TABLE));
    match (tokens.exists(), table.exists()) {
        (true, _) => Ok((tokens, 0, parse_token_line)),
        (false, true) => Ok((table, 1, parse_table_line)),
        (false, false) => {
            let message = format!("no captions: expected {TOKENS} or {TABLE} here");
            Err(Error::file(directory, message))
        }
    }
}

/// The images in the order in which they are first named, with their captions.
fn read_captions(directory: &Path) -> Result<Vec<Image>> {
    let (path, header, parse) = captions_file(directory)?;
    let mut index = HashMap::new();
    let mut images: Vec<Image> = Vec::new();
    for (number, line) in read_lines(&path)?.iter().enumerate().skip(header) {
        if line.trim().is_empty() {
            continue;
        }
        let refuse = |message| Error::file(&path, format!("line {}: {message}", number + 1));
        let (name, caption) = parse(line).map_err(refuse)?;
        let image = *index.entry(name.clone()).or_insert(images.len());
        if image == images.len() {
            let captions = Vec::new();
            images.push(Image { name, captions });
        }
        images[image].captions.push(caption.to_lowercase());
    }
    if images.is_empty() {
        return Err(Error::file(&path, "the file has no captions"));
    }
    Ok(images)
}

/// `<file>#<k>\t<caption>`
fn parse_token_line(line: &str) -> Result<(String, String), String> {
    let parts = line.split_once('\t').and_then(|(key, caption)| {
        let (name, number) = key.rsplit_once('#')?;
        let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        (numbered && !name.is_empty()).then_some((name, caption))
    });
    let (name, caption) = parts.ok_or("expected <file>#<k>, a tab and a caption")?;
    Ok((name.to_string(), caption.to_string()))
}

/// `image,caption`. A field in double quotes may contain commas, and double quotes that are written twice.
fn parse_table_line(line: &str) -> Result<(String, String), String> {
    let (name, rest) = parse_field(line)?;
    let rest = rest.ok_or("expected two fields, image and caption, found one")?;
    match parse_field(rest)? {
        _ if name.is_empty() => Err("the image has no name".to_string()),
        (caption, None) => Ok((name, caption)),
        (_, Some(_)) => Err("expected two fields, found more: \
             a caption with a comma must be in double quotes"
            .to_string()),
    }
}

/// The first field of a CSV line, and what follows its comma.
fn parse_field(line: &str) -> Result<(String, Option<&str>), String> {
    let Some(quoted) = line.strip_prefix('"') else {
        return Ok(match line.split_once(',') {
            Some((field, rest)) => (field.to_string(), Some(rest)),
            None => (line.to_string(), None),
        });
    };
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = (rest.split_once('"')).ok_or("a double quote is not closed")?;
        field.push_str(part);
        match after.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&after[1..]))),
            Some('"') => field.push('"'),
            Some(_) => return Err("text after a closing double quote".to_string()),
        }
        rest = &after[1..];
    }
}

/// The lines of a UTF-8 file, without line ends and byte-order mark.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let line = |(number, line): (usize, Result<&str, Utf8Error>)| {
        let text = line.map_err(|e| Error::file(path, format!("line {number}: {e}")))?;
        Ok(text.to_string())
    };
    split_lines(&bytes).map(line).collect()
}

/// Lines with their numbers, counted from 1.
pub(super) fn split_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<&str, Utf8Error>)> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let lines = bytes.split(|&b| b == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines.map(std::str::from_utf8))
}

pub(super) fn no_image_directory(directory: &Path) -> Error {
    let expected = IMAGE_DIRECTORIES.join(", ");
    let message = format!("no image directory: expected one of {expected}");
    Error::file(directory, message)
}

pub(super) fn find_image_directory(directory: &Path) -> Option<PathBuf> {
    let candidates = IMAGE_DIRECTORIES.iter().map(|name| directory.join(name));
    candidates.into_iter().find(|path| path.is_dir())
}

pub(super) fn file_names(directory: &Path) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

pub(super) fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    extension.is_some_and(|e| IMAGE_EXTENSIONS.contains(&&*e))
}
