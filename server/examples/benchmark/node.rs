//! The real binary as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// A node of its own, ended when it is dropped.
pub(crate) struct Node {
    child: Child,
    /// Where it answers, `host:port`.
    pub(crate) address: String,
}

impl Node {
    /// Starts one on this folder, on free ports.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let release = here.parent().and_then(Path::parent).context("target/release/examples")?;
        let mut child = Command::new(release.join("sprawl"))
            .args(["--bind-port", "0", "--http-port", "0", "--log-level", "warn", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .context("target/release/sprawl: cargo build --release makes it")?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output was piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let after = line.split_once("http://").map(|(_, after)| after);
        let address = after.and_then(|after| after.split([' ', ',', '\n', '/']).next());
        let address = address.context("its first line names the address")?.to_owned();
        Ok(Self { child, address })
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = resident.context("the system says what is resident")?.trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is gone already, or goes now; its folder goes with the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
