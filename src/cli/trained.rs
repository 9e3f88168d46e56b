//! The run whose captioner a command uses.

use super::{tell, usage};
use crate::device::Device;
use crate::model::Engine;
use crate::train::log::{self, EpochRecord};
use crate::train::run::RunDirectory;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Which run it is, and where its encoder is.
#[derive(Args)]
pub struct TrainedArgs {
    /// Folder of the run
    #[arg(long, value_name = "RUN")]
    pub run: PathBuf,
    /// The file of the frozen encoder, if it is in another place than in training
    ///
    /// A file of the same name in the run's folder, or beside it, is found without this. Its content must be the same as in
    /// training.
    #[arg(long, value_name = "FILE")]
    encoder_weights: Option<PathBuf>,
}

impl TrainedArgs {
    /// The captioner of the run's best checkpoint.
    pub fn engine(&self, run: &RunDirectory, device: &Device) -> Result<Engine> {
        let validated = || {
            let epochs = log::read::<EpochRecord>(run.epochs());
            epochs.is_ok_and(|epochs| epochs.iter().any(|epoch| epoch.validation.is_some()))
        };
        if !run.best().is_file() && validated() {
            tell(format_args!(
                "showtell: warning: {}: is missing: the last checkpoint is used",
                run.best().display()
            ));
        }
        match &self.encoder_weights {
            Some(encoder) => run.engine_with_encoder(device, encoder).map_err(usage),
            None => Ok(run.engine(device)?),
        }
    }
}
