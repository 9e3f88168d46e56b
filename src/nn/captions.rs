//! A batch of encoded captions, and the losses computed on it: what both decoders share.

use crate::device::Device;
use crate::error::Result;
use crate::ops::{dropout, embedding};
use crate::tensor::{Context, DType, Tensor};

/// Token id that pads captions to the batch's longest; its targets do not count.
pub const PAD: u32 = 0;
/// Token id that starts every caption.
pub const SOS: u32 = 1;
/// Token id of words outside the vocabulary.
pub const UNK: u32 = 2;
/// Token id that ends every caption.
pub const EOS: u32 = 3;

/// Encoded captions, `<sos> w1 … wn <eos>` and padding, time-major.
pub struct Captions {
    /// (T, B)
    pub tokens: Tensor,
}

impl Captions {
    /// Takes room in the step arena and uploads `tokens`, (T, B) on the host.
    pub fn upload(ctx: &Context, steps: usize, batch: usize, tokens: &[u32]) -> Result<Self> {
        let mut device = ctx.empty([steps, batch], DType::U32)?;
        device.copy_from_slice(tokens)?;
        Ok(Captions { tokens: device })
    }

    pub fn steps(&self) -> usize {
        self.tokens.rows()
    }

    pub fn batch(&self) -> usize {
        self.tokens.cols()
    }
}

/// What makes a forward pass a training pass: dropout is on, drawn from this seed and step. Clones share the
/// number of the step.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: u64,
    /// The number of the step, u32 (1), on the device: a captured step reads it anew each time.
    step: Tensor,
}

impl Noise {
    /// Noise of step 0.
    pub fn new(device: &Device, seed: u64) -> Result<Self> {
        let step = Tensor::zeros(device, [1], DType::U32)?;
        Ok(Noise { seed, step })
    }

    /// Goes to another step.
    pub fn set_step(&mut self, step: u32) -> Result<()> {
        self.step.copy_from_slice(&[step])
    }

    /// The dropout of one place in a model.
    pub fn at(&self, site: u32) -> dropout::Site {
        dropout::Site {
            seed: self.seed,
            step: self.step.clone(),
            site,
        }
    }
}

/// Losses of a batch, one-element tensors on the device.
pub struct Losses {
    /// What is minimised.
    pub loss: Tensor,
    /// The cross-entropy in it.
    pub cross_entropy: Tensor,
}

/// Recurrent state of a batch of sentences while words are generated: (L, B, H) each for show-tell, (B, H) for
/// attend.
pub struct State {
    pub h: Tensor,
    pub c: Tensor,
}

impl State {
    /// Room for a state like this one.
    pub fn empty_like(&self, ctx: &Context) -> Result<State> {
        Ok(State {
            h: ctx.empty(self.h.shape(), self.h.dtype())?,
            c: ctx.empty(self.c.shape(), self.c.dtype())?,
        })
    }

    /// Room for the state of so many rows.
    pub fn empty_rows(&self, ctx: &Context, rows: usize) -> Result<State> {
        let (dtype, cols) = (self.h.dtype(), self.h.cols());
        let room = || match *self.h.shape().dims() {
            [layers, _, _] => ctx.empty([layers, rows, cols], dtype),
            _ => ctx.empty([rows, cols], dtype),
        };
        Ok(State {
            h: room()?,
            c: room()?,
        })
    }

    /// Row r of `y`, in every layer, becomes row `rows[r]` of this state.
    pub fn gather(&self, ctx: &Context, rows: &Tensor, y: &mut State) -> Result<()> {
        for (from, to) in [(&self.h, &y.h), (&self.c, &y.c)] {
            let [layers, cols] = [to.rows() / rows.len(), to.cols()];
            let from = from.reshape([layers, from.rows() / layers, cols])?;
            let to = to.reshape([layers, rows.len(), cols])?;
            for layer in 0..layers {
                embedding::forward(ctx, &from.index(layer)?, rows, &mut to.index(layer)?)?;
            }
        }
        Ok(())
    }
}
