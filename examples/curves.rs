//! Draws the learning curves of a run: `cargo run --release --example curves -- RUN curves.png`.

use showtell::report::{self, curves};
use showtell::train::log;
use showtell::train::run::RunDirectory;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, picture] = &arguments[..] else {
        return Err("usage: curves RUN PICTURE.png".into());
    };
    let run = RunDirectory::open(run)?;
    let (steps, epochs) = (log::read(run.steps())?, log::read(run.epochs())?);
    report::save(
        &curves::learning_curves(&steps, &epochs)?,
        Path::new(picture),
    )?;
    Ok(())
}
