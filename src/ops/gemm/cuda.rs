//! Products on the CUDA device: which of the kernels of `kernels/gemm.cu`, and in how many parts of k.

use super::{Accumulate, Factor};
use crate::device::Precision;
use crate::device::cuda::{Grid, Kernel, Read, Write, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::gemm as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Element, Tensor};
use half::bf16;

kernel_struct! {
    /// Sizes and rows' distances; each block of the grid's y takes `k_split` of k.
    pub struct GemmShape {
        pub m: i32,
        pub n: i32,
        pub k: i32,
        pub lda: i32,
        pub ldb: i32,
        pub ldc: i32,
        pub k_split: i32,
        pub accumulate: i32,
    }
}

/// A, B, bias, C.
type OfF32 = Kernel<(Read<f32>, Read<f32>, Read<f32>, Write<f32>, GemmShape)>;
/// The same, with a C for each of the types that it may have.
type OfBf16 = Kernel<(
    Read<bf16>,
    Read<bf16>,
    Read<f32>,
    Write<f32>,
    Write<bf16>,
    GemmShape,
)>;

/// The kernels of one arithmetic: A and B as they are, B transposed, A transposed, both; with large tiles and with small.
type Set<K> = [[&'static K; 2]; 4];

macro_rules! set {
    ($nn:ident $nn_small:ident $nt:ident $nt_small:ident $tn:ident $tn_small:ident $tt:ident) => {
        [
            [&kernels::$nn, &kernels::$nn_small],
            [&kernels::$nt, &kernels::$nt_small],
            [&kernels::$tn, &kernels::$tn_small],
            [&kernels::$tt, &kernels::$tt],
        ]
    };
}

const F32: Set<OfF32> = set!(GEMM_F32_NN_128 GEMM_F32_NN_64 GEMM_F32_NT_128 GEMM_F32_NT_64
    GEMM_F32_TN_128 GEMM_F32_TN_64 GEMM_F32_TT_64);
const TF32: Set<OfF32> = set!(GEMM_TF32_NN_128 GEMM_TF32_NN_64 GEMM_TF32_NT_128 GEMM_TF32_NT_64
    GEMM_TF32_TN_128 GEMM_TF32_TN_64 GEMM_TF32_TT_64);
const BF16_OF_F32: Set<OfF32> = set!(GEMM_BF16_OF_F32_NN_128 GEMM_BF16_OF_F32_NN_64
    GEMM_BF16_OF_F32_NT_128 GEMM_BF16_OF_F32_NT_64
    GEMM_BF16_OF_F32_TN_128 GEMM_BF16_OF_F32_TN_64 GEMM_BF16_OF_F32_TT_64);
const BF16: Set<OfBf16> = set!(GEMM_BF16_NN_128 GEMM_BF16_NN_64 GEMM_BF16_NT_128 GEMM_BF16_NT_64
    GEMM_BF16_TN_128 GEMM_BF16_TN_64 GEMM_BF16_TT_64);

/// Threads of every kernel, and the tiles: rows, columns, bytes of shared memory (`tile.cuh`).
const THREADS: u32 = 128;
const LARGE: ([usize; 2], usize) = ([128, 128], 64 << 10);
const TALL: ([usize; 2], usize) = ([128, 64], 48 << 10);
const SMALL: ([usize; 2], usize) = ([64, 64], 48 << 10);

/// A part of k is a multiple of this, the deepest step of a kernel, and at least `SHORTEST`, lest summing up the parts
/// takes longer than making them.
const STEP: usize = 64;
const SHORTEST: usize = 256;

/// How a product is cut among blocks.
struct Plan {
    small: bool,
    /// Tiles of C.
    tiles: usize,
    shared: usize,
    /// Parts of k, and the length of one.
    splits: usize,
    k_split: usize,
}

impl Plan {
    /// Large tiles where they fill the multiprocessors, else small ones; parts of k where those do not either.
    fn new(multiprocessors: usize, large: ([usize; 2], usize), [m, n, k]: [usize; 3]) -> Self {
        let tiles = |[rows, cols]: [usize; 2]| m.div_ceil(rows) * n.div_ceil(cols);
        let small = tiles(large.0) < multiprocessors;
        let (tile, shared) = if small { SMALL } else { large };
        let tiles = tiles(tile);
        let wanted = (multiprocessors / tiles).clamp(1, k.div_ceil(SHORTEST).max(1));
        let k_split = k.div_ceil(wanted).max(1).next_multiple_of(STEP);
        Plan {
            small,
            tiles,
            shared,
            splits: k.div_ceil(k_split).max(1),
            k_split,
        }
    }

    fn grid(&self) -> Grid {
        Grid::blocks([self.tiles, self.splits, 1], THREADS).shared(self.shared)
    }
}

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
    let product = Product {
        ctx,
        a,
        b,
        bias,
        accumulate,
    };
    match (a.tensor().dtype(), ctx.device().precision()) {
        (DType::F32, Precision::F32) => product.of_f32(&F32, TALL, c),
        (DType::F32, Precision::Tf32) => product.of_f32(&TF32, LARGE, c),
        (DType::F32, Precision::Bf16) => product.of_f32(&BF16_OF_F32, LARGE, c),
        (DType::Bf16, _) => product.of_bf16(c),
        (other, _) => Launch::new(super::OP, ctx)?.refuse(other),
    }
}

struct Product<'a> {
    ctx: &'a Context,
    a: Factor<'a>,
    b: Factor<'a>,
    bias: Option<&'a Tensor>,
    accumulate: Accumulate,
}

impl Product<'_> {
    fn of_f32(&self, set: &Set<OfF32>, large: ([usize; 2], usize), c: &mut Tensor) -> Result<()> {
        let launch = Launch::new(super::OP, self.ctx)?;
        let to = launch.write::<f32>(c)?;
        self.run::<f32>(
            &launch,
            large,
            c,
            (to, Write::at(0)),
            |plan, [a, b], bias, (c, _), shape| {
                let kernel = set[self.layout()][usize::from(plan.small)];
                launch.run(kernel, plan.grid(), (a, b, bias, c, shape))
            },
        )
    }

    fn of_bf16(&self, c: &mut Tensor) -> Result<()> {
        let launch = Launch::new(super::OP, self.ctx)?;
        let to = match c.dtype() {
            DType::Bf16 => (Write::at(0), launch.write(c)?),
            _ => (launch.write(c)?, Write::at(0)),
        };
        self.run::<bf16>(
            &launch,
            LARGE,
            c,
            to,
            |plan, [a, b], bias, (c, c16), shape| {
                let kernel = BF16[self.layout()][usize::from(plan.small)];
                launch.run(kernel, plan.grid(), (a, b, bias, c, c16, shape))
            },
        )
    }

    /// Which kernels of a set.
    fn layout(&self) -> usize {
        let transposed = |factor: &Factor| matches!(factor, Factor::Transposed(_));
        2 * usize::from(transposed(&self.a)) + usize::from(transposed(&self.b))
    }

    /// Calls `multiply` once: on C, or, when k is cut into parts, on their sums, which are then added up in order.
    /// `to` is C, as f32 or as bf16.
    fn run<T: Element>(
        &self,
        launch: &Launch,
        large: ([usize; 2], usize),
        c: &Tensor,
        to: (Write<f32>, Write<bf16>),
        multiply: impl Fn(
            &Plan,
            [Read<T>; 2],
            Read<f32>,
            (Write<f32>, Write<bf16>),
            GemmShape,
        ) -> Result<()>,
    ) -> Result<()> {
        let ((m, k), (_, n)) = (self.a.dims(), self.b.dims());
        let plan = Plan::new(launch.multiprocessors(), large, [m, n, k]);
        let shape = GemmShape {
            m: launch.size(m)?,
            n: launch.size(n)?,
            k: launch.size(k)?,
            lda: launch.size(self.a.tensor().ld())?,
            ldb: launch.size(self.b.tensor().ld())?,
            ldc: launch.size(c.ld())?,
            k_split: launch.size(plan.k_split)?,
            accumulate: i32::from(self.accumulate == Accumulate::Yes),
        };
        let factors = [launch.read(self.a.tensor())?, launch.read(self.b.tensor())?];
        let bias = launch.read_some::<f32>(self.bias)?;
        if plan.splits == 1 {
            return multiply(&plan, factors, bias, to, shape);
        }
        self.ctx.scope(|| {
            let parts = self.ctx.empty([plan.splits, m * n], DType::F32)?;
            let partial = launch.write(&parts)?;
            let (ldc, accumulate) = (shape.n, 0);
            let dense = GemmShape {
                ldc,
                accumulate,
                ..shape
            };
            multiply(&plan, factors, Read::at(0), (partial, Write::at(0)), dense)?;
            let (from, splits) = (Read::at(partial.address), launch.size(plan.splits)?);
            let arguments = (from, bias, to.0, to.1, splits, shape);
            launch.run(&kernels::GEMM_SUM, Grid::threads_for(m * n, 256), arguments)
        })
    }
}
