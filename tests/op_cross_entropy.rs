//! Cross-entropy: against the formula in plain f64, finite differences, and its edges.

use crate::support;
use half::bf16;
use proptest::prelude::*;
use showtell::DType;
use showtell::ops::cross_entropy;
use showtell::tensor::{Context, Tensor};
use support::typed::{typed_contexts, unit_roundoff};
use support::{Numbers, alone, check_gradient, contexts, counters, cpu, cuda, nan, zeros};

/// Random targets below `words`, the first never ignored.
fn targets(ctx: &Context, numbers: &mut Numbers, rows: usize, words: usize) -> (Tensor, usize) {
    let mut targets: Vec<u32> = (0..rows).map(|_| numbers.below(words) as u32).collect();
    targets[0] = words as u32 - 1;
    let count = targets.iter().filter(|&&target| target != 0).count();
    let tensor = Tensor::from_slice(ctx.device(), [rows], &targets).unwrap();
    (tensor, count)
}

fn mean_loss(ctx: &Context, logits: &Tensor, targets: &Tensor) -> f64 {
    let mut losses = nan(ctx, [targets.len()]);
    let mut loss = nan(ctx, [1]);
    cross_entropy::forward(ctx, logits, targets, 0, &mut losses, &mut loss).unwrap();
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
            &ctx, &mut gradient, &targets, 0, &mut losses, &mut loss,
        ).unwrap();
        check_gradient("logits", &logits, &gradient, || mean_loss(&ctx, &logits, &targets));
        // Both passes give the same losses, and the rows' losses make the mean.
        let fused = loss.to_vec::<f64>().unwrap()[0];
        let alone = mean_loss(&ctx, &logits, &targets);
        prop_assert!((fused - alone).abs() <= 1e-14 * alone.abs());
        let sum: f64 = losses.to_vec::<f64>().unwrap().iter().sum();
        prop_assert!((sum / count as f64 - fused).abs() <= 1e-14 * fused.abs());
    }
}

/// Vocabulary-sized rows, computed in f32: exp within 2 ulp of a difference of up to 24 that was rounded, a sum of n terms
/// within √n ulp. Rows at any alignment;
/// padded; too long for a multiprocessor's shared memory; more of them than a block has threads. Logits in bf16 are rounded
/// beforehand, and their gradient afterwards.
#[test]
fn every_device_follows_the_formula_in_f64() {
    for (ctx, dtype) in typed_contexts() {
        for (rows, words, ld) in [
            (6, 8915, 8920),
            (7, 77, 77),
            (3, 300, 301),
            (2, 60_000, 60_000),
            (2, 60_001, 60_003),
            (300, 77, 80),
            (300, 77, 81),
            (1500, 77, 80),
        ] {
            follows_the_formula(&ctx, dtype, rows, words, ld);
        }
    }
}

fn follows_the_formula(ctx: &Context, dtype: DType, rows: usize, words: usize, ld: usize) {
    let mut numbers = Numbers::new(8);
    let stored = |v: f64| match dtype {
        DType::Bf16 => bf16::from_f64(12.0 * v).to_f32(),
        _ => 12.0 * v as f32,
    };
    let values: Vec<f32> = numbers.vec(rows * ld).into_iter().map(stored).collect();
    let (targets, count) = targets(ctx, &mut numbers, rows, words);
    let run = || {
        let mut whole = zeros(ctx, [rows, ld], dtype);
        whole.copy_from_f32(&values).unwrap();
        let mut logits = whole.columns(0, words).unwrap();
        let (mut losses, mut loss) = (zeros(ctx, [rows], DType::F32), zeros(ctx, [1], DType::F32));
        let mut alone = zeros(ctx, [rows], DType::F32);
        cross_entropy::forward(ctx, &logits, &targets, 0, &mut alone, &mut loss).unwrap();
        let mean_alone = loss.to_vec::<f32>().unwrap()[0];
        cross_entropy::forward_backward(ctx, &mut logits, &targets, 0, &mut losses, &mut loss)
            .unwrap();
        let padding = whole.columns(words, ld - words).unwrap();
        let read = |tensor: &Tensor| tensor.to_f32().unwrap();
        let means = [mean_alone, read(&loss)[0]];
        (
            read(&alone),
            read(&losses),
            means,
            read(&logits),
            read(&padding),
        )
    };
    let (alone, losses, means, gradient, padding) = run();
    let ids = targets.to_vec::<u32>().unwrap();
    let bound = f64::from(f32::EPSILON) * ((words as f64).sqrt() + 14.0);
    let rounding = match dtype {
        DType::Bf16 => unit_roundoff(dtype),
        _ => 0.0,
    };
    let device = format!("{}, {dtype}", ctx.device().name());
    let mut total = 0.0;
    for row in 0..rows {
        let row_of = |from: &[f32], cols: usize| -> Vec<f64> {
            from[row * cols..][..words]
                .iter()
                .map(|&v| v.into())
                .collect()
        };
        let (x, gradient) = (row_of(&values, ld), row_of(&gradient, words));
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        let target = ids[row] as usize;
        let counts = if target == 0 { 0.0 } else { 1.0 };
        let expected = counts * (sum.ln() - x[target]);
        total += expected;
        for got in [alone[row], losses[row]] {
            let error = (f64::from(got) - expected).abs();
            // The logarithm of a sum near 1 is off by as much as the sum.
            assert!(
                error <= bound * expected + counts * f64::from(f32::EPSILON),
                "{device}: row {row}: {got} for {expected}"
            );
        }
        for (v, got) in gradient.iter().enumerate() {
            let one_hot = if v == target { 1.0 } else { 0.0 };
            let exact = counts * (x[v].exp() / sum - one_hot) / count as f64;
            let scale = exact.abs() + counts * one_hot * f64::from(f32::EPSILON);
            assert!(
                (got - exact).abs() <= bound * scale + rounding * exact.abs(),
                "{device}: row {row}, word {v}"
            );
        }
    }
    for mean in means {
        let expected = total / count as f64;
        assert!(
            (f64::from(mean) - expected).abs() <= bound * expected,
            "{mean} for {expected}"
        );
    }
    let beside = (0..rows).flat_map(|row| &values[row * ld + words..(row + 1) * ld]);
    assert!(padding.iter().eq(beside), "{device}: padding");
    assert_eq!(
        run(),
        (alone, losses, means, gradient, padding),
        "{device}: two runs"
    );
}

/// Logits are read once and written once, in whole sectors; the rest is one or two words per row.
#[test]
fn each_logit_moves_once() {
    if !alone("each_logit_moves_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let (rows, words) = (5, 8912);
    let mut logits = Numbers::new(3).f32(&ctx, [rows, words]);
    let targets = Tensor::from_slice(ctx.device(), [rows], &[5u32, 1, 0, 8911, 7]).unwrap();
    let (mut losses, mut loss) = (
        zeros(&ctx, [rows], DType::F32),
        zeros(&ctx, [1], DType::F32),
    );
    let run = || {
        cross_entropy::forward_backward(&ctx, &mut logits, &targets, 0, &mut losses, &mut loss)
            .unwrap();
    };
    let Some(counts) = counters(run) else { return };
    let of = |kernel: &str, what: &str| counts[kernel][what].as_u64().unwrap();
    let kernels = [
        "cross_entropy_count_f32",
        "cross_entropy_gradient_f32x4",
        "cross_entropy_mean_f32",
    ];
    assert!(kernels.iter().all(|kernel| of(kernel, "launches") == 1));
    assert_eq!(counts.as_object().unwrap().len(), kernels.len());
    // The ignored row is not read, only cleared.
    let sectors = |rows: usize| (rows * words * 4 / 32) as u64;
    let of = |what: &str| of("cross_entropy_gradient_f32x4", what);
    let small = of("global_load_sectors") - sectors(4);
    assert!(
        small <= 16 * rows as u64,
        "{small} sectors besides the logits"
    );
    assert_eq!(of("global_store_sectors"), sectors(5) + rows as u64);
    assert_eq!(of("bank_conflicts"), 0);
}

#[test]
fn ignored_rows_have_no_loss_and_no_gradient() {
    let ctx = cpu();
    let mut numbers = Numbers::new(9);
    let logits = numbers.f64(&ctx, [3, 10]);
    let mut inner = logits.columns(0, 7).unwrap();
    let padding: Vec<f64> = logits.columns(7, 3).unwrap().to_vec().unwrap();
    let targets = Tensor::from_slice(ctx.device(), [3], &[2u32, 0, 5]).unwrap();
    let (mut losses, mut loss) = (nan(&ctx, [3]), nan(&ctx, [1]));
    cross_entropy::forward_backward(&ctx, &mut inner, &targets, 0, &mut losses, &mut loss).unwrap();
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
    for ctx in contexts() {
        let targets = Tensor::from_slice(ctx.device(), [1], &[1u32]).unwrap();
        let loss = |logits: &[f32]| {
            let mut logits = Tensor::from_slice(ctx.device(), [1, logits.len()], logits).unwrap();
            let mut losses = zeros(&ctx, [1], DType::F32);
            let mut loss = zeros(&ctx, [1], DType::F32);
            cross_entropy::forward(&ctx, &logits, &targets, 0, &mut losses, &mut loss).unwrap();
            let alone = loss.to_vec::<f32>().unwrap()[0];
            let (x, losses) = (&mut logits, &mut losses);
            cross_entropy::forward_backward(&ctx, x, &targets, 0, losses, &mut loss).unwrap();
            (alone, loss.to_vec::<f32>().unwrap()[0])
        };
        assert_eq!(loss(&[1e30, 1e30]), (2f32.ln(), 2f32.ln()));
        assert_eq!(loss(&[1e3, -1e3]), (2e3, 2e3));
        // A word that is excluded (-infinity), as the first one that a thread reads.
        assert_eq!(loss(&[f32::NEG_INFINITY, 3.0, 3.0]), (2f32.ln(), 2f32.ln()));
        for place in 0..40 {
            let mut logits = [0.5; 40];
            logits[place] = f32::NAN;
            let (alone, fused) = loss(&logits);
            assert!(alone.is_nan() && fused.is_nan(), "NaN at {place}");
        }
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
            let (targets, _) = targets(&ctx, &mut numbers, 300, 77);
            mean_loss(&ctx, &logits, &targets)
        })
    };
    assert_eq!(on(1), on(3));
}

/// The losses and their mean, and the gradient, of two rows of `words`: of both passes, each into tensors of its own.
fn of_two_rows(
    ctx: &Context,
    words: usize,
    targets: [u32; 2],
) -> showtell::Result<([[f32; 3]; 2], Vec<f32>)> {
    let mut logits = Numbers::new(4).f32(ctx, [2, words]);
    let targets = Tensor::from_slice(ctx.device(), [2], &targets).unwrap();
    let [mut alone, mut losses] = [(); 2].map(|()| zeros(ctx, [2], DType::F32));
    let [mut mean_alone, mut mean] = [(); 2].map(|()| zeros(ctx, [1], DType::F32));
    cross_entropy::forward(ctx, &logits, &targets, 0, &mut alone, &mut mean_alone)?;
    let x = &mut logits;
    cross_entropy::forward_backward(ctx, x, &targets, 0, &mut losses, &mut mean)?;
    let told = [(alone, mean_alone), (losses, mean)].map(|(losses, mean)| {
        let losses: Vec<f32> = losses.to_vec().unwrap();
        [losses[0], losses[1], mean.to_vec().unwrap()[0]]
    });
    Ok((told, logits.to_vec().unwrap()))
}

/// PyTorch does the same.
#[test]
fn without_a_row_that_counts_the_mean_is_nan_and_the_gradient_zero() {
    for ctx in contexts() {
        let (told, gradient) = of_two_rows(&ctx, 4, [0, 0]).unwrap();
        for [first, second, mean] in told {
            assert!(first == 0.0 && second == 0.0 && mean.is_nan());
        }
        assert_eq!(gradient, [0.0; 8]);
    }
}

/// By the pass that keeps a row in shared memory, by the one that reads rows twice, and by the one without a gradient.
#[test]
fn a_target_outside_the_vocabulary_is_noticed() {
    let error = of_two_rows(&cpu(), 4, [1, 4]).unwrap_err();
    assert_eq!(error.to_string(), "cross_entropy: target 4 among 4 words");
    let Some(ctx) = cuda() else { return };
    for words in [4, 60_000] {
        for target in [words as u32, u32::MAX] {
            let (told, _) = of_two_rows(&ctx, words, [1, target]).unwrap();
            for [first, second, mean] in told {
                let noticed = first.is_finite() && second.is_nan() && mean.is_nan();
                assert!(noticed, "{words} words: {first}, {second}, {mean}");
            }
        }
    }
}
