//! `check-determinism`: the same seed twice, in processes of their own, gives the same events; a
//! node's the second time after another seed, because `run` has many in one process.

use clap::Args;
use indicatif::ProgressBar;

use super::exit;

#[derive(Args)]
pub(super) struct Determinism {
    /// How many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
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
        let mut different = 0;
        for seed in self.from..self.from + self.seeds {
            let (number, before) = (seed.to_string(), (seed + 1).to_string());
            let node = pair(&["replay", &number], &["--after", &before])?;
            let cluster = pair(&["replay", &number, "--world", "cluster"], &[])?;
            let mut runs = vec![("node", node), ("cluster", cluster)];
            if seed == self.from {
                runs.push(("third", pair(&["replay", &number, "--world", "third"], &[])?));
            }
            for (world, (first, second)) in runs {
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
        Ok(if different == 0 && noticed { 0 } else { exit::NONDETERMINISM })
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
