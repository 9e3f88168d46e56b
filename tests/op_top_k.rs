//! Top-k against a full sort, ties and k = V included.

use crate::support;
use proptest::prelude::*;
use showtell::ops::top_k;
use showtell::{DType, Tensor};
use support::{Numbers, alone, contexts, counters, cpu, cuda, nan, zeros};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equals_a_full_sort(rows in 1usize..6, cols in 1usize..90, k in 1usize..8, seed: u64) {
        let k = k.min(cols);
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        // Few distinct values, so that ties are common.
        let values: Vec<f64> = (0..rows * cols).map(|_| numbers.below(9) as f64 - 4.0).collect();
        let logits = Tensor::from_slice(ctx.device(), [rows, cols], &values).unwrap();
        let mut ids = zeros(&ctx, [rows, k], DType::U32);
        let mut log_probabilities = nan(&ctx, [rows, k]);
        top_k::forward(&ctx, &logits, &mut ids, &mut log_probabilities).unwrap();
        let ids = ids.to_vec::<u32>().unwrap();
        let got = log_probabilities.to_vec::<f64>().unwrap();
        for (row, values) in values.chunks(cols).enumerate() {
            let mut order: Vec<usize> = (0..cols).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
            let total: f64 = values.iter().map(|v| v.exp()).sum();
            for (place, &id) in order[..k].iter().enumerate() {
                prop_assert_eq!(ids[row * k + place] as usize, id);
                let expected = values[id] - total.ln();
                let bound = 64.0 * f64::EPSILON * (1.0 + expected.abs());
                prop_assert!((got[row * k + place] - expected).abs() <= bound);
            }
        }
    }
}

/// The ids are those of a full sort on every device, ties included. NaN and -infinity are never
/// chosen. Sums of n terms round by √n ε.
#[test]
fn every_device_chooses_the_same() {
    for ctx in contexts() {
        let shapes = [
            (5, 8915, 5, 8920),
            (3, 77, 8, 77),
            (2, 3, 3, 4),
            (2, 1000, 3, 1004),
            (1, 60_000, 2, 60_000),
            (4, 300, 1, 301),
        ];
        for (rows, cols, k, ld) in shapes {
            let mut numbers = Numbers::new(cols as u64);
            // Few distinct values, so that ties are common.
            let mut values: Vec<f32> = (0..rows * ld)
                .map(|_| numbers.below(40) as f32 / 8.0)
                .collect();
            values[0] = f32::NEG_INFINITY;
            // The largest of all comes last, the next largest before it, in the last row.
            let last = (rows - 1) * ld + cols - 1;
            values[last] = 100.0;
            values[last - 1] = 99.0;
            let logits = Tensor::from_slice(ctx.device(), [rows, ld], &values).unwrap();
            let logits = logits.columns(0, cols).unwrap();
            let ids = zeros(&ctx, [rows, k + 2], DType::U32);
            let mut ids = ids.columns(1, k).unwrap();
            let mut log_p = zeros(&ctx, [rows, k], DType::F32);
            top_k::forward(&ctx, &logits, &mut ids, &mut log_p).unwrap();
            let (ids, log_p) = (ids.to_vec::<u32>().unwrap(), log_p.to_vec::<f32>().unwrap());
            let device = ctx.device().name();
            for row in 0..rows {
                let values = &values[row * ld..][..cols];
                let mut order: Vec<usize> = (0..cols).collect();
                order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
                let total: f64 = values.iter().map(|&v| f64::from(v).exp()).sum();
                for (place, &id) in order[..k].iter().enumerate() {
                    let at = row * k + place;
                    let expected = f64::from(values[id]) - total.ln();
                    if expected == f64::NEG_INFINITY {
                        assert_eq!((ids[at], log_p[at]), (0, f32::NEG_INFINITY), "{device}");
                        continue;
                    }
                    assert_eq!(
                        ids[at] as usize, id,
                        "{device}: row {row} of {cols}, place {place}"
                    );
                    let bound = f64::from(f32::EPSILON) * ((cols as f64).sqrt() + expected.abs());
                    assert!(
                        (f64::from(log_p[at]) - expected).abs() <= bound,
                        "{device}: {at}"
                    );
                }
            }
        }
    }
}

/// A NaN is never chosen, and makes all probabilities of its row NaN.
#[test]
fn a_nan_shows_in_all_probabilities() {
    for ctx in contexts() {
        let values = [1f32, f32::NAN, 3.0, f32::NAN];
        let logits = Tensor::from_slice(ctx.device(), [1, 4], &values).unwrap();
        let (mut ids, mut log_p) = (
            zeros(&ctx, [1, 3], DType::U32),
            zeros(&ctx, [1, 3], DType::F32),
        );
        top_k::forward(&ctx, &logits, &mut ids, &mut log_p).unwrap();
        assert_eq!(ids.to_vec::<u32>().unwrap(), [2, 0, 0]);
        assert!(log_p.to_vec::<f32>().unwrap().iter().all(|p| p.is_nan()));
    }
}

#[test]
fn logits_are_read_once() {
    if !alone("logits_are_read_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let logits = Numbers::new(2).f32(&ctx, [3, 8912]);
    let (mut ids, mut log_p) = (
        zeros(&ctx, [3, 5], DType::U32),
        zeros(&ctx, [3, 5], DType::F32),
    );
    let run = || top_k::forward(&ctx, &logits, &mut ids, &mut log_p).unwrap();
    let Some(counts) = counters(run) else { return };
    let of = |what: &str| counts["top_k_f32"][what].as_u64().unwrap();
    assert_eq!((of("launches"), of("bank_conflicts")), (1, 0));
    assert_eq!(of("global_load_bytes"), 3 * 8912 * 4);
}
