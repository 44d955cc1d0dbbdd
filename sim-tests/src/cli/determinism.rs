//! `check-determinism`: the same seed twice, in processes of their own, gives the same events; a
//! node's the second time after another seed, because `run` has many in one process. The first
//! seeds give those that they are known to give.

use clap::Args;
use indicatif::ProgressBar;

use super::exit;
use super::golden::{Golden, SEEDS};

#[derive(Args)]
pub(super) struct Determinism {
    /// How many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Keep what the first seeds give now in sim-tests/golden.txt, because it is meant to be new
    #[arg(long)]
    bless: bool,
}

impl Determinism {
    pub(super) fn run(self) -> u8 {
        match self.check() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("a run of its own could not be started: {error}");
                exit::USAGE
            }
        }
    }

    fn check(&self) -> std::io::Result<u8> {
        let bar = ProgressBar::new(self.seeds);
        let (mut different, mut golden) = (0, Golden::default());
        for seed in self.from..self.from + self.seeds {
            let (number, before) = (seed.to_string(), (seed + 1).to_string());
            let node = pair(&["replay", &number], &["--after", &before])?;
            let cluster = pair(&["replay", &number, "--world", "cluster"], &[])?;
            let mut runs = vec![("node", node), ("cluster", cluster)];
            if seed == self.from {
                runs.push(("third", pair(&["replay", &number, "--world", "third"], &[])?));
            }
            for (world, (first, second)) in runs {
                golden.ran(world, seed, &first);
                if first != second {
                    different += 1;
                    bar.suspend(|| {
                        println!("cargo sim replay {seed} --world {world} --log full   # twice");
                        println!("  seed {seed}: {first} and {second}");
                    });
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (plain, tampered) = pair(&["replay", &self.from.to_string()], &["--tamper"])?;
        let noticed = plain != tampered;
        println!("seeds: {}, different: {different}", self.seeds);
        println!(
            "one payload byte changed on purpose: {}",
            match noticed {
                true => "noticed",
                false => "NOT NOTICED",
            }
        );
        let known = self.conclude(&golden)?;
        Ok(if different == 0 && noticed && known { 0 } else { exit::NONDETERMINISM })
    }

    /// Whether the first seeds gave what they are known to give, or now are.
    fn conclude(&self, golden: &Golden) -> std::io::Result<bool> {
        if self.bless {
            if self.from > 0 || self.seeds < SEEDS {
                println!("not kept: that takes the seeds from 0 on, {SEEDS} at least");
                return Ok(false);
            }
            println!("kept: {}", golden.keep()?.display());
            return Ok(true);
        }
        for line in golden.different() {
            println!("golden: {line}");
        }
        if !golden.different().is_empty() {
            println!(
                "where the code was changed that may be meant: then `cargo sim check-determinism \
                 --seeds {SEEDS} --bless`; otherwise a toolchain, a profile or a dependency gives \
                 other runs, and kept seeds stand for nothing"
            );
        }
        Ok(golden.different().is_empty())
    }
}

/// The chain hashes of a run in two processes, the second with more arguments.
pub(super) fn pair(run: &[&str], more: &[&str]) -> std::io::Result<(String, String)> {
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let command = command.args(run).arg("--hash").args(more);
        command.stdout(std::process::Stdio::piped()).spawn()
    };
    let (first, second) = (run(&[])?, run(more)?);
    let text = |child: std::process::Child| -> std::io::Result<String> {
        let output = child.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok((text(first)?, text(second)?))
}
