//! The engine: a captioner on a device, with its parameters and its vocabulary.

use super::captioner::{Captioner, CaptionerConfig, ENCODER_PREFIX};
use super::captions::{Captions, Losses};
use crate::data::vocabulary::Vocabulary;
use crate::device::Device;
use crate::error::Result;
use crate::nn::params::Params;
use crate::tensor::{Context, DType, Tensor};
use crate::weights::WeightFile;
use crate::weights::torchvision::match_encoder;
use std::path::Path;

/// A captioner on a device, with the words it speaks.
pub struct Engine {
    /// The device, and the room for a step's activations.
    pub ctx: Context,
    /// The words that the decoder chooses from.
    pub vocabulary: Vocabulary,
    /// Encoder and decoder.
    pub captioner: Captioner,
    /// The parameters of both.
    pub params: Params,
}

impl Engine {
    /// A captioner with this vocabulary; all its parameters are zero.
    ///
    /// # Errors
    /// When the configuration cannot work, or the device has no memory left.
    pub fn new(device: &Device, config: &CaptionerConfig, vocabulary: Vocabulary) -> Result<Self> {
        let (captioner, declarations) = Captioner::declare(config)?;
        let params = declarations.build(device, DType::F32)?;
        Ok(Engine {
            ctx: Context::new(device),
            vocabulary,
            captioner,
            params,
        })
    }

    /// Makes the encoder ready for inference with the parameters as they now are. To be called after they changed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prepare(&mut self) -> Result<()> {
        self.captioner.prepare(&self.ctx, &self.params)
    }

    /// Reads the encoder from a weight file with torchvision's names. Returns what stands in front of all these names
    /// in the file, such as `module.`; mostly nothing.
    ///
    /// # Errors
    /// When the file cannot be read, is of another encoder, or has a number that is not finite.
    pub fn load_encoder(&self, path: &Path) -> Result<String> {
        let file = WeightFile::open(path)?;
        let (params, encoder) = (&self.params, &self.captioner.encoder);
        let expected: Vec<_> = encoder
            .ids()
            .iter()
            .map(|&id| {
                let name = &params.name(id)[ENCODER_PREFIX.len()..];
                (name.to_string(), params.shape(id).to_vec())
            })
            .collect();
        let matched = match_encoder(&file, &expected, &encoder.config().name())?;
        for (&id, tensor) in encoder.ids().iter().zip(&matched.tensors) {
            params.import(id, &tensor.finite_floats()?)?;
        }
        Ok(matched.prefix.to_string())
    }

    /// Uploads images, `pixels` (N, S, S, 3) on the host, and gives them to `body` as one step: afterwards all room of
    /// the step arena is free again, so that no tensor made in `body` may leave it.
    ///
    /// # Errors
    /// Those of `body`; when the device fails, or a tensor of the step is still held.
    pub fn with_images<R>(
        &self,
        pixels: &[u8],
        body: impl FnOnce(&Tensor) -> Result<R>,
    ) -> Result<R> {
        let result = body(&self.upload_images(pixels)?)?;
        self.ctx.reset()?;
        Ok(result)
    }

    /// [`with_images`](Engine::with_images) of `count` images that have no numbers, for a dry run.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn with_blank_images<R>(
        &self,
        count: usize,
        body: impl FnOnce(&Tensor) -> Result<R>,
    ) -> Result<R> {
        let side = self.captioner.config().image_size;
        let result = body(&self.ctx.empty([count, side, side, 3], DType::U8)?)?;
        self.ctx.reset()?;
        Ok(result)
    }

    /// Images (N, S, S, 3) in the step arena, from pixels on the host.
    ///
    /// # Errors
    /// When the device fails, or the pixels are not those of whole images.
    pub fn upload_images(&self, pixels: &[u8]) -> Result<Tensor> {
        let side = self.captioner.config().image_size;
        let count = pixels.len() / (3 * side * side);
        let mut images = self.ctx.empty([count, side, side, 3], DType::U8)?;
        images.copy_from_slice(pixels)?;
        Ok(images)
    }

    /// What the decoder reads of images (N, S, S, 3), in inference mode.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// Before [`Engine::prepare`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.captioner.features(&self.ctx, &self.params, images)
    }

    /// [`Captioner::calibrate`].
    ///
    /// # Errors
    /// As the operations.
    pub fn calibrate(&self, images: &Tensor, count: u64) -> Result<()> {
        (self.captioner).calibrate(&self.ctx, &self.params, images, count)
    }

    /// [`Decoder::loss`](super::Decoder::loss).
    ///
    /// # Errors
    /// As the operations.
    pub fn losses(&self, features: &Tensor, captions: &Captions) -> Result<Losses> {
        let decoder = &self.captioner.decoder;
        decoder.loss(&self.ctx, &self.params, features, captions)
    }
}
