//! The command line: one file per subcommand.

mod data;
mod weights;

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
    /// Look at weight files
    #[command(subcommand)]
    Weights(Weights),
}

#[derive(Subcommand)]
enum Data {
    Stats(data::StatsArgs),
}

#[derive(Subcommand)]
enum Weights {
    Inspect(weights::InspectArgs),
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Data(Data::Stats(args)) => data::stats(args),
        Command::Weights(Weights::Inspect(args)) => weights::inspect(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
