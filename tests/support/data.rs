//! What the tests of data share: an invented data set, the goldens, and the place of real data.

use std::fs;
use std::path::{Path, PathBuf};

/// Images of the invented set in the order of its captions; the last does not exist.
pub const NAMES: [&str; 6] = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.png", "a.jpg.1"];

/// The captions of each of `NAMES`.
pub fn captions() -> [&'static [&'static str]; 6] {
    [
        &[
            "A child, in red: \"Jump!\" it shouts .",
            "A child in a red coat leaps off a low wall .",
            "The kid 's red coat flies up .",
            "Child jumping",
            "A small child is in the air above a garden wall .",
        ],
        &[
            "Two dogs share one stick .",
            "A brown dog and a white dog run side by side .",
            "Dogs playing tug-of-war; the white one is winning .",
        ],
        &[
            "A man (with a hat) waits for a bus .",
            "Is the bus late ?",
            "A man in a hat checks his watch .",
        ],
        &[
            "A boat lies upside down on the beach .",
            "Nobody is near the boat .",
            "An old boat , green and white , on sand .",
            "Boat",
        ],
        &[
            "Three women sing on a stage .",
            "Women in blue dresses are singing .",
            "A choir of three .",
        ],
        &["A lost caption", "Another lost caption"],
    ]
}

/// Writes the invented set as Flickr8k is distributed, without images. `c.jpg` is in no list.
pub fn write_distributed(directory: &Path) {
    let mut tokens = String::new();
    for (name, captions) in NAMES.iter().zip(captions()) {
        for (k, caption) in captions.iter().enumerate() {
            tokens += &format!("{name}#{k}\t{caption}\n");
        }
    }
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("Flickr8k.token.txt", &tokens);
    write("Flickr_8k.trainImages.txt", "b.jpg\na.jpg\n");
    write("Flickr_8k.devImages.txt", "d.jpg\r\n");
    write("Flickr_8k.testImages.txt", "e.png");
}

/// The folder of the repository, or of the pack in which the tests' executable travels (`scripts/gpu-visit`).
pub fn root() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    now.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
}

/// A file under tests/goldens, made by data.py there.
pub fn golden(name: &str) -> serde_json::Value {
    let path = root().join("tests/goldens").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A folder of real data. `None`, and a line on stderr that says so, unless SHOWTELL_TEST_DATA names its parent.
pub fn real_data(folder: &str) -> Option<PathBuf> {
    let found = std::env::var_os("SHOWTELL_TEST_DATA").map(|data| Path::new(&data).join(folder));
    if found.is_none() {
        println!("skipped: SHOWTELL_TEST_DATA names no folder with {folder}");
    }
    found
}
