//! The LSTM on the CUDA device: `kernels/lstm.cu`.

use super::{Cell, Input, OP};
use crate::error::Result;
use crate::ops::kernels::lstm::{
    GATES, LstmCell, LstmCellBackward, LstmSetBiases, LstmStep, LstmStepForward, STEP,
};
use crate::ops::launch::{Blocks, Launch};
use crate::ops::tile::{Cutting, depth};
use crate::tensor::{Context, Tensor};

pub fn set_biases(
    ctx: &Context,
    bias_ih: &Tensor,
    bias_hh: &Tensor,
    gates: &mut Tensor,
) -> Result<()> {
    if gates.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let vector = launch.vector(&[bias_ih, bias_hh, gates]);
    let blocks = Blocks::for_threads(gates.len() / vector.width);
    let arguments = LstmSetBiases {
        rows: launch.size(gates.rows())?,
        cols: launch.size(gates.cols())?,
        ld: launch.size(gates.ld())?,
        bias_ih: bias_ih.into(),
        bias_hh: bias_hh.into(),
        gates: gates.into(),
    };
    launch.run(&[vector.key()], blocks, arguments)
}

pub fn step_forward(
    ctx: &Context,
    inputs: &[Input],
    gates: &mut Tensor,
    c_prev: &Tensor,
    c: &mut Tensor,
    h: &mut Tensor,
) -> Result<()> {
    if h.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let arithmetic = launch.arithmetic(h.dtype());
    let depth = depth(STEP, arithmetic);
    let steps = inputs.iter().map(|input| input.x.cols().div_ceil(depth));
    let (size, terms) = ([h.rows(), GATES * h.cols()], steps.sum::<usize>() * depth);
    let cutting = Cutting::among(&[STEP], &launch, arithmetic, size, terms);
    let (first, second) = (inputs.first(), inputs.get(1));
    let size = |of: fn(&Input) -> usize, input: Option<&Input>| launch.size(input.map_or(0, of));
    let step = LstmStep {
        rows: launch.size(h.rows())?,
        hidden: launch.size(h.cols())?,
        depth1: size(|input| input.x.cols(), first)?,
        depth2: size(|input| input.x.cols(), second)?,
        x1_ld: size(|input| input.x.ld(), first)?,
        x2_ld: size(|input| input.x.ld(), second)?,
        weight1_ld: size(|input| input.weight.ld(), first)?,
        weight2_ld: size(|input| input.weight.ld(), second)?,
        gates_ld: launch.size(gates.ld())?,
        c_prev_ld: launch.size(c_prev.ld())?,
        c_ld: launch.size(c.ld())?,
        h_ld: launch.size(h.ld())?,
        part_steps: launch.size(cutting.parts.terms / depth)?,
    };
    cutting.with_workspace(ctx, |workspace, arrived| {
        let arguments = LstmStepForward {
            at: step,
            x1: first.map(|input| input.x).into(),
            weight1: first.map(|input| input.weight).into(),
            x2: second.map(|input| input.x).into(),
            weight2: second.map(|input| input.weight).into(),
            gates: gates.into(),
            c_prev: c_prev.into(),
            c: c.into(),
            h: h.into(),
            workspace: workspace.into(),
            arrived: arrived.into(),
        };
        launch.run(&[arithmetic], cutting.grid(), arguments)
    })
}

pub fn cell_backward(
    ctx: &Context,
    cell: Cell,
    dh: &Tensor,
    later: Option<&Tensor>,
    dc: &mut Tensor,
    d_gates: &mut Tensor,
) -> Result<()> {
    if dh.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let in_vectors = [
        &*d_gates,
        cell.gates,
        cell.c_prev,
        cell.c,
        dh,
        later.unwrap_or(dh),
        dc,
    ];
    let vector = launch.vector(&in_vectors);
    let arguments = LstmCellBackward {
        at: LstmCell {
            rows: launch.size(dh.rows())?,
            hidden: launch.size(dh.cols())?,
            gates_ld: launch.size(cell.gates.ld())?,
            c_prev_ld: launch.size(cell.c_prev.ld())?,
            c_ld: launch.size(cell.c.ld())?,
            dh_ld: launch.size(dh.ld())?,
            later_ld: launch.size(later.map_or(0, Tensor::ld))?,
            dc_ld: launch.size(dc.ld())?,
            d_gates_ld: launch.size(d_gates.ld())?,
        },
        gates: cell.gates.into(),
        c_prev: cell.c_prev.into(),
        c: cell.c.into(),
        dh: dh.into(),
        later: later.into(),
        dc: dc.into(),
        d_gates: d_gates.into(),
    };
    let blocks = Blocks::for_threads(dh.len() / vector.width);
    launch.run(&[vector.key()], blocks, arguments)
}
