//! Times the products of both recipes on a GPU in every cut and number of parts: `cargo run --release --example cuts`, with tensors of f32
//! computed in tf32 and with tensors of bf16; `-- bf16` times only these.
//!
//! It starts itself once for each cut, with the switch SHOWTELL_CUT, and prints a line for each product: `src/ops/tile_h100.txt` holds
//! what this program gave on an H100, of cuts that differ, and the estimate of `src/ops/tile.rs` was fitted to it. Twenty runs of a product
//! are one graph on the same tensors, as a training step finds them in level 2; the time is the median of five replays.

use showtell::device::Precision;
use showtell::ops::gemm::{self, Accumulate, Factor};
use showtell::{Context, DType, Device, Result, Tensor};
use std::collections::BTreeMap;
use std::process::Command;

const SWITCH: &str = "SHOWTELL_CUT";

/// Layout, and m, n, k: those of all steps of a batch at once, and those of one recurrent step.
const PRODUCTS: [(&str, [usize; 3]); 17] = [
    // attend: B = 32, T = 24, V = 8,915, E = H = 512, D = 2,048, 64 cells
    ("nt", [768, 8_915, 512]),
    ("nn", [768, 512, 8_915]),
    ("tn", [8_915, 512, 768]),
    ("nt", [2_048, 512, 2_048]),
    ("tn", [512, 2_048, 2_048]),
    ("nt", [768, 2_048, 512]),
    ("tn", [2_048, 2_560, 768]),
    ("nt", [32, 512, 512]),
    ("nt", [32, 2_048, 512]),
    ("nn", [32, 512, 2_048]),
    ("nn", [32, 2_560, 2_048]),
    // show-tell: B = 128, T = 24, V = 7,702, E = H = 256, D = 2,048
    ("nt", [3_072, 7_702, 256]),
    ("nn", [3_072, 256, 7_702]),
    ("tn", [7_702, 256, 3_072]),
    ("tn", [1_024, 256, 3_072]),
    ("nn", [128, 256, 1_024]),
    ("nt", [128, 256, 2_048]),
];

fn matrix(device: &Device, dtype: DType, rows: usize, cols: usize) -> Result<Tensor> {
    let ld = cols.next_multiple_of(8);
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) % 1000) as f32 * 1e-3 - 0.5;
    let values: Vec<f32> = (0..rows * ld).map(value).collect();
    let mut matrix = Tensor::zeros(device, [rows, ld], dtype)?;
    matrix.copy_from_f32(&values)?;
    matrix.columns(0, cols)
}

fn factor(matrix: &Tensor, order: char) -> Factor<'_> {
    match order {
        't' => Factor::Transposed(matrix),
        _ => Factor::Plain(matrix),
    }
}

/// Microseconds of a product.
fn time(ctx: &Context, dtype: DType, layout: &str, [m, n, k]: [usize; 3]) -> Result<f64> {
    const RUNS: usize = 20;
    let device = ctx.device();
    let orders: Vec<char> = layout.chars().collect();
    let stored = |order, [rows, cols]: [usize; 2]| match order {
        't' => matrix(device, dtype, cols, rows),
        _ => matrix(device, dtype, rows, cols),
    };
    let (a, b) = (stored(orders[0], [m, k])?, stored(orders[1], [k, n])?);
    let mut c = Tensor::zeros(device, [m, n.next_multiple_of(8)], DType::F32)?.columns(0, n)?;
    let mut run = || {
        let (a, b) = (factor(&a, orders[0]), factor(&b, orders[1]));
        ctx.scope(|| gemm::forward(ctx, a, b, Accumulate::No, &mut c))
    };
    run()?;
    ctx.reset()?;
    let graph = device.record(|| (0..RUNS).try_for_each(|_| run()))?;
    graph.replay()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(device.time(|| graph.replay())?.as_secs_f64() * 1e6 / RUNS as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

/// One line for each product in these precisions, in the cut that the switch names.
fn time_all(precisions: &[Precision]) -> Result<()> {
    for &precision in precisions {
        let dtype = DType::F32.of_activations(precision);
        let ctx = Context::new(&Device::cuda(0, precision)?);
        for (layout, size) in PRODUCTS {
            let [m, n, k] = size;
            let time = time(&ctx, dtype, layout, size)?;
            println!("{precision} {layout} {m}x{n}x{k}={time:.1}");
        }
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let precisions = match std::env::args().nth(1).as_deref() {
        None => vec![Precision::Tf32, Precision::Bf16],
        Some("tf32") => vec![Precision::Tf32],
        Some("bf16") => vec![Precision::Bf16],
        Some(other) => return Err(format!("{other} should be tf32 or bf16").into()),
    };
    if std::env::var_os(SWITCH).is_some() {
        return Ok(time_all(&precisions)?);
    }
    let mut times: BTreeMap<String, String> = BTreeMap::new();
    for cut in ["large", "small", "thin"] {
        for parts in [1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32] {
            let cut = format!("{cut}:{parts}");
            let ran = Command::new(std::env::current_exe()?)
                .args(std::env::args().nth(1))
                .env(SWITCH, &cut)
                .output()?;
            if !ran.status.success() {
                return Err(String::from_utf8_lossy(&ran.stderr).into());
            }
            for line in String::from_utf8(ran.stdout)?.lines() {
                let (product, time) = line.split_once('=').ok_or("a line without a time")?;
                *times.entry(product.to_string()).or_default() += &format!(" {cut}={time}");
            }
            eprintln!("{cut}");
        }
    }
    for (product, times) in times {
        println!("{product}{times}");
    }
    Ok(())
}
