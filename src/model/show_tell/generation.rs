//! Sentences in progress: the LSTM's state, and the logits that it leads to.

use super::ShowTell;
use crate::error::Result;
use crate::model::decoder::Generation;
use crate::nn::params::Params;
use crate::nn::state::LstmState;
use crate::ops::{embedding, fill, lstm};
use crate::tensor::{Context, Tensor};

/// A batch of R sentences.
pub(super) struct Sentences<'a> {
    model: &'a ShowTell,
    ctx: &'a Context,
    params: &'a Params,
    /// The state before the next word, and room for the one after it. They change places at every word.
    state: LstmState,
    next: LstmState,
    /// (R, V); rows padded.
    logits: Tensor,
}

impl ShowTell {
    /// Shows the images to the LSTM, which was at zero.
    pub(super) fn show<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Sentences<'a>> {
        let (sizes, operands) = (self.sizes, params.operands());
        let batch = features.rows();
        let shape = [self.settings.layers, batch, sizes.hidden];
        let mut sentences = Sentences {
            model: self,
            ctx,
            params,
            state: LstmState::empty(ctx, shape, operands)?,
            next: LstmState::empty(ctx, shape, operands)?,
            logits: ctx.empty_padded([batch, sizes.vocabulary], params.dtype())?,
        };
        fill::zero(ctx, &mut sentences.state.h)?;
        fill::zero(ctx, &mut sentences.state.c)?;
        ctx.scope(|| {
            let mut x = ctx.empty([batch, sizes.embed], operands)?;
            self.fc.forward(ctx, params, features, &mut x)?;
            sentences.advance(&x)
        })?;
        Ok(sentences)
    }
}

impl Sentences<'_> {
    /// The LSTM reads x (R, E).
    fn advance(&mut self, x: &Tensor) -> Result<()> {
        let (ctx, params, model) = (self.ctx, self.params, self.model);
        let from = lstm::State {
            h: &self.state.h,
            c: &self.state.c,
        };
        let to = lstm::StateMut {
            h: &mut self.next.h,
            c: &mut self.next.c,
        };
        lstm::step(ctx, &model.layers(params), x, from, to)?;
        let top = self.next.h.index(model.settings.layers - 1)?;
        model.output.forward(ctx, params, &top, &mut self.logits)?;
        std::mem::swap(&mut self.state, &mut self.next);
        Ok(())
    }
}

impl Generation for Sentences<'_> {
    fn step(&mut self, words: &Tensor) -> Result<()> {
        let (ctx, params, model) = (self.ctx, self.params, self.model);
        ctx.scope(|| {
            let mut x = ctx.empty([words.len(), model.sizes.embed], params.operands())?;
            embedding::forward(ctx, params.operand(model.embedding), words, &mut x)?;
            self.advance(&x)
        })
    }

    fn branch(&mut self, rows: &Tensor) -> Result<()> {
        let (ctx, count) = (self.ctx, rows.len());
        let mut state = self.state.empty_rows(ctx, count)?;
        self.state.select(ctx, rows, &mut state)?;
        self.next = state.empty_rows(ctx, count)?;
        self.state = state;
        self.logits = ctx.empty_padded([count, self.logits.cols()], self.logits.dtype())?;
        Ok(())
    }

    fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        self.state.select(self.ctx, rows, &mut self.next)?;
        std::mem::swap(&mut self.state, &mut self.next);
        Ok(())
    }

    fn logits(&self) -> &Tensor {
        &self.logits
    }
}
