//! Cross-entropy: against the formula in plain f64, finite differences, and its edges.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::cross_entropy::{self, Rows};
use showtell::tensor::{Context, Tensor};
use support::{Numbers, check_gradient, cpu, nan, zeros};

/// Random targets below `words`, the first never ignored.
fn targets(ctx: &Context, numbers: &mut Numbers, rows: usize, words: usize) -> (Tensor, Rows) {
    let mut targets: Vec<u32> = (0..rows).map(|_| numbers.below(words) as u32).collect();
    targets[0] = words as u32 - 1;
    let count = targets.iter().filter(|&&target| target != 0).count();
    let tensor = Tensor::from_slice(ctx.device(), [rows], &targets).unwrap();
    (tensor, Rows { ignore: 0, count })
}

fn mean_loss(ctx: &Context, logits: &Tensor, targets: &Tensor, rows: Rows) -> f64 {
    let mut losses = nan(ctx, [targets.len()]);
    let mut loss = nan(ctx, [1]);
    cross_entropy::forward(ctx, logits, targets, rows, &mut losses, &mut loss).unwrap();
    loss.to_vec::<f64>().unwrap()[0]
}

/// A dense copy that an operation may overwrite.
fn copy(ctx: &Context, x: &Tensor) -> Tensor {
    Tensor::from_slice(ctx.device(), x.shape(), &x.to_vec::<f64>().unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn gradient_equals_finite_differences(rows in 1usize..8, words in 2usize..50, seed: u64) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let wide = numbers.f64(&ctx, [rows, words + 6]);
        let logits = wide.columns(0, words).unwrap();
        let (targets, count) = targets(&ctx, &mut numbers, rows, words);
        let mut gradient = copy(&ctx, &logits);
        let (mut losses, mut loss) = (nan(&ctx, [rows]), nan(&ctx, [1]));
        cross_entropy::forward_backward(
            &ctx, &mut gradient, &targets, count, &mut losses, &mut loss,
        ).unwrap();
        check_gradient("logits", &logits, &gradient, || mean_loss(&ctx, &logits, &targets, count));
        // Both passes give the same losses, and the rows' losses make the mean.
        let fused = loss.to_vec::<f64>().unwrap()[0];
        let alone = mean_loss(&ctx, &logits, &targets, count);
        prop_assert!((fused - alone).abs() <= 1e-14 * alone.abs());
        let sum: f64 = losses.to_vec::<f64>().unwrap().iter().sum();
        prop_assert!((sum / count.count as f64 - fused).abs() <= 1e-14 * fused.abs());
    }
}

/// A vocabulary-sized row in f32: exp within 2 ulp, a sum of n terms in 32 lanes within √n ulp.
#[test]
fn f32_follows_the_formula_in_f64() {
    let ctx = cpu();
    let mut numbers = Numbers::new(8);
    let (rows, words) = (6, 8915);
    let values: Vec<f32> = numbers
        .vec(rows * words)
        .iter()
        .map(|v| 12.0 * *v as f32)
        .collect();
    let (targets, count) = targets(&ctx, &mut numbers, rows, words);
    let mut logits = Tensor::from_slice(ctx.device(), [rows, words], &values).unwrap();
    let mut losses = zeros(&ctx, [rows], DType::F32);
    let mut loss = zeros(&ctx, [1], DType::F32);
    cross_entropy::forward_backward(&ctx, &mut logits, &targets, count, &mut losses, &mut loss)
        .unwrap();
    let (losses, targets) = (
        losses.to_vec::<f32>().unwrap(),
        targets.to_vec::<u32>().unwrap(),
    );
    let gradient = logits.to_vec::<f32>().unwrap();
    let bound = f64::from(f32::EPSILON) * (words as f64).sqrt();
    for row in 0..rows {
        let x: Vec<f64> = values[row * words..][..words]
            .iter()
            .map(|&v| v.into())
            .collect();
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        let target = targets[row] as usize;
        let expected = sum.ln() - x[target];
        assert!(
            (f64::from(losses[row]) - expected).abs() <= bound * expected,
            "row {row}"
        );
        for (v, got) in gradient[row * words..][..words].iter().enumerate() {
            let one_hot = if v == target { 1.0 } else { 0.0 };
            let exact = (x[v].exp() / sum - one_hot) / count.count as f64;
            let scale = exact.abs() + one_hot * f64::from(f32::EPSILON);
            assert!(
                (f64::from(*got) - exact).abs() <= bound * scale,
                "row {row}, word {v}"
            );
        }
    }
}

#[test]
fn ignored_rows_have_no_loss_and_no_gradient() {
    let ctx = cpu();
    let mut numbers = Numbers::new(9);
    let logits = numbers.f64(&ctx, [3, 10]);
    let mut inner = logits.columns(0, 7).unwrap();
    let padding: Vec<f64> = logits.columns(7, 3).unwrap().to_vec().unwrap();
    let targets = Tensor::from_slice(ctx.device(), [3], &[2u32, 0, 5]).unwrap();
    let rows = Rows {
        ignore: 0,
        count: 2,
    };
    let (mut losses, mut loss) = (nan(&ctx, [3]), nan(&ctx, [1]));
    cross_entropy::forward_backward(&ctx, &mut inner, &targets, rows, &mut losses, &mut loss)
        .unwrap();
    assert_eq!(losses.to_vec::<f64>().unwrap()[1], 0.0);
    assert_eq!(
        inner.narrow(1, 1).unwrap().to_vec::<f64>().unwrap(),
        [0.0; 7]
    );
    assert_eq!(
        logits.columns(7, 3).unwrap().to_vec::<f64>().unwrap(),
        padding
    );
}

#[test]
fn large_logits_neither_overflow_nor_hide_a_nan() {
    let ctx = cpu();
    let targets = Tensor::from_slice(ctx.device(), [1], &[1u32]).unwrap();
    let rows = Rows {
        ignore: 0,
        count: 1,
    };
    let loss = |logits: &[f32]| {
        let mut logits = Tensor::from_slice(ctx.device(), [1, logits.len()], logits).unwrap();
        let (mut losses, mut loss) = (zeros(&ctx, [1], DType::F32), zeros(&ctx, [1], DType::F32));
        cross_entropy::forward(&ctx, &logits, &targets, rows, &mut losses, &mut loss).unwrap();
        let alone = loss.to_vec::<f32>().unwrap()[0];
        cross_entropy::forward_backward(&ctx, &mut logits, &targets, rows, &mut losses, &mut loss)
            .unwrap();
        (alone, loss.to_vec::<f32>().unwrap()[0])
    };
    assert_eq!(loss(&[1e30, 1e30]), (2f32.ln(), 2f32.ln()));
    assert_eq!(loss(&[1e3, -1e3]), (2e3, 2e3));
    for place in 0..40 {
        let mut logits = [0.5; 40];
        logits[place] = f32::NAN;
        let (alone, fused) = loss(&logits);
        assert!(alone.is_nan() && fused.is_nan(), "NaN at {place}");
    }
}

#[test]
fn threads_do_not_matter() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let ctx = cpu();
            let mut numbers = Numbers::new(10);
            let logits = numbers.f64(&ctx, [300, 77]);
            let (targets, count) = targets(&ctx, &mut numbers, 300, 77);
            mean_loss(&ctx, &logits, &targets, count)
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn what_has_no_mean_is_an_error() {
    let ctx = cpu();
    let logits = zeros(&ctx, [2, 4], DType::F32);
    let (mut losses, mut loss) = (zeros(&ctx, [2], DType::F32), zeros(&ctx, [1], DType::F32));
    let mut message = |targets: [u32; 2], count| {
        let targets = Tensor::from_slice(ctx.device(), [2], &targets).unwrap();
        let rows = Rows { ignore: 0, count };
        cross_entropy::forward(&ctx, &logits, &targets, rows, &mut losses, &mut loss)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        message([0, 0], 0),
        "cross_entropy: every target is 0, which is ignored: there is no mean"
    );
    assert_eq!(message([1, 4], 2), "cross_entropy: target 4 among 4 words");
}
