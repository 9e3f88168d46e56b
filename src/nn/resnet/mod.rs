//! Residual encoders with bottlenecks (He et al., 2016), as torchvision builds and names them: the stride of a
//! stage is in the 3x3 convolution of its first block.
//!
//! ```text
//! stem:        convolution, batch-norm, ReLU, max-pooling 3x3 by 2
//! bottleneck:  1x1 to W channels, 3x3, 1x1 to 4 W; each with batch-norm, ReLU after the first two
//!              and after the sum with the input, which a stage's first block projects (1x1)
//! stage s:     blocks[s] bottlenecks of W = width · 2^s, halving the image from the second stage on
//! ```
//!
//! Images are (N, H, W, 3), features (N, h, w, channels), both NHWC. The encoder's *parts* are the stem (0) and
//! the stages (1, 2, …): parts before `fine_tune_from` are frozen. [`Folded`] runs leading parts with
//! batch-norm folded into the filters; [`ResNet::forward`] runs all, saving what
//! [`ResNet::backward`] needs of the trained ones.

mod filters;
mod folded;
mod train;

pub use folded::Folded;
pub use train::{Mode, Saved};

use super::params::{Declarations, Id, Init, Params, Role};
use crate::error::{Error, Result};
use crate::ops::batch_norm::{Affine, RunningStatistics};
use crate::ops::window::Window;
use crate::tensor::{Context, DType, Shape, Tensor};

/// Output channels of a bottleneck for every inner one.
const EXPANSION: usize = 4;

const POINT: Window = Window::square(1, 1, 0);

/// The stem's pooling.
const POOL: Window = Window::square(3, 2, 1);

/// What distinguishes one encoder from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// The window of the first convolution.
    pub stem: Window,
    /// Channels after the stem, and inner channels of the first stage.
    pub width: usize,
    /// Bottlenecks of every stage.
    pub blocks: Vec<usize>,
}

impl ResNetConfig {
    fn imagenet(blocks: [usize; 4]) -> Self {
        ResNetConfig {
            stem: Window::square(7, 2, 3),
            width: 64,
            blocks: blocks.to_vec(),
        }
    }

    /// ResNet-50.
    pub fn resnet50() -> Self {
        ResNetConfig::imagenet([3, 4, 6, 3])
    }

    /// ResNet-101.
    pub fn resnet101() -> Self {
        ResNetConfig::imagenet([3, 4, 23, 3])
    }

    /// A small encoder for tests and demonstrations, with a 3x3 stem.
    pub fn small(width: usize, blocks: &[usize]) -> Self {
        ResNetConfig {
            stem: Window::square(3, 2, 1),
            width,
            blocks: blocks.to_vec(),
        }
    }

    /// What the encoder is called: torchvision's name if it has one.
    pub fn name(&self) -> String {
        match (self.width, self.stem.kernel[0], &self.blocks[..]) {
            (64, 7, [3, 4, 6, 3]) => "resnet50".into(),
            (64, 7, [3, 4, 23, 3]) => "resnet101".into(),
            (width, _, blocks) => format!("ResNet {blocks:?} of width {width}"),
        }
    }

    /// Channels of the features.
    pub fn channels(&self) -> usize {
        match self.blocks.len() {
            0 => self.width,
            stages => (EXPANSION * self.width) << (stages - 1),
        }
    }

    /// Height and width of the features of images of this height and width.
    pub fn feature_size(&self, image: [usize; 2]) -> [usize; 2] {
        let stem = POOL.output(self.stem.output(image));
        (1..self.blocks.len()).fold(stem, |size, _| Window::square(3, 2, 1).output(size))
    }

    /// A bottleneck's convolutions: name, window, output and input channels. The projection comes last.
    fn bottleneck(&self, stage: usize, block: usize) -> Vec<(&'static str, Window, [usize; 2])> {
        let width = self.width << stage;
        let output = EXPANSION * width;
        let input = match (stage, block) {
            (0, 0) => self.width,
            (_, 0) => output / 2,
            _ => output,
        };
        let stride = if stage > 0 && block == 0 { 2 } else { 1 };
        let mut layers = vec![
            ("1", POINT, [width, input]),
            ("2", Window::square(3, stride, 1), [width, width]),
            ("3", POINT, [output, width]),
        ];
        if block == 0 {
            layers.push(("downsample", Window::square(1, stride, 0), [output, input]));
        }
        layers
    }
}

/// A convolution and the batch-norm after it, as declared.
struct ConvNorm {
    window: Window,
    filter: Id,
    gamma: Id,
    beta: Id,
    mean: Id,
    var: Id,
}

impl ConvNorm {
    fn declare(
        declarations: &mut Declarations,
        [convolution, norm]: [String; 2],
        window: Window,
        [k, c]: [usize; 2],
        role: Role,
    ) -> Self {
        let [r, s] = window.kernel;
        // Kaiming's for ReLU, by outputs, as torchvision.
        let deviation = (2.0 / (k * r * s) as f64).sqrt();
        let filter = format!("{convolution}.weight");
        let filter = declarations.add(filter, &[k, c, r, s], role, Init::Normal(deviation));
        let mut vector = |name: &str, role, value| {
            declarations.add(format!("{norm}.{name}"), &[k], role, Init::Constant(value))
        };
        ConvNorm {
            window,
            filter,
            gamma: vector("weight", role, 1.0),
            beta: vector("bias", role, 0.0),
            mean: vector("running_mean", Role::Frozen, 0.0),
            var: vector("running_var", Role::Frozen, 1.0),
        }
    }

    fn affine<'a>(&self, params: &'a Params) -> Affine<'a> {
        Affine {
            gamma: params.value(self.gamma),
            beta: params.value(self.beta),
        }
    }

    fn running<'a>(&self, params: &'a Params) -> RunningStatistics<'a> {
        RunningStatistics {
            mean: params.value(self.mean),
            var: params.value(self.var),
        }
    }

    /// The shape of the output for an input of this shape.
    fn output(&self, params: &Params, x: &Tensor) -> Shape {
        output(self.window, params.value(self.filter), x)
    }
}

/// The shape of a convolution's output.
fn output(window: Window, filter: &Tensor, x: &Tensor) -> Shape {
    let [n, size @ .., _] = dims(x);
    let [h, w] = window.output(size);
    Shape::from([n, h, w, filter.shape().dims()[0]])
}

/// The dimensions of an activation; zeros where it has fewer than four, which the operation that
/// reads it then refuses.
fn dims(x: &Tensor) -> [usize; 4] {
    x.shape().dims().try_into().unwrap_or_default()
}

/// A bottleneck of layers, or of something for every layer.
struct Bottleneck<L> {
    reduce: L,
    spatial: L,
    expand: L,
    downsample: Option<L>,
}

impl<L> Bottleneck<L> {
    /// The same with something else for every layer.
    fn map<M>(&self, mut f: impl FnMut(&L) -> Result<M>) -> Result<Bottleneck<M>> {
        Ok(Bottleneck {
            reduce: f(&self.reduce)?,
            spatial: f(&self.spatial)?,
            expand: f(&self.expand)?,
            downsample: self.downsample.as_ref().map(f).transpose()?,
        })
    }
}

/// An encoder: its structure and where its parameters are.
pub struct ResNet {
    config: ResNetConfig,
    stem: ConvNorm,
    stages: Vec<Vec<Bottleneck<ConvNorm>>>,
    /// Parts before this one are frozen.
    trained_from: usize,
    ids: Vec<Id>,
}

impl ResNet {
    /// Declares all tensors under torchvision's names after `prefix` (such as "encoder."). Filters, γ and β of
    /// the parts from `fine_tune_from` on are trained: 0 is the stem, 1 the first stage; `None` freezes all.
    pub fn declare(
        declarations: &mut Declarations,
        prefix: &str,
        config: &ResNetConfig,
        fine_tune_from: Option<usize>,
    ) -> Self {
        let (parts, start) = (config.blocks.len() + 1, declarations.len());
        let trained_from = fine_tune_from.map_or(parts, |part| part.min(parts));
        let role = |part: usize| {
            if part < trained_from {
                Role::Frozen
            } else {
                Role::Encoder
            }
        };
        let names = ["conv1", "bn1"].map(|name| format!("{prefix}{name}"));
        let channels = [config.width, 3];
        let stem = ConvNorm::declare(declarations, names, config.stem, channels, role(0));
        let mut declare_block = |stage: usize, block: usize| {
            let path = format!("{prefix}layer{}.{block}", stage + 1);
            let mut layers = config.bottleneck(stage, block).into_iter();
            let mut next = || {
                let (name, window, channels) = layers.next()?;
                let names = match name {
                    "downsample" => ["0", "1"].map(|i| format!("{path}.{name}.{i}")),
                    _ => ["conv", "bn"].map(|kind| format!("{path}.{kind}{name}")),
                };
                let role = role(stage + 1);
                Some(ConvNorm::declare(
                    declarations,
                    names,
                    window,
                    channels,
                    role,
                ))
            };
            Some(Bottleneck {
                reduce: next()?,
                spatial: next()?,
                expand: next()?,
                downsample: next(),
            })
        };
        let stages = config.blocks.iter().enumerate().map(|(stage, &blocks)| {
            let blocks = (0..blocks).filter_map(|block| declare_block(stage, block));
            blocks.collect()
        });
        let stages = stages.collect();
        ResNet {
            config: config.clone(),
            stem,
            stages,
            trained_from,
            ids: declarations.since(start),
        }
    }

    /// What distinguishes this encoder from others.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// All its tensors, trained and frozen, running statistics among them, in the order of their declaration.
    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// The stem and the stages.
    pub fn parts(&self) -> usize {
        self.stages.len() + 1
    }

    /// How many leading parts are frozen: all of them unless fine-tuned.
    pub fn frozen_parts(&self) -> usize {
        self.trained_from
    }

    /// The shape of what the first `parts` parts make of `images`.
    fn output_of(&self, parts: usize, images: &Tensor) -> Shape {
        let blocks = self.config.blocks[..parts - 1].to_vec();
        let leading = ResNetConfig {
            blocks,
            ..self.config.clone()
        };
        let [n, size @ .., _] = dims(images);
        let [h, w] = leading.feature_size(size);
        Shape::from([n, h, w, leading.channels()])
    }

    /// Elements of the largest activation between layers of the first `parts` parts.
    fn largest_activation(&self, parts: usize, images: &Tensor) -> usize {
        let [n, size @ .., _] = dims(images);
        let [h, w] = self.config.stem.output(size);
        let stem = n * h * w * self.config.width;
        let outputs = (1..=parts).map(|parts| self.output_of(parts, images).len());
        outputs.fold(stem, usize::max)
    }
}

/// Two buffers in turn: what a layer reads is never where it writes, and any chain of layers needs no more.
struct PingPong {
    buffers: [Tensor; 2],
    turn: usize,
}

impl PingPong {
    /// Room for activations of up to `elements` elements.
    fn new(ctx: &Context, elements: usize, dtype: DType) -> Result<Self> {
        Ok(PingPong {
            buffers: [ctx.empty([elements], dtype)?, ctx.empty([elements], dtype)?],
            turn: 0,
        })
    }

    /// The buffer that was not given last.
    fn next(&mut self, shape: Shape) -> Result<Tensor> {
        self.turn = 1 - self.turn;
        self.buffers[self.turn]
            .columns(0, shape.len())?
            .reshape(shape)
    }
}

fn wrong_features(features: &Tensor, expected: Shape) -> Error {
    let message = format!(
        "features should have shape {expected:?}, has {:?}",
        features.shape()
    );
    Error::operation("residual encoder", message)
}
