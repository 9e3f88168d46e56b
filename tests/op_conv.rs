//! Convolution: against plain loops, backward against finite differences, on odd sizes.

use crate::support;
use proptest::prelude::*;
use showtell::ops::Accumulate;
use showtell::ops::conv::{self, Epilogue, Gradients};
use showtell::ops::window::Window;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use support::{Numbers, check_gradient, contexts, cpu, inner, nan, zeros};

/// The definition, element by element, in f64.
fn plain(x: &Tensor, filter: &Tensor, window: Window) -> Vec<f64> {
    let (&[n, h, w, c], &[k, r, s, _]) = (x.shape().dims(), filter.shape().dims()) else {
        panic!("four dimensions each");
    };
    let (shape, [p, q]) = (x.shape().len(), window.output([h, w]));
    let (x, filter) = (x.to_vec::<f64>().unwrap(), filter.to_vec::<f64>().unwrap());
    assert_eq!(shape, x.len());
    let mut y = vec![0.0; n * p * q * k];
    for (i, y) in y.iter_mut().enumerate() {
        let (image, row, col, k) = (i / k / q / p, i / k / q % p, i / k % q, i % k);
        for tap in 0..r * s * c {
            let (dr, ds, c_in) = (tap / c / s, tap / c % s, tap % c);
            let at = |position: usize, offset: usize| {
                (position * window.stride + offset).wrapping_sub(window.padding)
            };
            let (from_h, from_w) = (at(row, dr), at(col, ds));
            if from_h < h && from_w < w {
                *y +=
                    x[((image * h + from_h) * w + from_w) * c + c_in] * filter[k * r * s * c + tap];
            }
        }
    }
    y
}

/// Small convolutions of any kind: kernel, stride, padding, N, H, W, C, K, seed.
fn problems() -> impl Strategy<Value = (Window, [usize; 4], usize, u64)> {
    let window = ([1usize..5, 1usize..5], 1usize..4, 0usize..3);
    let shape = [1usize..4, 1usize..10, 1usize..10, 1usize..9];
    (window, shape, 1usize..40, any::<u64>()).prop_map(
        |((kernel, stride, padding), shape, k, seed)| {
            let [n, h, w, c] = shape;
            let fitted = [
                kernel[0].min(h + 2 * padding),
                kernel[1].min(w + 2 * padding),
            ];
            let window = Window {
                kernel: fitted,
                stride,
                padding,
            };
            (window, [n, h, w, c], k, seed)
        },
    )
}

/// Columns 1 to C of a tensor with C + 2, so that pixels are padded.
fn padded(numbers: &mut Numbers, ctx: &Context, [n, h, w, c]: [usize; 4]) -> Tensor {
    numbers.f64(ctx, [n, h, w, c + 2]).columns(1, c).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn forward_equals_plain_loops(
        (window, shape, k, seed) in problems(),
        bias: bool, residual: bool, relu: bool, pad: bool
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let [n, h, w, c] = shape;
        let ([r, s], [p, q]) = (window.kernel, window.output([h, w]));
        let x = if pad {
            padded(&mut numbers, &ctx, shape)
        } else {
            numbers.f64(&ctx, shape)
        };
        let filter = numbers.f64(&ctx, [k, r, s, c]);
        let bias = bias.then(|| numbers.f64(&ctx, [k]));
        let residual = residual.then(|| padded(&mut numbers, &ctx, [n, p, q, k]));
        let mut y = nan(&ctx, [n, p, q, k + 1]).columns(0, k).unwrap();
        let epilogue = Epilogue { bias: bias.as_ref(), residual: residual.as_ref(), relu };
        conv::forward(&ctx, &x, &filter, window, epilogue, &mut y).unwrap();
        let values = |t: &Tensor| t.to_vec::<f64>().unwrap();
        let (bias, residual) = (bias.as_ref().map(values), residual.as_ref().map(values));
        let exact = plain(&x, &filter, window);
        for (i, (got, exact)) in values(&y).into_iter().zip(exact).enumerate() {
            let bias = bias.as_ref().map_or(0.0, |b| b[i % k]);
            let sum = exact + bias + residual.as_ref().map_or(0.0, |z| z[i]);
            let expected = if relu { sum.max(0.0) } else { sum };
            let tolerance = 2.0 * f64::EPSILON * (r * s * c + 2) as f64;
            prop_assert!((got - expected).abs() <= tolerance, "{got} for {expected} at {i}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn backward_equals_finite_differences((window, shape, k, seed) in problems()) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let ([r, s], [p, q]) = (window.kernel, window.output([shape[1], shape[2]]));
        let x = numbers.f64(&ctx, shape);
        let filter = numbers.f64(&ctx, [k, r, s, shape[3]]);
        let bias = numbers.f64(&ctx, [k]);
        let dy = numbers.f64(&ctx, [shape[0], p, q, k]);
        let (mut dx, mut df) = (nan(&ctx, shape), nan(&ctx, filter.shape()));
        let mut db = nan(&ctx, [k]);
        let mut backward = |accumulate| {
            let (x_to, filter_to) = (Some(&mut dx), Some(&mut df));
            let gradients = Gradients { x: x_to, filter: filter_to, bias: Some(&mut db) };
            conv::backward(&ctx, &x, &filter, window, &dy, accumulate, gradients).unwrap();
        };
        backward(Accumulate::No);
        backward(Accumulate::Yes);
        // Twice the gradient: once written, once added.
        let loss = || {
            let mut y = nan(&ctx, dy.shape());
            let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
            conv::forward(&ctx, &x, &filter, window, epilogue, &mut y).unwrap();
            2.0 * inner(&y, &dy)
        };
        check_gradient("x", &x, &dx, loss);
        check_gradient("filter", &filter, &df, loss);
        check_gradient("bias", &bias, &db, loss);
    }
}

/// Sizes that need several blocks of depth, several panels and a matrix filter with padded rows.
#[test]
fn deep_convolutions_equal_plain_loops_in_both_precisions() {
    let ctx = cpu();
    let mut numbers = Numbers::new(5);
    for (window, shape, k) in [
        (Window::square(3, 1, 1), [1, 7, 5, 330], 130),
        (Window::square(1, 1, 0), [1, 15, 15, 1500], 65),
        (Window::square(1, 2, 0), [2, 9, 9, 64], 64),
        (Window::square(7, 2, 3), [1, 20, 22, 3], 64),
    ] {
        let [r, s] = window.kernel;
        let [p, q] = window.output([shape[1], shape[2]]);
        let depth = r * s * shape[3];
        let x = numbers.f32(&ctx, shape);
        let filter = numbers.f32(&ctx, [k, depth + 5]).columns(0, depth).unwrap();
        let widen = |t: &Tensor, shape: Shape| {
            let values: Vec<f64> = t
                .to_vec::<f32>()
                .unwrap()
                .iter()
                .map(|&v| v.into())
                .collect();
            Tensor::from_slice(ctx.device(), shape, &values).unwrap()
        };
        let wide = [
            widen(&x, shape.into()),
            widen(&filter, [k, r, s, shape[3]].into()),
        ];
        let expected = plain(&wide[0], &wide[1], window);
        let mut y = zeros(&ctx, [shape[0], p, q, k], DType::F32);
        conv::forward(&ctx, &x, &filter, window, Epilogue::default(), &mut y).unwrap();
        let mut y64 = nan(&ctx, y.shape());
        conv::forward(
            &ctx,
            &wide[0],
            &wide[1],
            window,
            Epilogue::default(),
            &mut y64,
        )
        .unwrap();
        let got = y.to_vec::<f32>().unwrap();
        let got64 = y64.to_vec::<f64>().unwrap();
        // Terms are uniform products below 1: rounding walks, about ε · depth / 2 at worst.
        let bound = |epsilon: f64| epsilon * depth as f64 / 2.0;
        for ((got, got64), expected) in got.into_iter().zip(got64).zip(expected) {
            assert!(
                (f64::from(got) - expected).abs() <= bound(f32::EPSILON.into()),
                "{got}"
            );
            assert!((got64 - expected).abs() <= bound(f64::EPSILON), "{got64}");
        }
    }
}

/// Several passes over the images in backward: more columns than are held at once.
#[test]
fn backward_sums_over_all_images() {
    let ctx = cpu();
    let mut numbers = Numbers::new(6);
    let window = Window::square(3, 1, 1);
    let shape = [5, 40, 40, 100];
    let x = numbers.f32(&ctx, shape);
    let filter = numbers.f32(&ctx, [2, 3, 3, 100]);
    let dy = numbers.f32(&ctx, [5, 40, 40, 2]);
    let run = |x: &Tensor, dy: &Tensor, accumulate, df: &mut Tensor| {
        let gradients = Gradients {
            filter: Some(df),
            ..Gradients::default()
        };
        conv::backward(&ctx, x, &filter, window, dy, accumulate, gradients).unwrap();
    };
    let mut together = zeros(&ctx, filter.shape(), DType::F32);
    run(&x, &dy, Accumulate::No, &mut together);
    let mut one_by_one = zeros(&ctx, filter.shape(), DType::F32);
    for n in 0..5 {
        let (x, dy) = (x.narrow(n, 1).unwrap(), dy.narrow(n, 1).unwrap());
        run(&x, &dy, Accumulate::Yes, &mut one_by_one);
    }
    let values = [together, one_by_one].map(|t| t.to_vec::<f32>().unwrap());
    let error = support::relative_error(&values[0], &values[1]);
    assert!(error < 8.0 * f64::from(f32::EPSILON), "{error}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let ctx = cpu();
            let mut numbers = Numbers::new(7);
            let window = Window::square(3, 2, 1);
            let x = numbers.f32(&ctx, [3, 33, 31, 24]);
            let filter = numbers.f32(&ctx, [40, 3, 3, 24]);
            let mut y = zeros(&ctx, [3, 17, 16, 40], DType::F32);
            conv::forward(&ctx, &x, &filter, window, Epilogue::default(), &mut y).unwrap();
            let mut gradients = [x.shape(), filter.shape(), [40].into()]
                .map(|shape| zeros(&ctx, shape, DType::F32));
            let [dx, df, db] = &mut gradients;
            let to = Gradients {
                x: Some(dx),
                filter: Some(df),
                bias: Some(db),
            };
            conv::backward(&ctx, &x, &filter, window, &y, Accumulate::No, to).unwrap();
            let [dx, df, db] = gradients;
            [y, dx, df, db].map(|t| t.to_vec::<f32>().unwrap())
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn relu_backward_masks_what_was_cut() {
    for ctx in contexts() {
        let tensor = |values: [f32; 4]| Tensor::from_slice(ctx.device(), [2, 2], &values).unwrap();
        let y = tensor([0.0, 3.0, 0.0, 1e-30]);
        let mut dy = tensor([1.0, 2.0, f32::NAN, -4.0]);
        conv::relu_backward(&ctx, &y, &mut dy).unwrap();
        assert_eq!(dy.to_vec::<f32>().unwrap(), [0.0, 2.0, 0.0, -4.0]);
    }
}

#[test]
fn a_nan_is_not_hidden_by_the_relu() {
    for ctx in contexts() {
        let x = Tensor::from_slice(ctx.device(), [1, 1, 1, 1], &[f32::NAN]).unwrap();
        let filter = Tensor::from_slice(ctx.device(), [1, 1, 1, 1], &[1f32]).unwrap();
        let mut y = zeros(&ctx, [1, 1, 1, 1], DType::F32);
        let epilogue = Epilogue {
            relu: true,
            ..Epilogue::default()
        };
        conv::forward(&ctx, &x, &filter, Window::square(1, 1, 0), epilogue, &mut y).unwrap();
        assert!(y.to_vec::<f32>().unwrap()[0].is_nan());
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let ctx = cpu();
    let tensor = |shape: [usize; 4]| zeros(&ctx, shape, DType::F32);
    let (x, filter, mut y) = (
        tensor([1, 4, 4, 2]),
        tensor([3, 3, 3, 1]),
        tensor([1, 4, 4, 3]),
    );
    let mut run = |window, filter| {
        conv::forward(&ctx, &x, filter, window, Epilogue::default(), &mut y)
            .unwrap_err()
            .to_string()
    };
    let message = run(Window::square(3, 1, 1), &filter);
    assert_eq!(
        message,
        "conv: filter should have shape [3, 3, 3, 2], has [3, 3, 3, 1]"
    );
    let message = run(Window::square(5, 1, 0), &filter);
    assert!(
        message.contains("does not fit in an image of [4, 4]"),
        "{message}"
    );
}
