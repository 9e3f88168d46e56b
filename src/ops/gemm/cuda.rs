//! Products on the CUDA device: which of the kernels of `kernels/gemm.cu`, and in how many parts of k.

use super::{Accumulate, Factor};
use crate::device::Precision;
use crate::device::cuda::{Grid, Kernel, Read, Write, kernel_struct};
use crate::error::Result;
use crate::ops::kernels::gemm as kernels;
use crate::ops::launch::Launch;
use crate::ops::tile::{Cut, LARGE, Parts, TALL, Tiles};
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
    fn of_f32(&self, set: &Set<OfF32>, large: Cut, c: &mut Tensor) -> Result<()> {
        let launch = Launch::new(super::OP, self.ctx)?;
        let to = (launch.write::<f32>(c)?, Write::at(0));
        self.run(&launch, large, c, to, |job, bias, (c, _)| {
            let kernel = set[self.layout()][job.tiles.instance];
            launch.run(kernel, job.grid(), (job.a, job.b, bias, c, job.shape))
        })
    }

    fn of_bf16(&self, c: &mut Tensor) -> Result<()> {
        let launch = Launch::new(super::OP, self.ctx)?;
        let to = match c.dtype() {
            DType::Bf16 => (Write::at(0), launch.write(c)?),
            _ => (launch.write(c)?, Write::at(0)),
        };
        self.run(&launch, LARGE, c, to, |job, bias, (c, c16)| {
            let kernel = BF16[self.layout()][job.tiles.instance];
            launch.run(kernel, job.grid(), (job.a, job.b, bias, c, c16, job.shape))
        })
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
        large: Cut,
        c: &Tensor,
        to: (Write<f32>, Write<bf16>),
        multiply: impl Fn(Job<T>, Read<f32>, (Write<f32>, Write<bf16>)) -> Result<()>,
    ) -> Result<()> {
        let ((m, k), (_, n)) = (self.a.dims(), self.b.dims());
        let tiles = Tiles::new(launch, large, [m, n]);
        let parts = Parts::new(launch.multiprocessors() / tiles.count, k);
        let job = Job {
            tiles,
            parts,
            a: launch.read(self.a.tensor())?,
            b: launch.read(self.b.tensor())?,
            shape: GemmShape {
                m: launch.size(m)?,
                n: launch.size(n)?,
                k: launch.size(k)?,
                lda: launch.size(self.a.tensor().ld())?,
                ldb: launch.size(self.b.tensor().ld())?,
                ldc: launch.size(c.ld())?,
                k_split: launch.size(parts.terms)?,
                accumulate: self.accumulate.flag(),
            },
        };
        let bias = launch.read_some::<f32>(self.bias)?;
        if parts.count == 1 {
            return multiply(job, bias, to);
        }
        let (ldc, accumulate) = (job.shape.n, 0);
        let dense = GemmShape {
            ldc,
            accumulate,
            ..job.shape
        };
        let sums = |partial| {
            let job = Job {
                shape: dense,
                ..job
            };
            multiply(job, Read::at(0), (partial, Write::at(0)))
        };
        sum_parts(self.ctx, launch, parts.count, job.shape, bias, to, sums)
    }
}

/// What a launch multiplies, and how it is cut.
#[derive(Clone, Copy)]
struct Job<T> {
    tiles: Tiles,
    parts: Parts,
    a: Read<T>,
    b: Read<T>,
    shape: GemmShape,
}

impl<T> Job<T> {
    fn grid(&self) -> Grid {
        self.tiles.grid(self.parts.count, 1)
    }
}

/// Has `make` write `parts` dense matrices (m, n) of sums one after the other, and adds them up in order, with the bias,
/// to `to`, an (m, n) of `shape`, as f32 or as bf16.
pub fn sum_parts(
    ctx: &Context,
    launch: &Launch,
    parts: usize,
    shape: GemmShape,
    bias: Read<f32>,
    to: (Write<f32>, Write<bf16>),
    make: impl FnOnce(Write<f32>) -> Result<()>,
) -> Result<()> {
    let elements = shape.m as usize * shape.n as usize;
    ctx.scope(|| {
        let sums = ctx.empty([parts, elements], DType::F32)?;
        let partial = launch.write(&sums)?;
        make(partial)?;
        let (from, parts) = (Read::at(partial.address), launch.size(parts)?);
        let arguments = (from, bias, to.0, to.1, parts, shape);
        launch.run(
            &kernels::GEMM_SUM,
            Grid::threads_for(elements, 256),
            arguments,
        )
    })
}
