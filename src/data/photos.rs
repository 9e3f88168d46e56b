//! The images that a data set's texts name, found among those that there are.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// Of the formats that are read.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// The most folders in an image directory that lie one in the other.
const MOST_LEVELS: usize = 100;
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
    /// What else there is in the folder of the files that have these names, if they are names of files.
    around: Around,
}

/// What a walk through folders found beside files.
#[derive(Debug, Default)]
struct Around {
    /// Paths through links to a folder that has another path, and this other path; both end in `/`.
    links: Vec<(String, String)>,
    /// Folders whose files are not known.
    unread: Vec<Unread>,
}

/// A folder that was not looked into.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    pub folder: PathBuf,
    reason: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this folder is passed over, with all images in it: {}",
            self.reason
        )
    }
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

    /// The names of the files in a directory and the folders in it: paths from the directory, with `/`. A folder in it that
    /// cannot be read is among the [`unread`](Names::unread).
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn of_files(directory: &Path) -> Result<Self> {
        let (names, around) = walk(directory)?;
        Ok(Names {
            around,
            ..Names::new(names)
        })
    }

    /// The folders in the directory that were not looked into.
    pub fn unread(&self) -> &[Unread] {
        &self.around.unread
    }

    /// The name that is meant by `name`: the same one, or else the only one that differs just in how accents are composed, in
    /// the case of the extension or in the slashes, or else the only one that has more or fewer folders in front.
    /// Where links give a folder several paths, any of them may be in front.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.known(name).or_else(|| {
            let mut links = self.around.links.iter();
            let behind = |(link, path): &(String, String)| {
                let rest = name.strip_prefix(&**link)?;
                Some(format!("{path}{rest}"))
            };
            self.find(&links.find_map(behind)?)
        })
    }

    fn known(&self, name: &str) -> Option<&str> {
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
    /// name, if one is similar; and where it may lie unseen. Compares it with all names, which takes long for many names.
    pub fn hint(&self, name: &str) -> String {
        let unread = self.around.unread.iter().take(1);
        let unread = unread.map(|Unread { folder, reason }| {
            format!("; the folder {} was not read: {reason}", folder.display())
        });
        self.similar(name) + &unread.collect::<String>()
    }

    fn similar(&self, name: &str) -> String {
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

/// The names of the files in a directory and in the folders in it.
///
/// Links may lead to one folder in many ways, and in circles. Each folder is read once: by the path that has no link in it, if
/// there is one.
fn walk(directory: &Path) -> Result<(BTreeSet<String>, Around)> {
    let (mut names, mut around) = (BTreeSet::new(), Around::default());
    let mut read: HashMap<PathBuf, String> = HashMap::new();
    let mut folders = vec![String::new()];
    let mut links = BTreeSet::new();
    while let Some(prefix) = folders.pop().or_else(|| links.pop_first()) {
        let folder = match prefix.strip_suffix('/') {
            Some(inner) => directory.join(inner),
            None => directory.to_path_buf(),
        };
        let found = match fs::canonicalize(&folder) {
            Ok(place) => match read.get(&place) {
                Some(path) => {
                    around.links.push((prefix, path.clone()));
                    continue;
                }
                None if prefix.matches('/').count() > MOST_LEVELS => {
                    let message = format!("it lies more than {MOST_LEVELS} folders deep");
                    Err(io::Error::other(message))
                }
                None => {
                    read.insert(place, prefix.clone());
                    Entries::read(&folder)
                }
            },
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                let inner = |name: String| format!("{prefix}{name}");
                names.extend(found.files.into_iter().map(inner));
                folders.extend(found.folders.into_iter().map(|name| inner(name) + "/"));
                links.extend(found.links.into_iter().map(|name| inner(name) + "/"));
            }
            Err(error) if prefix.is_empty() => return Err(Error::io(folder)(error)),
            Err(error) => {
                let reason = error.to_string();
                around.unread.push(Unread { folder, reason });
            }
        }
    }
    (around.unread).sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok((names, around))
}

/// The names of what lies in a folder.
#[derive(Default)]
struct Entries {
    files: Vec<String>,
    folders: Vec<String>,
    /// Symbolic links to folders.
    links: Vec<String>,
}

impl Entries {
    fn read(folder: &Path) -> io::Result<Self> {
        let mut found = Entries::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // macOS writes a file `._x.jpg` beside `x.jpg` on foreign file systems, which is no image.
            if name.starts_with("._") || name == "__MACOSX" {
                continue;
            }
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                found.folders.push(name);
            } else if kind.is_symlink() && path.is_dir() {
                found.links.push(name);
            } else if !kind.is_symlink() || path.exists() {
                found.files.push(name);
            }
        }
        Ok(found)
    }
}

/// Whether a name ends as those of images do.
pub(super) fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    let is_image = extension.is_some_and(|e| EXTENSIONS.contains(&&*e));
    is_image && !file_name(name).starts_with("._")
}
