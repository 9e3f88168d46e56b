//! Filters as the convolutions of a step read them: the parameters themselves, or, where activations have another
//! type, copies in that type. The trained ones are copied at once, since they are one range of the arena.

use crate::error::Result;
use crate::nn::params::{Id, Params};
use crate::ops::copy;
use crate::tensor::{Context, DType, Tensor};

/// Lives in the step arena if there are copies.
#[derive(Clone)]
pub(super) struct Filters {
    /// A copy of the encoder's range of the arena; `None` where the parameters themselves are read.
    trained: Option<Tensor>,
    dtype: DType,
}

impl Filters {
    /// For activations of type `dtype`.
    pub(super) fn new(ctx: &Context, params: &Params, dtype: DType) -> Result<Self> {
        let [_, encoder] = params.groups();
        let trained = if dtype == params.dtype() {
            None
        } else {
            let values = params.values().columns(encoder.start, encoder.len())?;
            let mut copied = ctx.empty([encoder.len()], dtype)?;
            copy::forward(ctx, &values, &mut copied)?;
            Some(copied)
        };
        Ok(Filters { trained, dtype })
    }

    /// A filter; a frozen one is copied now.
    pub(super) fn get(&self, ctx: &Context, params: &Params, id: Id) -> Result<Tensor> {
        let filter = params.value(id);
        match &self.trained {
            None => Ok(filter.clone()),
            Some(copied) if params.is_trained(id) => params.encoder_slice(id, copied),
            Some(_) => {
                let mut copied = ctx.empty(filter.shape(), self.dtype)?;
                copy::forward(ctx, filter, &mut copied)?;
                Ok(copied)
            }
        }
    }
}
