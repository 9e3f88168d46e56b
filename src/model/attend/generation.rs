//! Sentences in progress: what was seen of the image, and the state of the LSTM.

use super::{Attend, Image, Slot};
use crate::data::vocabulary::SOS;
use crate::error::Result;
use crate::model::decoder::Generation;
use crate::nn::params::Params;
use crate::nn::state::{LstmState, selected_rows};
use crate::ops::embedding;
use crate::tensor::{Context, DType, Tensor};

/// A batch of R sentences.
pub(super) struct Sentences<'a> {
    model: &'a Attend,
    ctx: &'a Context,
    params: &'a Params,
    /// An image for every row.
    image: Image,
    /// The state before the next word, and room for the one after it. They change places at every word.
    state: LstmState,
    next: LstmState,
    /// (R, V); rows padded.
    logits: Tensor,
    /// α (R, P)
    alpha: Tensor,
}

impl Attend {
    /// Looks at the images and reads `<sos>`.
    pub(super) fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        params: &'a Params,
        features: &Tensor,
    ) -> Result<Sentences<'a>> {
        let (sizes, dtype) = (self.sizes, params.dtype());
        let operands = params.operands();
        let batch = features.shape().dims()[0];
        let image = self.look(ctx, params, features)?;
        let shape = [1, batch, sizes.hidden];
        let mut sentences = Sentences {
            model: self,
            ctx,
            params,
            image,
            state: LstmState::empty(ctx, shape, operands)?,
            next: LstmState::empty(ctx, shape, operands)?,
            logits: ctx.empty_padded([batch, sizes.vocabulary], dtype)?,
            alpha: ctx.empty([batch, self.mix.positions()], dtype)?,
        };
        let (mean, state) = (&sentences.image.mean, &sentences.state);
        let (mut h, mut c) = (state.h.index(0)?, state.c.index(0)?);
        self.init_h.forward(ctx, params, mean, &mut h)?;
        self.init_c.forward(ctx, params, mean, &mut c)?;
        let mut words = ctx.empty([batch], DType::U32)?;
        words.copy_from_slice(&vec![SOS; batch])?;
        sentences.step(&words)?;
        Ok(sentences)
    }
}

impl Sentences<'_> {
    /// What one step reads and writes: room of its own, but for states and attention.
    fn slot(&self) -> Result<Slot> {
        let (model, rows) = (self.model, self.alpha.rows());
        let room = |cols| self.ctx.empty([rows, cols], self.params.dtype());
        Ok(Slot {
            h: self.state.h.index(0)?,
            c: self.state.c.index(0)?,
            of_h: room(model.settings.attention + model.sizes.features)?,
            alpha: self.alpha.handle(),
            beta: room(model.mix.cells())?,
            context: room(model.sizes.features)?,
            gated: self.operand(model.sizes.features)?,
            gates: room(4 * model.sizes.hidden)?,
            next_h: self.next.h.index(0)?,
            next_c: self.next.c.index(0)?,
        })
    }

    fn operand(&self, cols: usize) -> Result<Tensor> {
        let operands = self.params.operands();
        self.ctx.empty([self.alpha.rows(), cols], operands)
    }

    fn read(&mut self, words: &Tensor) -> Result<()> {
        let (ctx, params, model) = (self.ctx, self.params, self.model);
        let mut embedded = self.operand(model.sizes.embed)?;
        embedding::forward(ctx, params.operand(model.embedding), words, &mut embedded)?;
        let mut slot = self.slot()?;
        model.input_gates(ctx, params, &embedded, &mut slot.gates)?;
        model.forward_step(ctx, params, &self.image, &mut slot)?;
        model
            .output
            .forward(ctx, params, &slot.next_h, &mut self.logits)
    }
}

impl Generation for Sentences<'_> {
    fn step(&mut self, words: &Tensor) -> Result<()> {
        let ctx = self.ctx;
        ctx.scope(|| self.read(words))?;
        std::mem::swap(&mut self.state, &mut self.next);
        Ok(())
    }

    fn branch(&mut self, rows: &Tensor) -> Result<()> {
        let (ctx, count) = (self.ctx, rows.len());
        self.image = self.image.select(ctx, rows)?;
        let mut state = self.state.empty_rows(ctx, count)?;
        self.state.select(ctx, rows, &mut state)?;
        self.next = state.empty_rows(ctx, count)?;
        self.state = state;
        self.logits = ctx.empty_padded([count, self.logits.cols()], self.logits.dtype())?;
        self.alpha = ctx.empty([count, self.alpha.cols()], self.alpha.dtype())?;
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

    fn attention(&self) -> Option<&Tensor> {
        Some(&self.alpha)
    }
}

impl Image {
    /// Image r becomes image `rows[r]` of these: for several sentences about the same one.
    fn select(&self, ctx: &Context, rows: &Tensor) -> Result<Image> {
        Ok(Image {
            mean: selected_rows(ctx, &self.mean, rows)?,
            keys: selected_rows(ctx, &self.keys, rows)?,
            values: selected_rows(ctx, &self.values, rows)?,
        })
    }
}
