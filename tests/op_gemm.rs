//! Matrix products: against plain loops on odd sizes, and the same bits on any number of threads.

mod support;

use proptest::prelude::*;
use showtell::DType;
use showtell::ops::gemm::{self, Accumulate, Factor};
use support::{Numbers, cpu, zeros};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn products_equal_plain_loops(
        m in 1usize..20, n in 1usize..20, k in 1usize..40,
        ta: bool, tb: bool, accumulate: bool, seed: u64
    ) {
        let ctx = cpu();
        let mut numbers = Numbers::new(seed);
        // Columns of a wider tensor, so that rows are padded.
        let a = numbers.f64(&ctx, if ta { [k, m + 3] } else { [m, k + 3] });
        let a = a.columns(2, if ta { m } else { k }).unwrap();
        let b = numbers.f64(&ctx, if tb { [n, k + 1] } else { [k, n + 1] });
        let b = b.columns(1, if tb { k } else { n }).unwrap();
        let before = numbers.f64(&ctx, [m, n]);
        let mut c = before.clone();
        let start = before.to_vec::<f64>().unwrap();
        let (av, bv) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
        let factor = |t, x| if t { Factor::Transposed(x) } else { Factor::Plain(x) };
        let mode = if accumulate { Accumulate::Yes } else { Accumulate::No };
        gemm::forward(&ctx, factor(ta, &a), factor(tb, &b), mode, &mut c).unwrap();
        for (i, got) in c.to_vec::<f64>().unwrap().into_iter().enumerate() {
            let (row, col) = (i / n, i % n);
            let at = |p: usize| if ta { av[p * m + row] } else { av[row * k + p] };
            let bt = |p: usize| if tb { bv[col * k + p] } else { bv[p * n + col] };
            let sum: f64 = (0..k).map(|p| at(p) * bt(p)).sum();
            let expected = sum + if accumulate { start[i] } else { 0.0 };
            prop_assert!((got - expected).abs() <= 1e-15 * k as f64 * 4.0, "{got} for {expected}");
        }
    }
}

#[test]
fn an_output_that_overlaps_an_input_is_an_error() {
    let ctx = cpu();
    let x = zeros(&ctx, [4, 4], DType::F32);
    let mut y = x.clone();
    let (a, b) = (Factor::Plain(&x), Factor::Transposed(&x));
    let error = gemm::forward(&ctx, a, b, Accumulate::No, &mut y).unwrap_err();
    assert!(error.to_string().contains("overlaps"), "{error}");
}

/// f32, of sizes that are split among threads: tall, wide, deep, all odd.
fn product_on(threads: usize, [m, n, k]: [usize; 3], transposed: bool) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(|| {
        let ctx = cpu();
        let mut numbers = Numbers::new(3);
        let a = numbers.f32(&ctx, if transposed { [k, m] } else { [m, k] });
        let b = numbers.f32(&ctx, if transposed { [n, k] } else { [k, n] });
        let mut c = zeros(&ctx, [m, n], DType::F32);
        let (a, b) = match transposed {
            true => (Factor::Transposed(&a), Factor::Transposed(&b)),
            false => (Factor::Plain(&a), Factor::Plain(&b)),
        };
        gemm::forward(&ctx, a, b, Accumulate::No, &mut c).unwrap();
        let values = c.to_vec::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn threads_do_not_change_a_bit() {
    let sizes = [
        [301, 77, 53],
        [33, 1025, 129],
        [65, 49, 5003],
        [1, 1013, 517],
        [1013, 1, 517],
        [3, 2049, 67],
    ];
    for size in sizes {
        for transposed in [false, true] {
            let one = product_on(1, size, transposed);
            for threads in [2, 3, 5] {
                let same = product_on(threads, size, transposed) == one;
                assert!(same, "{size:?}, transposed {transposed}, {threads} threads");
            }
        }
    }
}
