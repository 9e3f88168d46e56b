//! A data set drawn by the tests, in Flickr8k's layout: pictures of discs and bars on coloured ground, with
//! captions that say so. Small enough to train on in a moment, real enough to go through every part.

use image::{Rgb, RgbImage};
use std::fs;
use std::path::{Path, PathBuf};

/// Pictures for training, validation and test, in this order.
pub const TRAIN: usize = 8;
pub const DEV: usize = 2;
pub const TEST: usize = 2;
pub const ALL: usize = TRAIN + DEV + TEST;

/// Captions of each picture.
pub const CAPTIONS: usize = 3;
/// Tokens of the longest caption, with the first and the last one.
pub const LONGEST: usize = 14;

const COLOURS: [(&str, [u8; 3]); 4] = [
    ("red", [210, 40, 30]),
    ("green", [30, 160, 60]),
    ("blue", [40, 60, 200]),
    ("white", [240, 240, 235]),
];
const SHAPES: [&str; 3] = ["disc", "bar", "square"];

/// Every third is a PNG.
pub fn name(i: usize) -> String {
    format!("picture{i:02}.{}", if i % 3 == 2 { "png" } else { "jpg" })
}

pub fn path(directory: &Path, i: usize) -> PathBuf {
    directory.join("Flicker8k_Dataset").join(name(i))
}

/// What picture `i` shows: colour and shape of the figure, colour of the ground.
fn subject(i: usize) -> (usize, usize, usize) {
    let figure = i % COLOURS.len();
    (
        figure,
        i % SHAPES.len(),
        (figure + 1 + i / 4) % COLOURS.len(),
    )
}

fn draw(i: usize) -> RgbImage {
    let (figure, shape, ground) = subject(i);
    // Neither square nor all of one size.
    let (width, height) = (40 + 3 * i as u32, 60 - 2 * i as u32);
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (
            f64::from(x) / f64::from(width) - 0.5,
            f64::from(y) / f64::from(height) - 0.5,
        );
        let inside = match SHAPES[shape] {
            "disc" => u * u + v * v < 0.09,
            "bar" => v.abs() < 0.12,
            _ => u.abs().max(v.abs()) < 0.25,
        };
        let shade = (30.0 * (u + v)) as i16;
        let (_, colour) = COLOURS[if inside { figure } else { ground }];
        Rgb(colour.map(|c| (i16::from(c) + shade).clamp(0, 255) as u8))
    })
}

fn captions(i: usize) -> [String; CAPTIONS] {
    let (figure, shape, ground) = subject(i);
    let ([figure, ground], shape) = ([COLOURS[figure].0, COLOURS[ground].0], SHAPES[shape]);
    [
        format!("A {figure} {shape} on {ground} ground ."),
        format!("The {shape} is {figure} , and all around it is {ground} ."),
        format!("{figure} on {ground}"),
    ]
}

/// Writes the whole set.
pub fn write(directory: &Path) {
    fs::create_dir(directory.join("Flicker8k_Dataset")).unwrap();
    let mut tokens = String::new();
    for i in 0..ALL {
        draw(i).save(path(directory, i)).unwrap();
        for (k, caption) in captions(i).iter().enumerate() {
            tokens += &format!("{}#{k}\t{caption}\n", name(i));
        }
    }
    fs::write(directory.join("Flickr8k.token.txt"), tokens).unwrap();
    let lists = [
        ("train", 0, TRAIN),
        ("dev", TRAIN, DEV),
        ("test", TRAIN + DEV, TEST),
    ];
    for (split, first, count) in lists {
        let names: String = (first..first + count).map(|i| name(i) + "\n").collect();
        fs::write(
            directory.join(format!("Flickr_8k.{split}Images.txt")),
            names,
        )
        .unwrap();
    }
}

/// The set in a new temporary folder.
pub fn temporary() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    directory
}
