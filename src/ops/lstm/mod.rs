//! Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates), as PyTorch defines it.
//!
//! Pre-activations of the four gates, in the order i f g o:
//! a = x W_ihᵀ + b_ih + h' W_hhᵀ + b_hh, with h', c' the state before the step;
//! i = σ(a_i), f = σ(a_f), g = tanh(a_g), o = σ(a_o); c = f c' + i g; h = o tanh(c).
//!
//! Backward of the cell, from dh and from dc that comes back from later steps:
//! δ = dc + dh o (1 - tanh²c); da_i = δ g i (1 - i), da_f = δ c' f (1 - f), da_g = δ i (1 - g²),
//! da_o = dh tanh(c) o (1 - o); dc' = δ f. Saves the activated gates, c' and c.
//!
//! What products of matrices read (x, h, the weights, da) may be bf16; the gates, c, the biases and the other gradients are then
//! f32.
//!
//! The sequence over all steps and layers is in [`sequence`].

mod cpu;
pub(super) mod cuda;
pub mod sequence;

use super::gemm::{self, Accumulate, Factor};
use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "lstm";

/// The parameters of one layer.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// (4H, I)
    pub weight_ih: &'a Tensor,
    /// (4H, H)
    pub weight_hh: &'a Tensor,
    /// (4H)
    pub bias_ih: &'a Tensor,
    /// (4H)
    pub bias_hh: &'a Tensor,
}

impl Layer<'_> {
    fn hidden(&self) -> usize {
        self.weight_hh.cols()
    }

    fn check(&self, inputs: usize, hidden: usize, dtype: DType) -> Result<()> {
        let gates = 4 * hidden;
        check::tensor(OP, "weight_ih", self.weight_ih, &[gates, inputs], dtype)?;
        check::tensor(OP, "weight_hh", self.weight_hh, &[gates, hidden], dtype)?;
        let of_biases = dtype.of_parameters();
        check::tensor(OP, "bias_ih", self.bias_ih, &[gates], of_biases)?;
        check::tensor(OP, "bias_hh", self.bias_hh, &[gates], of_biases)
    }
}

/// The gradients of one layer's parameters. The two biases have the same.
pub struct LayerGradients<'a> {
    /// Of the weights of the input, (4H, E).
    pub weight_ih: &'a mut Tensor,
    /// Of the weights of the hidden state, (4H, H).
    pub weight_hh: &'a mut Tensor,
    /// Of the bias of the input, (4H).
    pub bias_ih: &'a mut Tensor,
    /// Of the bias of the hidden state, (4H).
    pub bias_hh: &'a mut Tensor,
}

/// What the layers remember between steps.
#[derive(Clone, Copy)]
pub struct State<'a> {
    /// (L, B, H)
    pub h: &'a Tensor,
    /// (L, B, H)
    pub c: &'a Tensor,
}

/// A state, or its gradient, to write.
pub struct StateMut<'a> {
    /// (L, B, H)
    pub h: &'a mut Tensor,
    /// (L, B, H)
    pub c: &'a mut Tensor,
}

/// gates = x W_ihᵀ + b_ih + b_hh: the part of the pre-activations that does not depend on the state, for any
/// number of rows at once. x (R, I), gates (R, 4H); `weight_ih` may be some columns of the layer's, with x
/// the matching part of the input.
pub fn input_gates(
    ctx: &Context,
    x: &Tensor,
    weight_ih: &Tensor,
    bias_ih: &Tensor,
    bias_hh: &Tensor,
    gates: &mut Tensor,
) -> Result<()> {
    for (name, bias) in [("bias_ih", bias_ih), ("bias_hh", bias_hh)] {
        check::tensor(OP, name, bias, &[gates.cols()], gates.dtype())?;
    }
    set_biases(ctx, bias_ih, bias_hh, gates)?;
    let weight = Factor::Transposed(weight_ih);
    gemm::forward(ctx, Factor::Plain(x), weight, Accumulate::Yes, gates)
}

fn set_biases(ctx: &Context, bias_ih: &Tensor, bias_hh: &Tensor, gates: &mut Tensor) -> Result<()> {
    dispatch!(ctx, gates.dtype(), set_biases(bias_ih, bias_hh, gates))
}

/// A part of a step's input, and the columns of the weights that read it.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// (B, K)
    pub x: &'a Tensor,
    /// (4H, K)
    pub weight: &'a Tensor,
}

/// One step: gates += Σ x Wᵀ over one or two inputs, of which the state h' is one, and then the cell. `gates` (B, 4H) hold
/// the rest of the pre-activations and become the activated gates; c and h (B, H) are written. On the CUDA device it is one
/// launch, in the precision of its matrix products.
pub fn step_forward(
    ctx: &Context,
    inputs: &[Input],
    gates: &mut Tensor,
    c_prev: &Tensor,
    c: &mut Tensor,
    h: &mut Tensor,
) -> Result<()> {
    let cell = [("gates", &*gates, 4), ("c_prev", c_prev, 1), ("c", c, 1)];
    check_cell(h, h.dtype().of_parameters(), cell)?;
    check::that(OP, matches!(inputs.len(), 1 | 2), || {
        format!("a step has one or two inputs, not {}", inputs.len())
    })?;
    for Input { x, weight } in inputs {
        check::matrix(OP, "x", x, [h.rows(), weight.cols()], h.dtype())?;
        check::matrix(
            OP,
            "weight",
            weight,
            [4 * h.cols(), weight.cols()],
            h.dtype(),
        )?;
    }
    dispatch!(
        ctx,
        gates.dtype(),
        step_forward(inputs, gates, c_prev, c, h)
    )
}

/// What the cell's backward reads of a step: the activated gates (B, 4H), c before it and c after it (B, H).
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    /// i, f, g and o after their activations, (B, 4H).
    pub gates: &'a Tensor,
    /// The cell state before the step, (B, H).
    pub c_prev: &'a Tensor,
    /// The cell state after the step, (B, H).
    pub c: &'a Tensor,
}

/// The gradient of the pre-activations, from that of h, which is the sum of `dh` and of what comes back from the `later`
/// step, if any. `dc` (B, H) is the gradient of c that comes from later steps and becomes that of `c_prev`.
pub fn cell_backward(
    ctx: &Context,
    cell: Cell,
    dh: &Tensor,
    later: Option<&Tensor>,
    dc: &mut Tensor,
    d_gates: &mut Tensor,
) -> Result<()> {
    let Cell { gates, c_prev, c } = cell;
    let dtype = dh.dtype();
    let read = [("gates", gates, 4), ("c_prev", c_prev, 1), ("c", c, 1)];
    check_cell(dh, dtype, read)?;
    check_cell(dh, d_gates.dtype(), [("d_gates", d_gates, 4)])?;
    check::beside(OP, "d_gates", d_gates, dtype)?;
    check_cell(dh, dtype, [("dc", dc, 1)])?;
    if let Some(later) = later {
        check_cell(dh, dtype, [("later dh", later, 1)])?;
    }
    dispatch!(ctx, dh.dtype(), cell_backward(cell, dh, later, dc, d_gates))
}

/// Each tensor must be of this type, and have as many rows as `h` and so many times its columns.
fn check_cell<const N: usize>(
    h: &Tensor,
    dtype: DType,
    tensors: [(&str, &Tensor, usize); N],
) -> Result<()> {
    for (name, tensor, times) in tensors {
        check::matrix(OP, name, tensor, [h.rows(), times * h.cols()], dtype)?;
    }
    Ok(())
}

/// One step of all layers without dropout, for decoding: from x (B, I) and `state` to `next`. The last
/// layer's h in `next` is the output.
pub fn step(
    ctx: &Context,
    layers: &[Layer],
    x: &Tensor,
    state: State,
    next: StateMut,
) -> Result<()> {
    let (batch, hidden) = (x.rows(), check_layers(layers, x)?);
    let shape = [layers.len(), batch, hidden];
    check::shape(OP, "h", state.h, &shape)?;
    check::shape(OP, "c", state.c, &shape)?;
    check::shape(OP, "next h", next.h, &shape)?;
    check::shape(OP, "next c", next.c, &shape)?;
    ctx.scope(|| {
        let mut gates = ctx.empty_padded([batch, 4 * hidden], x.dtype().of_parameters())?;
        let mut input = x.clone();
        for (l, layer) in layers.iter().enumerate() {
            set_biases(ctx, layer.bias_ih, layer.bias_hh, &mut gates)?;
            let (h_prev, c_prev) = (state.h.index(l)?, state.c.index(l)?);
            let inputs = [(&input, layer.weight_ih), (&h_prev, layer.weight_hh)];
            let inputs = inputs.map(|(x, weight)| Input { x, weight });
            let (mut c, mut h) = (next.c.index(l)?, next.h.index(l)?);
            step_forward(ctx, &inputs, &mut gates, &c_prev, &mut c, &mut h)?;
            input = h;
        }
        Ok(())
    })
}

/// The layers' common H: the first reads x, the others what the one below puts out.
fn check_layers(layers: &[Layer], x: &Tensor) -> Result<usize> {
    check::that(OP, !layers.is_empty(), || "there are no layers".into())?;
    let hidden = layers[0].hidden();
    for (l, layer) in layers.iter().enumerate() {
        layer.check(if l == 0 { x.cols() } else { hidden }, hidden, x.dtype())?;
    }
    Ok(hidden)
}
