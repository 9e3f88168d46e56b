//! A linear layer of a model: its weight and bias among the parameters.

use super::params::{Id, Params};
use crate::error::Result;
use crate::ops::Accumulate;
use crate::ops::linear::{self, Gradients};
use crate::tensor::{Context, Tensor};

/// A weight and its bias.
pub type Linear = [Id; 2];

/// y = x Wᵀ + b
pub fn forward(
    ctx: &Context,
    params: &Params,
    [weight, bias]: Linear,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let [weight, bias] = [params.value(weight), params.value(bias)];
    linear::forward(ctx, x, weight, Some(bias), y)
}

/// Gradients of y = x Wᵀ + b from dy, overwriting.
pub fn backward(
    ctx: &Context,
    params: &Params,
    [weight, bias]: Linear,
    x: &Tensor,
    dy: &Tensor,
    dx: Option<&mut Tensor>,
) -> Result<()> {
    let gradients = Gradients {
        x: dx,
        weight: Some(&mut params.gradient(weight)),
        bias: Some(&mut params.gradient(bias)),
    };
    linear::backward(ctx, x, params.value(weight), dy, Accumulate::No, gradients)
}
