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

/// The most folders between the one that is given and that of the captions.
const MOST_LEVELS: usize = 2;

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
    /// Looks in `directory`; when there are no captions, in the folders in it, and then in the folders in those, because
    /// archives are often unpacked into a folder of their own. The images may have another such folder beside the captions'.
    ///
    /// # Errors
    /// When there are no captions, or several folders have some.
    pub fn find(directory: &Path) -> Result<Self> {
        if directory.is_file() {
            let message = "is a file; expected the folder of a data set";
            return Err(Error::file(directory, message));
        }
        std::fs::read_dir(directory).map_err(Error::io(directory))?;
        let mut places = vec![directory.to_path_buf()];
        for level in 0..=MOST_LEVELS {
            let found = places.iter().filter_map(|place| Layout::at(place));
            let mut found: Vec<Layout> = found.collect();
            if found.len() > 1 {
                let all = found.iter().map(|l| l.captions.display().to_string());
                let all = all.collect::<Vec<_>>().join(", ");
                let message = format!("several folders have captions; name one of them: {all}");
                return Err(Error::file(directory, message));
            }
            if let Some(mut layout) = found.pop() {
                layout.look_for_images_around(level);
                return Ok(layout);
            }
            places = places.iter().flat_map(|place| folders(place)).collect();
            places.sort();
        }
        let names = CAPTIONS.map(|(name, _)| name).join(", ");
        let message = format!("no captions: expected one of {names}, here or in a folder here");
        Err(Error::file(directory, message))
    }

    /// Looks for the folder of images in the folders around that of the captions, up to so many levels, if it is not there.
    fn look_for_images_around(&mut self, levels: usize) {
        let around = self.directory.ancestors().skip(1).take(levels);
        let found = around.filter_map(image_folder).next();
        self.images = self.images.take().or(found);
    }

    /// The data set whose captions are in this very folder.
    fn at(directory: &Path) -> Option<Self> {
        let place = |(name, read_rows): &(&str, ReadRows)| (directory.join(name), *read_rows);
        let mut places = CAPTIONS.iter().map(place);
        let (captions, read_rows) = places.find(|(path, _)| path.is_file())?;
        let lists = LISTS.map(|(split, name)| (split, directory.join(name)));
        let listed = captions.ends_with(TOKENS) || lists.iter().any(|(_, path)| path.exists());
        Some(Layout {
            directory: directory.to_path_buf(),
            captions,
            read_rows,
            lists: listed.then_some(lists),
            images: image_folder(directory),
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

/// The folder of images in `directory`, which may be `directory` itself.
fn image_folder(directory: &Path) -> Option<PathBuf> {
    let mut named = IMAGES.iter().map(|name| directory.join(name));
    let found = named.find(|path| path.is_dir());
    found.or_else(|| has_images(directory).then(|| directory.to_path_buf()))
}

/// The folders in a folder; none if it cannot be read.
fn folders(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir())
}

/// Whether images lie in this very folder.
fn has_images(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(has_image_extension))
}
