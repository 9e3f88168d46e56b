//! The LSTM cell on the CPU: each task takes some rows of the batch through all that the cell does.

use super::{Cell, Input, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::gemm::{self, Accumulate, Factor};
use crate::ops::host::simd::simd;
use crate::ops::host::{Host, rows_of, rows_per_task};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn set_biases<T: Float>(
    ctx: &Context,
    bias_ih: &Tensor,
    bias_hh: &Tensor,
    gates: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (bias_ih, bias_hh) = (host.read::<T>(bias_ih)?, host.read::<T>(bias_hh)?);
    let mut gates = host.write::<T>(gates)?;
    gates.for_each_row(|_, row| {
        let biases = bias_ih.row(0).iter().zip(bias_hh.row(0));
        for (gate, (&ih, &hh)) in row.iter_mut().zip(biases) {
            *gate = ih + hh;
        }
    });
    Ok(())
}

pub fn step_forward<T: Float>(
    ctx: &Context,
    inputs: &[Input],
    gates: &mut Tensor,
    c_prev: &Tensor,
    c: &mut Tensor,
    h: &mut Tensor,
) -> Result<()> {
    for Input { x, weight } in inputs {
        let (x, weight) = (Factor::Plain(x), Factor::Transposed(weight));
        gemm::cpu::forward::<T>(ctx, x, weight, None, Accumulate::Yes, gates)?;
    }
    cell_forward::<T>(ctx, gates, c_prev, c, h)
}

fn cell_forward<T: Float>(
    ctx: &Context,
    gates: &mut Tensor,
    c_prev: &Tensor,
    c: &mut Tensor,
    h: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let mut gates = host.write::<T>(gates)?;
    let c_prev = host.read::<T>(c_prev)?;
    let mut c = host.write::<T>(c)?;
    let mut h = host.write::<T>(h)?;
    let (hidden, gates_ld, c_ld, h_ld) = (h.cols, gates.ld, c.ld, h.ld);
    let size = rows_per_task(4 * hidden);
    let states = c.par_row_blocks(size).zip(h.par_row_blocks(size));
    let blocks = gates.par_row_blocks(size).zip(states);
    blocks.for_each(|((first, gates), ((_, c), (_, h)))| {
        let states = rows_of(c, hidden, c_ld).zip(rows_of(h, hidden, h_ld));
        let rows = rows_of(gates, 4 * hidden, gates_ld).zip(states);
        for (i, (gates, (c, h))) in rows.enumerate() {
            simd(|| row_forward(gates, c_prev.row(first + i), c, h));
        }
    });
    Ok(())
}

#[inline(always)]
fn row_forward<T: Float>(gates: &mut [T], c_prev: &[T], c: &mut [T], h: &mut [T]) {
    let hidden = h.len();
    let (i, rest) = gates.split_at_mut(hidden);
    let (f, rest) = rest.split_at_mut(hidden);
    let (g, o) = rest.split_at_mut(hidden);
    let (o, c_prev, c) = (&mut o[..hidden], &c_prev[..hidden], &mut c[..hidden]);
    for k in 0..hidden {
        i[k] = i[k].sigmoid();
        f[k] = f[k].sigmoid();
        g[k] = g[k].fast_tanh();
        o[k] = o[k].sigmoid();
        c[k] = f[k] * c_prev[k] + i[k] * g[k];
        h[k] = o[k] * c[k].fast_tanh();
    }
}

pub fn cell_backward<T: Float>(
    ctx: &Context,
    cell: Cell,
    dh: &Tensor,
    later: Option<&Tensor>,
    dc: &mut Tensor,
    d_gates: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let gates = host.read::<T>(cell.gates)?;
    let (c_prev, c) = (host.read::<T>(cell.c_prev)?, host.read::<T>(cell.c)?);
    let dh = host.read::<T>(dh)?;
    let later = host.read_some::<T>(later)?;
    let mut dc = host.write::<T>(dc)?;
    let mut d_gates = host.write::<T>(d_gates)?;
    let (hidden, dc_ld, d_gates_ld) = (dh.cols, dc.ld, d_gates.ld);
    let size = rows_per_task(4 * hidden);
    let blocks = d_gates.par_row_blocks(size).zip(dc.par_row_blocks(size));
    blocks.for_each(|((first, d_gates), (_, dc))| {
        let d_gates = rows_of(d_gates, 4 * hidden, d_gates_ld);
        for (i, (d_gates, dc)) in d_gates.zip(rows_of(dc, hidden, dc_ld)).enumerate() {
            let row = first + i;
            let saved = (gates.row(row), c_prev.row(row), c.row(row));
            let dh = (dh.row(row), later.map(|later| later.row(row)));
            simd(|| row_backward(saved, dh, dc, d_gates));
        }
    });
    Ok(())
}

/// `saved`: the activated gates, c' and c.
#[inline(always)]
fn row_backward<T: Float>(
    saved: (&[T], &[T], &[T]),
    (dh, later): (&[T], Option<&[T]>),
    dc: &mut [T],
    d_gates: &mut [T],
) {
    let one = T::one();
    let hidden = dh.len();
    let (gates, c_prev, c) = saved;
    let (c_prev, c, dc) = (&c_prev[..hidden], &c[..hidden], &mut dc[..hidden]);
    let (i, rest) = gates.split_at(hidden);
    let (f, rest) = rest.split_at(hidden);
    let (g, o) = rest.split_at(hidden);
    let (di, rest) = d_gates.split_at_mut(hidden);
    let (df, rest) = rest.split_at_mut(hidden);
    let (dg, d_o) = rest.split_at_mut(hidden);
    let (o, d_o) = (&o[..hidden], &mut d_o[..hidden]);
    let later = later.map(|later| &later[..hidden]);
    for k in 0..hidden {
        let dh = later.map_or(dh[k], |later| dh[k] + later[k]);
        let tanh = c[k].fast_tanh();
        let delta = dc[k] + dh * o[k] * (one - tanh * tanh);
        di[k] = delta * g[k] * i[k] * (one - i[k]);
        df[k] = delta * c_prev[k] * f[k] * (one - f[k]);
        dg[k] = delta * i[k] * (one - g[k] * g[k]);
        d_o[k] = dh * tanh * o[k] * (one - o[k]);
        dc[k] = delta * f[k];
    }
}
