//! Where the parts of a data set are: captions, lists of splits, images.

use super::flickr8k::Split;
use super::photos::{Names, has_image_extension};
use super::table::{self, Table};
use crate::error::{Error, Result};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

/// Reads a captions file from its [`plain_text`](super::table::plain_text).
pub(super) type ReadTable = for<'a> fn(&'a [u8]) -> Table<'a>;

/// The names that a captions file may have, in whatever capitals, and how it is read; the first that exists is taken.
const CAPTIONS: [(&str, ReadTable); 6] = [
    (TOKENS, table::tokens),
    ("captions.txt", table::table),
    ("captions.csv", table::table),
    ("captions.tsv", table::table),
    ("results.csv", table::table),
    ("results_20130124.token", table::tokens),
];
/// Flickr8k as distributed, whose splits are in lists.
const TOKENS: &str = "Flickr8k.token.txt";
/// The lists with their splits.
const LISTS: [(Split, &str); 3] = [
    (Split::Train, "Flickr_8k.trainImages.txt"),
    (Split::Dev, "Flickr_8k.devImages.txt"),
    (Split::Test, "Flickr_8k.testImages.txt"),
];
/// The names that a folder of images may have, in whatever capitals.
const IMAGES: [&str; 6] = [
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Images",
    "Photos",
    "flickr30k_images",
    "flickr30k-images",
];

/// The most folders between the one that is given and that of the captions.
const MOST_LEVELS: usize = 2;

/// The places of a data set's parts.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The folder of captions and lists: the one that was given, or the one in it.
    pub directory: PathBuf,
    pub captions: PathBuf,
    pub read_table: ReadTable,
    /// The list of each split. None if images are split by their names.
    pub lists: Option<Vec<(Split, PathBuf)>>,
    /// The folder of images, if there is one.
    pub images: Option<PathBuf>,
}

impl Layout {
    /// Looks in `directory`; when there are no captions, in the folders in it, and then in the folders in those, because
    /// archives are often unpacked into a folder of their own. The images may have another such folder beside the captions'.
    ///
    /// # Errors
    /// When there are no captions, several folders have some, or two names differ only in capitals.
    pub fn find(directory: &Path) -> Result<Self> {
        if directory.is_file() {
            let message = "is a file; expected the folder of a data set";
            return Err(Error::file(directory, message));
        }
        std::fs::read_dir(directory).map_err(Error::io(directory))?;
        let (mut places, mut unread) = (vec![directory.to_path_buf()], None);
        for level in 0..=MOST_LEVELS {
            let found = places.iter().map(|place| Layout::at(place));
            let found: Result<Vec<Layout>> = found.filter_map(Result::transpose).collect();
            let mut found = found?;
            if found.len() > 1 {
                let all = found.iter().map(|l| l.captions.display().to_string());
                let all = all.collect::<Vec<_>>().join(", ");
                let message = format!("several folders have captions; name one of them: {all}");
                return Err(Error::file(directory, message));
            }
            if let Some(mut layout) = found.pop() {
                layout.look_for_images(level)?;
                return Ok(layout);
            }
            places = places.iter().flat_map(|place| folders(place)).collect();
            places.sort();
            let read = |place: &PathBuf| std::fs::read_dir(place).err().map(|e| (place.clone(), e));
            unread = unread.or_else(|| places.iter().find_map(read));
        }
        let names = CAPTIONS.map(|(name, _)| name).join(", ");
        let mut message = format!("no captions: expected one of {names}, here or in a folder here");
        if let Some((place, error)) = unread {
            message += &format!(" ({} cannot be read: {error})", place.display());
        }
        Err(Error::file(directory, message))
    }

    /// Looks for the folder of images in that of the captions, and then in the folders around it, up to so many levels. In a
    /// folder of its own they are found first, then beside captions, then in folders beside captions.
    fn look_for_images(&mut self, levels: usize) -> Result<()> {
        let places = || self.directory.ancestors().take(levels + 1);
        for place in places() {
            let own = image_folder(place)?;
            self.images = own.or_else(|| has_images(place).then(|| place.to_path_buf()));
            if self.images.is_some() {
                return Ok(());
            }
        }
        let mut places = places();
        let found = places.find(|place| has_images_in_folders(place));
        self.images = found.map(Path::to_path_buf);
        Ok(())
    }

    /// The data set whose captions are in this very folder, without its images.
    fn at(directory: &Path) -> Result<Option<Self>> {
        let names = names(directory);
        let find = |name, is_right| find(directory, &names, name, is_right);
        for (name, read_table) in CAPTIONS {
            let Some(captions) = find(name, Path::is_file)? else {
                continue;
            };
            let (mut lists, mut listed) = (Vec::new(), name == TOKENS);
            for (split, name) in LISTS {
                let found = find(name, Path::exists)?;
                listed |= found.is_some();
                lists.push((split, found.unwrap_or_else(|| directory.join(name))));
            }
            return Ok(Some(Layout {
                directory: directory.to_path_buf(),
                captions,
                read_table,
                lists: listed.then_some(lists),
                images: None,
            }));
        }
        Ok(None)
    }

    /// The folder of images.
    ///
    /// # Errors
    /// When there is none.
    pub fn require_images(&self) -> Result<&Path> {
        self.images.as_deref().ok_or_else(|| {
            let expected = IMAGES.join(", ");
            let message = format!(
                "no image directory: expected one of {expected}, or images here or in folders here"
            );
            Error::file(&self.directory, message)
        })
    }
}

/// The folder in `directory` that has a name for images.
fn image_folder(directory: &Path) -> Result<Option<PathBuf>> {
    let names = names(directory);
    let mut named = (IMAGES.iter()).map(|name| find(directory, &names, name, Path::is_dir));
    named.find_map(Result::transpose).transpose()
}

/// What has this name in a folder, whatever its capitals, and is of the right kind.
///
/// # Errors
/// When two are such, so that it is not known which one is meant.
fn find(
    directory: &Path,
    names: &[String],
    name: &str,
    is_right: fn(&Path) -> bool,
) -> Result<Option<PathBuf>> {
    let same = names
        .iter()
        .filter(|other| other.eq_ignore_ascii_case(name));
    let mut same = same.filter(|other| is_right(&directory.join(other)));
    match (same.next(), same.next()) {
        (Some(one), Some(other)) => {
            let message = format!(
                "{one} and {other} differ only in capitals, so that it is not clear which is meant: remove one, or give it \
                 another name"
            );
            Err(Error::file(directory, message))
        }
        (one, _) => Ok(one.map(|one| directory.join(one))),
    }
}

/// The names of what lies in a folder, in order.
fn names(directory: &Path) -> Vec<String> {
    let names = entries(directory).map(|entry| entry.file_name().into_string());
    let mut names: Vec<String> = names.flatten().collect();
    names.sort();
    names
}

/// What lies in a folder; nothing if it cannot be read.
fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    std::fs::read_dir(directory).into_iter().flatten().flatten()
}

/// The folders in a folder.
fn folders(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = entries(directory).map(|entry| entry.path());
    paths.filter(|path| path.is_dir())
}

/// Whether images lie in this very folder.
fn has_images(directory: &Path) -> bool {
    let mut names = entries(directory).map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(has_image_extension))
}

/// Whether images lie in folders in this folder.
fn has_images_in_folders(directory: &Path) -> bool {
    Names::of_files(directory).is_ok_and(|names| names.iter().any(has_image_extension))
}
