//! A whole captioner: a residual encoder and one of the two decoders.

use super::attend::{self, Attend};
use super::captions::{Captions, Losses, Noise};
use super::decoder::Decoder;
use super::params::{Declarations, Id, Params};
use super::resnet::{self, Folded, Mode, ResNet};
use super::show_tell::{self, ShowTell};
use crate::error::{Error, Result};
use crate::ops::attention::CellMix;
use crate::ops::batch_norm::{MOMENTUM, Momentum};
use crate::ops::preprocess::{self, Normalisation};
use crate::ops::{copy, pool};
use crate::tensor::{Context, DType, Shape, Tensor};

/// What the encoder's parameters are called behind.
pub const ENCODER_PREFIX: &str = "encoder.";

#[derive(Clone, Debug)]
pub struct Config {
    pub encoder: resnet::Config,
    /// Images are squares of this many pixels.
    pub image_size: usize,
    /// The encoder's batch-norm uses batch statistics in training, and updates the running ones.
    pub batch_statistics: bool,
    /// First stage of the encoder that is trained, 0 being the stem; none: it is frozen.
    pub trained_from: Option<usize>,
    /// E
    pub embed: usize,
    /// H
    pub hidden: usize,
    /// V
    pub vocabulary: usize,
    pub decoder: DecoderConfig,
}

#[derive(Clone, Debug)]
pub enum DecoderConfig {
    ShowTell {
        layers: usize,
        embed_dropout: f64,
        lstm_dropout: f64,
    },
    Attend {
        attention: usize,
        /// Side of the square grid of positions.
        positions: usize,
        dropout: f64,
        regulariser: f64,
    },
}

/// What a training step starts from.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Pixels (N, H, W, 3), u8
    Images(&'a Tensor),
    /// The encoder's output for a batch, as [`Captioner::features`] gives it.
    Features(&'a Tensor),
}

pub struct Captioner {
    config: Config,
    pub encoder: ResNet,
    pub decoder: Decoder,
    /// Height and width of the encoder's map.
    map: [usize; 2],
    /// Height and width of the grid of cells that attend is given.
    cells: [usize; 2],
    /// The encoder with its batch-norm folded, for inference, and its frozen parts alone, for training
    /// the others. Made by `prepare`.
    folded: Option<Folded>,
    folded_leading: Option<Folded>,
}

impl Captioner {
    /// Declares all parameters: decoder and encoder.
    ///
    /// # Errors
    /// When images of this size leave no map.
    pub fn declare(config: &Config) -> Result<(Self, Declarations)> {
        let mut declare = Declarations::default();
        let side = config.image_size;
        let map = config.encoder.feature_size([side, side]);
        if map.contains(&0) {
            let message = format!("found {side}, but images have to be larger for this encoder");
            return Err(Error::setting("image-size", message));
        }
        let features = config.encoder.channels();
        let (embed, hidden, vocabulary) = (config.embed, config.hidden, config.vocabulary);
        let mut cells = map;
        let decoder = match config.decoder {
            DecoderConfig::ShowTell {
                layers,
                embed_dropout,
                lstm_dropout,
            } => {
                let config = show_tell::Config {
                    features,
                    embed,
                    hidden,
                    layers,
                    vocabulary,
                    embed_dropout,
                    lstm_dropout,
                };
                Decoder::ShowTell(ShowTell::declare(config, &mut declare))
            }
            DecoderConfig::Attend {
                attention,
                positions,
                dropout,
                regulariser,
            } => {
                cells = map.map(|side| side.min(positions));
                let config = attend::Config {
                    features,
                    attention,
                    embed,
                    hidden,
                    vocabulary,
                    dropout,
                    regulariser,
                    mix: CellMix::new(cells, [positions; 2])?,
                };
                Decoder::Attend(Attend::declare(config, &mut declare))
            }
        };
        let trained = config.trained_from;
        let encoder = ResNet::declare(&mut declare, ENCODER_PREFIX, &config.encoder, trained);
        let captioner = Captioner {
            config: config.clone(),
            encoder,
            decoder,
            map,
            cells,
            folded: None,
            folded_leading: None,
        };
        Ok((captioner, declare))
    }

    /// Whether a tensor belongs to the encoder, `encoder.fc` being show-tell's own.
    pub fn is_encoder(&self, params: &Params, id: Id) -> bool {
        let name = params.name(id).strip_prefix(ENCODER_PREFIX);
        name.is_some_and(|name| !name.starts_with("fc."))
    }

    /// Shape of what the decoder reads, for one image: (1, D), or (1, C, D).
    pub fn feature_shape(&self) -> Vec<usize> {
        let channels = self.config.encoder.channels();
        match self.decoder {
            Decoder::ShowTell(_) => vec![1, channels],
            Decoder::Attend(_) => vec![1, self.cells[0] * self.cells[1], channels],
        }
    }

    /// Folds the encoder's batch-norm as it now stands. To be called after the encoder's parameters or
    /// statistics changed and before inference.
    pub fn prepare(&mut self, ctx: &Context, params: &Params) -> Result<()> {
        // Only beside trained parts are the frozen ones wanted alone.
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

    /// What the decoder reads of these pixels (N, H, W, 3), u8, in inference mode.
    ///
    /// # Panics
    /// Before [`Captioner::prepare`].
    pub fn features(&self, ctx: &Context, params: &Params, pixels: &Tensor) -> Result<Tensor> {
        let folded = self.folded.as_ref().expect("the captioner is prepared");
        let batch = pixels.shape().dims()[0];
        let features = self.empty_features(ctx, params, batch)?;
        ctx.scope(|| {
            let images = normalise(ctx, params, pixels)?;
            let mut map = self.empty_map(ctx, params, batch)?;
            folded.forward(ctx, &self.encoder, &images, &mut map)?;
            self.pool(ctx, &map, &mut features.clone())
        })?;
        Ok(features)
    }

    fn empty_features(&self, ctx: &Context, params: &Params, batch: usize) -> Result<Tensor> {
        let mut shape = self.feature_shape();
        shape[0] = batch;
        ctx.empty(Shape::new(&shape), params.dtype())
    }

    fn empty_map(&self, ctx: &Context, params: &Params, batch: usize) -> Result<Tensor> {
        let ([h, w], channels) = (self.map, self.config.encoder.channels());
        ctx.empty([batch, h, w, channels], activations(ctx, params))
    }

    /// From the encoder's map (N, h, w, D) to what the decoder reads. A map larger than the grid of positions
    /// is averaged to it here; a smaller one stays as it is, and the positions are mixed in the decoder.
    fn pool(&self, ctx: &Context, map: &Tensor, features: &mut Tensor) -> Result<()> {
        match self.decoder {
            Decoder::ShowTell(_) => pool::average_forward(ctx, map, features),
            Decoder::Attend(_) => {
                let mut grid = self.grid(features)?;
                match self.cells == self.map {
                    true => copy::forward(ctx, map, &mut grid),
                    false => pool::adaptive_forward(ctx, map, &mut grid),
                }
            }
        }
    }

    fn pool_backward(&self, ctx: &Context, d_features: &Tensor, d_map: &mut Tensor) -> Result<()> {
        match self.decoder {
            Decoder::ShowTell(_) => pool::average_backward(ctx, d_features, d_map),
            Decoder::Attend(_) => {
                let grid = self.grid(d_features)?;
                match self.cells == self.map {
                    true => copy::forward(ctx, &grid, d_map),
                    false => pool::adaptive_backward(ctx, &grid, d_map),
                }
            }
        }
    }

    /// Features (B, C, D) as a grid (B, h, w, D).
    fn grid(&self, features: &Tensor) -> Result<Tensor> {
        let ([h, w], dims) = (self.cells, features.shape());
        features.reshape([dims.dims()[0], h, w, features.cols()])
    }

    /// Sets the encoder's running statistics to the mean over batches; `count` were seen before this one.
    pub fn calibrate(
        &self,
        ctx: &Context,
        params: &Params,
        pixels: &Tensor,
        count: u64,
    ) -> Result<()> {
        let images = normalise(ctx, params, pixels)?;
        let mut map = self.empty_map(ctx, params, pixels.shape().dims()[0])?;
        let mode = Mode::Batch(Momentum::Cumulative { count });
        self.encoder.forward(ctx, params, mode, &images, &mut map)?;
        Ok(())
    }

    /// Forward and backward: losses, and all gradients in the arena.
    pub fn train(
        &self,
        ctx: &Context,
        params: &Params,
        input: Input,
        captions: &Captions,
        noise: Option<Noise>,
    ) -> Result<Losses> {
        let pixels = match input {
            Input::Features(features) => {
                return self
                    .decoder
                    .train(ctx, params, features, captions, noise, None);
            }
            Input::Images(pixels) => pixels,
        };
        let trained = self.config.trained_from.is_some();
        if !trained && !self.config.batch_statistics {
            let features = self.features(ctx, params, pixels)?;
            return self
                .decoder
                .train(ctx, params, &features, captions, noise, None);
        }
        let batch = pixels.shape().dims()[0];
        let images = normalise(ctx, params, pixels)?;
        let mode = match self.config.batch_statistics {
            true => Mode::Batch(Momentum::Fixed(MOMENTUM)),
            false => Mode::Running(self.folded_leading.as_ref()),
        };
        let mut map = self.empty_map(ctx, params, batch)?;
        let saved = self.encoder.forward(ctx, params, mode, &images, &mut map)?;
        let mut features = self.empty_features(ctx, params, batch)?;
        self.pool(ctx, &map, &mut features)?;
        if !trained {
            return self
                .decoder
                .train(ctx, params, &features, captions, noise, None);
        }
        let mut d_features = self.empty_features(ctx, params, batch)?;
        let (decoder, wanted) = (&self.decoder, Some(&mut d_features));
        let losses = decoder.train(ctx, params, &features, captions, noise, wanted)?;
        let mut d_map = self.empty_map(ctx, params, batch)?;
        self.pool_backward(ctx, &d_features, &mut d_map)?;
        self.encoder.backward(ctx, params, &saved, &mut d_map)?;
        Ok(losses)
    }
}

/// The element type of the encoder's activations.
fn activations(ctx: &Context, params: &Params) -> DType {
    params.dtype().of_activations(ctx.device().precision())
}

/// Pixels (N, H, W, 3), u8, as the encoder reads them.
fn normalise(ctx: &Context, params: &Params, pixels: &Tensor) -> Result<Tensor> {
    let mut images = ctx.empty(pixels.shape(), activations(ctx, params))?;
    preprocess::forward(ctx, pixels, Normalisation::IMAGENET, &mut images)?;
    Ok(images)
}
