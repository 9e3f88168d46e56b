//! Filters as the convolutions of a step read them: the parameters as products read them, or, of frozen ones where activations have
//! another type, copies in that type.

use crate::error::Result;
use crate::nn::params::{Id, Params};
use crate::ops::copy;
use crate::tensor::{Context, DType, Tensor};

/// A filter for activations of type `dtype`; a copy lives in the step arena.
pub(super) fn filter(ctx: &Context, params: &Params, id: Id, dtype: DType) -> Result<Tensor> {
    let filter = params.operand(id);
    if filter.dtype() == dtype {
        return Ok(filter.clone());
    }
    let mut copied = ctx.empty(filter.shape(), dtype)?;
    copy::forward(ctx, filter, &mut copied)?;
    Ok(copied)
}
