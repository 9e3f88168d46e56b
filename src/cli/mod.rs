//! The command line: one file per subcommand.

mod data;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An image-captioning engine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at a data set
    #[command(subcommand)]
    Data(Data),
}

#[derive(Subcommand)]
enum Data {
    Stats(data::StatsArgs),
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Data(Data::Stats(args)) => data::stats(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
