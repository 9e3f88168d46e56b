//! A data set and a captioner so small that the binary trains on them within a second.

use super::cli::showtell;
use image::RgbImage;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Images of the training, validation and test list.
const TRAIN: [&str; 6] = ["a.jpg", "b.png", "c.jpg", "d.png", "e.jpg", "f.png"];
const DEV: [&str; 2] = ["g.jpg", "h.png"];
const TEST: [&str; 1] = ["i.jpg"];

/// One epoch of show-tell on a random encoder.
pub const SHOW_TELL: [&str; 6] = [
    "--model",
    "show-tell",
    "--encoder-weights",
    "random",
    "--epochs",
    "1",
];

/// A data set in a folder of its own.
pub struct Tiny {
    folder: TempDir,
}

impl Tiny {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let tiny = Tiny { folder };
        fs::create_dir_all(tiny.images()).unwrap();
        let names = [&TRAIN[..], &DEV, &TEST].concat();
        let mut captions = String::new();
        for (i, name) in names.iter().enumerate() {
            tiny.image(i as u32).save(tiny.images().join(name)).unwrap();
            let words = ["red", "green", "blue", "dark", "bright"];
            for (k, word) in words.iter().enumerate() {
                captions += &format!("{name}#{k}\tA {word} square , number {} .\n", (i + k) % 4);
            }
        }
        tiny.write("Flickr8k.token.txt", captions);
        tiny.write("Flickr_8k.trainImages.txt", TRAIN.join("\n") + "\n");
        tiny.write("Flickr_8k.devImages.txt", DEV.join("\n") + "\n");
        tiny.write("Flickr_8k.testImages.txt", TEST.join("\n") + "\n");
        tiny
    }

    /// Stripes, different for every number.
    pub fn image(&self, number: u32) -> RgbImage {
        RgbImage::from_fn(48, 40, |x, y| {
            let channel = |c: u32| ((x * (number + 2) + y * (c + 1) * 5) % 256) as u8;
            image::Rgb([0, 1, 2].map(channel))
        })
    }

    /// Where all of the test's files are.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn images(&self) -> PathBuf {
        self.data().join("Flicker8k_Dataset")
    }

    /// Replaces a file of the data set.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.data().join(name), content).unwrap();
    }

    /// Replaces the image of a name.
    pub fn write_image(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.images().join(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.data().join(name)).unwrap()
    }

    /// Adds lines to a file of the data set.
    pub fn append(&self, name: &str, lines: &str) {
        self.write(name, self.read(name) + lines);
    }

    /// Trains a tiny captioner into the folder `run`, with more options.
    pub fn train(&self, run: &str, options: &[&str]) -> Output {
        self.train_command(run, options).output().unwrap()
    }

    /// Trains show-tell for one epoch.
    pub fn train_once(&self, run: &str) -> Output {
        self.train(run, &SHOW_TELL)
    }

    pub fn train_command(&self, run: &str, options: &[&str]) -> Command {
        let mut command = showtell();
        command.arg("train").args(self.train_args(run));
        command.args(options);
        command
    }

    /// A tiny captioner's flags.
    pub fn train_args(&self, run: &str) -> Vec<String> {
        let sizes = "--encoder-blocks 1 --encoder-width 4 --encoder-stem 3 --image-size 32 --embed 8 \
                     --hidden 8 --attention 8 --positions 4 --threads 1 --device cpu";
        let path = |path: &Path| path.to_str().unwrap().to_string();
        let mut args: Vec<String> = sizes.split_whitespace().map(str::to_string).collect();
        args.extend(["--data".into(), path(&self.data())]);
        args.extend(["--out".into(), path(&self.path(run))]);
        args
    }

    /// Evaluates a run.
    pub fn eval(&self, run: &str, options: &[&str]) -> Output {
        let mut command = showtell();
        command.arg("eval").arg("--run").arg(self.path(run));
        command.arg("--data").arg(self.data()).args(options);
        command.output().unwrap()
    }
}
