//! Pooling: against plain loops and PyTorch's rules, backward against finite differences.

use crate::support;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::pool;
use showtell::ops::window::Window;
use showtell::tensor::{Context, Tensor};
use support::typed::{
    check_padding, fill, in_f64, random, to_f64, typed_contexts, unit_roundoff, unwritten,
};
use support::{Numbers, alone, check_gradient, counters, cpu, cuda, inner, nan};

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().unwrap()
}

/// Window, [N, H, W, C], seed; padding at most half the window.
fn problems() -> impl Strategy<Value = (Window, [usize; 4], u64)> {
    let shape = [1usize..4, 4usize..12, 4usize..12, 1usize..20];
    (
        [1usize..5, 1usize..5],
        1usize..4,
        0usize..3,
        shape,
        any::<u64>(),
    )
        .prop_map(|(kernel, stride, padding, shape, seed)| {
            let padding = padding.min(kernel[0] / 2).min(kernel[1] / 2);
            (
                Window {
                    kernel,
                    stride,
                    padding,
                },
                shape,
                seed,
            )
        })
}

/// Distinct values a step apart, so that finite differences never change which one is largest.
fn distinct(ctx: &Context, numbers: &mut Numbers, shape: [usize; 4]) -> Tensor {
    let len: usize = shape.iter().product();
    let mut values: Vec<f64> = (0..len).map(|i| i as f64 / len as f64).collect();
    for i in (1..len).rev() {
        values.swap(i, numbers.below(i + 1));
    }
    Tensor::from_slice(ctx.device(), shape, &values).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn max_takes_the_largest_and_its_gradient_goes_there((window, shape, seed) in problems()) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let [n, h, w, c] = shape;
        let [p, q] = window.output([h, w]);
        let x = distinct(&ctx, &mut numbers, shape);
        let mut y = nan(&ctx, [n, p, q, c + 2]).columns(1, c).unwrap();
        pool::max_forward(&ctx, &x, window, &mut y).unwrap();
        let from = values(&x);
        for (i, got) in values(&y).into_iter().enumerate() {
            let (image, row, col, ch) = (i / c / q / p, i / c / q % p, i / c % q, i % c);
            let range = |position: usize, kernel: usize, size: usize| {
                let start = position * window.stride;
                start.saturating_sub(window.padding)
                    ..(start + kernel).saturating_sub(window.padding).min(size)
            };
            let mut expected = f64::NEG_INFINITY;
            for h_in in range(row, window.kernel[0], h) {
                for w_in in range(col, window.kernel[1], w) {
                    expected = expected.max(from[((image * h + h_in) * w + w_in) * c + ch]);
                }
            }
            prop_assert_eq!(got, expected);
        }
        let dy = numbers.f64(&ctx, [n, p, q, c]);
        let mut dx = nan(&ctx, shape);
        pool::max_backward(&ctx, &x, window, &dy, &mut dx).unwrap();
        check_gradient("x", &x, &dx, || {
            let mut y = nan(&ctx, dy.shape());
            pool::max_forward(&ctx, &x, window, &mut y).unwrap();
            inner(&y, &dy)
        });
    }

    #[test]
    fn adaptive_average_equals_plain_loops(
        n in 1usize..4, h in 1usize..12, w in 1usize..12, c in 1usize..20,
        p in 1usize..16, q in 1usize..16, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let x = numbers.f64(&ctx, [n, h, w, c + 1]).columns(1, c).unwrap();
        let mut y = nan(&ctx, [n, p, q, c]);
        pool::adaptive_forward(&ctx, &x, &mut y).unwrap();
        let from = values(&x);
        for (i, got) in values(&y).into_iter().enumerate() {
            let (image, row, col, ch) = (i / c / q / p, i / c / q % p, i / c % q, i % c);
            let (mut sum, mut cells) = (0.0, 0.0);
            for h_in in 0..h {
                for w_in in 0..w {
                    // Cell i covers output i·P/H … (i+1)·P/H: the two overlap.
                    let overlaps = |i: usize, n: usize, o: usize, m: usize| {
                        i * m < (o + 1) * n && (i + 1) * m > o * n
                    };
                    if overlaps(h_in, h, row, p) && overlaps(w_in, w, col, q) {
                        sum += from[((image * h + h_in) * w + w_in) * c + ch];
                        cells += 1.0;
                    }
                }
            }
            prop_assert!((got - sum / cells).abs() < 1e-14, "{got} for {}", sum / cells);
        }
        let dy = numbers.f64(&ctx, [n, p, q, c]);
        let mut dx = nan(&ctx, [n, h, w, c]);
        pool::adaptive_backward(&ctx, &dy, &mut dx).unwrap();
        check_gradient("x", &x, &dx, || {
            let mut y = nan(&ctx, dy.shape());
            pool::adaptive_forward(&ctx, &x, &mut y).unwrap();
            inner(&y, &dy)
        });
    }
}

#[test]
fn eight_cells_to_fourteen_average_one_or_two() {
    let ctx = cpu();
    let cells: Vec<f64> = (0..8).map(|i| f64::from(1 << i)).collect();
    let x = Tensor::from_slice(ctx.device(), [1, 8, 1, 1], &cells).unwrap();
    let mut y = nan(&ctx, [1, 14, 1, 1]);
    pool::adaptive_forward(&ctx, &x, &mut y).unwrap();
    let expected = [
        1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0,
    ];
    assert_eq!(values(&y), expected);
}

#[test]
fn average_is_the_mean_over_pixels() {
    let ctx = cpu();
    let mut numbers = Numbers::new(2);
    let x = numbers.f64(&ctx, [2, 3, 5, 4]);
    let dy = numbers.f64(&ctx, [2, 4]);
    let (mut y, mut dx) = (nan(&ctx, [2, 4]), nan(&ctx, [2, 3, 5, 4]));
    pool::average_forward(&ctx, &x, &mut y).unwrap();
    let from = values(&x);
    for (i, got) in values(&y).into_iter().enumerate() {
        let column = from[i / 4 * 60..][..60].iter().skip(i % 4).step_by(4);
        assert!((got - column.sum::<f64>() / 15.0).abs() < 1e-14);
    }
    pool::average_backward(&ctx, &dy, &mut dx).unwrap();
    check_gradient("x", &x, &dx, || {
        let mut y = nan(&ctx, [2, 4]);
        pool::average_forward(&ctx, &x, &mut y).unwrap();
        inner(&y, &dy)
    });
}

/// PyTorch's rules: of equal values the first in the window is taken, NaN before all others, and −∞ is a value.
#[test]
fn ties_nan_and_infinity() {
    check_special_values(&cpu(), DType::F64);
    for (ctx, dtype) in typed_contexts() {
        check_special_values(&ctx, dtype);
    }
}

/// In one channel, and in many, which a thread takes together.
fn check_special_values(ctx: &Context, dtype: DType) {
    for channels in [1, 16] {
        check_special_channels(ctx, dtype, channels);
    }
}

fn check_special_channels(ctx: &Context, dtype: DType, channels: usize) {
    let window = Window::square(2, 2, 0);
    let infinity = f64::NEG_INFINITY;
    let x = [
        [2.0, 2.0, 1.0, f64::NAN],
        [2.0, 2.0, f64::NAN, 7.0],
        [infinity, infinity, 0.0, -0.0],
        [infinity, infinity, -1.0, 0.0],
    ];
    let of = |shape: [usize; 3], values: &[f64]| {
        let mut tensor = unwritten(ctx, [shape[0], shape[1], shape[2], channels], 0, dtype);
        let values: Vec<f64> = values.iter().flat_map(|&v| vec![v; channels]).collect();
        fill(&mut tensor, &values);
        tensor
    };
    let x = of([1, 4, 4], x.as_flattened());
    let mut y = unwritten(ctx, [1, 2, 2, channels], 0, dtype);
    pool::max_forward(ctx, &x, window, &mut y).unwrap();
    for channel in 0..channels {
        let got: Vec<f64> = to_f64(&y)
            .into_iter()
            .skip(channel)
            .step_by(channels)
            .collect();
        assert!(
            got[0] == 2.0 && got[1].is_nan() && got[2] == infinity && got[3] == 0.0,
            "{got:?}"
        );
    }
    let dy = of([1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let mut dx = unwritten(ctx, [1, 4, 4, channels], 0, dtype);
    pool::max_backward(ctx, &x, window, &dy, &mut dx).unwrap();
    let expected = [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 2.0, 0.0],
        [3.0, 0.0, 4.0, 0.0],
        [0.0; 4],
    ];
    assert_eq!(to_f64(&dx), to_f64(&of([1, 4, 4], expected.as_flattened())));
}

#[test]
fn a_window_that_can_lie_in_the_padding_alone_is_an_error() {
    let ctx = cpu();
    let (x, mut y) = (nan(&ctx, [1, 4, 4, 1]), nan(&ctx, [1, 7, 7, 1]));
    let error = pool::max_forward(&ctx, &x, Window::square(2, 1, 2), &mut y).unwrap_err();
    assert!(error.to_string().contains("more than half"), "{error}");
}

fn wide_window(columns: usize, stride: usize) -> Window {
    Window {
        kernel: [2, columns],
        stride,
        padding: 1,
    }
}

/// A NaN is taken wherever it lies in a wide window, whatever follows it.
#[test]
fn a_nan_is_taken_anywhere_in_a_window() {
    for (ctx, dtype) in typed_contexts() {
        for (columns, channels) in [(7, 1), (7, 16), (9, 1), (9, 16)] {
            let window = Window {
                kernel: [2, columns],
                stride: columns,
                padding: 0,
            };
            // A window in each of as many images as it has places; in every channel the NaN is elsewhere.
            let of_window = 2 * columns;
            let is_nan = |i: usize| {
                let (place, channel) = (i / channels, i % channels);
                place % of_window == (place / of_window + channel) % of_window
            };
            let places = 0..of_window * of_window * channels;
            let values = places.clone().map(|i| match is_nan(i) {
                true => f64::NAN,
                false => (i / channels % 5) as f64,
            });
            let mut x = unwritten(&ctx, [of_window, 2, columns, channels], 0, dtype);
            fill(&mut x, &values.collect::<Vec<_>>());
            let mut y = unwritten(&ctx, [of_window, 1, 1, channels], 0, dtype);
            pool::max_forward(&ctx, &x, window, &mut y).unwrap();
            assert!(to_f64(&y).iter().all(|v| v.is_nan()), "{dtype}: {columns}");
            let mut dy = unwritten(&ctx, y.shape(), 0, dtype);
            fill(&mut dy, &vec![1.0; of_window * channels]);
            let mut dx = unwritten(&ctx, x.shape(), 0, dtype);
            pool::max_backward(&ctx, &x, window, &dy, &mut dx).unwrap();
            let expected = places.map(|i| f64::from(u8::from(is_nan(i))));
            assert_eq!(to_f64(&dx), expected.collect::<Vec<_>>(), "{dtype}");
        }
    }
}

fn four_paddings(first: usize) -> [usize; 4] {
    let mut paddings = support::paddings(first);
    std::array::from_fn(|_| paddings.next().unwrap())
}

/// Against the CPU in f64, from the same rounded numbers (in bf16 many are equal). A largest number is exact; a
/// gradient is the sum of at most nine, rounded each time and once more to its type.
#[test]
fn max_on_every_device() {
    let cpu = cpu();
    for (ctx, dtype) in typed_contexts() {
        for (window, shape, padding) in [
            (Window::square(3, 2, 1), [2, 9, 12, 16], 0),
            (Window::square(3, 1, 1), [1, 5, 6, 24], 8),
            (Window::square(2, 2, 0), [3, 5, 5, 7], 1),
            (
                Window {
                    kernel: [4, 3],
                    stride: 3,
                    padding: 1,
                },
                [2, 11, 8, 8],
                3,
            ),
            (Window::square(2, 3, 1), [1, 7, 10, 5], 0),
            (Window::square(3, 2, 1), [0, 7, 10, 8], 0),
            // Of 6 to 9 columns within the image: compilers take four at a time, and any rest.
            (wide_window(7, 2), [1, 4, 16, 8], 8),
            (wide_window(7, 2), [1, 4, 16, 3], 1),
            (wide_window(9, 3), [1, 4, 16, 8], 8),
            (wide_window(9, 3), [1, 4, 16, 3], 1),
        ] {
            let mut numbers = Numbers::new(8);
            let [n, h, w, c] = shape;
            let [p, q] = window.output([h, w]);
            let [of_x, of_dy, of_y, of_dx] = four_paddings(padding);
            let x = random(&ctx, &mut numbers, shape, of_x, dtype);
            let dy = random(&ctx, &mut numbers, [n, p, q, c], of_dy, dtype);
            let run = |ctx: &Context, x: &Tensor, dy: &Tensor| {
                let mut y = unwritten(ctx, dy.shape(), of_y, x.dtype());
                let mut dx = unwritten(ctx, x.shape(), of_dx, x.dtype());
                pool::max_forward(ctx, x, window, &mut y).unwrap();
                pool::max_backward(ctx, x, window, dy, &mut dx).unwrap();
                [to_f64(&y), to_f64(&dx)]
            };
            let [y, dx] = run(&ctx, &x, &dy);
            check_padding();
            let expected = run(&cpu, &in_f64(&cpu, &x), &in_f64(&cpu, &dy));
            assert_eq!(
                y,
                expected[0],
                "{}, {dtype}, {window:?}",
                ctx.device().name()
            );
            for (got, expected) in dx.into_iter().zip(&expected[1]) {
                let bound =
                    9.0 * 9.0 * unit_roundoff(DType::F32) + unit_roundoff(dtype) * expected.abs();
                assert!(
                    (got - expected).abs() <= bound,
                    "{dtype}: {got} for {expected}"
                );
            }
        }
    }
}

/// Against the CPU in f64, from the same rounded numbers: at most 256 numbers of at most 1 are added up, times a weight
/// that is off by less than 4 u, and rounded to their type.
#[test]
fn averages_on_every_device() {
    let cpu = cpu();
    for (ctx, dtype) in typed_contexts() {
        for ([n, h, w, c], [p, q], padding) in [
            ([2, 8, 8, 16], [14, 14], 0),
            ([3, 8, 8, 24], [1, 1], 8),
            ([2, 16, 16, 7], [1, 1], 1),
            ([2, 13, 11, 8], [2, 3], 0),
            ([1, 3, 4, 5], [3, 4], 3),
            ([1, 2, 3, 5], [9, 14], 1),
            ([2, 2, 3, 16], [10, 13], 8),
            // Seven outputs see a column.
            ([1, 3, 2, 5], [4, 13], 1),
            ([1, 3, 2, 8], [4, 13], 8),
            ([0, 8, 8, 8], [1, 1], 0),
        ] {
            let mut numbers = Numbers::new(9);
            let [of_x, of_dy, of_y, of_dx] = four_paddings(padding);
            let x = random(&ctx, &mut numbers, [n, h, w, c], of_x, dtype);
            let dy = random(&ctx, &mut numbers, [n, p, q, c], of_dy, DType::F32);
            let run = |ctx: &Context, x: &Tensor, dy: &Tensor| {
                let mut y = unwritten(ctx, dy.shape(), of_y, x.dtype());
                let mut dx = unwritten(ctx, x.shape(), of_dx, x.dtype());
                if [p, q] == [1, 1] {
                    let mut y = y.reshape([n, c]).unwrap();
                    pool::average_forward(ctx, x, &mut y).unwrap();
                } else {
                    pool::adaptive_forward(ctx, x, &mut y).unwrap();
                }
                pool::adaptive_backward(ctx, dy, &mut dx).unwrap();
                [to_f64(&y), to_f64(&dx)]
            };
            let got = run(&ctx, &x, &dy);
            check_padding();
            let expected = run(&cpu, &in_f64(&cpu, &x), &in_f64(&cpu, &dy));
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                let bound =
                    64.0 * unit_roundoff(DType::F32) + unit_roundoff(dtype) * expected.abs();
                assert!(
                    (got - expected).abs() <= bound,
                    "{}, {dtype}: {got} for {expected}",
                    ctx.device().name()
                );
            }
        }
    }
}

/// Windows overlap, so threads may ask for a byte more than once; DRAM has to give it once.
#[test]
fn pooling_moves_each_byte_once() {
    if !alone("pooling_moves_each_byte_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(5);
    let window = Window::square(3, 2, 1);
    let x = random(&ctx, &mut numbers, [2, 32, 32, 64], 0, DType::Bf16);
    let dy = random(&ctx, &mut numbers, [2, 16, 16, 64], 0, DType::Bf16);
    let mut y = unwritten(&ctx, dy.shape(), 0, DType::Bf16);
    let mut dx = unwritten(&ctx, x.shape(), 0, DType::Bf16);
    let counted = counters(|| {
        pool::max_forward(&ctx, &x, window, &mut y).unwrap();
        pool::max_backward(&ctx, &x, window, &dy, &mut dx).unwrap();
    });
    let Some(counted) = counted else { return };
    let sectors = |tensor: &Tensor| tensor.len() * 2 / 32;
    let [forward, backward] =
        ["forward", "backward"].map(|pass| &counted[format!("pool_max_{pass}_bf16x8")]);
    assert_eq!(forward["distinct_sectors"], sectors(&x) + sectors(&y));
    assert_eq!(backward["distinct_sectors"], 2 * sectors(&x) + sectors(&y));
    assert_eq!(forward["global_store_sectors"], sectors(&y));
    assert_eq!(backward["global_store_sectors"], sectors(&x));
    // Nine pixels and a gradient for each of four windows, by a thread for four pixels.
    let asked = backward["global_load_bytes"].as_u64().unwrap() as usize;
    assert!(asked <= 10 * 2 * x.len(), "{asked}");
}
