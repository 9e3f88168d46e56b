//! Folders of photos as people have them: deep ones, links in circles, folders that cannot be read, names in other capitals.

#![cfg(unix)]

use crate::support;
use showtell::data::flickr8k::Flickr8k;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use support::checked::{checked, rename, rename_files, unusable, usable};
use support::cli::{failed, says, showtell, stdout, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

const TOKENS: &str = "Flickr8k.token.txt";

#[test]
fn photos_may_lie_deep() {
    let tiny = Tiny::new();
    rename_files(&tiny, |name| format!("{}{name}", "d/".repeat(60)));
    usable(&tiny, &tiny.data());
}

#[test]
fn a_folder_that_is_too_deep_is_told_of() {
    let tiny = Tiny::new();
    rename_files(&tiny, |name| match name {
        "a.jpg" => format!("{}{name}", "d/".repeat(120)),
        name => name.into(),
    });
    let deep = "it lies more than 100 folders deep";
    let passed_over = format!("this folder is passed over, with all images in it: {deep}");
    unusable(
        &tiny,
        1,
        &[
            "a.jpg: is in the train list but does not exist",
            &passed_over,
        ],
    );
    let error = failed(&tiny.train_once("run"));
    says(
        &error,
        &[
            "a.jpg: this image of the train list does not exist; the folder ",
            deep,
        ],
    );
}

#[test]
fn links_in_circles_are_followed_once() {
    let tiny = Tiny::new();
    rename_files(&tiny, |name| format!("one/{name}"));
    fs::create_dir(tiny.images().join("two")).unwrap();
    for (link, to) in [
        ("here", "."),
        ("up", ".."),
        ("one/two", "../two"),
        ("two/one", "../one"),
    ] {
        symlink(to, tiny.images().join(link)).unwrap();
    }
    usable(&tiny, &tiny.data());
    // Each of the paths that lead to a photo names it.
    for prefix in [
        "one/",
        "two/one/",
        "one/two/one/",
        "here/one/",
        "up/Flicker8k_Dataset/one/",
    ] {
        let tiny = Tiny::new();
        rename_files(&tiny, |name| format!("one/{name}"));
        fs::create_dir(tiny.images().join("two")).unwrap();
        for (link, to) in [
            ("here", "."),
            ("up", ".."),
            ("one/two", "../two"),
            ("two/one", "../one"),
        ] {
            symlink(to, tiny.images().join(link)).unwrap();
        }
        // Another photo of the same name, so that the name alone does not find it.
        fs::create_dir(tiny.images().join("other")).unwrap();
        fs::copy(
            tiny.images().join("one/a.jpg"),
            tiny.images().join("other/a.jpg"),
        )
        .unwrap();
        rename(&tiny, |name| format!("{prefix}{name}"));
        let output = checked(&tiny.data());
        succeeded(&output);
        let text = stdout(&output);
        says(
            &text,
            &[
                "other/a.jpg: has no captions",
                ": 0 errors, 1 warning, usable",
            ],
        );
        succeeded(&tiny.train_once("run"));
    }
}

/// Links to folders elsewhere, as people keep photos on another disk.
#[test]
fn links_lead_to_other_folders() {
    let tiny = Tiny::new();
    fs::rename(tiny.images(), tiny.path("disk")).unwrap();
    fs::create_dir(tiny.images()).unwrap();
    symlink(tiny.path("disk"), tiny.images().join("photos")).unwrap();
    symlink(tiny.path("disk"), tiny.images().join("again")).unwrap();
    usable(&tiny, &tiny.data());
    // A link to nothing is no photo.
    symlink("nowhere.jpg", tiny.path("disk/x.jpg")).unwrap();
    let output = checked(&tiny.data());
    succeeded(&output);
    says(&stdout(&output), &[": 0 errors, 0 warnings, usable"]);
}

/// The program as somebody who may not read everything. `None`, and a line that says so, where the tests' user may, and nobody
/// else may run the program.
fn unprivileged(tiny: &Tiny) -> Option<Command> {
    let about = fs::metadata(tiny.path("")).unwrap();
    let mut command = showtell();
    if about.uid() == 0 {
        fs::set_permissions(tiny.path(""), Permissions::from_mode(0o777)).unwrap();
        command.uid(65534).gid(65534);
        if command.arg("--version").output().is_err() {
            println!("skipped: only root may run the program here");
            return None;
        }
        command = showtell();
        command.uid(65534).gid(65534);
    }
    Some(command)
}

fn close(folder: &Path, mode: u32) {
    fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_cannot_be_read_is_passed_over() {
    let tiny = Tiny::new();
    let run = |arguments: &[String]| -> Option<Output> {
        let mut command = unprivileged(&tiny)?;
        Some(command.args(arguments).output().unwrap())
    };
    let check = [
        "data".into(),
        "check".into(),
        tiny.data().display().to_string(),
    ];
    let train = |out: &str| {
        let flags = tiny.train_args(out).into_iter();
        let train = ["train".to_string()].into_iter().chain(flags);
        train.chain(SHOW_TELL.map(String::from)).collect::<Vec<_>>()
    };
    let private = tiny.images().join("private");
    fs::create_dir(&private).unwrap();
    close(&private, 0);
    let Some(output) = run(&check) else {
        return;
    };
    let warning = "private: this folder is passed over, with all images in it: Permission denied";
    succeeded(&output);
    says(&stdout(&output), &[warning, "0 errors, 1 warning, usable"]);
    let told = succeeded(&run(&train("run")).unwrap());
    says(&told, &["warning: ", warning]);

    // A photo that is needed lies there.
    close(&private, 0o755);
    fs::rename(tiny.images().join("a.jpg"), private.join("a.jpg")).unwrap();
    close(&private, 0);
    let hint = "private was not read: Permission denied";
    let output = run(&check).unwrap();
    assert_eq!(output.status.code(), Some(1));
    says(
        &stdout(&output),
        &[warning, hint, "1 error, 1 warning, training would fail"],
    );
    let error = failed(&run(&train("second")).unwrap());
    says(
        &error,
        &[
            "a.jpg: this image of the train list does not exist; the folder ",
            hint,
        ],
    );
    close(&private, 0o755);
}

#[test]
fn capitals_of_names_do_not_matter() {
    for name in [
        "photos",
        "Photos",
        "PHOTOS",
        "images",
        "IMAGES",
        "flicker8k_dataset",
    ] {
        let tiny = Tiny::new();
        fs::rename(tiny.images(), tiny.data().join(name)).unwrap();
        usable(&tiny, &tiny.data());
    }
    let tiny = Tiny::new();
    for name in [
        TOKENS,
        "Flickr_8k.trainImages.txt",
        "Flickr_8k.devImages.txt",
        "Flickr_8k.testImages.txt",
    ] {
        fs::rename(
            tiny.data().join(name),
            tiny.data().join(name.to_uppercase()),
        )
        .unwrap();
    }
    usable(&tiny, &tiny.data());
    for name in ["Captions.csv", "CAPTIONS.TXT", "Results.CSV"] {
        let tiny = Tiny::new();
        let table = tiny.read(TOKENS);
        fs::remove_file(tiny.data().join(TOKENS)).unwrap();
        tiny.write(name, table);
        usable(&tiny, &tiny.data());
    }
}

#[test]
fn names_that_differ_only_in_capitals_are_both_named() {
    let tiny = Tiny::new();
    tiny.write("captions.csv", "a.jpg,A dog\n");
    if tiny.data().join("CAPTIONS.CSV").exists() {
        println!("skipped: this file system has no capitals");
        return;
    }
    fs::remove_file(tiny.data().join(TOKENS)).unwrap();
    tiny.write("Captions.csv", "a.jpg,A cat\n");
    unusable(
        &tiny,
        1,
        &["data: Captions.csv and captions.csv differ only in capitals"],
    );
    let tiny = Tiny::new();
    fs::rename(tiny.images(), tiny.data().join("Images")).unwrap();
    fs::create_dir(tiny.data().join("images")).unwrap();
    unusable(
        &tiny,
        1,
        &["data: Images and images differ only in capitals"],
    );
}

#[test]
fn photos_may_lie_in_folders_beside_captions() {
    for folders in ["train/", "2019/may/"] {
        let tiny = Tiny::new();
        rename_files(&tiny, |name| format!("../{folders}{name}"));
        fs::remove_dir(tiny.images()).unwrap();
        usable(&tiny, &tiny.data());
        rename(&tiny, |name| format!("{folders}{name}"));
        let dataset = Flickr8k::open(tiny.data()).unwrap();
        assert_eq!((dataset.images().len(), dataset.missing().len()), (9, 0));
    }
}
