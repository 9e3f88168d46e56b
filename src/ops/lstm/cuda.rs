//! The LSTM on the CUDA device: `kernels/lstm.cu`.

use super::{Cell, Input, OP};
use crate::device::Precision;
use crate::device::cuda::{Grid, Read, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::lstm as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, Tensor};

kernel_struct! {
    pub struct LstmStep {
        pub rows: i32,
        pub hidden: i32,
        pub depth1: i32,
        pub depth2: i32,
        pub x1_ld: i32,
        pub x2_ld: i32,
        pub weight1_ld: i32,
        pub weight2_ld: i32,
        pub gates_ld: i32,
        pub c_prev_ld: i32,
        pub c_ld: i32,
        pub h_ld: i32,
    }
}

kernel_struct! {
    pub struct LstmCell {
        pub rows: i32,
        pub hidden: i32,
        pub gates_ld: i32,
        pub c_prev_ld: i32,
        pub c_ld: i32,
        pub dh_ld: i32,
        pub later_ld: i32,
        pub dc_ld: i32,
        pub d_gates_ld: i32,
    }
}

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
    let args = (
        launch.read(bias_ih)?,
        launch.read(bias_hh)?,
        launch.write(gates)?,
        launch.size(gates.rows())?,
        launch.size(gates.cols())?,
        launch.size(gates.ld())?,
    );
    let width = launch.width(&[bias_ih, bias_hh, gates]);
    let kernel = match width {
        4 => &kernels::LSTM_SET_BIASES_F32X4,
        _ => &kernels::LSTM_SET_BIASES_F32,
    };
    launch.run(kernel, Grid::threads_for(gates.len() / width, 256), args)
}

pub fn step_forward(
    ctx: &Context,
    inputs: &[Input],
    gates: &mut Tensor,
    c_prev: &Tensor,
    c: &mut Tensor,
    h: &mut Tensor,
) -> Result<()> {
    /// Units of a block, and its threads.
    const UNITS: usize = 8;
    const THREADS: u32 = 128;
    if h.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let size = |of: fn(&Input) -> usize, n: usize| launch.size(inputs.get(n).map_or(0, of));
    let step = LstmStep {
        rows: launch.size(h.rows())?,
        hidden: launch.size(h.cols())?,
        depth1: size(|input| input.x.cols(), 0)?,
        depth2: size(|input| input.x.cols(), 1)?,
        x1_ld: size(|input| input.x.ld(), 0)?,
        x2_ld: size(|input| input.x.ld(), 1)?,
        weight1_ld: size(|input| input.weight.ld(), 0)?,
        weight2_ld: size(|input| input.weight.ld(), 1)?,
        gates_ld: launch.size(gates.ld())?,
        c_prev_ld: launch.size(c_prev.ld())?,
        c_ld: launch.size(c.ld())?,
        h_ld: launch.size(h.ld())?,
    };
    let read = |n: usize| -> Result<[Read<f32>; 2]> {
        let input = inputs.get(n);
        Ok([
            launch.read_some(input.map(|input| input.x))?,
            launch.read_some(input.map(|input| input.weight))?,
        ])
    };
    let ([x1, weight1], [x2, weight2]) = (read(0)?, read(1)?);
    let args = (
        step,
        x1,
        weight1,
        x2,
        weight2,
        launch.write(gates)?,
        launch.read(c_prev)?,
        launch.write(c)?,
        launch.write(h)?,
    );
    // Rows of a block and bytes of its shared memory: the kernel's ShortStep and TallStep.
    let (rows, shared) = match h.rows() {
        0..=64 => (32, 40 << 10),
        _ => (64, 48 << 10),
    };
    let kernel = match (launch.precision(), rows) {
        (Precision::F32, 32) => &kernels::LSTM_STEP_F32_32,
        (Precision::F32, _) => &kernels::LSTM_STEP_F32_64,
        (Precision::Tf32, 32) => &kernels::LSTM_STEP_TF32_32,
        (Precision::Tf32, _) => &kernels::LSTM_STEP_TF32_64,
        (Precision::Bf16, 32) => &kernels::LSTM_STEP_BF16_OF_F32_32,
        (Precision::Bf16, _) => &kernels::LSTM_STEP_BF16_OF_F32_64,
    };
    let blocks = [h.cols().div_ceil(UNITS), h.rows().div_ceil(rows), 1];
    launch.run(kernel, Grid::blocks(blocks, THREADS).shared(shared), args)
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
    let sizes = LstmCell {
        rows: launch.size(dh.rows())?,
        hidden: launch.size(dh.cols())?,
        gates_ld: launch.size(cell.gates.ld())?,
        c_prev_ld: launch.size(cell.c_prev.ld())?,
        c_ld: launch.size(cell.c.ld())?,
        dh_ld: launch.size(dh.ld())?,
        later_ld: launch.size(later.map_or(0, Tensor::ld))?,
        dc_ld: launch.size(dc.ld())?,
        d_gates_ld: launch.size(d_gates.ld())?,
    };
    let args = (
        sizes,
        launch.read(cell.gates)?,
        launch.read(cell.c_prev)?,
        launch.read(cell.c)?,
        launch.read(dh)?,
        launch.read_some(later)?,
        launch.write(dc)?,
        launch.write(d_gates)?,
    );
    let in_packs = [
        cell.gates,
        cell.c_prev,
        cell.c,
        dh,
        later.unwrap_or(dh),
        dc,
        d_gates,
    ];
    let width = launch.width(&in_packs);
    let kernel = match width {
        4 => &kernels::LSTM_CELL_BACKWARD_F32X4,
        _ => &kernels::LSTM_CELL_BACKWARD_F32,
    };
    launch.run(kernel, Grid::threads_for(dh.len() / width, 256), args)
}
