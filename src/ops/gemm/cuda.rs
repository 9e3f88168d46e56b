//! Products on the CUDA device: which of the kernels of `kernels/gemm.cu`, and in how many parts of k.

use super::{Accumulate, Factor, OP};
use crate::error::Result;
use crate::ops::kernels::gemm::{Gemm, GemmShape};
use crate::ops::launch::{Launch, key};
use crate::ops::tile::Cutting;
use crate::tensor::{Context, DType, Tensor};

/// C = A B, C += A B or C = A B + bias: the device's half of [`super::forward`].
pub fn forward(
    ctx: &Context,
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    if c.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let arithmetic = launch.arithmetic(a.tensor().dtype());
    let ((m, k), (_, n)) = (a.dims(), b.dims());
    let layout = match (a, b) {
        (Factor::Plain(_), Factor::Plain(_)) => "nn",
        (Factor::Plain(_), Factor::Transposed(_)) => "nt",
        (Factor::Transposed(_), Factor::Plain(_)) => "tn",
        (Factor::Transposed(_), Factor::Transposed(_)) => "tt",
    };
    let cutting = match (layout, arithmetic) {
        ("tt", _) => Cutting::small([m, n], k),
        _ if layout == "tn" || c.dtype() == DType::Bf16 => {
            Cutting::new(&launch, arithmetic, [m, n], k)
        }
        _ => Cutting::with_thin(&launch, arithmetic, [m, n], k),
    };
    let shape = GemmShape {
        m: launch.size(m)?,
        n: launch.size(n)?,
        k: launch.size(k)?,
        lda: launch.size(a.tensor().ld())?,
        ldb: launch.size(b.tensor().ld())?,
        ldc: launch.size(c.ld())?,
        k_split: launch.size(cutting.parts.terms)?,
        accumulate: accumulate.flag(),
    };
    let kernel = [arithmetic, layout, cutting.key, key(c.dtype())];
    cutting.with_workspace(ctx, |workspace, arrived| {
        let arguments = Gemm {
            a: a.tensor().into(),
            b: b.tensor().into(),
            bias: bias.into(),
            c: c.into(),
            workspace: workspace.into(),
            arrived: arrived.into(),
            shape,
        };
        launch.run(&kernel, cutting.grid(), arguments)
    })
}
