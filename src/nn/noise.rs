//! The randomness of a training step.

use crate::device::Device;
use crate::error::Result;
use crate::ops::dropout;
use crate::tensor::{DType, Tensor};

/// What makes a forward pass a training pass: dropout is on, and its masks are drawn from this seed and step.
/// Clones share the number of the step.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: u64,
    /// The number of the step, u32 (1), on the device: a recorded step reads it anew each time.
    step: Tensor,
}

impl Noise {
    /// The noise of step 0.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(device: &Device, seed: u64) -> Result<Self> {
        let step = Tensor::zeros(device, [1], DType::U32)?;
        Ok(Noise { seed, step })
    }

    /// Goes to another step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn set_step(&mut self, step: u32) -> Result<()> {
        self.step.copy_from_slice(&[step])
    }

    /// The dropout of one place in a model. Every place needs a number of its own, the site.
    pub fn at(&self, site: u32) -> dropout::Site {
        dropout::Site {
            seed: self.seed,
            step: self.step.clone(),
            site,
        }
    }
}
