//! What a batch of sentences in progress keeps between two words, and how its rows change places.

use crate::error::Result;
use crate::ops::embedding;
use crate::tensor::{Context, DType, Shape, Tensor};

/// Entry r of `y` (R, …) becomes entry `rows[r]` of `x` (B, …): `rows` is u32 (R), both tensors are dense.
///
/// # Errors
/// When the shapes do not fit together.
pub fn select_rows(ctx: &Context, x: &Tensor, rows: &Tensor, y: &mut Tensor) -> Result<()> {
    let entries = x.shape().dims()[0];
    let cols = x.len() / entries;
    let from = x.reshape([entries, cols])?;
    let mut to = y.reshape([rows.len(), cols])?;
    embedding::forward(ctx, &from, rows, &mut to)
}

/// As [`select_rows`], into new room of the step arena.
///
/// # Errors
/// When the shapes do not fit together.
pub fn selected_rows(ctx: &Context, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let mut shape = x.shape().dims().to_vec();
    shape[0] = rows.len();
    let mut y = ctx.empty(Shape::new(&shape), x.dtype())?;
    select_rows(ctx, x, rows, &mut y)?;
    Ok(y)
}

/// Hidden state and cell of an LSTM of L layers, (L, B, H) each.
pub struct LstmState {
    /// The hidden state, (L, B, H).
    pub h: Tensor,
    /// The cell, (L, B, H).
    pub c: Tensor,
}

impl LstmState {
    /// Room for the state of `layers` layers, of `rows` sentences, of `hidden` numbers each. Its content is
    /// undefined. The hidden state is of this type, the cell of that of sums.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn empty(ctx: &Context, [layers, rows, hidden]: [usize; 3], dtype: DType) -> Result<Self> {
        Ok(LstmState {
            h: ctx.empty([layers, rows, hidden], dtype)?,
            c: ctx.empty([layers, rows, hidden], dtype.of_parameters())?,
        })
    }

    /// Room for the state of `rows` sentences of the same LSTM.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn empty_rows(&self, ctx: &Context, rows: usize) -> Result<Self> {
        let shape = [self.h.shape().dims()[0], rows, self.h.cols()];
        LstmState::empty(ctx, shape, self.h.dtype())
    }

    /// Row r of `to`, in every layer, becomes row `rows[r]` of this state.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn select(&self, ctx: &Context, rows: &Tensor, to: &mut LstmState) -> Result<()> {
        for (from, to) in [(&self.h, &to.h), (&self.c, &to.c)] {
            for layer in 0..from.shape().dims()[0] {
                select_rows(ctx, &from.index(layer)?, rows, &mut to.index(layer)?)?;
            }
        }
        Ok(())
    }
}
