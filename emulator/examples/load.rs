//! Loads PTX files and prints what their kernels need: `cargo run -p cuda-emulator --example load FILE...`.

fn main() {
    for f in std::env::args().skip(1) {
        match cuda_emulator::machine::Module::load(&std::fs::read_to_string(&f).unwrap()) {
            Ok(m) => {
                for k in m.kernels() {
                    println!(
                        "{f}: {} regs {} shared {} local {} params {:?}",
                        k.name, k.registers, k.static_shared, k.local_bytes, k.params
                    )
                }
            }
            Err(e) => println!("{f}: {e}"),
        }
    }
}
