//! What the benches share: the device, tensors on it, the clock.
//!
//! They run on the CPU, or with SHOWTELL_BENCH_GPU=tf32 (f32, bf16; 1 is tf32) on the first GPU, computing products in
//! that precision; in bf16 each tensor has the type that a training step gives it. On a GPU, one graph holds many runs of an operation, each on other tensors, so many of them that none
//! is still in the caches when it is used again; the time is that between events before and after the replays.

#![allow(dead_code)] // every bench uses its own part

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use showtell::device::Precision;
use showtell::{Context, DType, Device, Result, Shape, Tensor};
use std::time::Duration;

/// More bytes than the caches of any GPU have.
const COLD: usize = 256 << 20;
/// The most copies of an operation's tensors.
const MOST_SETS: usize = 1024;

/// What the GPU computes in; None on the CPU.
fn precision() -> Option<Precision> {
    let choice = std::env::var("SHOWTELL_BENCH_GPU").ok()?;
    Some(match choice.as_str() {
        "1" | "tf32" => Precision::Tf32,
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        _ => panic!("SHOWTELL_BENCH_GPU should be 1, f32, tf32 or bf16, is {choice}"),
    })
}

pub fn device() -> Device {
    match precision() {
        Some(precision) => Device::cuda(0, precision).unwrap(),
        None => Device::cpu(),
    }
}

/// The type of what products of matrices read, and of the encoder's activations.
pub fn operand_type() -> DType {
    DType::F32.of_activations(precision().unwrap_or_default())
}

/// The benches of one family of operations.
pub struct Family<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    ctx: Context,
}

impl<'a> Family<'a> {
    pub fn new(c: &'a mut Criterion, name: &str) -> Self {
        Family::on(c, name, Context::new(&device()))
    }

    pub fn on(c: &'a mut Criterion, name: &str, ctx: Context) -> Self {
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        Family { group, ctx }
    }

    /// Times `body` on a set of tensors that `make` makes. What it takes of the arena is given back. `work` is the least that
    /// it has to move or to compute.
    pub fn bench<S>(
        &mut self,
        name: &str,
        work: Throughput,
        make: impl Fn(&Context) -> S,
        mut body: impl FnMut(&Context, &mut S) -> Result<()>,
    ) {
        let ctx = &self.ctx;
        self.group.throughput(work);
        let mut run = |set: &mut S| ctx.scope(|| body(ctx, set));
        // Criterion calls this for every sample: what takes time before the clock starts is done for the first one.
        let mut ready = None;
        self.group.bench_function(name, |bench| {
            let (sets, graph) = ready.get_or_insert_with(|| {
                let mut sets = sets(ctx, &make);
                // Kernels are loaded and the arena has its room.
                run(&mut sets[0]).unwrap();
                ctx.reset().unwrap();
                let all = || sets.iter_mut().try_for_each(&mut run);
                let records = ctx.device().records();
                let graph = records.then(|| ctx.device().record(all).unwrap());
                (sets, graph)
            });
            let Some(graph) = graph else {
                return bench.iter(|| run(&mut sets[0]).unwrap());
            };
            bench.iter_custom(|count| {
                let replays = count.div_ceil(sets.len() as u64);
                let replay = || (0..replays).try_for_each(|_| graph.replay());
                let share = count as f64 / (replays * sets.len() as u64) as f64;
                ctx.device().time(replay).unwrap().mul_f64(share)
            });
        });
    }
}

/// One set of tensors for the CPU; for a GPU so many that its caches cannot hold them.
fn sets<S>(ctx: &Context, make: &impl Fn(&Context) -> S) -> Vec<S> {
    let before = ctx.device().bytes_in_use();
    let mut sets = vec![make(ctx)];
    if ctx.device().records() {
        let bytes = ctx.device().bytes_in_use() - before;
        let more = (COLD / bytes.max(1)).clamp(1, MOST_SETS - 1);
        sets.extend((0..more).map(|_| make(ctx)));
    }
    sets
}

/// The device's time for `count` runs of `body`.
pub fn time(device: &Device, count: u64, mut body: impl FnMut()) -> Duration {
    device.synchronise().unwrap();
    let all = || {
        (0..count).for_each(|_| body());
        Ok(())
    };
    device.time(all).unwrap()
}

/// Bytes of so many f32.
pub fn floats_moved(count: usize) -> Throughput {
    Throughput::Bytes((4 * count) as u64)
}

/// Bytes of so many numbers of [`operand_type`].
pub fn operands_moved(count: usize) -> Throughput {
    Throughput::Bytes((operand_type().bytes() * count) as u64)
}

/// Floating-point operations, a multiplication and an addition counting two.
pub fn operations(count: usize) -> Throughput {
    Throughput::Elements(count as u64)
}

/// Numbers in [-0.5, 0.5) that repeat after a thousand.
pub fn floats(ctx: &Context, shape: impl Into<Shape>) -> Tensor {
    numbers(ctx, shape.into(), DType::F32)
}

/// As [`floats`], of [`operand_type`].
pub fn operands(ctx: &Context, shape: impl Into<Shape>) -> Tensor {
    numbers(ctx, shape.into(), operand_type())
}

fn numbers(ctx: &Context, shape: Shape, dtype: DType) -> Tensor {
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) % 1000) as f32 * 1e-3 - 0.5;
    let values: Vec<f32> = (0..shape.len()).map(value).collect();
    let mut tensor = Tensor::zeros(ctx.device(), shape, dtype).unwrap();
    tensor.copy_from_f32(&values).unwrap();
    tensor
}

/// Token ids below `limit`, none of them 0.
pub fn ids(ctx: &Context, shape: impl Into<Shape>, limit: u32) -> Tensor {
    let shape = shape.into();
    let id = |i: usize| 1 + (i as u32).wrapping_mul(40_503) % (limit - 1);
    let values: Vec<u32> = (0..shape.len()).map(id).collect();
    Tensor::from_slice(ctx.device(), shape, &values).unwrap()
}

pub fn zeros(ctx: &Context, shape: impl Into<Shape>) -> Tensor {
    Tensor::zeros(ctx.device(), shape, DType::F32).unwrap()
}
