//! A stack of LSTM layers over whole sequences, time-major, with dropout between the layers.
//!
//! What does not depend on the state is out of the time loop: a layer's input product is one over all steps,
//! and so is each weight's gradient after the backward loop, since h and c are kept with the initial state in
//! front: (T + 1, B, H), of which the first T entries are the states before the steps.

use super::{Cell, Input, Layer, LayerGradients, OP, State, StateMut};
use super::{cell_backward, check_layers, input_gates, step_forward};
use crate::error::Result;
use crate::ops::dropout::Site;
use crate::ops::gemm::{self, Accumulate, Factor};
use crate::ops::linear;
use crate::ops::{check, copy, dropout, fill};
use crate::tensor::{Context, Tensor};

/// Dropout on what a layer passes to the next: the output of layer l is dropped at `site.plus(l)`.
#[derive(Clone)]
pub struct Dropout {
    /// The probability that an element is dropped, in [0, 1).
    pub p: f64,
    /// Decides the mask of the first layer.
    pub site: Site,
}

/// What backward needs, in the step arena.
pub struct Saved {
    layers: Vec<SavedLayer>,
    dropout: Option<Dropout>,
}

struct SavedLayer {
    /// The activated gates, (T, B, 4H).
    gates: Tensor,
    /// (T + 1, B, H): the initial state, then the state after each step.
    c: Tensor,
    /// (T + 1, B, H)
    h: Tensor,
    /// The output as the next layer saw it, (T, B, H).
    passed_on: Tensor,
}

impl Saved {
    /// h of the last layer after each step, (T, B, H).
    pub fn output(&self) -> Result<Tensor> {
        let last = self.layers.len() - 1;
        self.layers[last].output()
    }
}

impl SavedLayer {
    fn steps(&self) -> usize {
        self.gates.shape().dims()[0]
    }

    fn output(&self) -> Result<Tensor> {
        self.h.narrow(1, self.steps())
    }
}

/// Runs x (T, B, I) through the layers, from `initial` or from zero.
pub fn forward(
    ctx: &Context,
    layers: &[Layer],
    x: &Tensor,
    initial: Option<State>,
    dropout: Option<Dropout>,
) -> Result<Saved> {
    let [_, batch, _] = check::dims(OP, "x", x)?;
    let hidden = check_layers(layers, x)?;
    if let Some(State { h, c }) = initial {
        check::shape(OP, "initial h", h, &[layers.len(), batch, hidden])?;
        check::shape(OP, "initial c", c, &[layers.len(), batch, hidden])?;
    }
    let mut saved: Vec<SavedLayer> = Vec::with_capacity(layers.len());
    let mut input = x.clone();
    for (l, layer) in layers.iter().enumerate() {
        let mut done = layer_forward(ctx, layer, &input, l, initial)?;
        if let Some(Dropout { p, site }) = &dropout
            && l + 1 < layers.len()
        {
            let output = done.output()?;
            done.passed_on = ctx.empty_padded(output.shape(), x.dtype())?;
            let site = site.plus(l as u32);
            dropout::forward(ctx, *p, &site, 0, &output, &mut done.passed_on)?;
        }
        input = done.passed_on.clone();
        saved.push(done);
    }
    Ok(Saved {
        layers: saved,
        dropout,
    })
}

fn layer_forward(
    ctx: &Context,
    layer: &Layer,
    x: &Tensor,
    l: usize,
    initial: Option<State>,
) -> Result<SavedLayer> {
    let [steps, batch, _] = check::dims(OP, "x", x)?;
    let (hidden, dtype) = (layer.hidden(), x.dtype());
    let sums = dtype.of_parameters();
    let mut gates = ctx.empty_padded([steps, batch, 4 * hidden], sums)?;
    let c = ctx.empty_padded([steps + 1, batch, hidden], sums)?;
    let h = ctx.empty_padded([steps + 1, batch, hidden], dtype)?;
    let (weight, bias_ih, bias_hh) = (layer.weight_ih, layer.bias_ih, layer.bias_hh);
    input_gates(ctx, x, weight, bias_ih, bias_hh, &mut gates)?;
    match initial {
        Some(state) => {
            copy::forward(ctx, &state.h.index(l)?, &mut h.index(0)?)?;
            copy::forward(ctx, &state.c.index(l)?, &mut c.index(0)?)?;
        }
        None => {
            fill::zero(ctx, &mut h.index(0)?)?;
            fill::zero(ctx, &mut c.index(0)?)?;
        }
    }
    for t in 0..steps {
        let (mut gates, c_prev) = (gates.index(t)?, c.index(t)?);
        let state = Input {
            x: &h.index(t)?,
            weight: layer.weight_hh,
        };
        let (mut c, mut h) = (c.index(t + 1)?, h.index(t + 1)?);
        step_forward(ctx, &[state], &mut gates, &c_prev, &mut c, &mut h)?;
    }
    let passed_on = h.narrow(1, steps)?;
    Ok(SavedLayer {
        gates,
        c,
        h,
        passed_on,
    })
}

/// What backward writes.
pub struct Gradients<'a> {
    /// One for each layer.
    pub layers: Vec<LayerGradients<'a>>,
    /// (T, B, I), overwritten.
    pub x: Option<&'a mut Tensor>,
    /// Of the initial state, overwritten.
    pub initial: Option<StateMut<'a>>,
}

/// Gradients from dy (T, B, H), that of [`Saved::output`]. `accumulate` concerns the parameters' gradients.
pub fn backward(
    ctx: &Context,
    layers: &[Layer],
    x: &Tensor,
    saved: &Saved,
    dy: &Tensor,
    mut gradients: Gradients,
) -> Result<()> {
    let hidden = check_layers(layers, x)?;
    let [steps, batch, _] = check::dims(OP, "x", x)?;
    check::shape(OP, "dy", dy, &[steps, batch, hidden])?;
    let counts = (saved.layers.len(), gradients.layers.len());
    check::that(OP, counts == (layers.len(), layers.len()), || {
        format!(
            "{} layers, {} saved, {} gradients",
            layers.len(),
            counts.0,
            counts.1
        )
    })?;
    ctx.scope(|| {
        let dtype = dy.dtype();
        let mut d_gates = ctx.empty_padded([steps, batch, 4 * hidden], x.dtype())?;
        let mut between = ctx.empty_padded(dy.shape(), dtype)?;
        let mut d_output = dy.clone();
        for l in (0..layers.len()).rev() {
            let (layer, state) = (&layers[l], &saved.layers[l]);
            let dc = time_loop(ctx, layer, state, &d_output, &mut d_gates)?;
            if let Some(d_initial) = &mut gradients.initial {
                let (first, weight) = (d_gates.index(0)?, layer.weight_hh);
                product(ctx, &first, weight, &mut d_initial.h.index(l)?)?;
                copy::forward(ctx, &dc, &mut d_initial.c.index(l)?)?;
            }
            let input = match l {
                0 => x,
                _ => &saved.layers[l - 1].passed_on,
            };
            let d_layer = &mut gradients.layers[l];
            layer_gradients(ctx, layer, input, state, &d_gates, d_layer)?;
            if l > 0 {
                product(ctx, &d_gates, layer.weight_ih, &mut between)?;
                if let Some(Dropout { p, site }) = &saved.dropout {
                    dropout::in_place(ctx, *p, &site.plus(l as u32 - 1), 0, &mut between)?;
                }
                d_output = between.clone();
            } else if let Some(dx) = gradients.x.as_deref_mut() {
                product(ctx, &d_gates, layer.weight_ih, dx)?;
            }
        }
        Ok(())
    })
}

/// Fills `d_gates` from the last step to the first; gives the gradient of the initial c.
fn time_loop(
    ctx: &Context,
    layer: &Layer,
    saved: &SavedLayer,
    d_output: &Tensor,
    d_gates: &mut Tensor,
) -> Result<Tensor> {
    let shape = [d_output.shape().dims()[1], layer.hidden()];
    let mut from_later = ctx.empty(shape, d_output.dtype())?;
    let mut dc = ctx.empty(shape, d_output.dtype())?;
    fill::zero(ctx, &mut dc)?;
    let steps = saved.steps();
    for t in (0..steps).rev() {
        let mut later = None;
        if t + 1 < steps {
            let (d_gates, weight) = (d_gates.index(t + 1)?, layer.weight_hh);
            product(ctx, &d_gates, weight, &mut from_later)?;
            later = Some(&from_later);
        }
        let cell = Cell {
            gates: &saved.gates.index(t)?,
            c_prev: &saved.c.index(t)?,
            c: &saved.c.index(t + 1)?,
        };
        let (dh, mut d_gates) = (d_output.index(t)?, d_gates.index(t)?);
        cell_backward(ctx, cell, &dh, later, &mut dc, &mut d_gates)?;
    }
    Ok(dc)
}

/// y = x W
fn product(ctx: &Context, x: &Tensor, weight: &Tensor, y: &mut Tensor) -> Result<()> {
    let (x, weight) = (Factor::Plain(x), Factor::Plain(weight));
    gemm::forward(ctx, x, weight, Accumulate::No, y)
}

/// Each gradient is one product, or one sum, over all steps.
fn layer_gradients(
    ctx: &Context,
    layer: &Layer,
    input: &Tensor,
    saved: &SavedLayer,
    d_gates: &Tensor,
    gradients: &mut LayerGradients,
) -> Result<()> {
    let from_input = linear::Gradients {
        x: None,
        weight: Some(gradients.weight_ih),
        bias: Some(gradients.bias_ih),
    };
    let from_state = linear::Gradients {
        x: None,
        weight: Some(gradients.weight_hh),
        bias: Some(gradients.bias_hh),
    };
    let h_before = saved.h.narrow(0, saved.steps())?;
    let no = Accumulate::No;
    linear::backward(ctx, input, layer.weight_ih, d_gates, no, from_input)?;
    linear::backward(ctx, &h_before, layer.weight_hh, d_gates, no, from_state)
}
