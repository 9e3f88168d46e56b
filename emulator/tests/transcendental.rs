//! Approximate functions have at most the errors that the PTX manual allows.

mod support;
use support::compute;

fn check(snippet: &str, values: &[f32], tolerance: f64, f: impl Fn(f64) -> f64) {
    let rows: Vec<[u64; 3]> = values
        .iter()
        .map(|x| [u64::from(x.to_bits()), 0, 0])
        .collect();
    for (&x, found) in values.iter().zip(compute(snippet, "rrrr", &rows)) {
        let (found, expected) = (f64::from(f32::from_bits(found as u32)), f(f64::from(x)));
        let close = (found - expected).abs() <= tolerance * expected.abs().max(1e-30);
        assert!(
            close || found == expected || found.is_nan() && expected.is_nan(),
            "{snippet} of {x:e}: found {found:e}, expected {expected:e}"
        );
    }
}

#[test]
fn relative_errors() {
    let all: Vec<f32> = (-60..60).map(|i| i as f32 * 0.37).collect();
    let positive: Vec<f32> = (1..120).map(|i| i as f32 * 0.59).collect();
    let ulp = 2f64.powi(-22);
    check("ex2.approx.f32 {d}, {a};", &all, ulp, f64::exp2);
    check("lg2.approx.f32 {d}, {a};", &positive, ulp, f64::log2);
    check(
        "rsqrt.approx.f32 {d}, {a};",
        &positive,
        2f64.powf(-22.4),
        |x| 1.0 / x.sqrt(),
    );
    check("sqrt.approx.f32 {d}, {a};", &positive, ulp, f64::sqrt);
    check("rcp.approx.ftz.f32 {d}, {a};", &positive, ulp, |x| 1.0 / x);
    check("tanh.approx.f32 {d}, {a};", &all, 2f64.powi(-11), f64::tanh);
    check(
        "sin.approx.f32 {d}, {a};",
        &[0.0, 0.5, 1.0, -2.0, 3.0],
        2f64.powi(-20),
        f64::sin,
    );
    check(
        "cos.approx.f32 {d}, {a};",
        &[0.0, 0.5, 1.0, -2.0, 3.0],
        2f64.powi(-20),
        f64::cos,
    );
    check("div.full.f32 {d}, {a}, 0f40400000;", &all, ulp, |x| x / 3.0);
}

#[test]
fn edges() {
    let check = |snippet, x: f32, expected: f32| check(snippet, &[x], 0.0, |_| f64::from(expected));
    check("ex2.approx.ftz.f32 {d}, {a};", f32::NEG_INFINITY, 0.0);
    check("ex2.approx.f32 {d}, {a};", f32::INFINITY, f32::INFINITY);
    check("lg2.approx.f32 {d}, {a};", 0.0, f32::NEG_INFINITY);
    check("lg2.approx.f32 {d}, {a};", -1.0, f32::NAN);
    check("rsqrt.approx.f32 {d}, {a};", 0.0, f32::INFINITY);
    check("rcp.approx.ftz.f32 {d}, {a};", 1e-40, f32::INFINITY);
    check("tanh.approx.f32 {d}, {a};", f32::INFINITY, 1.0);
    check("ex2.approx.ftz.f32 {d}, {a};", -130.0, 0.0);
    check("ex2.approx.f32 {d}, {a};", -130.0, 2f32.powi(-130));
}
