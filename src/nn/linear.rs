//! A linear layer of a model: its weight and its bias among the parameters.

use super::params::{Declarations, Id, Init, Joined, Params, Role};
use crate::error::Result;
use crate::ops::linear::{self, Gradients};
use crate::ops::{Accumulate, copy};
use crate::tensor::{Context, Tensor};

/// y = x Wᵀ + b, with x (…, inputs), y (…, outputs), W (outputs, inputs) and b (outputs). x is of the type of
/// [`Params::operands`]; y may be, or of that of the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// W
    pub weight: Id,
    /// b
    pub bias: Id,
}

impl Linear {
    /// Declares `<name>.weight` and `<name>.bias`, trained as the decoder's, with PyTorch's default
    /// initialisation: both uniform in ±1/√inputs.
    pub fn declare(
        declare: &mut Declarations,
        name: &str,
        [outputs, inputs]: [usize; 2],
    ) -> Linear {
        let init = Init::fan_in(inputs);
        Linear::with_init(declare, name, [outputs, inputs], [init, init])
    }

    /// As [`Linear::declare`], with other initial values of weight and bias.
    pub fn with_init(
        declare: &mut Declarations,
        name: &str,
        [outputs, inputs]: [usize; 2],
        [weight, bias]: [Init; 2],
    ) -> Linear {
        let [weight_name, bias_name] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        Linear {
            weight: declare.add(weight_name, &[outputs, inputs], Role::Decoder, weight),
            bias: declare.add(bias_name, &[outputs], Role::Decoder, bias),
        }
    }

    /// y = x Wᵀ + b
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn forward(self, ctx: &Context, params: &Params, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (weight, bias) = (params.operand(self.weight), params.value(self.bias));
        linear::forward(ctx, x, weight, Some(bias), y)
    }

    /// Writes the gradients of weight and bias to the arena, and that of x to `dx` when it is wanted, from
    /// `dy`, the gradient of y, which is rounded where it is not of the operands' type.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn backward(
        self,
        ctx: &Context,
        params: &Params,
        x: &Tensor,
        dy: &Tensor,
        dx: Option<&mut Tensor>,
    ) -> Result<()> {
        let gradients = Gradients {
            x: dx,
            weight: Some(&mut params.gradient(self.weight)),
            bias: Some(&mut params.gradient(self.bias)),
        };
        let weight = params.operand(self.weight);
        if dy.dtype() == weight.dtype() {
            return linear::backward(ctx, x, weight, dy, Accumulate::No, gradients);
        }
        ctx.scope(|| {
            let mut rounded = ctx.empty_padded(dy.shape(), weight.dtype())?;
            copy::forward(ctx, dy, &mut rounded)?;
            linear::backward(ctx, x, weight, &rounded, Accumulate::No, gradients)
        })
    }
}

/// Two layers that read the same x, computed as one: y (…, outputs of the first + outputs of the second).
#[derive(Clone, Copy, Debug)]
pub struct LinearPair {
    weight: Joined,
    bias: Joined,
}

impl LinearPair {
    /// Joins two layers that were declared.
    ///
    /// # Errors
    /// When they have different numbers of inputs.
    pub fn new(declare: &mut Declarations, first: Linear, second: Linear) -> Result<LinearPair> {
        Ok(LinearPair {
            weight: declare.below(first.weight, second.weight)?,
            bias: declare.below(first.bias, second.bias)?,
        })
    }

    /// W of both, (outputs, inputs), as products read it.
    pub fn weight(&self, params: &Params) -> Result<Tensor> {
        params.joined_operand(self.weight)
    }

    /// y = x Wᵀ + b
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn forward(
        &self,
        ctx: &Context,
        params: &Params,
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let bias = params.joined(self.bias)?;
        linear::forward(ctx, x, &self.weight(params)?, Some(&bias), y)
    }

    /// Writes the gradients of weights and biases to the arena, from `dy`, the gradient of y.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn backward(&self, ctx: &Context, params: &Params, x: &Tensor, dy: &Tensor) -> Result<()> {
        let gradients = Gradients {
            x: None,
            weight: Some(&mut params.joined_gradient(self.weight)?),
            bias: Some(&mut params.joined_gradient(self.bias)?),
        };
        linear::backward(ctx, x, &self.weight(params)?, dy, Accumulate::No, gradients)
    }
}
