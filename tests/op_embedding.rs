//! Embedding: gathered rows and scattered sums, against plain loops.

use crate::support;
use half::bf16;
use proptest::prelude::*;
use showtell::ops::Accumulate;
use showtell::ops::embedding;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device};
use support::typed::{check_padding, random, unwritten};
use support::{Numbers, alone, check_gradient, contexts, counters, cpu, cuda, inner, nan, zeros};

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
        let (mode, mut dw) = if accumulate {
            before.copy_to_slice(&mut sums).unwrap();
            (Accumulate::Yes, before)
        } else {
            (Accumulate::No, nan(&ctx, [words, cols]))
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

/// In f32 both devices add in the same order, so that they agree bit for bit with a plain loop: rows read four floats at a time
/// and rows that cannot be, more columns than a block takes, words that are everywhere, and a list longer than one bit map.
#[test]
fn every_device_adds_in_order() {
    for ctx in contexts() {
        let mut numbers = Numbers::new(7);
        for (steps, batch, words, cols) in [
            (5, 7, 9, 37),
            (3, 5, 40, 516),
            (70, 60, 1000, 8),
            (70, 60, 50, 7),
            (1, 1, 1, 1),
        ] {
            let name = format!(
                "{}: {steps} x {batch}, {words} words, {cols}",
                ctx.device().name()
            );
            let weight = numbers
                .f32(&ctx, [words, cols + 4])
                .columns(4, cols)
                .unwrap();
            let all = ids(&ctx, &mut numbers, [steps, batch + 2], words);
            let ids = all.columns(0, batch).unwrap();
            let mut y = unwritten(&ctx, [steps, batch, cols], 8, DType::F32);
            embedding::forward(&ctx, &weight, &ids, &mut y).unwrap();
            let (table, id_values): (Vec<f32>, Vec<u32>) =
                (weight.to_vec().unwrap(), ids.to_vec().unwrap());
            let row = |&id: &u32| table[id as usize * cols..][..cols].to_vec();
            let expected: Vec<f32> = id_values.iter().flat_map(row).collect();
            assert_eq!(y.to_vec::<f32>().unwrap(), expected, "{name}");
            if let Device::Cuda(_) = ctx.device() {
                let mut rounded = random(&ctx, &mut numbers, [words, cols], 8, DType::Bf16);
                rounded.copy_from_f32(&table).unwrap();
                let mut y = unwritten(&ctx, [steps, batch, cols], 16, DType::Bf16);
                embedding::forward(&ctx, &rounded, &ids, &mut y).unwrap();
                let expected = expected.iter().map(|&v| bf16::from_f32(v).to_f32());
                let expected: Vec<f32> = expected.collect();
                assert_eq!(y.to_f32().unwrap(), expected, "{name} in bf16");
            }

            let dy = numbers
                .f32(&ctx, [steps, batch, cols + 8])
                .columns(0, cols)
                .unwrap();
            for (accumulate, padding) in [(Accumulate::Yes, Some(3)), (Accumulate::No, None)] {
                let mut dw = random(&ctx, &mut numbers, [words, cols], 12, DType::F32);
                let mut sums = match accumulate {
                    Accumulate::Yes => dw.to_vec::<f32>().unwrap(),
                    Accumulate::No => vec![0.0; words * cols],
                };
                embedding::backward(&ctx, &ids, &dy, padding, accumulate, &mut dw).unwrap();
                for (i, dy) in dy.to_vec::<f32>().unwrap().into_iter().enumerate() {
                    let id = id_values[i / cols];
                    if Some(id) != padding {
                        sums[id as usize * cols + i % cols] += dy;
                    }
                }
                assert_eq!(dw.to_vec::<f32>().unwrap(), sums, "{name}, {accumulate:?}");
                check_padding();
            }
        }
    }
}

/// The CUDA device cannot report it without waiting: the row is NaN, and gets no gradient.
#[test]
fn an_id_beyond_the_table_shows_on_the_cuda_device() {
    let Some(ctx) = cuda() else { return };
    let ids = Tensor::from_slice(ctx.device(), [3], &[1u32, 5, u32::MAX]).unwrap();
    let table = Numbers::new(8).f32(&ctx, [5, 2]);
    let mut y = zeros(&ctx, [3, 8], DType::Bf16);
    embedding::forward(&ctx, &zeros(&ctx, [5, 8], DType::Bf16), &ids, &mut y).unwrap();
    let wrong: Vec<bool> = y.to_f32().unwrap().iter().map(|y| y.is_nan()).collect();
    assert_eq!(wrong, [[false; 8], [true; 8], [true; 8]].as_flattened());
    let mut y = zeros(&ctx, [3, 2], DType::F32);
    embedding::forward(&ctx, &table, &ids, &mut y).unwrap();
    let y_values: Vec<f32> = y.to_vec().unwrap();
    assert_eq!(y_values[..2], table.to_vec::<f32>().unwrap()[2..4]);
    assert!(y_values[2..].iter().all(|y| y.is_nan()));
    let mut dw = zeros(&ctx, [5, 2], DType::F32);
    embedding::backward(&ctx, &ids, &y, None, Accumulate::Yes, &mut dw).unwrap();
    let expected = [&[0.0; 2], &y_values[..2], &[0.0; 6]].concat();
    assert_eq!(dw.to_vec::<f32>().unwrap(), expected);
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

/// Rows come and go in whole sectors of 32 bytes.
#[test]
fn rows_are_stored_in_whole_sectors() {
    if !alone("rows_are_stored_in_whole_sectors", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(6);
    let (weight, mut dw) = (numbers.f32(&ctx, [40, 512]), numbers.f32(&ctx, [40, 512]));
    let ids = ids(&ctx, &mut numbers, [1, 1], 40);
    let mut y = numbers.f32(&ctx, [1, 512]);
    let counted = counters(|| {
        embedding::forward(&ctx, &weight, &ids, &mut y).unwrap();
        embedding::backward(&ctx, &ids, &y, None, Accumulate::Yes, &mut dw).unwrap();
    });
    let Some(counted) = counted else { return };
    for kernel in ["embedding_forward_f32x4", "embedding_backward_f32x4"] {
        assert_eq!(
            counted[kernel]["global_store_sectors"],
            512 * 4 / 32,
            "{kernel}"
        );
    }
}
