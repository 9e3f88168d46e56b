//! Kernels that nvcc 13.0 compiled for compute_80 (`tests/ptx`), with all checks on.

mod support;
use support::{Device, Params};

fn bf16(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes())
        .collect()
}

#[test]
fn a_bf16_product_by_tensor_cores() {
    // cp.async in two stages, ldmatrix and its transpose, mma; rows beyond M are zero-filled.
    let (m, n, k) = (100usize, 128usize, 96usize);
    let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 17) as f32 - 8.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
    let device = Device::new(include_str!("ptx/hgemm.ptx"));
    let (from_a, from_b) = (device.upload(&bf16(&a)), device.upload(&bf16(&b)));
    let to = device.room((m * n * 4) as u64);
    let sizes = [m, n, k].map(|x| x as u32);
    let params = Params::new().pointer(from_a).pointer(from_b).pointer(to);
    let params = params.int(sizes[0]).int(sizes[1]).int(sizes[2]);
    let report = device
        .launch("hgemm", [2, 2, 1], [128, 1, 1], &params)
        .unwrap();
    let found = device.download_f32(to, m * n);
    for row in 0..m {
        for column in 0..n {
            let expected: f32 = (0..k).map(|at| a[row * k + at] * b[at * n + column]).sum();
            assert_eq!(
                found[row * n + column],
                expected,
                "row {row} column {column}"
            );
        }
    }
    // 4 CTAs of 4 warps: 3 tiles of K, 2 steps of 16, 2x4 fragments.
    assert_eq!(report.counters.mma, 4 * 4 * 3 * 2 * 8);
}

#[test]
fn a_softmax() {
    let (rows, n) = (5usize, 200usize);
    let x: Vec<f32> = (0..rows * n)
        .map(|i| (i * 31 % 64) as f32 / 8.0 - 4.0)
        .collect();
    let mut device = Device::new(include_str!("ptx/layers.ptx"));
    device.shared = 16;
    let (from, to) = (device.upload(&bf16(&x)), device.room((rows * n * 4) as u64));
    let params = Params::new().pointer(from).pointer(to).int(n as u32);
    device
        .launch("softmax", [rows as u32, 1, 1], [128, 1, 1], &params)
        .unwrap();
    let found = device.download_f32(to, rows * n);
    for row in 0..rows {
        let sum: f64 = x[row * n..][..n].iter().map(|&x| f64::from(x).exp()).sum();
        for i in row * n..(row + 1) * n {
            let expected = f64::from(x[i]).exp() / sum;
            // The error of expf is at most 2 ulp, that of the sum of 200 terms at most 200 ulp.
            let error = (f64::from(found[i]) - expected).abs();
            assert!(
                error <= 204.0 * 2f64.powi(-24) * expected,
                "{} {expected}",
                found[i]
            );
        }
    }
}

#[test]
fn a_cooperative_grid() {
    let (ctas, threads, count) = (9usize, 64usize, 5usize);
    let n = ctas * threads;
    let mut device = Device::new(include_str!("ptx/layers.ptx"));
    device.cooperative = true;
    let mut x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let mut start = x.clone();
    start.resize(2 * n, 0.0);
    let at = device.upload_f32(&start);
    // The environment registers hold the address of the workspace that the driver provides for cooperative groups. The
    // code of nvcc reads it there.
    let params = Params::new().pointer(at).int(n as u32).int(count as u32);
    let result = device.launch("ring", [ctas as u32, 1, 1], [threads as u32, 1, 1], &params);
    result.unwrap();
    for step in 0..count {
        let constant = (step % 4 + 1) as f32;
        x = (0..n).map(|i| x[(i + 1) % n] * 0.5 + constant).collect();
    }
    let found = device.download_f32(at + (count % 2 * n * 4) as u64, n);
    assert_eq!(found, x);
}

#[test]
fn functions_of_the_maths_library() {
    let n = 256;
    let a: Vec<f32> = (0..n).map(|i| i as f32 / 40.0 - 3.0).collect();
    let b: Vec<f32> = (0..n).map(|i| (i * 37 % n) as f32 / 80.0 - 1.5).collect();
    let device = Device::new(include_str!("ptx/layers.ptx"));
    let (from_a, from_b) = (device.upload_f32(&a), device.upload_f32(&b));
    let (to, trace) = (device.room(4 * n as u64), device.room(4 * n as u64));
    let params = Params::new()
        .pointer(from_a)
        .pointer(from_b)
        .pointer(to)
        .pointer(trace);
    device
        .launch("functions", [4, 1, 1], [64, 1, 1], &params)
        .unwrap();
    for (i, found) in device.download_f32(to, n).into_iter().enumerate() {
        let (x, y) = (f64::from(a[i]), f64::from(b[i]));
        let expected = x.tanh() / (1.0 + (-y).exp())
            + x.sin() * erf(y)
            + (1.0 + y * y).ln()
            + (x.abs() + 1.0).powf(y)
            + x * (i * 5 % 8) as f64
            + y.cos();
        assert!(
            (f64::from(found) - expected).abs() < 1e-5,
            "{i}: {found} {expected}"
        );
    }
    assert_eq!(device.download_f32(trace, n), a);
}

/// The error function, computed by its series.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..60 {
        term *= -x * x / k as f64;
        sum += term / (2 * k + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
