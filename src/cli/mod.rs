//! The command line: one file per subcommand.
//!
//! Results go to stdout, progress and warnings to stderr. The exit status is 0 for success, 2 for flags that cannot work, 1 for
//! every other failure, and 128 + the number of the signal when a signal ended the program: 130 after Ctrl-C.

mod caption;
mod check;
mod data;
mod demo;
mod device;
mod eval;
mod flags;
mod profile;
mod progress;
mod score;
mod search;
mod signals;
mod train;
mod trained;
mod weights;

use crate::Error;
use crate::words::printable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;
use std::fmt::Arguments;
use std::io::Write;
use std::process::ExitCode;

/// Trains image captioners, and captions images with them
#[derive(Parser)]
#[command(name = "showtell", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a captioner by its published recipe, or by any other settings
    Train(Box<train::TrainArgs>),
    Eval(eval::EvalArgs),
    Score(score::ScoreArgs),
    Caption(caption::CaptionArgs),
    Demo(demo::DemoArgs),
    Devices(device::DevicesArgs),
    Profile(profile::ProfileArgs),
    /// Counts what a data set contains, or looks for errors in it
    #[command(subcommand)]
    Data(DataCommand),
    /// Lists what a weight file contains
    #[command(subcommand)]
    Weights(WeightsCommand),
}

#[derive(Subcommand)]
enum DataCommand {
    /// Counts images, captions and words; reads no image
    Stats(data::StatsArgs),
    Check(check::CheckArgs),
}

#[derive(Subcommand)]
enum WeightsCommand {
    Inspect(weights::InspectArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Of a flag that is given twice, the later value counts.
    let matches = Cli::command().args_override_self(true).try_get_matches();
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.unwrap_or_else(|error| refuse(&error));
    let result = match cli.command {
        Command::Data(DataCommand::Check(args)) => return exit_status(check::check(args)),
        Command::Train(args) => train::train(*args),
        Command::Eval(args) => eval::eval(args),
        Command::Score(args) => score::score(args),
        Command::Caption(args) => caption::caption(args),
        Command::Demo(args) => demo::demo(args),
        Command::Devices(args) => device::devices(args),
        Command::Profile(args) => profile::profile(args),
        Command::Data(DataCommand::Stats(args)) => data::stats(args),
        Command::Weights(WeightsCommand::Inspect(args)) => weights::inspect(args),
    };
    exit_status(result.map(|()| ExitCode::SUCCESS))
}

/// Ends the program with clap's help or error. clap repeats what was typed as it is, control characters too.
fn refuse(error: &clap::Error) -> ! {
    let arguments = std::env::args_os();
    let mut strange = arguments.filter(|arg| arg.to_string_lossy().contains(char::is_control));
    if strange.next().is_none() || !error.use_stderr() {
        error.exit();
    }
    for line in error.render().to_string().lines() {
        tell(format_args!("{line}"));
    }
    std::process::exit(WRONG_USAGE.into())
}

fn exit_status(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("showtell: {}", flags::message(&error)));
            if error.is::<Usage>() {
                return ExitCode::from(WRONG_USAGE);
            }
            let interrupted = error.downcast_ref::<train::Interrupted>();
            let signal = interrupted.and_then(|interrupted| interrupted.signal);
            signal.map_or(ExitCode::FAILURE, |signal| signals::status(signal).into())
        }
    }
}

/// The exit status for wrong usage, which is also clap's.
const WRONG_USAGE: u8 = 2;

/// A command line that cannot work: a flag is missing, has a value that is out of range, or does not go together with others.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Usage(Error);

/// An error of something that follows from the flags alone: one about a setting is wrong usage.
fn usage(error: Error) -> anyhow::Error {
    match error {
        Error::Setting { .. } => Usage(error).into(),
        other => other.into(),
    }
}

/// Prints a result on standard output, for a program or as a text.
fn print<T: Serialize>(
    json: bool,
    result: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = if json {
        escaped(&serde_json::to_string_pretty(result)?) + "\n"
    } else {
        text(result)
    };
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// JSON with an escape for every control character in its texts. The standard demands one only for those below the space, but a
/// terminal obeys others too.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for sign in json.chars() {
        match sign {
            '\u{7f}'..='\u{9f}' => escaped += &format!("\\u{:04x}", u32::from(sign)),
            sign => escaped.push(sign),
        }
    }
    escaped
}

/// Writes a line to stderr, without control characters of names in it. If that fails, for instance because its reader has
/// ended, the work continues.
fn tell(line: Arguments) {
    let line = line.to_string();
    let _ = writeln!(std::io::stderr(), "{}", printable(&line));
}

/// Whether writing failed because the reader of our output has ended, which is not a failure of this program.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = match cause.downcast_ref() {
            Some(Error::Io { cause, .. }) => Some(cause),
            _ => cause.downcast_ref::<std::io::Error>(),
        };
        io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
