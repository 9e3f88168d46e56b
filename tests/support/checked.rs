//! Data sets as `data check` and training see them.

use super::cli::{failed, says, showtell, stdout, succeeded};
use super::tiny::{SHOW_TELL, Tiny};
use showtell::data::flickr8k::Flickr8k;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

/// What `data check` finds in a data set.
pub fn checked(data: &Path) -> Output {
    let command = &mut showtell();
    command.args(["data", "check"]).arg(data).output().unwrap()
}

/// The data set of `tiny` is usable without a finding, and trains.
pub fn usable(tiny: &Tiny, data: &Path) {
    let output = checked(data);
    succeeded(&output);
    let text = stdout(&output);
    says(
        &text,
        &["9 images, 45 captions, 9 images decoded: 0 errors, 0 warnings, usable"],
    );
    let mut command = tiny.train_command("run", &SHOW_TELL);
    succeeded(&command.arg("--data").arg(data).output().unwrap());
}

/// What `data check` says is wrong; training says it too.
pub fn unusable(tiny: &Tiny, errors: usize, words: &[&str]) {
    let output = checked(&tiny.data());
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    says(&text, words);
    says(&text, &[&format!(" {errors} error"), "training would fail"]);
    assert!(!text.contains('\0'));
    assert!(!failed(&tiny.train_once("run")).contains('\0'));
}

/// The images and captions of a captions file in a folder of its own.
pub fn read(file: &str, content: impl AsRef<[u8]>) -> Result<Vec<(String, Vec<String>)>, String> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(file), content).unwrap();
    let dataset = Flickr8k::open(folder.path()).map_err(|e| e.to_string())?;
    let images = dataset.images().iter().chain(dataset.missing());
    Ok(images
        .map(|image| (image.name.clone(), image.captions.clone()))
        .collect())
}

/// The same as [`read`] gives it.
pub fn owned(images: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let image = |&(name, captions): &(&str, &[&str])| {
        let captions = captions.iter().map(|caption| caption.to_string());
        (name.to_string(), captions.collect())
    };
    images.iter().map(image).collect()
}

/// Puts other names in place of those in the captions and lists.
pub fn rename(tiny: &Tiny, names: impl Fn(&str) -> String) {
    let files = [
        "Flickr8k.token.txt",
        "Flickr_8k.trainImages.txt",
        "Flickr_8k.devImages.txt",
        "Flickr_8k.testImages.txt",
    ];
    for file in files {
        let line = |line: &str| {
            let (name, rest) = line.split_at(line.find('#').unwrap_or(line.len()));
            format!("{}{rest}\n", names(name))
        };
        tiny.write(file, tiny.read(file).lines().map(line).collect::<String>());
    }
}

/// Gives the image files other names.
pub fn rename_files(tiny: &Tiny, names: impl Fn(&str) -> String) {
    for entry in fs::read_dir(tiny.images()).unwrap() {
        let path = entry.unwrap().path();
        let name = names(path.file_name().unwrap().to_str().unwrap());
        let to = tiny.images().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(&path, to).unwrap();
    }
}
