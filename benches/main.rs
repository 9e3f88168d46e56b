//! All benches of the crate, as one executable: a machine with a GPU needs no other file.
//!
//! A file is a module here, and the names of its benches begin with those of the operations: `cargo bench -- attention`.

mod support;

mod attention;
mod batch_norm;
mod conv;
mod cross_entropy;
mod decoders;
mod gemm;
mod lstm;
mod optimiser;
mod resnet;

criterion::criterion_main!(
    attention::benches,
    batch_norm::benches,
    conv::benches,
    cross_entropy::benches,
    decoders::benches,
    gemm::benches,
    lstm::benches,
    optimiser::benches,
    resnet::benches,
);
