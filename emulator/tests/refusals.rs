//! Instructions that the emulator cannot execute exactly are errors when a module is loaded, with the line of the
//! text. None of them is skipped, and none is executed as another instruction.

mod support;

use cuda_emulator::machine::Module;
use support::kernel;

/// The message for a kernel with this instruction.
fn refusal(instruction: &str) -> String {
    let text = kernel(instruction);
    match Module::load(&text) {
        Ok(_) => panic!("`{instruction}` was accepted"),
        Err(error) => {
            assert!(error.text.contains(instruction), "{instruction}: {error}");
            error.to_string()
        }
    }
}

#[test]
fn unknown_instructions_are_named() {
    for instruction in [
        "wgmma.fence.sync.aligned;",
        "mbarrier.inval.shared.b64 [%rd2];",
        "redux.sync.xnor.b32 %r1, %r2, %r3;",
        "bar.something 0;",
    ] {
        let message = refusal(instruction);
        let opcode = instruction.split([' ', ';']).next().unwrap();
        assert!(
            message.contains(&format!("does not know the instruction `{opcode}`")),
            "{message}"
        );
    }
}

/// Forms of known instructions that do not exist, or that the emulator does not implement.
#[test]
fn unknown_forms_of_known_instructions_are_refused() {
    for instruction in [
        // Comparisons with unordered operands exist for floats only; pairs need two results.
        "setp.ltu.u32 %p1, %r1, %r2;",
        "setp.num.s64 %p1, %rd1, %rd2;",
        "setp.eq.f16x2 %p1, %r1, %r2;",
        // Integers that saturate are signed and have 32 bits.
        "add.sat.u32 %r1, %r1, %r2;",
        "sub.sat.s64 %rd1, %rd1, %rd2;",
        // Products of twice the width have factors of 16 or 32 bits.
        "mul.wide.u64 %rd1, %rd1, %rd2;",
        "shf.l.wrap.b64 %rd1, %rd1, %rd2, %r1;",
        // Other roundings and saturations than those of the emulator.
        "cvt.rs.f16x2.f32 %r1, %f1, %f2, %r2;",
        "cvt.rn.satfinite.bf16x2.f32 %r1, %f1, %f2;",
        "min.xorsign.abs.bf16x2 %r1, %r1, %r2;",
        // Atomics of these types do not exist.
        "atom.global.min.f64 %fd1, [%rd2], %fd2;",
        "atom.global.and.f32 %f1, [%rd2], %f2;",
        "atom.global.inc.u64 %rd1, [%rd2], %rd3;",
        // Memory of a cluster.
        "ld.shared::cluster.u32 %r1, [%r2];",
        "testp.finite.f16 %p1, %h1;",
    ] {
        refusal(instruction);
    }
}
