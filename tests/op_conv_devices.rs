//! Convolution on the CUDA device: every pass against the CPU in f64, in every precision; the same bits twice.

use crate::support;
use showtell::device::Precision;
use showtell::ops::Accumulate;
use showtell::ops::conv::{self, Epilogue, Gradients};
use showtell::ops::window::Window;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::precision::{PRECISIONS, in_every_cut, stored, tolerance};
use support::typed::{check_padding, fill, in_f64, random, to_f64, typed_contexts, unwritten};
use support::{Numbers, alone, counters, cpu, cuda_with, paddings, zeros};

/// A convolution on the CUDA device, all its passes against the CPU in f64.
struct Case {
    window: Window,
    /// N, H, W, C
    shape: [usize; 4],
    filters: usize,
    /// Elements of padding between pixels and between filters, of the first tensor; the others have more, each its own.
    padding: usize,
    dtype: DType,
}

/// Random tensors of a case.
struct Random<'a> {
    ctx: &'a Context,
    numbers: Numbers,
    paddings: Box<dyn Iterator<Item = usize>>,
    dtype: DType,
}

impl Random<'_> {
    /// Numbers in [-1, 1), with NaN in the padding.
    fn tensor<const N: usize>(&mut self, shape: [usize; N]) -> Tensor {
        let padding = self.paddings.next().unwrap();
        random(self.ctx, &mut self.numbers, shape, padding, self.dtype)
    }
}

impl Case {
    fn random<'a>(&self, ctx: &'a Context, seed: u64) -> Random<'a> {
        Random {
            ctx,
            numbers: Numbers::new(seed),
            paddings: Box::new(paddings(self.padding)),
            dtype: self.dtype,
        }
    }

    fn compare(&self, ctx: &Context, what: &str, got: &Tensor, expected: &Tensor, terms: usize) {
        let (got, stored_as) = (in_f64(&cpu(), got), got.dtype());
        let bound = tolerance(ctx.device().precision(), self.dtype, terms);
        let pairs = got
            .to_vec::<f64>()
            .unwrap()
            .into_iter()
            .zip(expected.to_vec::<f64>().unwrap());
        for (i, (got, expected)) in pairs.enumerate() {
            assert!(
                (got - expected).abs() <= bound + stored(stored_as, expected),
                "{what} of {:?} {:?} into {}, {}, on {}: element {i} is {got} for {expected}",
                self.window,
                self.shape,
                self.filters,
                self.dtype,
                ctx.device().name()
            );
        }
    }

    fn check(&self, ctx: &Context) {
        let (cpu, mut random) = (cpu(), self.random(ctx, 9));
        let [n, h, w, c] = self.shape;
        let ([r, s], [p, q], k) = (self.window.kernel, self.window.output([h, w]), self.filters);
        let x = random.tensor(self.shape);
        let filter = random.tensor([k, r * s * c]);
        let bias = random.numbers.f32(ctx, [k]);
        let (z, mut y) = (random.tensor([n, p, q, k]), random.tensor([n, p, q, k]));
        let [x64, filter64, bias64, z64, mut y64] =
            [&x, &filter, &bias, &z, &y].map(|t| in_f64(&cpu, t));
        for relu in [true, false] {
            let epilogue = |bias, residual| Epilogue {
                bias: Some(bias),
                residual: Some(residual),
                relu,
            };
            conv::forward(ctx, &x, &filter, self.window, epilogue(&bias, &z), &mut y).unwrap();
            conv::forward(
                &cpu,
                &x64,
                &filter64,
                self.window,
                epilogue(&bias64, &z64),
                &mut y64,
            )
            .unwrap();
            self.compare(ctx, "forward", &y, &y64, r * s * c + 2);
        }
        self.check_backward(ctx, [&x, &filter, &z], [&x64, &filter64, &z64]);
        check_padding();
    }

    fn check_backward(
        &self,
        ctx: &Context,
        [x, filter, dy]: [&Tensor; 3],
        [x64, filter64, dy64]: [&Tensor; 3],
    ) {
        let (cpu, mut random) = (cpu(), self.random(ctx, 10));
        let ([r, s], k) = (self.window.kernel, self.filters);
        // Other paddings than those of the forward pass.
        let mut dx = (0..5).map(|_| random.tensor(self.shape)).last().unwrap();
        let (rows, depth) = (filter.rows(), filter.cols());
        let wide = random.numbers.f32(ctx, [rows, depth + self.padding]);
        let mut df = wide.columns(0, depth).unwrap();
        let mut db = random.numbers.f32(ctx, [k]);
        let [mut dx64, mut df64, mut db64] = [&dx, &df, &db].map(|t| in_f64(&cpu, t));
        for accumulate in [Accumulate::Yes, Accumulate::No] {
            let all = |dx, df, db| Gradients {
                x: Some(dx),
                filter: Some(df),
                bias: Some(db),
            };
            let to = all(&mut dx, &mut df, &mut db);
            conv::backward(ctx, x, filter, self.window, dy, accumulate, to).unwrap();
            let to = all(&mut dx64, &mut df64, &mut db64);
            conv::backward(&cpu, x64, filter64, self.window, dy64, accumulate, to).unwrap();
            let windows = dy.rows();
            self.compare(ctx, "x gradient", &dx, &dx64, r * s * k + 1);
            self.compare(ctx, "filter gradient", &df, &df64, windows + 1);
            self.compare(ctx, "bias gradient", &db, &db64, windows + 1);
        }
    }
}

/// Kernels, strides, paddings, odd sizes, channels that make chunks of 16 bytes and channels that do not.
const CASES: [(Window, [usize; 4], usize); 23] = [
    (Window::square(1, 1, 0), [2, 5, 7, 16], 24),
    (Window::square(1, 2, 0), [1, 9, 8, 8], 65),
    (Window::square(3, 1, 1), [2, 7, 9, 8], 16),
    (Window::square(3, 2, 1), [2, 9, 6, 16], 40),
    (Window::square(7, 2, 3), [1, 21, 18, 3], 20),
    (Window::square(3, 1, 1), [1, 11, 6, 3], 4),
    (Window::square(3, 1, 1), [3, 4, 4, 5], 6),
    (Window::square(2, 3, 0), [2, 8, 10, 4], 5),
    (
        Window {
            kernel: [3, 1],
            stride: 2,
            padding: 2,
        },
        [1, 6, 5, 7],
        9,
    ),
    (
        Window {
            kernel: [1, 4],
            stride: 1,
            padding: 1,
        },
        [2, 3, 6, 12],
        8,
    ),
    (Window::square(3, 1, 1), [1, 12, 12, 72], 130),
    (
        Window {
            kernel: [2, 16],
            stride: 1,
            padding: 3,
        },
        [1, 3, 19, 8],
        8,
    ),
    (Window::square(1, 1, 0), [1, 1, 1, 1], 1),
    (Window::square(3, 1, 1), [2, 9, 13, 64], 64),
    (Window::square(3, 2, 1), [3, 10, 11, 128], 192),
    // Few channels: more windows and filters than a block has, lines of several images, odd and even numbers of taps, windows
    // one, two, three and four pixels apart.
    (Window::square(7, 2, 3), [2, 11, 69, 3], 70),
    (Window::square(3, 1, 1), [3, 5, 34, 2], 9),
    (Window::square(5, 4, 2), [1, 20, 150, 4], 8),
    (Window::square(4, 2, 1), [1, 12, 70, 5], 66),
    (Window::square(3, 3, 1), [2, 10, 13, 3], 5),
    // One channel, more of them than the stem's kernel takes, and pixels that no window sees.
    (Window::square(7, 2, 3), [2, 11, 40, 1], 20),
    (Window::square(3, 1, 1), [1, 9, 33, 6], 10),
    (Window::square(2, 3, 0), [2, 8, 41, 3], 66),
];

#[test]
fn every_pass_on_the_cuda_device_equals_the_cpus() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        for (window, shape, filters) in CASES {
            // None; rows that can be copied 16 bytes at a time; rows that cannot.
            for padding in [0, 8, 3] {
                for dtype in [DType::F32, DType::Bf16] {
                    Case {
                        window,
                        shape,
                        filters,
                        padding,
                        dtype,
                    }
                    .check(&ctx);
                }
            }
        }
    }
}

/// Enough tiles for the large ones to be taken, in every pass.
#[test]
fn large_convolutions_equal_the_cpus() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let many_pixels = (Window::square(1, 1, 0), [2, 85, 85, 16], 72);
        let many_filters = (Window::square(3, 2, 1), [1, 9, 9, 136], 1290);
        for (window, shape, filters) in [many_pixels, many_filters] {
            let dtype = if precision == Precision::Bf16 {
                DType::Bf16
            } else {
                DType::F32
            };
            Case {
                window,
                shape,
                filters,
                padding: 0,
                dtype,
            }
            .check(&ctx);
        }
    }
}

/// Every kernel, on so few pixels that only SHOWTELL_CUT takes the wide cuts: in whole steps, enough for the ring to go round; in rows
/// that begin anywhere; in whole chunks but not in whole steps, with windows of which many taps can be the first outside the image.
/// Gradients of filters in one part and in several.
#[test]
fn every_cut_equals_the_cpus() {
    in_every_cut("every_cut_equals_the_cpus", check_cut);
}

fn check_cut(ctx: &Context, dtype: DType) {
    let high = Window {
        kernel: [9, 4],
        stride: 1,
        padding: 5,
    };
    for (window, shape, filters, padding) in [
        (Window::square(3, 1, 1), [1, 12, 23, 32], 96, 0),
        (Window::square(3, 2, 1), [4, 11, 15, 24], 134, 3),
        (high, [4, 3, 13, 8], 40, 8),
    ] {
        Case {
            window,
            shape,
            filters,
            padding,
            dtype,
        }
        .check(ctx);
    }
}

/// A NaN reaches the windows that see its pixel, in all their channels, and nothing else. One in a filter reaches its channel alone,
/// also where filters follow right behind each other and a step of the main loop ends in the next one. The ReLU hides none.
#[test]
fn nan_stays_where_it_belongs() {
    for precision in PRECISIONS {
        for dtype in [DType::F32, DType::Bf16] {
            let Some(ctx) = cuda_with(precision) else {
                return;
            };
            let near = Window::square(3, 1, 1);
            for (k, c) in [(5, 3), (24, 8), (66, 20)] {
                check_nan(&ctx, dtype, near, k, c);
            }
            // Pixels of few channels are multiplied in units of several taps, of which windows that are farther apart share some.
            for kernel in [3, 5, 7] {
                check_nan(&ctx, dtype, Window::square(kernel, 2, 1), 5, 3);
                check_nan(&ctx, dtype, Window::square(kernel, 1, 1), 5, 3);
            }
        }
    }
}

fn check_nan(ctx: &Context, dtype: DType, window: Window, k: usize, c: usize) {
    let (h, w) = (9, 12);
    let [p, q] = window.output([h, w]);
    let taps = window.kernel[0] * window.kernel[1] * c;
    let mut numbers = Numbers::new(12);
    let filter_k = k - 2;
    let with_nan = |shape: &[usize], at: Option<usize>, numbers: &mut Numbers| {
        let mut tensor = unwritten(ctx, Shape::new(shape), 0, dtype);
        let mut values = numbers.vec(tensor.len());
        if let Some(at) = at {
            values[at] = f64::NAN;
        }
        fill(&mut tensor, &values);
        tensor
    };
    // In the pixel's last channel, or in a tap of the filter. The pixels' windows are among all rows of a warp's chunks.
    for (pixel, tap) in [
        ([4, 6], None),
        ([2, 4], None),
        ([0, 1], None),
        ([4, 0], None),
        ([8, 11], None),
        ([0, 0], Some(0)),
        ([0, 0], Some(taps - 1)),
    ] {
        let in_x = (pixel[0] * w + pixel[1]) * c + c - 1;
        let x = with_nan(&[1, h, w, c], tap.is_none().then_some(in_x), &mut numbers);
        let at = tap.map(|tap| filter_k * taps + tap);
        let [r, s] = window.kernel;
        let filter = with_nan(&[k, r, s, c], at, &mut numbers);
        let mut y = unwritten(ctx, [1, p, q, k], 0, dtype);
        let epilogue = Epilogue {
            relu: true,
            ..Epilogue::default()
        };
        conv::forward(ctx, &x, &filter, window, epilogue, &mut y).unwrap();
        for (i, got) in to_f64(&y).into_iter().enumerate() {
            let (row, col, of) = (i / k / q, i / k % q, i % k);
            let covers = |at: usize, pixel: usize, kernel: usize| {
                let first = at * window.stride;
                (first..first + kernel).contains(&(pixel + window.padding))
            };
            let sees = match tap {
                // Also where the tap lies outside the image: zero times NaN.
                Some(_) => of == filter_k,
                None => covers(row, pixel[0], r) && covers(col, pixel[1], s),
            };
            let device = ctx.device().name();
            assert_eq!(
                got.is_nan(),
                sees,
                "{device}, {dtype}, {window:?}, {k} x {c}, NaN in tap {tap:?}: row {row}, column {col}, channel {of} is {got}"
            );
        }
    }
}

/// In every type: rows that begin anywhere, as many elements as whole blocks take, and rows of whole vectors with any rest. What is
/// beside the columns stays, and where the output is NaN there is no gradient.
#[test]
fn relu_backward_masks_rows_of_every_kind() {
    for (ctx, dtype) in typed_contexts() {
        let mut numbers = Numbers::new(3);
        let others = [[7, 13, 15, 17, 1], [256, 2, 3, 4, 1], [256, 8, 16, 24, 8]];
        let with_rest = (4..16).map(|cols| [7, cols, 24, 32, 8]);
        for [rows, cols, ldy, ldd, first] in others.into_iter().chain(with_rest) {
            let mut y = random(&ctx, &mut numbers, [rows, ldy], 0, dtype);
            let mut outputs = to_f64(&y);
            outputs.iter_mut().step_by(5).for_each(|v| *v = f64::NAN);
            fill(&mut y, &outputs);
            let dy = random(&ctx, &mut numbers, [rows, ldd], 0, dtype);
            let before = to_f64(&dy);
            let mut inner = dy.columns(first, cols).unwrap();
            conv::relu_backward(&ctx, &y.columns(first, cols).unwrap(), &mut inner).unwrap();
            for (i, got) in to_f64(&dy).into_iter().enumerate() {
                let (row, col) = (i / ldd, i % ldd);
                let inside = (first..first + cols).contains(&col);
                let stays = !inside || outputs[row * ldy + col] > 0.0;
                let expected = if stays { before[i] } else { 0.0 };
                assert_eq!(got, expected, "{dtype}: row {row}, column {col} of {cols}");
            }
        }
    }
}

#[test]
fn the_cuda_device_gives_the_same_bits_twice() {
    let Some(ctx) = cuda_with(Precision::Tf32) else {
        return;
    };
    let run = || {
        let mut numbers = Numbers::new(7);
        let (window, shape) = (Window::square(3, 2, 1), [3, 33, 31, 24]);
        let (x, filter) = (numbers.f32(&ctx, shape), numbers.f32(&ctx, [40, 3, 3, 24]));
        let dy = numbers.f32(&ctx, [3, 17, 16, 40]);
        let mut gradients =
            [x.shape(), filter.shape(), [40].into()].map(|shape| zeros(&ctx, shape, DType::F32));
        let [dx, df, db] = &mut gradients;
        let to = Gradients {
            x: Some(dx),
            filter: Some(df),
            bias: Some(db),
        };
        conv::backward(&ctx, &x, &filter, window, &dy, Accumulate::No, to).unwrap();
        gradients.map(|t| t.to_vec::<f32>().unwrap())
    };
    assert_eq!(run(), run());
}

/// All passes of a 3x3 layer: no bank conflicts, sectors used in full. The 7x7 stem, whose lines and filters begin anywhere, within a
/// quarter of that; the gradient of its filters, which only a wholly trained encoder needs, copies element by element.
#[test]
fn the_main_loops_cost_what_they_should() {
    if !alone("the_main_loops_cost_what_they_should", &[]) {
        return;
    }
    for (window, shape, filters) in [
        (Window::square(3, 1, 1), [2, 28, 28, 64], 64),
        (Window::square(7, 2, 3), [1, 64, 64, 3], 64),
    ] {
        let Some(ctx) = cuda_with(Precision::Tf32) else {
            return;
        };
        let mut numbers = Numbers::new(8);
        let [r, s] = window.kernel;
        let [p, q] = window.output([shape[1], shape[2]]);
        let (x, filter) = (
            numbers.f32(&ctx, shape),
            numbers.f32(&ctx, [filters, r, s, shape[3]]),
        );
        let mut y = zeros(&ctx, [shape[0], p, q, filters], DType::F32);
        let (mut dx, mut df) = (
            zeros(&ctx, x.shape(), DType::F32),
            zeros(&ctx, filter.shape(), DType::F32),
        );
        let counted = counters(|| {
            conv::forward(&ctx, &x, &filter, window, Epilogue::default(), &mut y).unwrap();
            let dx = (shape[3] > 3).then_some(&mut dx);
            let to = Gradients {
                x: dx,
                filter: Some(&mut df),
                bias: None,
            };
            conv::backward(&ctx, &x, &filter, window, &y, Accumulate::No, to).unwrap();
        });
        let Some(counted) = counted else { return };
        for (name, of) in counted.as_object().unwrap() {
            let count = |what: &str| of[what].as_u64().unwrap_or(0) as f64;
            let sectors = count("global_load_bytes") / (32.0 * count("global_load_sectors"));
            let share = 100.0 * count("mma") / count("warp_instructions");
            println!(
                "{name}: {:.0} % of sectors used, {} bank conflicts of {} accesses, {share:.1} % mma",
                100.0 * sectors,
                count("bank_conflicts"),
                count("shared_accesses")
            );
            let (least, most) = match (name.as_str(), shape[3]) {
                ("conv_tensor_stem_tf32", _) => (0.75, 0.125),
                (_, 3) => continue,
                _ => (1.0, 0.0),
            };
            let conflicts = count("bank_conflicts") / count("shared_accesses").max(1.0);
            assert!(
                sectors >= least && conflicts <= most,
                "{name}: {sectors}, {conflicts}"
            );
        }
        let stem = counted.get("conv_tensor_stem_tf32").is_some();
        assert_eq!(stem, shape[3] == 3, "the stem has its own kernel");
    }
}

#[test]
fn a_window_that_is_too_large_is_an_error() {
    let Some(ctx) = cuda_with(Precision::F32) else {
        return;
    };
    let window = Window {
        kernel: [1, 17],
        stride: 1,
        padding: 0,
    };
    let x = zeros(&ctx, [1, 1, 20, 8], DType::F32);
    let filter = zeros(&ctx, [4, 1, 17, 8], DType::F32);
    let mut y = zeros(&ctx, [1, 1, 4, 4], DType::F32);
    let error = conv::forward(&ctx, &x, &filter, window, Epilogue::default(), &mut y).unwrap_err();
    assert!(error.to_string().contains("up to 16 x 16"), "{error}");
}
