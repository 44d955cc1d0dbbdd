//! The chain hashes that runs are known to have: another toolchain, another profile or another
//! machine must give the same.

use std::path::Path;

/// Where they are kept, and what was kept when this was compiled: of each run a line.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden.txt");
const KEPT: &str = include_str!("../../golden.txt");
/// The seeds of which they are, from 0 on.
pub(super) const SEEDS: u64 = 8;

/// The hashes of this build against those.
#[derive(Default)]
pub(super) struct Golden {
    lines: Vec<String>,
    different: Vec<String>,
}

impl Golden {
    /// A run has this hash.
    pub(super) fn ran(&mut self, world: &str, seed: u64, hash: &str) {
        if seed >= SEEDS {
            return;
        }
        let run = format!("{world} {seed} ");
        let line = format!("{run}{hash}");
        match KEPT.lines().find(|line| line.starts_with(&run)) {
            Some(kept) if kept == line => {}
            kept => {
                let kept = kept.map_or("not known", |kept| &kept[run.len()..]);
                self.different.push(format!("{run}is {hash}, and was {kept}"));
            }
        }
        self.lines.push(line);
    }

    /// What is not as it was.
    pub(super) fn different(&self) -> &[String] {
        &self.different
    }

    /// Keeps the hashes of this build.
    pub(super) fn keep(&self) -> std::io::Result<&'static Path> {
        std::fs::write(FILE, self.lines.join("\n") + "\n")?;
        Ok(Path::new(FILE))
    }
}
