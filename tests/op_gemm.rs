//! Matrix products: against plain loops on odd sizes, the same bits on any number of threads; on the CUDA device against
//! the CPU in f64, in every precision, layout and alignment, and what its main loop costs in counts.

use crate::support;
use proptest::prelude::*;
use showtell::ops::gemm::{self, Accumulate, Factor};
use showtell::{Context, DType, Tensor};
use support::precision::{PRECISIONS, in_every_cut, stored, tolerance};
use support::typed::{in_f64, random};
use support::{Numbers, alone, counters, cpu, cuda, cuda_with, zeros};

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
        let (a, b) = if transposed {
            (Factor::Transposed(&a), Factor::Transposed(&b))
        } else {
            (Factor::Plain(&a), Factor::Plain(&b))
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

fn factor(transposed: bool, x: &Tensor) -> Factor<'_> {
    if transposed {
        Factor::Transposed(x)
    } else {
        Factor::Plain(x)
    }
}

/// A matrix of random numbers whose rows are `padding` apart more than they are long, from column `first` on.
fn matrix(
    ctx: &Context,
    numbers: &mut Numbers,
    dtype: DType,
    [rows, cols]: [usize; 2],
    [first, padding]: [usize; 2],
) -> Tensor {
    let whole = random(ctx, numbers, [rows, cols + padding], 0, dtype);
    whole.columns(first, cols).unwrap()
}

/// One product on the CUDA device, all four layouts, with and without accumulating, against the CPU in f64.
struct Case<'a> {
    ctx: &'a Context,
    sizes: [usize; 3],
    pad: [usize; 2],
    /// Of A and B, of C.
    dtypes: [DType; 2],
}

impl Case<'_> {
    fn check(&self) {
        for layout in 0..4 {
            for accumulate in [Accumulate::No, Accumulate::Yes] {
                self.check_one([layout & 1 == 1, layout & 2 == 2], accumulate);
            }
        }
    }

    fn check_one(&self, [ta, tb]: [bool; 2], accumulate: Accumulate) {
        let (cpu, mut numbers) = (cpu(), Numbers::new(11));
        let (ctx, [m, n, k], [dtype, to]) = (self.ctx, self.sizes, self.dtypes);
        let mut random = |dtype, shape| matrix(ctx, &mut numbers, dtype, shape, self.pad);
        let a = random(dtype, if ta { [k, m] } else { [m, k] });
        let b = random(dtype, if tb { [n, k] } else { [k, n] });
        let mut c = random(to, [m, n]);
        let bias = Numbers::new(12).f32(ctx, [n]);
        let (a64, b64, bias64) = (in_f64(&cpu, &a), in_f64(&cpu, &b), in_f64(&cpu, &bias));
        let mut c64 = in_f64(&cpu, &c);
        let (fa, fb) = (factor(ta, &a), factor(tb, &b));
        let (fa64, fb64) = (factor(ta, &a64), factor(tb, &b64));
        if accumulate == Accumulate::Yes {
            gemm::forward(ctx, fa, fb, accumulate, &mut c).unwrap();
            gemm::forward(&cpu, fa64, fb64, accumulate, &mut c64).unwrap();
        } else {
            gemm::forward_biased(ctx, fa, fb, &bias, &mut c).unwrap();
            gemm::forward_biased(&cpu, fa64, fb64, &bias64, &mut c64).unwrap();
        }
        let (got, expected) = (
            in_f64(&cpu, &c).to_vec::<f64>().unwrap(),
            c64.to_vec::<f64>().unwrap(),
        );
        let bound = tolerance(ctx.device().precision(), dtype, k);
        for (i, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            let bound = bound + stored(to, expected);
            assert!(
                (got - expected).abs() <= bound,
                "{} {:?} of {dtype} into {to}, transposed {ta} {tb}, {accumulate:?}: element {i} is {got} for {expected}",
                ctx.device().name(),
                self.sizes
            );
        }
    }
}

/// Around the borders of tiles and of steps of k, in one part and in several.
const SIZES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [5, 7, 3],
    [63, 65, 31],
    [64, 64, 64],
    [129, 66, 70],
    [33, 257, 129],
    [70, 70, 1001],
    [1, 300, 517],
    [21, 40, 7702],
    [9, 5, 8915],
    [4, 3, 0],
    [136, 200, 328],
];

#[test]
fn products_on_the_cuda_device_equal_the_cpus() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        for sizes in SIZES {
            // Aligned; not aligned: from an odd column on, with rows whose distance is not a multiple of a vector.
            for pad in [[0, 0], [1, 3]] {
                let dtypes = [DType::F32; 2];
                Case {
                    ctx: &ctx,
                    sizes,
                    pad,
                    dtypes,
                }
                .check();
            }
        }
    }
}

#[test]
fn products_of_bf16_equal_the_cpus() {
    let Some(ctx) = cuda() else { return };
    for sizes in SIZES {
        for pad in [[0, 0], [1, 3], [8, 8]] {
            for to in [DType::F32, DType::Bf16] {
                let dtypes = [DType::Bf16, to];
                Case {
                    ctx: &ctx,
                    sizes,
                    pad,
                    dtypes,
                }
                .check();
            }
        }
    }
}

/// Every cut, in one part of k and in several, on matrices so small that only SHOWTELL_CUT takes the wide ones, with enough steps for the
/// ring to go round: all in whole chunks of 16 bytes; rows in whole chunks of which the last is not full; rows that begin
/// anywhere.
#[test]
fn every_cut_equals_the_cpus() {
    in_every_cut("every_cut_equals_the_cpus", check_cut);
}

fn check_cut(ctx: &Context, dtype: DType) {
    let results = [DType::F32, dtype];
    let results = &results[..if dtype == DType::F32 { 1 } else { 2 }];
    for &to in results {
        for (sizes, pad) in [
            ([136, 200, 400], [0, 0]),
            ([133, 69, 397], [0, 3]),
            ([61, 133, 333], [1, 3]),
        ] {
            let dtypes = [dtype, to];
            let case = Case {
                ctx,
                sizes,
                pad,
                dtypes,
            };
            for layout in [[false, false], [false, true], [true, false]] {
                case.check_one(layout, Accumulate::Yes);
                case.check_one(layout, Accumulate::No);
            }
        }
    }
}

/// Rows lie in whole chunks of 16 bytes, of which the last is not full; borders of tiles and of k cut it.
#[test]
fn chunks_that_are_not_full_end_where_they_should() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        for dtype in [DType::F32, DType::Bf16] {
            let dtypes = [dtype, dtype];
            for sizes in [[133, 197, 333], [61, 69, 269]] {
                Case {
                    ctx: &ctx,
                    sizes,
                    pad: [0, 3],
                    dtypes,
                }
                .check();
            }
        }
    }
}

#[test]
fn parts_of_k_are_summed_in_the_same_order_every_time() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let mut numbers = Numbers::new(5);
        let (a, b) = (numbers.f32(&ctx, [60, 3000]), numbers.f32(&ctx, [50, 3000]));
        let product = || {
            let mut c = zeros(&ctx, [60, 50], DType::F32);
            gemm::forward(
                &ctx,
                Factor::Plain(&a),
                Factor::Transposed(&b),
                Accumulate::No,
                &mut c,
            )
            .unwrap();
            c.to_vec::<f32>().unwrap()
        };
        let first = product();
        assert!((0..3).all(|_| product() == first), "{precision}");
    }
}

/// Devices of a process share the kernels, but not what blocks of a launch count.
#[test]
fn devices_of_a_process_do_not_disturb_each_other() {
    let products = |count: usize| {
        let ctx = cuda()?;
        let mut numbers = Numbers::new(13);
        let (a, b) = (numbers.f32(&ctx, [20, 2000]), numbers.f32(&ctx, [2000, 70]));
        let mut results: Vec<_> = (0..count)
            .map(|_| zeros(&ctx, [20, 70], DType::F32))
            .collect();
        for c in &mut results {
            let (a, b) = (Factor::Plain(&a), Factor::Plain(&b));
            gemm::forward(&ctx, a, b, Accumulate::No, c).unwrap();
        }
        let values = results.iter().map(|c| c.to_vec::<f32>().unwrap());
        Some(values.collect::<Vec<_>>())
    };
    let Some(alone) = products(1) else {
        return;
    };
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| products(20).unwrap()));
        for thread in threads {
            assert!(thread.join().unwrap().iter().all(|c| *c == alone[0]));
        }
    });
}

/// NaN and infinity come through, and stay in their rows and columns.
#[test]
fn nan_and_infinity_stay_in_their_rows() {
    for precision in PRECISIONS {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let mut numbers = Numbers::new(6);
        let mut a = numbers
            .vec(70 * 40)
            .iter()
            .map(|&v| v as f32)
            .collect::<Vec<_>>();
        (a[3 * 40 + 5], a[66 * 40 + 39]) = (f32::NAN, f32::INFINITY);
        // The NaN that GPUs make, of either sign: all its bits are set, and rounding by an addition would carry out of them.
        (a[12 * 40 + 5], a[41 * 40]) = (f32::from_bits(0x7fff_ffff), f32::from_bits(u32::MAX));
        let a = Tensor::from_slice(ctx.device(), [70, 40], &a).unwrap();
        let b = numbers.f32(&ctx, [40, 30]);
        let mut c = zeros(&ctx, [70, 30], DType::F32);
        gemm::forward(
            &ctx,
            Factor::Plain(&a),
            Factor::Plain(&b),
            Accumulate::No,
            &mut c,
        )
        .unwrap();
        for (i, got) in c.to_vec::<f32>().unwrap().into_iter().enumerate() {
            match i / 30 {
                3 | 12 | 41 => assert!(got.is_nan(), "{precision}, row {}: {got}", i / 30),
                66 => assert!(got.is_infinite()),
                row => assert!(got.is_finite(), "{precision}, row {row}: {got}"),
            }
        }
    }
}

/// Whole tiles of the large kernels: copies of 16 bytes, 32-byte sectors used in full, no bank conflict; how many of the
/// instructions are multiplications.
#[test]
fn the_main_loop_costs_what_it_should() {
    if !alone("the_main_loop_costs_what_it_should", &[]) {
        return;
    }
    for precision in PRECISIONS {
        for dtype in [DType::F32, DType::Bf16] {
            for [ta, tb] in [[false, false], [false, true], [true, false]] {
                let Some(ctx) = cuda_with(precision) else {
                    return;
                };
                let mut numbers = Numbers::new(7);
                let (m, n, k) = (1152, 1536, 256);
                let mut random = |shape| matrix(&ctx, &mut numbers, dtype, shape, [0, 0]);
                let a = random(if ta { [k, m] } else { [m, k] });
                let b = random(if tb { [n, k] } else { [k, n] });
                let mut c = zeros(&ctx, [m, n], DType::F32);
                let counted = counters(|| {
                    gemm::forward(&ctx, factor(ta, &a), factor(tb, &b), Accumulate::No, &mut c)
                        .unwrap();
                });
                let Some(counted) = counted else { return };
                let (name, of) = counted.as_object().unwrap().iter().next().unwrap();
                let count = |what: &str| {
                    of[what]
                        .as_u64()
                        .unwrap_or_else(|| panic!("{what} in {of}")) as f64
                };
                let coalescing = count("global_load_bytes") / (32.0 * count("global_load_sectors"));
                let multiplications = if name.contains("gemm_f32") {
                    (m * n * k / 32) as f64
                } else {
                    count("mma")
                };
                let share = multiplications / count("warp_instructions");
                // As seen, of PTX: ptxas folds most of the other instructions, which are addresses. scripts/sass counts what
                // is left of the main loops.
                let arithmetic = name.rsplitn(4, '_').last().unwrap();
                let least = match arithmetic {
                    "gemm_f32" => 0.72,
                    "gemm_tf32" => 0.125,
                    _ => 0.155,
                };
                println!(
                    "{name}: {:.1} % multiplications, {} bank conflicts of {} accesses, {:.0} % of sectors used",
                    100.0 * share,
                    count("bank_conflicts"),
                    count("shared_accesses"),
                    100.0 * coalescing
                );
                assert_eq!(count("launches"), 1.0);
                assert_eq!(count("bank_conflicts"), 0.0, "{name}");
                assert_eq!(coalescing, 1.0, "{name}");
                assert!(share >= least, "{name}: {share}");
            }
        }
    }
}

#[test]
fn products_that_do_not_fit_are_errors_on_every_device() {
    for ctx in support::contexts() {
        let tensor = |shape: [usize; 2], dtype| zeros(&ctx, shape, dtype);
        let (a, b) = (tensor([4, 5], DType::F32), tensor([6, 4], DType::F32));
        let mut c = tensor([4, 4], DType::F32);
        let error = gemm::forward(
            &ctx,
            Factor::Plain(&a),
            Factor::Plain(&b),
            Accumulate::No,
            &mut c,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "gemm: (4, 5) x (6, 4) into (4, 4)");
        let b = tensor([5, 4], DType::U32);
        let error = gemm::forward(
            &ctx,
            Factor::Plain(&a),
            Factor::Plain(&b),
            Accumulate::No,
            &mut c,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "gemm: b should be f32, is u32");
        let same = c.clone();
        let error = gemm::forward(
            &ctx,
            Factor::Plain(&same),
            Factor::Plain(&same),
            Accumulate::No,
            &mut c,
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("overlaps another argument")
        );
    }
}
