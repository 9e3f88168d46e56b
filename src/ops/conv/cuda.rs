//! Convolution on the CUDA device: implicit products, `kernels/conv.cu`.

use super::{Epilogue, Gradients, OP};
use crate::error::{Error, Result};
use crate::ops::gemm::{self, Accumulate, Factor};
use crate::ops::kernels::conv::{
    self as kernels, ConvData, ConvFilter, ConvForward, ConvReluBackward, ConvShape, ConvStem,
    ConvTensorStem, StemUnits,
};
use crate::ops::kernels::window::MOST_TAPS;
use crate::ops::launch::{Blocks, Launch};
use crate::ops::linear;
use crate::ops::matrix::Matrix;
use crate::ops::tile::Cutting;
use crate::ops::window::Window;
use crate::tensor::{Context, Tensor};

/// A convolution between x and y (or their gradients).
struct Problem<'a> {
    launch: Launch<'a>,
    ctx: &'a Context,
    /// Rows of y, taps of the window times channels.
    windows: usize,
    depth: usize,
    shape: ConvShape,
    arithmetic: &'static str,
}

impl<'a> Problem<'a> {
    fn new(ctx: &'a Context, x: &Tensor, window: Window, y: &Tensor) -> Result<Self> {
        let launch = Launch::new(OP, ctx)?;
        let size = |n: usize| launch.size(n);
        let [n, h, w, c] = super::check::dims(OP, "x", x)?;
        let [_, p, q, k] = super::check::dims(OP, "y", y)?;
        let [r, s] = window.kernel;
        if r.max(s) > MOST_TAPS {
            let most = "the CUDA device takes windows of up to";
            let said = format!("{r} x {s}: {most} {MOST_TAPS} x {MOST_TAPS}");
            return Err(Error::operation(OP, said));
        }
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
        };
        size(n * (h + 2 * window.padding) * w)?;
        Ok(Problem {
            windows: n * p * q,
            depth: r * s * c,
            arithmetic: launch.arithmetic(x.dtype()),
            launch,
            ctx,
            shape,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        filter: &Tensor,
        epilogue: Epilogue,
        y: &mut Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let (ldz, relu) = (epilogue.residual.map_or(0, Tensor::ld), epilogue.relu);
        let (ldz, relu) = (launch.size(ldz)?, i32::from(relu));
        let shape = ConvShape {
            ldf: launch.size(filter.ld())?,
            ..self.shape
        };
        if let Some((units, blocks)) = self.tensor_stem_blocks(x)? {
            let arguments = ConvTensorStem {
                x: x.into(),
                filter: filter.into(),
                bias: epilogue.bias.into(),
                z: epilogue.residual.into(),
                y: y.into(),
                shape,
                units,
                ldz,
                relu,
            };
            return launch.run(&[self.arithmetic], blocks, arguments);
        }
        if let Some(blocks) = self.stem_blocks(x) {
            let arguments = ConvStem {
                x: x.into(),
                filter: filter.into(),
                bias: epilogue.bias.into(),
                z: epilogue.residual.into(),
                y: y.into(),
                shape,
                ldz,
                relu,
            };
            return launch.run(&[], blocks, arguments);
        }
        let size = [self.windows, y.cols()];
        let cutting = Cutting::whole(launch, self.arithmetic, size, self.depth);
        let arguments = ConvForward {
            x: x.into(),
            filter: filter.into(),
            bias: epilogue.bias.into(),
            z: epilogue.residual.into(),
            y: y.into(),
            shape,
            ldz,
            relu,
        };
        launch.run(
            &[self.arithmetic, cutting.key],
            cutting.blocks(1),
            arguments,
        )
    }

    /// The stem's blocks on tensor cores, where pixels are less than 16 bytes and windows a unit or two apart, and filters and patch
    /// fit in shared memory.
    fn tensor_stem_blocks(&self, x: &Tensor) -> Result<Option<(StemUnits, Blocks)>> {
        let (shape, bytes) = (&self.shape, x.dtype().bytes());
        let [r, s, c, stride] = [shape.r, shape.s, shape.c, shape.stride].map(|size| size as usize);
        // So many that the first of a window is at a multiple of 16 bytes.
        let channels = [4, 8]
            .into_iter()
            .find(|&n| c <= n && stride * n * bytes % 16 == 0);
        let Some(channels) = channels.filter(|_| self.arithmetic != "f32" && c * bytes < 16) else {
            return Ok(None);
        };
        let pixels = (16 / (channels * bytes)).max(1);
        let step = stride / pixels;
        let of_window = s.div_ceil(pixels).next_multiple_of(2);
        let of_plane = kernels::STEM_PIXELS + (of_window - 1) / step;
        let shared = kernels::stem_units_bytes(r, of_window, step, of_plane);
        if step > 2 || channels * bytes > 16 || shared > self.launch.shared_memory() {
            return Ok(None);
        }
        let size = |n: usize| self.launch.size(n);
        let units = StemUnits {
            channels: size(channels)?,
            pixels: size(pixels)?,
            step: size(step)?,
            of_window: size(of_window)?,
            of_plane: size(of_plane)?,
        };
        Ok(Some((units, self.stem_tiles().shared(shared))))
    }

    /// The stem's blocks in f32, where pixels are less than 16 bytes, and filters and patch fit in shared memory.
    fn stem_blocks(&self, x: &Tensor) -> Option<Blocks> {
        let shape = &self.shape;
        let [r, s, c, stride] = [shape.r, shape.s, shape.c, shape.stride].map(|size| size as usize);
        let shared = kernels::stem_shared_bytes(r, s, c, stride);
        let fits = self.arithmetic == "f32"
            && c * x.dtype().bytes() < 16
            && shared <= self.launch.shared_memory();
        fits.then(|| self.stem_tiles().shared(shared))
    }

    fn stem_tiles(&self) -> Blocks {
        let shape = &self.shape;
        let [n, p, q, k] = [shape.n, shape.p, shape.q, shape.k].map(|size| size as usize);
        let blocks = q.div_ceil(kernels::STEM_PIXELS) * (n * p).div_ceil(kernels::STEM_LINES);
        let flops = 2.0 * (self.windows * k) as f64 * self.depth as f64;
        Blocks::new([blocks, k.div_ceil(kernels::STEM_FILTERS), 1]).flops(flops)
    }

    fn data(
        &self,
        dy: &Tensor,
        filter: &Tensor,
        accumulate: Accumulate,
        dx: &mut Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let shape = ConvShape {
            ldx: launch.size(dx.ld())?,
            ldf: launch.size(filter.ld())?,
            ..self.shape
        };
        // The first class has the most pixels.
        let stride = shape.stride as usize;
        let [n, h, w] = [shape.n, shape.h, shape.w].map(|size| size as usize);
        let rows = n * h.div_ceil(stride) * w.div_ceil(stride);
        let [r, s] = [shape.r, shape.s].map(|size| size as usize);
        let depth = (r * s).div_ceil(stride * stride) * dy.cols();
        let cutting = Cutting::whole(launch, self.arithmetic, [rows, dx.cols()], depth);
        let arguments = ConvData {
            dy: dy.into(),
            filter: filter.into(),
            dx: dx.into(),
            shape,
            accumulate: accumulate.flag(),
        };
        let blocks = cutting.blocks(stride * stride);
        launch.run(&[self.arithmetic, cutting.key], blocks, arguments)
    }

    fn filter(
        &self,
        x: &Tensor,
        dy: &Tensor,
        accumulate: Accumulate,
        df: &mut Tensor,
    ) -> Result<()> {
        let launch = &self.launch;
        let size = [dy.cols(), self.depth];
        let cutting = Cutting::new(launch, self.arithmetic, size, self.windows);
        let shape = ConvShape {
            ldf: launch.size(df.ld())?,
            ..self.shape
        };
        let part_windows = launch.size(cutting.parts.terms)?;
        cutting.with_workspace(self.ctx, |workspace, arrived| {
            let arguments = ConvFilter {
                x: x.into(),
                dy: dy.into(),
                df: df.into(),
                workspace: workspace.into(),
                arrived: arrived.into(),
                shape,
                part_windows,
                accumulate: accumulate.flag(),
            };
            launch.run(
                &[self.arithmetic, cutting.key],
                cutting.blocks(1),
                arguments,
            )
        })
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
    Problem::new(ctx, x, window, y)?.forward(x, filter, epilogue, y)
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
        // Windows of a single pixel: the gradients are plain products of matrices.
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
        if let Some(dx) = dx.filter(|dx| !dx.is_empty()) {
            problem.data(dy, filter, accumulate, dx)?;
        }
        if let Some(df) = df {
            problem.filter(x, dy, accumulate, df)?;
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
    let arguments = ConvReluBackward {
        rows: matrix.rows,
        cols: matrix.cols,
        ldy: matrix.ld(y)?,
        lddy: matrix.ld(dy)?,
        y: y.into(),
        dy: dy.into(),
    };
    launch.run(&[matrix.vector.key()], matrix.blocks(), arguments)
}
