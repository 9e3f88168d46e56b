//! The images that a data set's texts name, found among those that there are.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

/// Of the formats that are read.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// The most levels of folders in an image directory, so that links in a circle come to an end.
const MOST_LEVELS: usize = 8;
/// A name is similar to another one if it has at least so many letters for each letter that has to be changed.
const LETTERS_PER_EDIT: usize = 8;

/// Names of images, to be found by what another text calls them.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeSet<String>,
    /// Names by their [`fold`]; `None` where several have the same.
    folded: HashMap<String, Option<String>>,
    /// Names by the folded name of the file, without folders; `None` where several have the same.
    files: HashMap<String, Option<String>>,
}

impl Names {
    pub fn new(names: BTreeSet<String>) -> Self {
        let mut found = Names {
            names,
            ..Names::default()
        };
        for name in &found.names {
            let (folded, file) = (fold(name), fold(file_name(name)));
            for (map, key) in [(&mut found.folded, folded), (&mut found.files, file)] {
                let entry = map.entry(key).and_modify(|twice| *twice = None);
                entry.or_insert_with(|| Some(name.clone()));
            }
        }
        found
    }

    /// The names of the files in a directory and the folders in it: paths from the directory, with `/`.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn of_files(directory: &Path) -> Result<Self> {
        let mut names = BTreeSet::new();
        walk(directory, "", MOST_LEVELS, &mut names)?;
        Ok(Names::new(names))
    }

    /// The name that is meant by `name`: the same one, or else the only one that differs just in how accents are composed, in
    /// the case of the extension or in the slashes, or else the only one that has more or fewer folders in front.
    pub fn find(&self, name: &str) -> Option<&str> {
        if let Some(found) = self.names.get(name) {
            return Some(found);
        }
        let name = fold(name);
        if let Some(found) = self.folded.get(&name) {
            return found.as_deref();
        }
        let found = self.files.get(file_name(&name))?.as_deref()?;
        let folded = fold(found);
        let ends =
            |long: &str, short: &str| long.strip_suffix(short).is_some_and(|l| l.ends_with('/'));
        (ends(&folded, &name) || ends(&name, &folded)).then_some(found)
    }

    /// The name that [`find`](Names::find) gives each of `names`. One that several of them would share belongs only to the
    /// same name.
    pub fn pair<'a>(&'a self, names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, &'a str> {
        let mut pairs: HashMap<&str, &str> =
            names.filter_map(|n| Some((n, self.find(n)?))).collect();
        let mut claims: HashMap<&str, usize> = HashMap::new();
        for found in pairs.values() {
            *claims.entry(found).or_default() += 1;
        }
        pairs.retain(|name, found| name == found || claims[found] == 1);
        pairs
    }

    /// The end of a message about `name`, which was not found: that several folders have such a file, or the most similar
    /// name, if one is similar. Compares it with all names, which takes long for many names.
    pub fn hint(&self, name: &str) -> String {
        let file = fold(file_name(name));
        if let Some(None) = self.files.get(&file) {
            return format!("; several folders hold a file {file}: say in the captions which");
        }
        let distance = |other: &&String| strsim::levenshtein(name, other);
        let nearest = self.names.iter().min_by_key(distance);
        let is_similar =
            |other: &&String| distance(other) * LETTERS_PER_EDIT <= name.chars().count();
        match nearest.filter(is_similar) {
            Some(nearest) => format!("; the most similar name is {nearest}"),
            None => String::new(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// The same for names that people take for the same.
fn fold(name: &str) -> String {
    let name: String = name.replace('\\', "/").nfc().collect();
    let name = name.trim_start_matches("./");
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{}", extension.to_lowercase()),
        None => name.to_string(),
    }
}

/// What stands behind the last slash.
fn file_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

fn walk(directory: &Path, prefix: &str, levels: usize, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // macOS writes a file `._x.jpg` beside `x.jpg` on foreign file systems, which is no image.
        if name.starts_with("._") || name == "__MACOSX" {
            continue;
        }
        let path = entry.path();
        if !path.is_dir() {
            names.insert(format!("{prefix}{name}"));
        } else if levels > 0 {
            walk(&path, &format!("{prefix}{name}/"), levels - 1, names)?;
        }
    }
    Ok(())
}

/// Whether a name ends as those of images do.
pub(super) fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    let is_image = extension.is_some_and(|e| EXTENSIONS.contains(&&*e));
    is_image && !file_name(name).starts_with("._")
}
