//! Inverted dropout: y = x m / (1 - p), m = 0 with probability p, else 1.
//!
//! x is (T, B, C), or (B, C) for one step. The mask is not stored: m at (t, b, c) is a function of (seed,
//! step, site, t, b, c) by [`philox`], kept where the 32 random bits are at least p 2^32. So it is
//! the same on every device and however far a batch is padded, and backward, dx = dy m / (1 - p), draws it
//! again: it is the same function as forward.

mod cpu;
pub(super) mod cuda;

use super::{check, copy, dispatch};
use crate::error::{Error, Result};
use crate::philox;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "dropout";

/// Which mask: of which run, training step, and place in the model.
#[derive(Clone, Debug)]
pub struct Site {
    /// The seed of the run.
    pub seed: u64,
    /// u32 (1), on the device: it changes from step to step.
    pub step: Tensor,
    /// Any number but 2^32 - 1.
    pub site: u32,
}

impl Site {
    /// The `n`-th site after this one.
    pub fn plus(&self, n: u32) -> Self {
        Site {
            site: self.site + n,
            ..self.clone()
        }
    }
}

/// y = x m / (1 - p); `first_t` is the step that x begins with.
///
/// # Errors
/// When p is not in [0, 1), or there are more steps or sequences than masks can tell apart.
pub fn forward(
    ctx: &Context,
    p: f64,
    site: &Site,
    first_t: usize,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    check::tensor(OP, "y", y, x.shape().dims(), x.dtype())?;
    match Mask::new(p, site, first_t, x)? {
        Some(mask) => dispatch!(ctx, x.dtype(), forward(&mask, &site.step, x, y)),
        None => copy::forward(ctx, x, y),
    }
}

/// x ← x m / (1 - p): forward over an input that nothing else needs, or backward over a gradient.
pub fn in_place(ctx: &Context, p: f64, site: &Site, first_t: usize, x: &mut Tensor) -> Result<()> {
    match Mask::new(p, site, first_t, x)? {
        Some(mask) => dispatch!(ctx, x.dtype(), in_place(&mask, &site.step, x)),
        None => Ok(()),
    }
}

/// What the devices need to know to draw a mask, besides the step.
struct Mask {
    seed: u64,
    site: u32,
    /// Elements whose random bits are below it are dropped.
    threshold: u32,
    /// What the others are multiplied by.
    scale: f64,
    first_t: usize,
    batch: usize,
}

impl Mask {
    /// None where everything is kept.
    fn new(p: f64, site: &Site, first_t: usize, x: &Tensor) -> Result<Option<Mask>> {
        check::that(OP, (0.0..1.0).contains(&p), || {
            format!("the probability should be in [0, 1), is {p}")
        })?;
        check::that(OP, site.site != philox::STREAM_SITE, || {
            format!("site {} is reserved for streams", site.site)
        })?;
        check::tensor(OP, "step", &site.step, &[1], DType::U32)?;
        let (steps, batch) = match *x.shape().dims() {
            [batch, _] => (1, batch),
            [steps, batch, _] => (steps, batch),
            _ => {
                let message = format!("x should be (T, B, C) or (B, C), is {:?}", x.shape());
                return Err(Error::operation(OP, message));
            }
        };
        if p == 0.0 || x.is_empty() {
            return Ok(None);
        }
        philox::row_id(first_t + steps - 1, batch - 1)?;
        Ok(Some(Mask {
            seed: site.seed,
            site: site.site,
            threshold: (p * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - p),
            first_t,
            batch,
        }))
    }
}
