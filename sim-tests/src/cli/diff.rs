//! `diff`: where two runs part, by the first event that is not the same in both.

use clap::Args;

use super::which::{Bug, Expansion};
use crate::case::Case;
use crate::chronicle::{Log, Ticks};
use crate::world::Watch;

#[derive(Args)]
pub(super) struct Diff {
    /// A seed, or a file with a plan
    one: String,
    /// Another one; or the same, where a planted bug makes the difference
    other: String,
    #[command(flatten)]
    expansion: Expansion,
    /// How many events are shown before the first difference
    #[arg(long, default_value_t = 12)]
    context: u64,
    #[command(flatten)]
    bug: Bug,
}

/// How many events are shown after the first difference.
const AFTER: u64 = 3;

impl Diff {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    /// A bug is planted in the second run alone.
    fn try_run(&self) -> Result<u8, u8> {
        let plant = self.bug.plant()?;
        let sides: [(&str, Case, bool); 2] = [
            (&self.one, self.expansion.case(&self.one)?, false),
            (&self.other, self.expansion.case(&self.other)?, true),
        ];
        let run = |(_, case, planted): &(&str, Case, bool), watch| match planted {
            true => case.run(watch, plant),
            false => case.run(watch, || ()),
        };
        let [one, other] = sides.each_ref().map(|side| {
            let ticks = Ticks::default();
            run(side, Watch { ticks: Some(ticks.clone()), ..Watch::none() });
            ticks.take()
        });
        let alike = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        if alike == one.len() && alike == other.len() {
            println!("the same {alike} events");
            return Ok(0);
        }
        let first = alike as u64 + 1;
        println!("the first difference is event {first}, of {} and {}", one.len(), other.len());
        for side in &sides {
            println!("{}{}:", side.0, if side.2 { self.bug.argument() } else { String::new() });
            let log = Log::Between(first.saturating_sub(self.context), first + AFTER);
            run(side, Watch { log, ..Watch::none() });
        }
        Ok(0)
    }
}
