//! Measures lane instructions per second in an f32 matrix product:
//! `cargo run --release -p cuda-emulator --example speed`.

use std::sync::Arc;
use std::time::Instant;

use cuda_emulator::machine::{Checks, Heap, Launch, Module, Options, run};

/// C (M, N) = A (M, K) · B (K, N) in tiles of 128x128x8: `tests/ptx/sgemm.cu`, compiled by nvcc 13.0.
const PTX: &str = include_str!("../tests/ptx/sgemm.ptx");
const M: u32 = 512;
const N: u32 = 512;
const K: u32 = 512;

fn main() {
    let module = Arc::new(Module::load(PTX).expect("the module loads"));
    let heap = Heap::new(1 << 30);
    let value = |at: u32| (at % 13) as f32 - 6.0;
    let matrix = |elements: u32| -> u64 {
        let address = heap.allocate(u64::from(elements) * 4).expect("memory");
        let values: Vec<u8> = (0..elements)
            .flat_map(|at| value(at).to_le_bytes())
            .collect();
        heap.write(address, &values).expect("inside");
        address
    };
    let (a, b) = (matrix(M * K), matrix(K * N));
    let c = heap.allocate(u64::from(M * N) * 4).expect("memory");
    let mut params = Vec::new();
    for address in [a, b, c] {
        params.extend(address.to_le_bytes());
    }
    for size in [M, N, K] {
        params.extend(size.to_le_bytes());
    }
    let launch = Launch {
        module: &module,
        kernel: "sgemm",
        globals: &[],
        grid: [N / 128, M / 128, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
        params: &params,
    };
    for (name, checks, counters) in [
        ("off", Checks::NONE, false),
        ("on", Checks::ALL, false),
        ("on, counters", Checks::ALL, true),
    ] {
        let options = Options {
            checks,
            counters,
            ..Options::default()
        };
        let start = Instant::now();
        let report = run(&launch, &heap, &options).expect("no fault");
        let seconds = start.elapsed().as_secs_f64();
        let rate = report.counters.lane_instructions as f64 / seconds;
        println!(
            "checks {name}: {:.2e} lane instructions per second, {:.3} s",
            rate, seconds
        );
    }
    let mut row = vec![0; 4 * N as usize];
    heap.read(c + 4 * u64::from(N), &mut row).expect("inside");
    for column in 0..N {
        let expected: f32 = (0..K).map(|k| value(K + k) * value(k * N + column)).sum();
        let at = 4 * column as usize;
        let found = f32::from_le_bytes(row[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(found, expected, "column {column}");
    }
}
