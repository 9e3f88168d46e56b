//! How sentences are searched for by the commands that caption images.

use crate::decode::Search;
use anyhow::Result;
use clap::Args;

/// The flags of the search.
#[derive(Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// Follow K sentences at once for each image and take the best; with 1, take the best word every time
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    beam: u16,
    /// Prefer longer sentences: divide the log-probability of a sentence of n tokens by n^X
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "beam")]
    length_penalty: f64,
}

impl SearchArgs {
    pub fn search(&self) -> Result<Search> {
        Ok(Search::new(self.beam.into(), self.length_penalty)?)
    }
}
