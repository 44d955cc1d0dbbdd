//! `plan`: what a seed stands for, as JSON: to look at, to change, to keep.

use super::which::Which;
use clap::Args;

#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    which: Which,
}

impl Plan {
    pub(super) fn run(self) -> u8 {
        match self.which.case() {
            Ok(case) => {
                println!("{}", serde_json::to_string_pretty(&case).expect("a plan is data"));
                0
            }
            Err(code) => code,
        }
    }
}
