//! Leading parts of an encoder with batch-norm folded into the filters: a convolution with bias (and
//! residual) and ReLU, one operation each, nothing saved. Filters are of the type of the device's activations.

use super::{Bottleneck, PingPong, ResNet, output, wrong_features};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::params::Params;
use crate::ops::conv::{self, Epilogue};
use crate::ops::window::Window;
use crate::ops::{batch_norm, pool};
use crate::tensor::{Context, Shape, Tensor};

struct FoldedConv {
    window: Window,
    filter: Tensor,
    bias: Tensor,
}

impl FoldedConv {
    fn new(params: &Params, layer: &super::ConvNorm) -> Result<Self> {
        let filter = params.value(layer.filter);
        let (device, beta) = (filter.device(), params.value(layer.beta));
        let activations = filter.dtype().of_activations(device.precision());
        Ok(FoldedConv {
            window: layer.window,
            filter: Tensor::zeros(device, filter.shape(), activations)?,
            bias: Tensor::zeros(device, beta.shape(), beta.dtype())?,
        })
    }

    fn fold(&mut self, ctx: &Context, params: &Params, layer: &super::ConvNorm) -> Result<()> {
        let filter = params.value(layer.filter);
        let running = layer.running(params);
        let (folded, bias) = (&mut self.filter, &mut self.bias);
        batch_norm::fold(ctx, filter, layer.affine(params), running, folded, bias)
    }

    fn output(&self, x: &Tensor) -> Shape {
        output(self.window, &self.filter, x)
    }

    fn forward(
        &self,
        ctx: &Context,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
    ) -> Result<()> {
        let bias = Some(&self.bias);
        let epilogue = Epilogue {
            bias,
            residual,
            relu,
        };
        conv::forward(ctx, x, &self.filter, self.window, epilogue, y)
    }

    /// The output in room of its own.
    fn activate(&self, ctx: &Context, x: &Tensor, relu: bool) -> Result<Tensor> {
        let mut y = ctx.empty(self.output(x), x.dtype())?;
        self.forward(ctx, x, None, relu, &mut y)?;
        Ok(y)
    }
}

/// The leading parts of a [`ResNet`], folded.
pub struct Folded {
    parts: usize,
    stem: FoldedConv,
    stages: Vec<Vec<Bottleneck<FoldedConv>>>,
}

impl Folded {
    /// Folds the first `parts` parts: 1 is the stem alone, [`ResNet::parts`] the whole encoder.
    ///
    /// # Errors
    /// When there is no part to fold, or no room.
    pub fn new(ctx: &Context, encoder: &ResNet, params: &Params, parts: usize) -> Result<Self> {
        if parts == 0 || parts > encoder.parts() {
            let message = format!("{parts} of {} parts cannot be folded", encoder.parts());
            return Err(Error::operation("residual encoder", message));
        }
        let stages = encoder.stages[..parts - 1].iter().map(|stage| {
            let blocks = stage.iter();
            blocks
                .map(|block| block.map(|layer| FoldedConv::new(params, layer)))
                .collect()
        });
        let mut folded = Folded {
            parts,
            stem: FoldedConv::new(params, &encoder.stem)?,
            stages: stages.collect::<Result<_>>()?,
        };
        folded.update(ctx, encoder, params)?;
        Ok(folded)
    }

    /// Folds the parameters as they are now.
    pub fn update(&mut self, ctx: &Context, encoder: &ResNet, params: &Params) -> Result<()> {
        self.stem.fold(ctx, params, &encoder.stem)?;
        let folded = self.stages.iter_mut().flatten();
        for (to, from) in folded.zip(encoder.stages.iter().flatten()) {
            to.reduce.fold(ctx, params, &from.reduce)?;
            to.spatial.fold(ctx, params, &from.spatial)?;
            to.expand.fold(ctx, params, &from.expand)?;
            if let (Some(to), Some(from)) = (&mut to.downsample, &from.downsample) {
                to.fold(ctx, params, from)?;
            }
        }
        Ok(())
    }

    /// How many leading parts it has.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Runs images (N, H, W, 3) through the folded parts, a few at a time; y takes the last one's output. Both
    /// are of the type of the device's activations.
    pub fn forward(
        &self,
        ctx: &Context,
        encoder: &ResNet,
        images: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let expected = encoder.output_of(self.parts, images);
        if y.shape() != expected {
            return Err(wrong_features(y, expected));
        }
        by_images(images, y, images_together(ctx.device()), |images, y| {
            ctx.scope(|| self.forward_few(ctx, encoder, images, y))
        })
    }

    fn forward_few(
        &self,
        ctx: &Context,
        encoder: &ResNet,
        images: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let outputs = (1..=self.parts).map(|parts| encoder.output_of(parts, images));
        let outputs: Vec<_> = outputs.collect();
        let room = outputs.iter().map(Shape::len).max().unwrap_or(0);
        let mut room = PingPong::new(ctx, room, images.dtype())?;
        let mut x = images.clone();
        for (part, &output) in outputs.iter().enumerate() {
            let mut to = if part + 1 == self.parts {
                y.handle()
            } else {
                room.next(output)?
            };
            let largest = match part {
                0 => self.stem.output(&x),
                _ => output,
            };
            let bytes = (largest.len() * x.dtype().bytes()).div_ceil(largest.dims()[0].max(1));
            // An activation stays in the caches for the next layer: in the first layers fewer images go together.
            let fitting = ctx.device().cache_bytes() / bytes.max(1);
            let together = fitting.clamp(1, images_together(ctx.device()));
            by_images(&x, &mut to, together, |x, y| {
                ctx.scope(|| match part {
                    0 => self.forward_stem(ctx, x, y),
                    _ => forward_stage(ctx, &self.stages[part - 1], x, y),
                })
            })?;
            x = to;
        }
        Ok(())
    }

    fn forward_stem(&self, ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let activation = self.stem.activate(ctx, x, true)?;
        pool::max_forward(ctx, &activation, super::POOL, y)
    }
}

/// Pixels of an image of 256 pixels' side in the last layers.
const LAST_PIXELS: usize = 8 * 8;

/// How many images go through the parts together at most: in the last layers they are enough pixels to be worth reading
/// the filters, and to keep all units busy.
fn images_together(device: &Device) -> usize {
    device.busy_rows() / LAST_PIXELS
}

/// Calls `body` with `together` images at a time of x and y.
fn by_images(
    x: &Tensor,
    y: &mut Tensor,
    together: usize,
    mut body: impl FnMut(&Tensor, &mut Tensor) -> Result<()>,
) -> Result<()> {
    let count = y.shape().dims()[0];
    for start in (0..count).step_by(together) {
        let len = together.min(count - start);
        body(&x.narrow(start, len)?, &mut y.narrow(start, len)?)?;
    }
    Ok(())
}

fn forward_stage(
    ctx: &Context,
    blocks: &[Bottleneck<FoldedConv>],
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let mut room = PingPong::new(ctx, y.len(), y.dtype())?;
    let mut x = x.clone();
    for (i, block) in blocks.iter().enumerate() {
        let mut to = if i + 1 == blocks.len() {
            y.handle()
        } else {
            room.next(y.shape())?
        };
        block.forward(ctx, &x, &mut to)?;
        x = to;
    }
    Ok(())
}

impl Bottleneck<FoldedConv> {
    fn forward(&self, ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
        ctx.scope(|| {
            let reduced = self.reduce.activate(ctx, x, true)?;
            let inner = self.spatial.activate(ctx, &reduced, true)?;
            let project = |layer: &FoldedConv| layer.activate(ctx, x, false);
            let projected = self.downsample.as_ref().map(project).transpose()?;
            let residual = projected.as_ref().unwrap_or(x);
            self.expand.forward(ctx, &inner, Some(residual), true, y)
        })
    }
}
