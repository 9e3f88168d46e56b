//! Where the parts of a data set are: captions, lists of splits, images.

use super::flickr8k::Split;
use super::photos::has_image_extension;
use super::table::{self, Row};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Reads the rows of a captions file from its [`plain_text`](super::table::plain_text).
pub(super) type ReadRows = for<'a> fn(&'a [u8]) -> Vec<Row<'a>>;

/// The names that a captions file may have, and how it is read; the first that exists is taken.
const CAPTIONS: [(&str, ReadRows); 6] = [
    (TOKENS, table::token_rows),
    ("captions.txt", table::rows),
    ("captions.csv", table::rows),
    ("captions.tsv", table::rows),
    ("results.csv", table::rows),
    ("results_20130124.token", table::token_rows),
];
/// Flickr8k as distributed, whose splits are in lists.
const TOKENS: &str = "Flickr8k.token.txt";
/// The lists with their splits.
const LISTS: [(Split, &str); 3] = [
    (Split::Train, "Flickr_8k.trainImages.txt"),
    (Split::Dev, "Flickr_8k.devImages.txt"),
    (Split::Test, "Flickr_8k.testImages.txt"),
];
const IMAGES: [&str; 6] = [
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Images",
    "images",
    "flickr30k_images",
    "flickr30k-images",
];

/// The places of a data set's parts.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The folder of captions and lists: the one that was given, or the one in it.
    pub directory: PathBuf,
    pub captions: PathBuf,
    pub read_rows: ReadRows,
    /// The list of each split. None if images are split by their names.
    pub lists: Option<[(Split, PathBuf); 3]>,
    /// The folder of images, if there is one.
    pub images: Option<PathBuf>,
}

impl Layout {
    /// Looks in `directory`; when there are no captions, in the folders in it, because archives are often unpacked into a
    /// folder of their own.
    ///
    /// # Errors
    /// When there are no captions, or several folders have some.
    pub fn find(directory: &Path) -> Result<Self> {
        if let Some(layout) = Layout::at(directory) {
            return Ok(layout);
        }
        let mut folders = folders(directory)?;
        folders.sort();
        let mut found: Vec<Layout> = folders.iter().filter_map(|at| Layout::at(at)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(layout), true) => Ok(layout),
            (Some(last), false) => {
                let all = found.iter().chain([&last]);
                let all: Vec<_> = all.map(|l| l.captions.display().to_string()).collect();
                let message = format!(
                    "several folders have captions; name one of them: {}",
                    all.join(", ")
                );
                Err(Error::file(directory, message))
            }
            (None, _) => {
                let names = CAPTIONS.map(|(name, _)| name).join(", ");
                let message =
                    format!("no captions: expected one of {names}, here or in a folder here");
                Err(Error::file(directory, message))
            }
        }
    }

    /// The data set whose captions are in this very folder.
    fn at(directory: &Path) -> Option<Self> {
        let place = |(name, read_rows): &(&str, ReadRows)| (directory.join(name), *read_rows);
        let mut places = CAPTIONS.iter().map(place);
        let (captions, read_rows) = places.find(|(path, _)| path.is_file())?;
        let lists = LISTS.map(|(split, name)| (split, directory.join(name)));
        let listed = captions.ends_with(TOKENS) || lists.iter().any(|(_, path)| path.exists());
        let folders = IMAGES.iter().map(|name| directory.join(name));
        let images = folders.into_iter().find(|path| path.is_dir());
        Some(Layout {
            directory: directory.to_path_buf(),
            captions,
            read_rows,
            lists: listed.then_some(lists),
            images: images.or_else(|| has_images(directory).then(|| directory.to_path_buf())),
        })
    }

    /// The folder of images.
    ///
    /// # Errors
    /// When there is none.
    pub fn require_images(&self) -> Result<&Path> {
        self.images.as_deref().ok_or_else(|| {
            let expected = IMAGES.join(", ");
            let message = format!("no image directory: expected one of {expected}, or images here");
            Error::file(&self.directory, message)
        })
    }
}

/// The folders in a folder.
fn folders(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(Error::io(directory))?;
    let paths = entries.map(|entry| {
        entry
            .map(|entry| entry.path())
            .map_err(Error::io(directory))
    });
    paths
        .filter(|path| path.as_ref().map_or(true, |path| path.is_dir()))
        .collect()
}

/// Whether images lie in this very folder.
fn has_images(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(has_image_extension))
}
