//! A linear layer of a model: its weight and its bias among the parameters.

use super::params::{Declarations, Id, Init, Params, Role};
use crate::error::Result;
use crate::ops::Accumulate;
use crate::ops::linear::{self, Gradients};
use crate::tensor::{Context, Tensor};

/// y = x Wᵀ + b, with x (…, inputs), y (…, outputs), W (outputs, inputs) and b (outputs).
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
        let [weight, bias] = [self.weight, self.bias].map(|id| params.value(id));
        linear::forward(ctx, x, weight, Some(bias), y)
    }

    /// Writes the gradients of weight and bias to the arena, and that of x to `dx` when it is wanted, from
    /// `dy`, the gradient of y.
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
        let weight = params.value(self.weight);
        linear::backward(ctx, x, weight, dy, Accumulate::No, gradients)
    }
}
