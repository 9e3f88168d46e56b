//! Resized photos of the training images, kept as they come, so that each is decoded only once: on the device if it has
//! room, else in the host's memory, if that has.

use super::available_memory;
use crate::data::loader::{Known, SkippedImage};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// The share of the host's memory that photos may take beside a device with memory of its own: one in so many bytes.
const HOST_SHARE: usize = 2;

/// Photos (S, S, 3), in the order in which they came.
pub struct PhotoStore {
    /// The row of an image of the data set. Rows are in the order in which images came.
    rows: HashMap<usize, usize>,
    unreadable: HashSet<usize>,
    pixels: Pixels,
}

enum Pixels {
    /// (N, S, S, 3)
    Device(Tensor),
    /// Photos one after the other, `image` bytes each.
    Host { pixels: Vec<u8>, image: usize },
}

/// Bytes of `images` photos of `size` pixels a side.
pub fn bytes(images: usize, size: usize) -> usize {
    images * 3 * size * size
}

/// The same beside `device`, if that has a memory of its own and they are at most half of what the host's memory has left, else 0.
pub fn bytes_on_host(device: &Device, images: usize, size: usize) -> Result<usize> {
    let wanted = bytes(images, size);
    let left = device
        .free_memory()?
        .and_then(|_| available_memory::bytes());
    let fits = left.is_some_and(|left| wanted <= left / HOST_SHARE);
    Ok(usize::from(fits) * wanted)
}

impl PhotoStore {
    /// Room for `images` photos of `size` pixels a side on the device.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn on_device(device: &Device, images: usize, size: usize) -> Result<Self> {
        let photos = Tensor::zeros(device, [images, size, size, 3], DType::U8)?;
        Ok(PhotoStore::new(Pixels::Device(photos)))
    }

    /// The same in the host's memory beside `device`; `None` where it would take too much of that.
    ///
    /// # Errors
    /// When the device fails.
    pub fn on_host(device: &Device, images: usize, size: usize) -> Result<Option<Self>> {
        let pixels = Pixels::Host {
            pixels: Vec::new(),
            image: bytes(1, size),
        };
        let fits = bytes_on_host(device, images, size)? > 0;
        Ok(fits.then(|| PhotoStore::new(pixels)))
    }

    fn new(pixels: Pixels) -> Self {
        PhotoStore {
            rows: HashMap::new(),
            unreadable: HashSet::new(),
            pixels,
        }
    }

    /// What a loader need not decode.
    pub fn known(&self) -> Known {
        Known {
            kept: self.rows.keys().copied().collect(),
            unreadable: self.unreadable.clone(),
        }
    }

    /// Keeps new images, `pixels` (n, S, S, 3).
    ///
    /// # Errors
    /// When the device fails, or has no room for as many.
    pub fn keep(&mut self, images: &[usize], pixels: &[u8]) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let first = self.rows.len();
        match &mut self.pixels {
            Pixels::Device(photos) => photos
                .narrow(first, images.len())?
                .copy_from_slice(pixels)?,
            Pixels::Host { pixels: kept, .. } => kept.extend_from_slice(pixels),
        }
        self.rows.extend(images.iter().copied().zip(first..));
        Ok(())
    }

    /// Remembers images that cannot be read.
    pub fn leave_out(&mut self, skipped: &[SkippedImage]) {
        let images = skipped.iter().map(|skipped| skipped.image);
        self.unreadable.extend(images);
    }

    /// The photos (N, S, S, 3), when they are on the device.
    pub fn photos(&self) -> Option<&Tensor> {
        match &self.pixels {
            Pixels::Device(photos) => Some(photos),
            Pixels::Host { .. } => None,
        }
    }

    /// The rows of images among the photos.
    ///
    /// # Errors
    /// When one has not come.
    pub fn rows(&self, images: &[usize]) -> Result<Vec<usize>> {
        let row = |image: &usize| {
            let missing = || Error::operation("photos", format!("image {image} has not come"));
            self.rows.get(image).copied().ok_or_else(missing)
        };
        images.iter().map(row).collect()
    }

    /// The pixels of these rows, when they are in the host's memory: (B, S, S, 3).
    pub fn pixels(&self, rows: &[usize]) -> Vec<u8> {
        match &self.pixels {
            Pixels::Device(_) => Vec::new(),
            Pixels::Host { pixels, image } => {
                let photo = |&row: &usize| &pixels[row * image..][..*image];
                rows.iter().flat_map(photo).copied().collect()
            }
        }
    }
}
