//! The forward convolution of a block of output pixels on the CPU.
//!
//! An indirect convolution (Dukhan, "The Indirect Convolution Algorithm", 2019): the innermost product
//! reads pixels of the image where they lie, through a table of slices, so that no columns are built.
//! A *segment* is what one row of the window covers, S·C consecutive elements; where it touches the
//! left or right padding it is copied out first, above and below it is a row of zeros.
//!
//! The product itself keeps a tile of PIXELS x VECTORS registers of sums. Filters are packed once a call
//! into panels of as many filters as a tile is wide, [panel][r·s·c][filter], zeros beyond the last.
//! The depth R·S·C is cut into blocks so that a panel's block stays in the second-level cache while all pixels
//! pass over it; sums wait in y between blocks. Every sum runs over the depth in order: blocks, panels and threads
//! change nothing.

use crate::ops::Float;
use bytemuck::Pod;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Depth of a block, about: 64 filters of f32 take 160 KiB. On ResNet-50's layers 384 and 1024 were up to a tenth
/// slower (AVX-512, 1 MiB of second-level cache).
const DEPTH: usize = 640;

/// Tiles are one of these numbers of pixels high, so blocks of pixels are a multiple.
pub const PIXEL_STEP: usize = 12;

/// Elements that have vectors.
pub trait Lanes: Float {
    type Vector<S: Simd>: Pod;

    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// The larger of a and 0; a NaN stays.
    fn relu<S: Simd>(simd: S, a: Self::Vector<S>) -> Self::Vector<S>;

    /// a b + c, in one rounding where the processor can.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
}

/// The methods of pulp for an element type: its names end in the type.
macro_rules! lanes {
    ($type:ty, $Vector:ident, $splat:ident, $add:ident, $less_than:ident, $select:ident, $mul_add_e:ident) => {
        impl Lanes for $type {
            type Vector<S: Simd> = S::$Vector;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: $type) -> S::$Vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$Vector, b: S::$Vector) -> S::$Vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn relu<S: Simd>(simd: S, a: S::$Vector) -> S::$Vector {
                let zero = simd.$splat(0.0);
                simd.$select(simd.$less_than(a, zero), zero, a)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(
                simd: S,
                a: S::$Vector,
                b: S::$Vector,
                c: S::$Vector,
            ) -> S::$Vector {
                simd.$mul_add_e(a, b, c)
            }
        }
    };
}
lanes!(
    f32,
    f32s,
    splat_f32s,
    add_f32s,
    less_than_f32s,
    select_f32s,
    mul_add_e_f32s
);
lanes!(
    f64,
    f64s,
    splat_f64s,
    add_f64s,
    less_than_f64s,
    select_f64s,
    mul_add_e_f64s
);

/// How wide tiles are: a number of vectors, of filters.
#[derive(Clone, Copy)]
struct Width {
    vectors: usize,
    filters: usize,
}

impl Width {
    /// For vectors of type `S` and K filters: no wider than they are, no wider than registers allow.
    #[inline(always)]
    fn new<T: Lanes, S: Simd>(k: usize) -> Self {
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        let vectors = match k.div_ceil(lanes) {
            0 | 1 => 1,
            2 => 2,
            _ if S::REGISTER_COUNT < 32 => 2,
            _ => 4,
        };
        Width {
            vectors,
            filters: vectors * lanes,
        }
    }

    /// For the vectors that the processor has.
    fn here<T: Lanes>(k: usize) -> Self {
        struct Here<T>(usize, std::marker::PhantomData<T>);
        impl<T: Lanes> WithSimd for Here<T> {
            type Output = Width;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Width {
                Width::new::<T, S>(self.0)
            }
        }
        pulp::Arch::new().dispatch(Here::<T>(k, std::marker::PhantomData))
    }
}

/// A cache line: what packed filters are aligned to.
#[derive(Clone, Copy, bytemuck::Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Filters in panels, with their bias.
pub struct Packed<'a, T> {
    panels: &'a [T],
    /// Padded to whole panels; zeros where there is no bias.
    bias: Vec<T>,
    width: usize,
    depth: usize,
}

impl<T: Lanes> Packed<'_, T> {
    /// `depth` steps of a panel, from step `from` on.
    #[inline(always)]
    fn weights<S: Simd, const VECTORS: usize>(
        &self,
        panel: usize,
        from: usize,
        depth: usize,
    ) -> &[[T::Vector<S>; VECTORS]] {
        let start = (panel * self.depth + from) * self.width;
        let weights = &self.panels[start..][..depth * self.width];
        bytemuck::cast_slice(weights).as_chunks().0
    }
}

/// Packs the rows of a filter matrix and hands them to `body`.
pub fn with_packed<'f, T: Lanes, R>(
    [k, depth]: [usize; 2],
    row: impl Fn(usize) -> &'f [T] + Sync,
    bias: Option<&[T]>,
    body: impl FnOnce(Packed<T>) -> R,
) -> R {
    thread_local! {
        static ROOM: std::cell::Cell<Vec<Line>> = const { std::cell::Cell::new(Vec::new()) };
    }
    let width = Width::here::<T>(k).filters;
    let count = k.div_ceil(width);
    let elements = count * width * depth;
    // Taken, not borrowed: while this thread waits for others it may be given another convolution.
    let mut room = ROOM.take();
    let lines = (elements * size_of::<T>()).div_ceil(size_of::<Line>());
    if room.len() < lines {
        room.resize(lines, bytemuck::Zeroable::zeroed());
    }
    let panels = &mut bytemuck::cast_slice_mut(&mut room)[..elements];
    panels
        .par_chunks_mut((width * depth).max(1))
        .enumerate()
        .for_each(|(panel, to)| {
            let filters = panel * width..k.min((panel + 1) * width);
            pack_panel(width, filters, &row, to);
        });
    let mut padded = vec![T::zero(); count * width];
    if let Some(bias) = bias {
        padded[..k].copy_from_slice(bias);
    }
    let result = body(Packed {
        panels,
        bias: padded,
        width,
        depth,
    });
    ROOM.set(room);
    result
}

/// Writes `to[d][j]` = row(filters.start + j)[d], a strip of every row at a time, so
/// that what is written stays in the first-level cache.
fn pack_panel<'f, T: Lanes>(
    width: usize,
    filters: Range<usize>,
    row: impl Fn(usize) -> &'f [T],
    to: &mut [T],
) {
    const STRIP: usize = 64;
    if filters.len() < width {
        to.fill(T::zero());
    }
    for (strip, to) in to.chunks_mut(STRIP * width).enumerate() {
        for (j, filter) in filters.clone().enumerate() {
            let from = &row(filter)[strip * STRIP..];
            for (to, &from) in to.chunks_exact_mut(width).zip(from) {
                to[j] = from;
            }
        }
    }
}

/// The convolution of some output pixels, all filters.
pub struct Block<'a, T, F> {
    pub filters: &'a Packed<'a, T>,
    /// [segment][pixel], each S·C long: what the pixels see; as many pixels as `y` has, rounded up to a
    /// multiple of `PIXEL_STEP`.
    pub segments: &'a [&'a [T]],
    /// Segments of a pixel: R.
    pub window_rows: usize,
    /// Rows of `k` elements, `ld` apart.
    pub y: &'a mut [T],
    pub k: usize,
    pub ld: usize,
    /// The row of the residual that belongs to a row of `y`.
    pub residual: Option<F>,
    pub relu: bool,
}

impl<'r, T: Lanes, F: Fn(usize) -> &'r [T]> WithSimd for Block<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (Width::new::<T, S>(self.k).vectors, S::REGISTER_COUNT) {
            (4, _) => self.run::<S, 4, 6>(simd),
            (2, 32) => self.run::<S, 2, 12>(simd),
            (2, _) => self.run::<S, 2, 6>(simd),
            _ => self.run::<S, 1, 12>(simd),
        }
    }
}

/// A tile of sums: pixels x vectors.
type Tile<T, S, const VECTORS: usize, const PIXELS: usize> =
    [[<T as Lanes>::Vector<S>; VECTORS]; PIXELS];

impl<'r, T: Lanes, F: Fn(usize) -> &'r [T]> Block<'_, T, F> {
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize, const PIXELS: usize>(mut self, simd: S) {
        let filters = self.filters;
        let count = self.y.len().div_ceil(self.ld);
        let pixels = self.segments.len() / self.window_rows;
        let length = self.filters.depth / self.window_rows;
        // Whole window rows, or parts of one.
        let rows_step = (DEPTH / length).clamp(1, self.window_rows);
        let part = length.div_ceil(length.div_ceil(DEPTH));
        for row in (0..self.window_rows).step_by(rows_step) {
            let rows = row..self.window_rows.min(row + rows_step);
            for start in (0..length).step_by(part) {
                let columns = start..length.min(start + part);
                let first = row == 0 && start == 0;
                let last = rows.end == self.window_rows && columns.end == length;
                for panel in 0..self.k.div_ceil(self.filters.width) {
                    let from = row * length + start;
                    let depth = rows.len() * columns.len();
                    let weights = filters.weights::<S, VECTORS>(panel, from, depth);
                    for pixel in (0..count).step_by(PIXELS) {
                        let mut tile = [[T::splat(simd, T::zero()); VECTORS]; PIXELS];
                        if !first {
                            self.load(simd, panel, pixel..count, &mut tile);
                        }
                        let segments = rows.clone().map(|r| &self.segments[r * pixels + pixel..]);
                        accumulate(simd, segments, columns.clone(), weights, &mut tile);
                        if last {
                            self.finish(simd, panel, pixel..count, &mut tile);
                        }
                        self.store::<S, VECTORS, PIXELS>(panel, pixel..count, &tile);
                    }
                }
            }
        }
    }

    /// The filters of a panel that exist.
    #[inline(always)]
    fn filters(&self, panel: usize) -> Range<usize> {
        let width = self.filters.width;
        panel * width..self.k.min((panel + 1) * width)
    }

    /// The tile's sums so far, from y.
    #[inline(always)]
    fn load<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &self,
        simd: S,
        panel: usize,
        pixels: Range<usize>,
        tile: &mut Tile<T, S, VECTORS, PIXELS>,
    ) {
        let filters = self.filters(panel);
        for (sums, row) in tile.iter_mut().zip(pixels) {
            *sums = read(simd, &self.y[row * self.ld..][filters.clone()]);
        }
    }

    /// Bias, residual and ReLU.
    #[inline(always)]
    fn finish<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &self,
        simd: S,
        panel: usize,
        pixels: Range<usize>,
        tile: &mut Tile<T, S, VECTORS, PIXELS>,
    ) {
        let filters = self.filters(panel);
        let width = self.filters.width;
        let bias: [_; VECTORS] = read(simd, &self.filters.bias[panel * width..][..width]);
        for (sums, row) in tile.iter_mut().zip(pixels) {
            for (sum, &bias) in sums.iter_mut().zip(&bias) {
                *sum = T::plus(simd, *sum, bias);
            }
            if let Some(residual) = &self.residual {
                let residual: [_; VECTORS] = read(simd, &residual(row)[filters.clone()]);
                for (sum, z) in sums.iter_mut().zip(residual) {
                    *sum = T::plus(simd, *sum, z);
                }
            }
            if self.relu {
                for sum in sums {
                    *sum = T::relu(simd, *sum);
                }
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &mut self,
        panel: usize,
        pixels: Range<usize>,
        tile: &Tile<T, S, VECTORS, PIXELS>,
    ) {
        let filters = self.filters(panel);
        for (sums, row) in tile.iter().zip(pixels) {
            let to = &mut self.y[row * self.ld..][filters.clone()];
            if to.len() == self.filters.width {
                bytemuck::cast_slice_mut(to).copy_from_slice(sums);
            } else {
                to.copy_from_slice(&bytemuck::cast_slice(sums)[..to.len()]);
            }
        }
    }
}

/// A row of a tile, zeros beyond the end of `from`.
#[inline(always)]
fn read<T: Lanes, S: Simd, const VECTORS: usize>(simd: S, from: &[T]) -> [T::Vector<S>; VECTORS] {
    let mut row = [T::splat(simd, T::zero()); VECTORS];
    if size_of_val(from) == size_of_val(&row) {
        row.copy_from_slice(bytemuck::cast_slice(from));
    } else {
        bytemuck::cast_slice_mut(&mut row)[..from.len()].copy_from_slice(from);
    }
    row
}

/// tile[i] += Σ over segments and `columns`: segment[i][c] · weights[step], steps counted on.
#[inline(always)]
fn accumulate<'s, T: Lanes, S: Simd, const VECTORS: usize, const PIXELS: usize>(
    simd: S,
    segments: impl Iterator<Item = &'s [&'s [T]]>,
    columns: Range<usize>,
    weights: &[[T::Vector<S>; VECTORS]],
    tile: &mut Tile<T, S, VECTORS, PIXELS>,
) {
    let mut sums = *tile;
    for (segments, weights) in segments.zip(weights.chunks_exact(columns.len())) {
        let segments: [&[T]; PIXELS] = std::array::from_fn(|i| &segments[i][columns.clone()]);
        for (step, weights) in weights.iter().enumerate() {
            for i in 0..PIXELS {
                // SAFETY: there are as many weights as columns, and every segment has those columns.
                let x = T::splat(simd, unsafe { *segments[i].get_unchecked(step) });
                for v in 0..VECTORS {
                    sums[i][v] = T::multiply_add(simd, x, weights[v], sums[i][v]);
                }
            }
        }
    }
    *tile = sums;
}
