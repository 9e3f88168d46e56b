fn main() -> std::process::ExitCode {
    showtell::cli::main()
}
