//! A data set's captions and splits: Flickr8k in both of its common layouts, and others like it.
//!
//! The original layout has `Flickr8k.token.txt` (`<file>#<k>\t<caption>`),
//! `Flickr_8k.{train,dev,test}Images.txt` (one file name per line) and the images in `Flicker8k_Dataset` (so
//! spelled). The other layout has a table of images and captions such as `captions.txt`, and the images in
//! `Images`. Its splits are the same lists if they are in the same directory. Otherwise the images are sorted
//! by name, and the first six eighths are train, the next eighth is dev, and the rest is test.
//!
//! Only text is read here; the images themselves may be absent.

use super::layout::Layout;
use super::photos::{Names, Unread, has_image_extension};
use super::samples::MOST_WORDS;
use super::table::{Fault, Row, lines, plain_text};
use super::vocabulary::{lacks_spaces, tokenize};
use crate::error::{Error, Result};
use crate::words::{count, told};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The most missing images that are told one by one.
const MOST_TOLD: usize = 10;

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
    /// The name that the captions give its file, from the image directory.
    pub name: String,
    /// The captions in the order of the file, in lower case and otherwise unchanged. They are the references
    /// of BLEU.
    pub captions: Vec<String>,
}

/// The text of the data set: images by name, their captions, and the splits.
#[derive(Clone, Debug)]
pub struct Flickr8k {
    layout: Layout,
    images: Vec<Image>,
    /// The path of each image from the image directory.
    files: Vec<String>,
    missing: Vec<Image>,
    splits: [Vec<usize>; 4],
    /// Images that a list names but that have no file in the image directory.
    absent: HashSet<usize>,
    /// What is to be said about the captions file.
    note: Option<String>,
    /// Folders in the image directory that were not looked into.
    unread: Vec<Unread>,
}

impl Flickr8k {
    /// Reads captions and splits from `directory`.
    ///
    /// # Errors
    /// When a file is missing or a line has the wrong form; the error names the file and the line.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let layout = Layout::find(directory.as_ref())?;
        let (named, note) = read_captions(&layout)?;
        let names = Names::new(named.iter().map(|image| image.name.clone()).collect());
        let lists = read_lists(&layout, &names)?;
        let listed: HashSet<&str> = match &lists {
            Some(lists) => lists.iter().flat_map(List::names).collect(),
            None => HashSet::new(),
        };
        let found = layout.images.as_deref().map(Names::of_files).transpose()?;
        let pairs = found.as_ref().map(|files| files.pair(names.iter()));
        // An image that a list names is kept even without a file. The data set is then incomplete, and
        // `require_images` reports it.
        let exists = |name: &str| match &pairs {
            Some(pairs) => pairs.contains_key(name),
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
        let file = |image: &Image| {
            let found = pairs.as_ref().and_then(|pairs| pairs.get(&*image.name));
            found.unwrap_or(&&*image.name).to_string()
        };
        let files = images.iter().map(file).collect();
        Ok(Flickr8k {
            layout,
            images,
            files,
            missing,
            splits,
            absent,
            note,
            unread: found.map_or(Vec::new(), |files| files.unread().to_vec()),
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
        let data = self.layout.directory.display();
        let missing = |image: &Image| {
            let (name, captions) = (&image.name, left_out(image.captions.len()));
            format!("{data}: image {name} does not exist: {captions}")
        };
        let unread = |unread: &Unread| format!("{}: {unread}", unread.folder.display());
        let rest = |more: usize, what: &str| {
            format!("{data}: {more} more {what}: `showtell data check` names them")
        };
        let mut warnings = told(&self.unread, MOST_TOLD, unread, |more| {
            rest(more, "folders are passed over")
        });
        warnings.extend(told(&self.missing, MOST_TOLD, missing, |more| {
            rest(more, "images do not exist")
        }));
        let captions = self.layout.captions.display();
        let unspaced = unspaced(self.all_captions());
        let of_captions = self.note.iter().cloned().chain(unspaced);
        warnings.extend(of_captions.map(|warning| format!("{captions}: {warning}")));
        warnings
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
        let directory = self.layout.require_images()?;
        let paths = self.files.iter().map(|file| directory.join(file));
        Ok(paths.collect())
    }

    /// Checks that there are images to train on, that the images of `splits` exist, and that no caption is too long: all that
    /// training needs.
    ///
    /// # Errors
    /// When the training split is empty, a caption of it is longer than any that can be trained on, or as [`require_images`](Self::require_images).
    pub fn require_training(&self, splits: &[Split]) -> Result<()> {
        let empty = self.split(Split::Train).is_empty();
        if empty || !splits.is_empty() {
            self.require_any_image()?;
        }
        if empty {
            let (place, message) = match &self.layout.lists {
                Some(lists) => (&lists[0].1, "the training list names no image"),
                None => (
                    &self.layout.directory,
                    "there are too few images: none is left for training",
                ),
            };
            return Err(Error::file(place, message));
        }
        for &split in splits {
            self.require_images(split)?;
        }
        self.require_short_captions()
    }

    /// The files that captions and splits were read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let lists = self.layout.lists.iter().flatten();
        let lists = lists.map(|(_, path)| path.clone());
        lists.chain([self.layout.captions.clone()]).collect()
    }

    fn require_short_captions(&self) -> Result<()> {
        for image in self.split(Split::Train).iter().map(|&i| &self.images[i]) {
            let lengths = image.captions.iter().map(|caption| tokenize(caption).len());
            if let Some(words) = lengths.max().filter(|&words| words > MOST_WORDS) {
                let name = &image.name;
                let message = format!(
                    "a caption of image {name} has {words} words and punctuation marks; at most {MOST_WORDS} can be trained on: \
                     shorten it"
                );
                return Err(Error::file(&self.layout.captions, message));
            }
        }
        Ok(())
    }

    /// Checks that an image of the captions exists: if none does, the folder is a wrong one, or all names differ.
    fn require_any_image(&self) -> Result<()> {
        let folder = self.layout.require_images()?;
        if self.absent.len() < self.images.len() {
            return Ok(());
        }
        let named: Vec<&Image> = self.images.iter().chain(&self.missing).collect();
        let files = Names::of_files(folder)?;
        let message = none_exists(&self.layout, &files, named.len(), &named[0].name);
        Err(Error::file(folder, message))
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
        let mut message = match absent.count() {
            0 => format!("this image of the {split} list does not exist"),
            more => format!("this image of the {split} list and {more} more do not exist"),
        };
        if let Ok(files) = Names::of_files(self.layout.require_images()?) {
            message += &files.hint(&self.images[first].name);
        }
        Err(Error::file(&paths[first], message))
    }
}

/// That so many captions of an image are not used.
pub(super) fn left_out(captions: usize) -> String {
    match captions {
        1 => "its 1 caption is left out".into(),
        _ => format!("its {captions} captions are left out"),
    }
}

/// What is to be said when none of the `all` images that the captions name exists, `first` among them.
pub(super) fn none_exists(layout: &Layout, files: &Names, all: usize, first: &str) -> String {
    let captions = layout.captions.display();
    let holds = match files.iter().find(|name| has_image_extension(name)) {
        Some(file) => format!("{first}, but the images here have names such as {file}"),
        None => format!("{first}, but there is no image here"),
    };
    let hint = files.hint(first);
    let none = match all {
        1 => format!("the one image that {captions} names does not exist"),
        _ => format!("none of the {all} images that {captions} names exists"),
    };
    format!("{none}: it names {holds}{hint}")
}

/// What is to be said when most captions are of scripts that put no spaces between words.
pub(super) fn unspaced<'a>(captions: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut unspaced, mut all) = (0, 0);
    for caption in captions {
        all += 1;
        unspaced += usize::from(lacks_spaces(caption));
    }
    (2 * unspaced > all).then(|| {
        let are = if all == 1 { "is" } else { "are" };
        format!(
            "{unspaced} of {} {are} in a script without spaces: everything between two spaces is taken for one \
             word. Put spaces between the words first",
            count(all, "caption")
        )
    })
}

/// The list of a split, with its path for error messages.
struct List {
    split: Split,
    path: PathBuf,
    /// Lines of the file, and the images that they name.
    lines: Vec<(usize, String)>,
}

impl List {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(_, name)| &**name)
    }
}

/// The lists, whose images are to be among `names`. None where images are split by their names.
fn read_lists(layout: &Layout, names: &Names) -> Result<Option<Vec<List>>> {
    let Some(lists) = &layout.lists else {
        return Ok(None);
    };
    let read = |(split, path): &(Split, PathBuf)| {
        let mut lines = Vec::new();
        for (line, name) in read_lines(path)? {
            let refuse = || {
                let hint = names.hint(&name);
                Error::file(
                    path,
                    format!("line {line}: image {name} has no captions{hint}"),
                )
            };
            let image = names.find(&name).ok_or_else(refuse)?;
            lines.push((line, image.to_string()));
        }
        Ok(List {
            split: *split,
            path: path.clone(),
            lines,
        })
    };
    lists.iter().map(read).collect::<Result<_>>().map(Some)
}

fn splits_by_lists(images: &[Image], lists: &[List]) -> Result<[Vec<usize>; 4]> {
    let index: HashMap<&str, usize> = (images.iter().enumerate())
        .map(|(i, image)| (&*image.name, i))
        .collect();
    let mut splits: [Vec<usize>; 4] = Default::default();
    let mut owner: BTreeMap<usize, Split> = BTreeMap::new();
    for list in lists {
        for (line, name) in &list.lines {
            let image = index[&**name];
            if let Some(before) = owner.insert(image, list.split) {
                let message = format!("line {line}: image {name} is already in {before}");
                return Err(Error::file(&list.path, message));
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

/// The images in the order in which they are first named, with their captions; and what is to be said about the file.
fn read_captions(layout: &Layout) -> Result<(Vec<Image>, Option<String>)> {
    let path = &layout.captions;
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = plain_text(&bytes).map_err(|message| Error::file(path, message))?;
    let mut index = HashMap::new();
    let mut images: Vec<Image> = Vec::new();
    let table = (layout.read_table)(&text);
    for Row { line, content, .. } in table.rows {
        let refuse = |fault| Error::file(path, format!("line {line}: {fault}"));
        let (name, captions) = content.map_err(refuse)?;
        let image = *index.entry(name.clone()).or_insert(images.len());
        if image == images.len() {
            let captions = Vec::new();
            images.push(Image { name, captions });
        }
        let captions = captions.iter().map(|caption| caption.to_lowercase());
        images[image].captions.extend(captions);
    }
    if images.is_empty() {
        return Err(Error::file(path, "the file has no captions"));
    }
    Ok((images, table.note))
}

/// The lines of a text file with their numbers, without spaces around them, but for empty ones.
fn read_lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = plain_text(&bytes).map_err(|message| Error::file(path, message))?;
    let mut full = Vec::new();
    for (number, line) in lines(&text) {
        let line = line.map_err(Fault::NotUtf8);
        let line = line.map_err(|e| Error::file(path, format!("line {number}: {e}")))?;
        if !line.trim().is_empty() {
            full.push((number, line.trim().to_string()));
        }
    }
    Ok(full)
}
