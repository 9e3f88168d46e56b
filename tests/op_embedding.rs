//! Embedding: gathered rows and scattered sums, against plain loops.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::Accumulate;
use showtell::ops::embedding;
use showtell::tensor::{Context, Tensor};
use support::{Numbers, check_gradient, cpu, inner, nan, zeros};

fn ids(ctx: &Context, numbers: &mut Numbers, shape: [usize; 2], below: usize) -> Tensor {
    let ids: Vec<u32> = (0..shape[0] * shape[1])
        .map(|_| numbers.below(below) as u32)
        .collect();
    Tensor::from_slice(ctx.device(), shape, &ids).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Sums are added in order, so they equal a plain loop's exactly.
    #[test]
    fn gathers_and_scatters_as_plain_loops_do(
        steps in 1usize..6, batch in 1usize..6, words in 1usize..200, cols in 1usize..40,
        accumulate: bool, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        let wide = numbers.f64(&ctx, [words, cols + 3]);
        let weight = wide.columns(1, cols).unwrap();
        // The batch's first columns of a wider table of ids.
        let all_ids = ids(&ctx, &mut numbers, [steps, batch + 2], words);
        let ids = all_ids.columns(0, batch).unwrap();
        let id_values: Vec<u32> = ids.to_vec().unwrap();
        let mut y = nan(&ctx, [steps, batch, cols]);
        embedding::forward(&ctx, &weight, &ids, &mut y).unwrap();
        let table: Vec<f64> = weight.to_vec().unwrap();
        let expected: Vec<f64> = id_values
            .iter()
            .flat_map(|&id| table[id as usize * cols..][..cols].to_vec())
            .collect();
        prop_assert_eq!(y.to_vec::<f64>().unwrap(), expected);

        let dy = numbers.f64(&ctx, [steps, batch, cols]);
        let before = numbers.f64(&ctx, [words, cols]);
        let mut sums = vec![0.0; words * cols];
        let (mode, mut dw) = match accumulate {
            true => {
                before.copy_to_slice(&mut sums).unwrap();
                (Accumulate::Yes, before)
            }
            false => (Accumulate::No, nan(&ctx, [words, cols])),
        };
        let padding = 0;
        embedding::backward(&ctx, &ids, &dy, Some(padding), mode, &mut dw).unwrap();
        for (i, dy) in dy.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let id = id_values[i / cols];
            if id != padding {
                sums[id as usize * cols + i % cols] += dy;
            }
        }
        prop_assert_eq!(dw.to_vec::<f64>().unwrap(), sums);
    }
}

#[test]
fn backward_equals_finite_differences() {
    let ctx = cpu();
    let mut numbers = Numbers::new(5);
    let weight = numbers.f64(&ctx, [7, 3]);
    let ids = ids(&ctx, &mut numbers, [4, 5], 7);
    let dy = numbers.f64(&ctx, [4, 5, 3]);
    let mut dw = nan(&ctx, [7, 3]);
    embedding::backward(&ctx, &ids, &dy, None, Accumulate::No, &mut dw).unwrap();
    check_gradient("weight", &weight, &dw, || {
        let mut y = nan(&ctx, [4, 5, 3]);
        embedding::forward(&ctx, &weight, &ids, &mut y).unwrap();
        inner(&y, &dy)
    });
}

#[test]
fn threads_do_not_matter() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let ctx = cpu();
            let mut numbers = Numbers::new(6);
            let ids = ids(&ctx, &mut numbers, [24, 32], 300);
            let dy = numbers.f32(&ctx, [24, 32, 20]);
            let mut dw = zeros(&ctx, [300, 20], DType::F32);
            embedding::backward(&ctx, &ids, &dy, Some(0), Accumulate::No, &mut dw).unwrap();
            dw.to_vec::<f32>().unwrap()
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn an_id_beyond_the_table_is_an_error() {
    let ctx = cpu();
    let ids = Tensor::from_slice(ctx.device(), [2], &[1u32, 5]).unwrap();
    let mut table = zeros(&ctx, [5, 2], DType::F32);
    let mut y = zeros(&ctx, [2, 2], DType::F32);
    let error = embedding::forward(&ctx, &table, &ids, &mut y).unwrap_err();
    assert_eq!(error.to_string(), "embedding: id 5 in a table of 5 rows");
    embedding::backward(&ctx, &ids, &y, None, Accumulate::No, &mut table).unwrap_err();
}
