//! Convolution on the CUDA device: implicit products, `kernels/conv.cu`.

use super::{Epilogue, Gradients, OP};
use crate::device::Precision;
use crate::device::cuda::{Grid, Kernel, Read, Write, kernel_struct};
use crate::error::Result;
use crate::ops::gemm::cuda::{GemmShape, sum_parts};
use crate::ops::gemm::{self, Accumulate, Factor};
use crate::ops::kernels::conv as kernels;
use crate::ops::launch::{Launch, by_dtype};
use crate::ops::linear;
use crate::ops::matrix::Matrix;
use crate::ops::tile::{Cut, LARGE, Parts, TALL, THREADS, Tiles};
use crate::ops::window::Window;
use crate::tensor::{Context, DType, Element, Tensor};
use half::bf16;

kernel_struct! {
    /// Images, window and rows' distances: see `kernels/conv.cu`.
    pub struct ConvShape {
        pub n: i32,
        pub h: i32,
        pub w: i32,
        pub c: i32,
        pub ldx: i32,
        pub p: i32,
        pub q: i32,
        pub k: i32,
        pub ldy: i32,
        pub r: i32,
        pub s: i32,
        pub stride: i32,
        pub padding: i32,
        pub ldf: i32,
        pub ldz: i32,
        pub part: i32,
        pub flag: i32,
    }
}

/// x, filter, bias, residual, y.
type Forward<T> = Kernel<(Read<T>, Read<T>, Read<f32>, Read<T>, Write<T>, ConvShape)>;
/// dy, filter, dx.
type Data<T> = Kernel<(Read<T>, Read<T>, Write<T>, ConvShape)>;
/// x, dy, df.
type Filter<T> = Kernel<(Read<T>, Read<T>, Write<f32>, ConvShape)>;

/// The kernels of one arithmetic, with large tiles and with small ones.
struct Set<T: 'static> {
    forward: [&'static Forward<T>; 2],
    data: [&'static Data<T>; 2],
    filter: [&'static Filter<T>; 2],
    /// For pixels of less than 16 bytes.
    stem: &'static Forward<T>,
    large: Cut,
}

macro_rules! set {
    ($large:ident $stem:ident, $forward:ident $forward_small:ident $data:ident $data_small:ident $filter:ident $filter_small:ident) => {
        Set {
            forward: [&kernels::$forward, &kernels::$forward_small],
            data: [&kernels::$data, &kernels::$data_small],
            filter: [&kernels::$filter, &kernels::$filter_small],
            stem: &kernels::$stem,
            large: $large,
        }
    };
}

const F32: Set<f32> = set!(TALL CONV_STEM_F32, CONV_FORWARD_F32_128 CONV_FORWARD_F32_64
    CONV_DATA_F32_128 CONV_DATA_F32_64 CONV_FILTER_F32_128 CONV_FILTER_F32_64);
const TF32: Set<f32> = set!(LARGE CONV_STEM_F32, CONV_FORWARD_TF32_128 CONV_FORWARD_TF32_64
    CONV_DATA_TF32_128 CONV_DATA_TF32_64 CONV_FILTER_TF32_128 CONV_FILTER_TF32_64);
const BF16_OF_F32: Set<f32> = set!(LARGE CONV_STEM_F32, CONV_FORWARD_BF16_OF_F32_128 CONV_FORWARD_BF16_OF_F32_64
    CONV_DATA_BF16_OF_F32_128 CONV_DATA_BF16_OF_F32_64
    CONV_FILTER_BF16_OF_F32_128 CONV_FILTER_BF16_OF_F32_64);
const BF16: Set<bf16> = set!(LARGE CONV_STEM_BF16, CONV_FORWARD_BF16_128 CONV_FORWARD_BF16_64
    CONV_DATA_BF16_128 CONV_DATA_BF16_64 CONV_FILTER_BF16_128 CONV_FILTER_BF16_64);

/// The arithmetic for f32 tensors.
fn of_f32(precision: Precision) -> &'static Set<f32> {
    match precision {
        Precision::F32 => &F32,
        Precision::Tf32 => &TF32,
        Precision::Bf16 => &BF16_OF_F32,
    }
}

/// A convolution between x and y (or their gradients).
struct Problem<'a> {
    launch: Launch<'a>,
    ctx: &'a Context,
    /// Rows of y, taps of the window times channels.
    windows: usize,
    depth: usize,
    shape: ConvShape,
}

impl<'a> Problem<'a> {
    fn new(ctx: &'a Context, x: &Tensor, window: Window, y: &Tensor) -> Result<Self> {
        let launch = Launch::new(OP, ctx)?;
        let size = |n: usize| launch.size(n);
        let [n, h, w, c] = super::check::dims(OP, "x", x)?;
        let [_, p, q, k] = super::check::dims(OP, "y", y)?;
        let [r, s] = window.kernel;
        let shape = ConvShape {
            n: size(n)?,
            h: size(h)?,
            w: size(w)?,
            c: size(c)?,
            ldx: size(x.ld())?,
            p: size(p)?,
            q: size(q)?,
            k: size(k)?,
            ldy: size(y.ld())?,
            r: size(r)?,
            s: size(s)?,
            stride: size(window.stride)?,
            padding: size(window.padding)?,
            ldf: size(r * s * c)?,
            ldz: 0,
            part: 0,
            flag: 0,
        };
        size(n * (h + 2 * window.padding) * w)?;
        Ok(Problem {
            windows: n * p * q,
            depth: r * s * c,
            launch,
            ctx,
            shape,
        })
    }

    fn forward<T: Element>(
        &self,
        set: &Set<T>,
        x: &Tensor,
        filter: &Tensor,
        epilogue: Epilogue,
        y: &Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let shape = ConvShape {
            ldf: launch.size(filter.ld())?,
            ldz: launch.size(epilogue.residual.map_or(0, Tensor::ld))?,
            flag: i32::from(epilogue.relu),
            ..self.shape
        };
        let arguments = (
            launch.read(x)?,
            launch.read(filter)?,
            launch.read_some(epilogue.bias)?,
            launch.read_some(epilogue.residual)?,
            launch.write(y)?,
            shape,
        );
        if let Some(grid) = self.stem_grid::<T>() {
            return launch.run(set.stem, grid, arguments);
        }
        let tiles = Tiles::new(launch, set.large, [self.windows, y.cols()]);
        launch.run(set.forward[tiles.instance], tiles.grid(1, 1), arguments)
    }

    /// The stem's grid (see `kernels/conv.cu`), where pixels are less than a chunk of 16 bytes and filters and patch fit in
    /// shared memory.
    fn stem_grid<T: Element>(&self) -> Option<Grid> {
        const PIXELS: usize = 32;
        const FILTERS: usize = 64;
        const PITCH: usize = FILTERS + 4;
        const LINES: usize = 4;
        let ConvShape {
            n,
            p,
            q,
            k,
            c,
            r,
            s,
            stride,
            ..
        } = self.shape;
        let [n, p, q, k, c, r, s, stride] = [n, p, q, k, c, r, s, stride].map(|size| size as usize);
        let patch = r * ((PIXELS - 1) * stride + s) * c;
        let shared = size_of::<f32>() * (r * s * c * PITCH + patch);
        let blocks = q.div_ceil(PIXELS) * (n * p).div_ceil(LINES);
        let fits = c * T::DTYPE.bytes() < 16 && shared <= self.launch.shared_memory();
        fits.then(|| Grid::blocks([blocks, k.div_ceil(FILTERS), 1], THREADS).shared(shared))
    }

    fn data<T: Element>(
        &self,
        set: &Set<T>,
        dy: &Tensor,
        filter: &Tensor,
        accumulate: Accumulate,
        dx: &Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let shape = ConvShape {
            ldx: launch.size(dx.ld())?,
            ldf: launch.size(filter.ld())?,
            flag: accumulate.flag(),
            ..self.shape
        };
        // The first class has the most pixels.
        let stride = shape.stride as usize;
        let [n, h, w] = [shape.n, shape.h, shape.w].map(|size| size as usize);
        let rows = n * h.div_ceil(stride) * w.div_ceil(stride);
        let tiles = Tiles::new(launch, set.large, [rows, dx.cols()]);
        let arguments = (
            launch.read(dy)?,
            launch.read(filter)?,
            launch.write(dx)?,
            shape,
        );
        launch.run(
            set.data[tiles.instance],
            tiles.grid(1, stride * stride),
            arguments,
        )
    }

    /// The windows are cut into as many parts as fill the multiprocessors; their sums are added up in order.
    fn filter<T: Element>(
        &self,
        set: &Set<T>,
        x: &Tensor,
        dy: &Tensor,
        accumulate: Accumulate,
        df: &Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let (k, cols) = (dy.cols(), self.depth);
        let tiles = Tiles::new(launch, set.large, [k, cols]);
        let parts = Parts::new(
            (2 * launch.multiprocessors()).div_ceil(tiles.count),
            self.windows,
        );
        let shape = |ldf: usize, flag: i32| -> Result<ConvShape> {
            Ok(ConvShape {
                ldf: launch.size(ldf)?,
                part: launch.size(parts.terms)?,
                flag,
                ..self.shape
            })
        };
        let (kernel, grid) = (set.filter[tiles.instance], tiles.grid(parts.count, 1));
        let (x, dy, to) = (launch.read(x)?, launch.read(dy)?, launch.write(df)?);
        if parts.count == 1 {
            return launch.run(
                kernel,
                grid,
                (x, dy, to, shape(df.ld(), accumulate.flag())?),
            );
        }
        let sum = GemmShape {
            m: launch.size(k)?,
            n: launch.size(cols)?,
            k: 0,
            lda: 0,
            ldb: 0,
            ldc: launch.size(df.ld())?,
            k_split: 0,
            accumulate: accumulate.flag(),
        };
        let (bias, to) = (Read::at(0), (to, Write::at(0)));
        sum_parts(self.ctx, launch, parts.count, sum, bias, to, |partial| {
            launch.run(kernel, grid, (x, dy, partial, shape(cols, 0)?))
        })
    }

    fn backward<T: Element>(
        &self,
        set: &Set<T>,
        [x, filter, dy]: [&Tensor; 3],
        accumulate: Accumulate,
        [dx, df]: [Option<&Tensor>; 2],
    ) -> Result<()> {
        if let Some(dx) = dx.filter(|dx| !dx.is_empty()) {
            self.data(set, dy, filter, accumulate, dx)?;
        }
        match df {
            Some(df) => self.filter(set, x, dy, accumulate, df),
            None => Ok(()),
        }
    }
}

pub fn forward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let problem = Problem::new(ctx, x, window, y)?;
    match y.dtype() {
        DType::F32 => problem.forward(of_f32(ctx.device().precision()), x, filter, epilogue, y),
        DType::Bf16 => problem.forward(&BF16, x, filter, epilogue, y),
        other => problem.launch.refuse(other),
    }
}

pub fn backward(
    ctx: &Context,
    x: &Tensor,
    filter: &Tensor,
    window: Window,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    let Gradients {
        x: dx,
        filter: df,
        bias,
    } = gradients;
    if window.is_pointwise() {
        // Where every pixel sees itself alone, the products are plain.
        if let Some(dx) = dx {
            let (dy, filter) = (Factor::Plain(dy), Factor::Plain(filter));
            gemm::forward(ctx, dy, filter, accumulate, dx)?;
        }
        if let Some(df) = df {
            let (dy, x) = (Factor::Transposed(dy), Factor::Plain(x));
            gemm::forward(ctx, dy, x, accumulate, df)?;
        }
    } else if dx.is_some() || df.is_some() {
        let problem = Problem::new(ctx, x, window, dy)?;
        let (from, to) = ([x, filter, dy], [dx.as_deref(), df.as_deref()]);
        match dy.dtype() {
            DType::F32 => {
                let set = of_f32(ctx.device().precision());
                problem.backward(set, from, accumulate, to)?;
            }
            DType::Bf16 => problem.backward(&BF16, from, accumulate, to)?,
            other => return problem.launch.refuse(other),
        }
    }
    match bias {
        Some(db) => linear::cuda::sum_rows(ctx, dy, accumulate, db),
        None => Ok(()),
    }
}

pub fn relu_backward(ctx: &Context, y: &Tensor, dy: &mut Tensor) -> Result<()> {
    if dy.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[y, dy])?;
    let (ldy, lddy) = (matrix.ld(y)?, matrix.ld(dy)?);
    by_dtype!(
        launch,
        dy.dtype(),
        [
            kernels::CONV_RELU_BACKWARD_F32,
            kernels::CONV_RELU_BACKWARD_BF16
        ] as T,
        |kernel| {
            let (y, dy) = (launch.read::<T>(y)?, launch.write::<T>(dy)?);
            let arguments = (y, dy, matrix.rows, matrix.cols, ldy, lddy);
            launch.run(kernel, matrix.grid(1), arguments)
        }
    )
}
