//! A whole captioner: a residual encoder and a decoder.

use super::architecture::Sizes;
use super::captions::{Captions, Losses};
use super::decoder::{Decoder, FeatureKind};
use super::registry::Model;
use crate::error::{Error, Result};
use crate::nn::noise::Noise;
use crate::nn::params::{Declarations, Params};
use crate::nn::resnet::{Folded, Mode, ResNet, ResNetConfig};
use crate::ops::batch_norm::{MOMENTUM, Momentum};
use crate::ops::preprocess::{self, Normalisation};
use crate::ops::{copy, pool};
use crate::settings::Table;
use crate::tensor::{Context, Shape, Tensor};

/// What the names of the encoder's parameters begin with.
pub const ENCODER_PREFIX: &str = "encoder.";

/// What distinguishes one captioner from another.
#[derive(Clone, Debug)]
pub struct CaptionerConfig {
    /// Blocks, widths and stem of the encoder.
    pub encoder: ResNetConfig,
    /// Images are squares of this many pixels.
    pub image_size: usize,
    /// The encoder's batch-norm uses batch statistics in training, and updates the running ones.
    pub batch_statistics: bool,
    /// First part of the encoder that is trained, 0 being the stem; `None` when it is frozen.
    pub trained_from: Option<usize>,
    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    /// V, words.
    pub vocabulary: usize,
    /// The kind of decoder.
    pub decoder: Model,
    /// The settings that only this decoder has.
    pub settings: Table,
}

/// What a training step starts from.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Images (N, S, S, 3), u8
    Images(&'a Tensor),
    /// The encoder's output for a batch, as [`Captioner::features`] gives it.
    Features(&'a Tensor),
}

/// An encoder and a decoder: their structure, and where their parameters are.
pub struct Captioner {
    config: CaptionerConfig,
    /// Gives the map (N, h, w, D) of a batch of images.
    pub encoder: ResNet,
    /// Gives captions from the map, or from its mean.
    pub decoder: Box<dyn Decoder>,
    /// Height and width of the encoder's map.
    map: [usize; 2],
    /// The encoder with its batch-norm folded, for inference, and its frozen parts alone, for training
    /// the others. Made by `prepare`.
    folded: Option<Folded>,
    folded_leading: Option<Folded>,
}

impl Captioner {
    /// Declares all parameters, those of the decoder first.
    ///
    /// # Errors
    /// When images of this size leave no map, or the decoder's settings cannot work.
    pub fn declare(config: &CaptionerConfig) -> Result<(Self, Declarations)> {
        let mut declare = Declarations::default();
        let side = config.image_size;
        let map = config.encoder.feature_size([side, side]);
        if map.contains(&0) {
            let message = format!("found {side}, but images have to be larger for this encoder");
            return Err(Error::setting("image-size", message));
        }
        let sizes = Sizes {
            features: config.encoder.channels(),
            map,
            embed: config.embed,
            hidden: config.hidden,
            vocabulary: config.vocabulary,
        };
        let decoder = (config.decoder.declare)(&config.settings, sizes, &mut declare)?;
        let trained = config.trained_from;
        let encoder = ResNet::declare(&mut declare, ENCODER_PREFIX, &config.encoder, trained);
        let captioner = Captioner {
            config: config.clone(),
            encoder,
            decoder,
            map,
            folded: None,
            folded_leading: None,
        };
        Ok((captioner, declare))
    }

    /// What it was declared with.
    pub fn config(&self) -> &CaptionerConfig {
        &self.config
    }

    /// Shape of what the decoder reads for a batch of images: (B, D) or (B, C, D).
    pub fn feature_shape(&self, batch: usize) -> Shape {
        let channels = self.config.encoder.channels();
        match self.decoder.features() {
            FeatureKind::Average => Shape::from([batch, channels]),
            FeatureKind::Cells { rows, columns } => Shape::from([batch, rows * columns, channels]),
        }
    }

    /// Folds the encoder's batch-norm as it now is. To be called after the encoder's parameters or statistics
    /// changed, and before inference.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prepare(&mut self, ctx: &Context, params: &Params) -> Result<()> {
        // The frozen parts are wanted alone only beside trained ones.
        let leading = match self.config.trained_from {
            Some(_) => self.encoder.frozen_parts(),
            None => 0,
        };
        let wanted = [
            (&mut self.folded, self.encoder.parts()),
            (&mut self.folded_leading, leading),
        ];
        for (folded, parts) in wanted {
            match folded {
                Some(folded) => folded.update(ctx, &self.encoder, params)?,
                None if parts > 0 => {
                    *folded = Some(Folded::new(ctx, &self.encoder, params, parts)?);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What the decoder reads of images (N, S, S, 3), u8, in inference mode.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// Before [`Captioner::prepare`].
    pub fn features(&self, ctx: &Context, params: &Params, images: &Tensor) -> Result<Tensor> {
        let folded = self.folded.as_ref().expect("the captioner is prepared");
        let batch = images.shape().dims()[0];
        let mut features = ctx.empty(self.feature_shape(batch), params.operands())?;
        ctx.scope(|| {
            let images = normalise(ctx, params, images)?;
            if self.reads_the_map() {
                let mut map = features.reshape(self.map_shape(batch))?;
                return folded.forward(ctx, &self.encoder, &images, &mut map);
            }
            let mut map = self.empty_map(ctx, params, batch)?;
            folded.forward(ctx, &self.encoder, &images, &mut map)?;
            self.pool(ctx, &map, &mut features)
        })?;
        Ok(features)
    }

    fn map_shape(&self, batch: usize) -> Shape {
        let ([h, w], channels) = (self.map, self.config.encoder.channels());
        Shape::from([batch, h, w, channels])
    }

    fn empty_map(&self, ctx: &Context, params: &Params, batch: usize) -> Result<Tensor> {
        ctx.empty(self.map_shape(batch), params.operands())
    }

    /// Whether the decoder's features are the encoder's map as it is, but for their shape.
    fn reads_the_map(&self) -> bool {
        let [rows, columns] = self.map;
        self.decoder.features() == FeatureKind::Cells { rows, columns }
    }

    /// From the encoder's map (N, h, w, D) to what the decoder reads.
    fn pool(&self, ctx: &Context, map: &Tensor, features: &mut Tensor) -> Result<()> {
        let FeatureKind::Cells { rows, columns } = self.decoder.features() else {
            return pool::average_forward(ctx, map, features);
        };
        pool::adaptive_forward(ctx, map, &mut grid(features, rows, columns)?)
    }

    /// From the gradient of what the decoder reads to that of the encoder's map.
    fn pool_backward(&self, ctx: &Context, d_features: &Tensor, d_map: &mut Tensor) -> Result<()> {
        let FeatureKind::Cells { rows, columns } = self.decoder.features() else {
            return pool::average_backward(ctx, d_features, d_map);
        };
        let grid = grid(d_features, rows, columns)?;
        if [rows, columns] == self.map {
            copy::forward(ctx, &grid, d_map)
        } else {
            pool::adaptive_backward(ctx, &grid, d_map)
        }
    }

    /// Sets the encoder's running statistics to the mean over batches of images (N, S, S, 3); `count` were seen
    /// before this one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn calibrate(
        &self,
        ctx: &Context,
        params: &Params,
        images: &Tensor,
        count: u64,
    ) -> Result<()> {
        let mut map = self.empty_map(ctx, params, images.shape().dims()[0])?;
        let images = normalise(ctx, params, images)?;
        let mode = Mode::Batch(Momentum::Cumulative { count });
        self.encoder.forward(ctx, params, mode, &images, &mut map)?;
        Ok(())
    }

    /// Forward and backward: losses, and all gradients in the arena.
    ///
    /// # Errors
    /// When the shapes do not fit together, or the device fails.
    pub fn train(
        &self,
        ctx: &Context,
        params: &Params,
        input: Input,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Losses> {
        let decoder = &self.decoder;
        let images = match input {
            Input::Features(features) => {
                return decoder.train(ctx, params, features, captions, noise, None);
            }
            Input::Images(images) => images,
        };
        let trained = self.config.trained_from.is_some();
        if !trained && !self.config.batch_statistics {
            let features = self.features(ctx, params, images)?;
            return decoder.train(ctx, params, &features, captions, noise, None);
        }
        let batch = images.shape().dims()[0];
        let images = normalise(ctx, params, images)?;
        let mode = if self.config.batch_statistics {
            Mode::Batch(Momentum::Fixed(MOMENTUM))
        } else {
            Mode::Running(self.folded_leading.as_ref())
        };
        let mut map = self.empty_map(ctx, params, batch)?;
        let saved = self.encoder.forward(ctx, params, mode, &images, &mut map)?;
        let shape = self.feature_shape(batch);
        let features = if self.reads_the_map() {
            map.reshape(shape)?
        } else {
            let mut features = ctx.empty(shape, params.operands())?;
            self.pool(ctx, &map, &mut features)?;
            features
        };
        if !trained {
            return decoder.train(ctx, params, &features, captions, noise, None);
        }
        let mut d_features = ctx.empty(shape, params.dtype())?;
        let wanted = Some(&mut d_features);
        let losses = decoder.train(ctx, params, &features, captions, noise, wanted)?;
        let mut d_map = if self.reads_the_map() && params.operands() == params.dtype() {
            d_features.reshape(self.map_shape(batch))?
        } else {
            let mut d_map = self.empty_map(ctx, params, batch)?;
            self.pool_backward(ctx, &d_features, &mut d_map)?;
            d_map
        };
        self.encoder.backward(ctx, params, &saved, &mut d_map)?;
        Ok(losses)
    }
}

/// Features (B, C, D) as a grid (B, rows, columns, D).
fn grid(features: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let batch = features.shape().dims()[0];
    features.reshape([batch, rows, columns, features.cols()])
}

/// Images (N, S, S, 3), u8, as the encoder reads them.
fn normalise(ctx: &Context, params: &Params, pixels: &Tensor) -> Result<Tensor> {
    let mut images = ctx.empty(pixels.shape(), params.operands())?;
    preprocess::forward(ctx, pixels, Normalisation::IMAGENET, &mut images)?;
    Ok(images)
}
