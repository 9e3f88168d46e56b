//! The encoder with batch-norm as a layer of its own: forward through all parts, saving what backward
//! needs of the trained ones, and backward through those. Activations and their gradients are of the type of the
//! images; parameters, their gradients and statistics of that of the parameters.

use super::filters::filter;
use super::{Bottleneck, ConvNorm, Folded, POOL, PingPong, ResNet, output, wrong_features};
use crate::error::{Error, Result};
use crate::nn::params::Params;
use crate::ops::batch_norm::{self, BatchNorm, Epilogue, Momentum, Running, Statistics};
use crate::ops::{Accumulate, add, conv, pool};
use crate::tensor::{Context, Shape, Tensor};

/// Which statistics batch-norm uses, and what runs the frozen parts.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Running statistics, constant. The frozen parts come folded; `None` if there are none.
    Running(Option<&'a Folded>),
    /// Every batch's own in all parts, frozen or not; the running ones follow them.
    Batch(Momentum),
}

impl Mode<'_> {
    fn statistics(&self) -> BatchNorm {
        match self {
            Mode::Running(_) => BatchNorm::Running,
            Mode::Batch(_) => BatchNorm::Batch,
        }
    }
}

/// What backward needs of a forward pass. Lives in the step arena: drop it before the arena is reset.
pub struct Saved {
    mode: BatchNorm,
    stem: Option<SavedStem>,
    blocks: Vec<SavedBlock>,
}

struct SavedStem {
    layer: SavedLayer,
    /// After the ReLU, before pooling.
    activation: Tensor,
}

struct SavedBlock {
    layers: Bottleneck<SavedLayer>,
    /// After the last ReLU.
    y: Tensor,
}

struct SavedLayer {
    /// The convolution's input.
    x: Tensor,
    /// Its output.
    z: Tensor,
    mean: Tensor,
    invstd: Tensor,
}

/// What every layer's forward takes.
#[derive(Clone, Copy)]
struct Pass<'a> {
    ctx: &'a Context,
    params: &'a Params,
    mode: Mode<'a>,
}

impl Pass<'_> {
    /// Convolution, batch-norm, residual and ReLU. All but `y` in room of its own.
    fn layer(
        self,
        layer: &ConvNorm,
        x: &Tensor,
        epilogue: Epilogue,
        y: &mut Tensor,
    ) -> Result<SavedLayer> {
        let Pass { ctx, params, .. } = self;
        let affine = layer.affine(params);
        let filter = filter(ctx, params, layer.filter, x.dtype())?;
        let mut z = ctx.empty(layer.output(params, x), x.dtype())?;
        let nothing = conv::Epilogue::default();
        conv::forward(ctx, x, &filter, layer.window, nothing, &mut z)?;
        let mut mean = ctx.empty(affine.gamma.shape(), params.dtype())?;
        let mut invstd = ctx.empty(affine.gamma.shape(), params.dtype())?;
        let statistics = Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        };
        match self.mode {
            Mode::Running(_) => {
                let running = layer.running(params);
                batch_norm::running_forward(ctx, &z, affine, running, epilogue, statistics, y)?;
            }
            Mode::Batch(momentum) => {
                let running = Some(Running {
                    mean: &mut params.value(layer.mean).handle(),
                    var: &mut params.value(layer.var).handle(),
                    momentum,
                });
                batch_norm::batch_forward(ctx, &z, affine, running, epilogue, statistics, y)?;
            }
        }
        let x = x.clone();
        Ok(SavedLayer { x, z, mean, invstd })
    }

    /// A layer with a ReLU or nothing after it, its output in room of its own.
    fn activate(self, layer: &ConvNorm, x: &Tensor, relu: bool) -> Result<(SavedLayer, Tensor)> {
        let mut y = self.ctx.empty(layer.output(self.params, x), x.dtype())?;
        let residual = None;
        let saved = self.layer(layer, x, Epilogue { residual, relu }, &mut y)?;
        Ok((saved, y))
    }

    fn block(self, block: &Bottleneck<ConvNorm>, x: &Tensor, y: &mut Tensor) -> Result<SavedBlock> {
        let (reduce, reduced) = self.activate(&block.reduce, x, true)?;
        let (spatial, inner) = self.activate(&block.spatial, &reduced, true)?;
        let project = |layer| self.activate(layer, x, false);
        let projected = block.downsample.as_ref().map(project).transpose()?;
        let (downsample, projected) = projected.unzip();
        let residual = Some(projected.as_ref().unwrap_or(x));
        let relu = true;
        let expand = self.layer(&block.expand, &inner, Epilogue { residual, relu }, y)?;
        let layers = Bottleneck {
            reduce,
            spatial,
            expand,
            downsample,
        };
        let y = y.handle();
        Ok(SavedBlock { layers, y })
    }

    fn stem(self, stem: &ConvNorm, images: &Tensor, y: &mut Tensor) -> Result<SavedStem> {
        let (layer, activation) = self.activate(stem, images, true)?;
        pool::max_forward(self.ctx, &activation, POOL, y)?;
        Ok(SavedStem { layer, activation })
    }

    fn output(self, block: &Bottleneck<ConvNorm>, x: &Tensor) -> Shape {
        let filter = self.params.value(block.expand.filter);
        output(block.spatial.window, filter, x)
    }
}

impl ResNet {
    /// Runs images (N, H, W, 3) through all parts to `features` (N, h, w, channels).
    ///
    /// # Errors
    /// When shapes do not fit, or `mode` has other parts folded than those frozen.
    pub fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        mode: Mode,
        images: &Tensor,
        features: &mut Tensor,
    ) -> Result<Saved> {
        let expected = self.output_of(self.parts(), images);
        if features.shape() != expected {
            return Err(wrong_features(features, expected));
        }
        let pass = Pass { ctx, params, mode };
        let mut saved = Saved {
            mode: mode.statistics(),
            stem: None,
            blocks: Vec::new(),
        };
        let blocks = self.trained_blocks();
        // A layer writes to room of its own, or, if it is the last, to the features.
        let room = |is_last: bool, shape: Shape| {
            if is_last {
                Ok(features.handle())
            } else {
                ctx.empty(shape, images.dtype())
            }
        };
        let start = self.output_of(self.trained_from.max(1), images);
        let mut x = room(blocks.is_empty(), start)?;
        match self.trained_from {
            0 => saved.stem = Some(pass.stem(&self.stem, images, &mut x)?),
            _ => self.forward_frozen(pass, images, &mut x)?,
        }
        for (i, block) in blocks.iter().enumerate() {
            let mut y = room(i + 1 == blocks.len(), pass.output(block, &x))?;
            saved.blocks.push(pass.block(block, &x, &mut y)?);
            x = y;
        }
        Ok(saved)
    }

    fn trained_blocks(&self) -> Vec<&Bottleneck<ConvNorm>> {
        let stages = &self.stages[self.trained_from.saturating_sub(1)..];
        stages.iter().flatten().collect()
    }

    fn forward_frozen(&self, pass: Pass, images: &Tensor, y: &mut Tensor) -> Result<()> {
        match pass.mode {
            Mode::Running(Some(folded)) if folded.parts() == self.trained_from => {
                folded.forward(pass.ctx, self, images, y)
            }
            Mode::Running(_) => {
                let message = format!("the {} frozen parts should come folded", self.trained_from);
                Err(Error::operation("residual encoder", message))
            }
            Mode::Batch(_) => pass
                .ctx
                .scope(|| self.forward_frozen_batch(pass, images, y)),
        }
    }

    /// Batch statistics need the whole batch at once in every layer; nothing is saved.
    fn forward_frozen_batch(&self, pass: Pass, images: &Tensor, y: &mut Tensor) -> Result<()> {
        let ctx = pass.ctx;
        let room = self.largest_activation(self.trained_from, images);
        let mut room = PingPong::new(ctx, room, images.dtype())?;
        let blocks: Vec<_> = self.stages[..self.trained_from - 1]
            .iter()
            .flatten()
            .collect();
        let stem = |y: &mut Tensor| ctx.scope(|| pass.stem(&self.stem, images, y).map(drop));
        let Some((last, blocks)) = blocks.split_last() else {
            return stem(y);
        };
        let mut x = room.next(self.output_of(1, images))?;
        stem(&mut x)?;
        for block in blocks {
            let mut to = room.next(pass.output(block, &x))?;
            ctx.scope(|| pass.block(block, &x, &mut to).map(drop))?;
            x = to;
        }
        ctx.scope(|| pass.block(last, &x, y).map(drop))
    }

    /// Writes the gradients of all trained parameters, from that of the features (N, h, w, channels), which
    /// is used up.
    ///
    /// # Errors
    /// When `d_features` does not fit what `saved` was made of.
    pub fn backward(
        &self,
        ctx: &Context,
        params: &Params,
        saved: &Saved,
        d_features: &mut Tensor,
    ) -> Result<()> {
        let pass = BackwardPass {
            ctx,
            params,
            mode: saved.mode,
        };
        ctx.scope(|| {
            let inputs = saved.blocks.iter().map(|block| block.layers.reduce.x.len());
            let room = inputs.max().unwrap_or(0);
            let mut room = PingPong::new(ctx, room, d_features.dtype())?;
            let mut dy = d_features.handle();
            let blocks = self.trained_blocks();
            for (i, (block, saved_block)) in blocks.iter().zip(&saved.blocks).enumerate().rev() {
                let is_first = i == 0 && saved.stem.is_none();
                let mut dx = if is_first {
                    None
                } else {
                    Some(room.next(saved_block.layers.reduce.x.shape())?)
                };
                ctx.scope(|| pass.block(block, saved_block, &mut dy, dx.as_mut()))?;
                match dx {
                    Some(dx) => dy = dx,
                    None => return Ok(()),
                }
            }
            match &saved.stem {
                Some(stem) => pass.stem(&self.stem, stem, &dy),
                None => Ok(()),
            }
        })
    }
}

/// What every layer's backward takes.
#[derive(Clone, Copy)]
struct BackwardPass<'a> {
    ctx: &'a Context,
    params: &'a Params,
    mode: BatchNorm,
}

impl BackwardPass<'_> {
    /// Gradients of a layer's parameters and of its input from that of its output: behind its ReLU, or before residual and
    /// ReLU.
    fn layer(
        self,
        layer: &ConvNorm,
        saved: &SavedLayer,
        behind_relu: bool,
        dy: &Tensor,
        dx: Option<(&mut Tensor, Accumulate)>,
    ) -> Result<()> {
        let BackwardPass { ctx, params, .. } = self;
        let mut dz = ctx.empty(saved.z.shape(), dy.dtype())?;
        let normalised = batch_norm::Saved {
            x: &saved.z,
            gamma: params.value(layer.gamma),
            mean: &saved.mean,
            invstd: &saved.invstd,
            relu: behind_relu.then(|| params.value(layer.beta)),
        };
        let gradients = batch_norm::Gradients {
            x: Some(&mut dz),
            gamma: Some(&mut params.gradient(layer.gamma)),
            beta: Some(&mut params.gradient(layer.beta)),
        };
        batch_norm::backward(ctx, self.mode, normalised, dy, Accumulate::No, gradients)?;
        let x = &saved.x;
        let filter = filter(ctx, params, layer.filter, x.dtype())?;
        let backward = |accumulate, gradients| {
            conv::backward(ctx, x, &filter, layer.window, &dz, accumulate, gradients)
        };
        let mut df = params.gradient(layer.filter);
        let filter_only = conv::Gradients {
            filter: Some(&mut df),
            ..Default::default()
        };
        backward(Accumulate::No, filter_only)?;
        let Some((dx, accumulate)) = dx else {
            return Ok(());
        };
        let x_only = conv::Gradients {
            x: Some(dx),
            ..Default::default()
        };
        backward(accumulate, x_only)
    }

    /// As [`BackwardPass::layer`], the gradient of the input in room of its own.
    fn to_input(
        self,
        layer: &ConvNorm,
        saved: &SavedLayer,
        behind_relu: bool,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let mut dx = self.ctx.empty(saved.x.shape(), dy.dtype())?;
        let to = Some((&mut dx, Accumulate::No));
        self.layer(layer, saved, behind_relu, dy, to)?;
        Ok(dx)
    }

    /// Back through a bottleneck; `dy` is used up.
    fn block(
        self,
        block: &Bottleneck<ConvNorm>,
        saved: &SavedBlock,
        dy: &mut Tensor,
        mut dx: Option<&mut Tensor>,
    ) -> Result<()> {
        let layers = &saved.layers;
        conv::relu_backward(self.ctx, &saved.y, dy)?;
        let d_inner = self.to_input(&block.expand, &layers.expand, false, dy)?;
        let d_reduced = self.to_input(&block.spatial, &layers.spatial, true, &d_inner)?;
        let overwrite = dx.as_deref_mut().map(|dx| (dx, Accumulate::No));
        self.layer(&block.reduce, &layers.reduce, true, &d_reduced, overwrite)?;
        match (&block.downsample, &layers.downsample, dx) {
            (Some(layer), Some(saved), dx) => {
                self.layer(layer, saved, false, dy, dx.map(|dx| (dx, Accumulate::Yes)))
            }
            (_, _, Some(dx)) => add::forward(self.ctx, dy, dx),
            _ => Ok(()),
        }
    }

    fn stem(self, stem: &ConvNorm, saved: &SavedStem, dy: &Tensor) -> Result<()> {
        let activation = &saved.activation;
        let mut d_activation = self.ctx.empty(activation.shape(), dy.dtype())?;
        pool::max_backward(self.ctx, activation, POOL, dy, &mut d_activation)?;
        self.layer(stem, &saved.layer, true, &d_activation, None)
    }
}
