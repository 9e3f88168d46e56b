//! How commands that caption images look for sentences.

use crate::decode::Search;
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct SearchArgs {
    /// Sentences to follow at once for each image; 1 takes the best word every time
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    beam: u16,
    /// Favour longer sentences: n tokens score log p / n^X
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "beam")]
    length_penalty: f64,
}

impl SearchArgs {
    pub fn search(&self) -> Result<Search> {
        Ok(Search::new(self.beam.into(), self.length_penalty)?)
    }
}
