//! Top-k against a full sort, ties and k = V included.

mod support;

use proptest::prelude::*;
use showtell::ops::top_k;
use showtell::{DType, Tensor};
use support::{Numbers, cpu, nan, zeros};

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
