//! A batch of encoded captions on the device, and the losses computed on it.

use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

/// Encoded captions, `<sos> w1 … wn <eos>` and padding, time-major.
pub struct Captions {
    /// u32 (T, B)
    pub tokens: Tensor,
}

impl Captions {
    /// Takes room in the step arena and uploads `tokens`, (T, B) on the host.
    ///
    /// # Errors
    /// When there are not `steps` · `batch` tokens, or the device has no memory left.
    pub fn upload(ctx: &Context, steps: usize, batch: usize, tokens: &[u32]) -> Result<Self> {
        let mut device = ctx.empty([steps, batch], DType::U32)?;
        device.copy_from_slice(tokens)?;
        Ok(Captions { tokens: device })
    }

    /// T, tokens of the longest caption.
    pub fn steps(&self) -> usize {
        self.tokens.rows()
    }

    /// B
    pub fn batch(&self) -> usize {
        self.tokens.cols()
    }
}

/// Losses of a batch, tensors (1) on the device.
pub struct Losses {
    /// What is minimised.
    pub loss: Tensor,
    /// The cross-entropy in it.
    pub cross_entropy: Tensor,
}
