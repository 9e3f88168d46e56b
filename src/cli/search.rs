//! How sentences are searched for by the commands that caption images.

use super::flags::number;
use crate::decode::Search;
use crate::settings::{self, integer};
use anyhow::Result;
use clap::Args;
use clap::builder::TypedValueParser;

/// The flags of the search.
#[derive(Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// Follow K sentences at once for each image and take the best; with 1, take the best word every time
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = number::<usize>(integer(1).most(100)))]
    pub(super) beam: usize,
    /// Prefer longer sentences: divide the log-probability of a sentence of n tokens by n^X
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "beam", value_parser = penalty())]
    length_penalty: f64,
}

fn penalty() -> impl TypedValueParser<Value = f64> {
    number(settings::number(0.0, f64::INFINITY))
}

impl SearchArgs {
    pub fn search(&self) -> Result<Search> {
        Ok(Search::new(self.beam, self.length_penalty)?)
    }
}
