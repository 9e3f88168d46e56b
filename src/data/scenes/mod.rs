//! A data set that is drawn: pictures of one or two coloured shapes, with captions.
//!
//! There are four colours, three shapes and four relations; sizes, positions, shades and backgrounds vary. A scene
//! is a pure function of (seed, index). [`SceneSet::write`] writes scenes in the layout of Flickr8k, so that they
//! are read like any other data set.

mod captions;
mod draw;

pub use captions::named;

use super::image::Rgb;
use crate::error::{Error, Result};
use crate::files;
use crate::philox;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// The width and height of a scene, in pixels.
pub const SIDE: usize = 64;
/// Number of captions of a scene.
pub const PARAPHRASES: usize = 5;

/// Quality of the JPEG files, from 0 to 100. High enough that the noise is kept.
const JPEG_QUALITY: u8 = 95;
/// The share of scenes with two objects.
const PAIRS: f32 = 2.0 / 3.0;

words! {
    /// The colour of an object.
    pub enum Colour {
        /// "red"
        Red = "red",
        /// "green"
        Green = "green",
        /// "blue"
        Blue = "blue",
        /// "yellow"
        Yellow = "yellow",
    }
}

words! {
    /// The shape of an object.
    pub enum Shape {
        /// "circle"
        Circle = "circle",
        /// "square"
        Square = "square",
        /// "triangle"
        Triangle = "triangle",
    }
}

/// The kind of an object, which captions name: "red circle".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
}

words! {
    /// The position of the first of two objects relative to the second.
    pub enum Relation {
        /// "to the left of"
        LeftOf = "to the left of",
        /// "to the right of"
        RightOf = "to the right of",
        /// "above"
        Above = "above",
        /// "below"
        Below = "below",
    }
}

impl Relation {
    /// The position of the second object relative to the first.
    pub fn inverse(self) -> Self {
        match self {
            Relation::LeftOf => Relation::RightOf,
            Relation::RightOf => Relation::LeftOf,
            Relation::Above => Relation::Below,
            Relation::Below => Relation::Above,
        }
    }
}

/// An object in a picture. Lengths are in pixels; x points right and y points down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its shape and colour.
    pub kind: Kind,
    /// Its centre, x and y.
    pub centre: [f32; 2],
    /// The radius of the circle with the same area.
    pub radius: f32,
    /// The angle by which it is rotated, in radians.
    pub angle: f32,
    /// Red, green, blue, each 0 to 255.
    pub shade: [f32; 3],
}

/// The background of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Background {
    /// Red, green, blue in the middle of the picture, each 0 to 255.
    pub shade: [f32; 3],
    /// How much lighter the picture becomes from edge to edge, along x and along y.
    pub slope: [f32; 2],
    /// The largest deviation of a pixel's brightness by noise. Pixels of objects have noise, too.
    pub noise: f32,
    /// The seed of the noise.
    pub noise_seed: u64,
}

/// A description of a picture, from which it is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The background.
    pub background: Background,
    /// One or two objects; two objects have different kinds.
    pub objects: Vec<Object>,
    /// The relation of two objects; `None` for one object.
    pub relation: Option<Relation>,
}

impl Scene {
    /// Scene number `index` of a seed.
    pub fn new(seed: u64, index: usize) -> Self {
        let mut random = Random::new(seed, index);
        let background = background(&mut random);
        let first = kind(&mut random);
        if random.uniform() >= PAIRS {
            let centre = [0, 1].map(|_| random.between(15.0..49.0));
            return Scene {
                background,
                objects: vec![object(&mut random, first, centre)],
                relation: None,
            };
        }
        let mut second = kind(&mut random);
        while second == first {
            second = kind(&mut random);
        }
        let relation = random.choose(&Relation::ALL);
        let centres = place(&mut random, relation);
        let objects = [first, second].into_iter().zip(centres);
        Scene {
            background,
            objects: objects
                .map(|(kind, centre)| object(&mut random, kind, centre))
                .collect(),
            relation: Some(relation),
        }
    }

    /// Whether an object of this kind is in the picture.
    pub fn shows(&self, kind: Kind) -> bool {
        self.objects.iter().any(|object| object.kind == kind)
    }

    /// Whether a caption names at least one object, and only objects that are in the picture.
    pub fn agrees_with(&self, caption: &str) -> bool {
        let named = named(caption);
        !named.is_empty() && named.into_iter().all(|kind| self.shows(kind))
    }

    /// Captions of the scene in the form of Flickr8k: lower-case, with spaces between words and before the full
    /// stop.
    pub fn captions(&self) -> [String; PARAPHRASES] {
        captions::describe(self)
    }

    /// The picture, of shape ([`SIDE`], [`SIDE`], 3).
    pub fn draw(&self) -> Rgb {
        draw::draw(self)
    }
}

fn background(random: &mut Random) -> Background {
    let level = random.between(110.0..200.0);
    Background {
        shade: [0, 1, 2].map(|_| level + random.between(-12.0..12.0)),
        slope: [0, 1].map(|_| random.between(-30.0..30.0)),
        noise: random.between(2.0..12.0),
        noise_seed: u64::from(random.word()),
    }
}

fn kind(random: &mut Random) -> Kind {
    Kind {
        colour: random.choose(&Colour::ALL),
        shape: random.choose(&Shape::ALL),
    }
}

fn object(random: &mut Random, kind: Kind, centre: [f32; 2]) -> Object {
    let pure: [f32; 3] = match kind.colour {
        Colour::Red => [205.0, 40.0, 40.0],
        Colour::Green => [45.0, 150.0, 55.0],
        Colour::Blue => [45.0, 75.0, 205.0],
        Colour::Yellow => [235.0, 205.0, 45.0],
    };
    let light = random.between(0.8..1.1);
    Object {
        kind,
        centre,
        radius: random.between(7.0..10.0),
        angle: random.between(-0.2..0.2),
        shade: pure.map(|value| (light * value + random.between(-15.0..15.0)).clamp(0.0, 255.0)),
    }
}

/// The centres of two objects: far apart along the axis of the relation, and close to each other across it.
fn place(random: &mut Random, relation: Relation) -> [[f32; 2]; 2] {
    let near = random.between(14.0..20.0);
    let far = random.between(44.0..50.0);
    let across = random.between(18.0..46.0);
    let [first, second] = [0, 1].map(|_| across + random.between(-4.0..4.0));
    match relation {
        Relation::LeftOf => [[near, first], [far, second]],
        Relation::RightOf => [[far, first], [near, second]],
        Relation::Above => [[first, near], [second, far]],
        Relation::Below => [[first, far], [second, near]],
    }
}

/// The sequence of random numbers of a scene.
struct Random {
    seed: u64,
    scene: u32,
    next: u64,
}

impl Random {
    fn new(seed: u64, index: usize) -> Self {
        let scene = index as u32;
        Random {
            seed,
            scene,
            next: 0,
        }
    }

    fn word(&mut self) -> u32 {
        self.next += 1;
        philox::word(self.seed, self.scene, self.next - 1)
    }

    /// A number in [0, 1).
    fn uniform(&mut self) -> f32 {
        self.next += 1;
        philox::uniform(self.seed, self.scene, self.next - 1)
    }

    fn between(&mut self, range: Range<f32>) -> f32 {
        range.start + (range.end - range.start) * self.uniform()
    }

    fn choose<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.uniform() * all.len() as f32) as usize]
    }
}

/// Scenes for training, validation and test. They are scenes 0, 1, 2 … of a seed, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SceneSet {
    /// The seed of all scenes.
    pub seed: u64,
    /// Number of scenes for training.
    pub train: usize,
    /// Number of scenes for validation.
    pub dev: usize,
    /// Number of scenes for test.
    pub test: usize,
}

impl SceneSet {
    /// Number of scenes.
    pub fn len(&self) -> usize {
        self.train + self.dev + self.test
    }

    /// Whether there are no scenes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scene number `index`. The numbers are the indices of
    /// [`Flickr8k::images`](super::flickr8k::Flickr8k::images) after the set has been written and opened.
    pub fn scene(&self, index: usize) -> Scene {
        Scene::new(self.seed, index)
    }

    /// Draws all scenes into `directory` as `Flicker8k_Dataset/scene_<number>.jpg`, with
    /// `Flickr8k.token.txt` and the three lists beside it.
    ///
    /// # Errors
    /// When a file cannot be written. The captions are written last, so that an incomplete set cannot be opened.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let images = directory.join("Flicker8k_Dataset");
        files::make_folder(&images)?;
        let captions = (0..self.len()).into_par_iter().map(|index| {
            let scene = self.scene(index);
            write_jpeg(&images.join(file_name(index)), &scene.draw())?;
            Ok(token_lines(&file_name(index), &scene))
        });
        let captions = captions.collect::<Result<String>>()?;
        let dev = self.train + self.dev;
        let lists = [
            ("Flickr_8k.trainImages.txt", 0..self.train),
            ("Flickr_8k.devImages.txt", self.train..dev),
            ("Flickr_8k.testImages.txt", dev..self.len()),
        ];
        for (name, scenes) in lists {
            let names: String = scenes.map(|index| file_name(index) + "\n").collect();
            files::write_text(directory.join(name), &names)?;
        }
        files::write_text(directory.join("Flickr8k.token.txt"), &captions)
    }
}

fn file_name(index: usize) -> String {
    format!("scene_{index:05}.jpg")
}

fn token_lines(file: &str, scene: &Scene) -> String {
    let captions = scene.captions().into_iter().enumerate();
    captions
        .map(|(number, caption)| format!("{file}#{number}\t{caption}\n"))
        .collect()
}

/// Writes a picture directly to its place. Thousands of small files would take long to sync one by one, and they
/// can be drawn again.
fn write_jpeg(path: &Path, image: &Rgb) -> Result<()> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    let (width, height) = (image.width as u32, image.height as u32);
    let encoded = encoder.encode(&image.pixels, width, height, ExtendedColorType::Rgb8);
    encoded.map_err(|e| Error::file(path, e.to_string()))?;
    fs::write(path, bytes).map_err(Error::io(path))
}
