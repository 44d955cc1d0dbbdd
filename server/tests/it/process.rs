//! A node as a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::http;

/// How long a state may take to come.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked for.
const PAUSE: Duration = Duration::from_millis(10);

/// The binary under test.
pub(crate) const SPRAWL: &str = env!("CARGO_BIN_EXE_sprawl");
/// The command line beside it.
pub(crate) const SPRAWLCTL: &str = env!("CARGO_BIN_EXE_sprawlctl");

/// Asks again and again until there is an answer, for a minute at most.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::park_timeout(PAUSE);
    }
}

/// A command that no variable of the one who runs the tests reaches. A node that it starts takes a
/// free port for other nodes, unless it is told one.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SPRAWL_") || text.starts_with("MINIO_") {
            command.env_remove(&name);
        }
    }
    command.env("SPRAWL_BIND_PORT", "0");
    command
}

/// Runs a command to its end, which must come within a minute.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let status = end_of(&mut child);
    let mut output = child.wait_with_output().expect("it has ended");
    output.status = status;
    output
}

#[track_caller]
pub(crate) fn end_of(child: &mut Child) -> ExitStatus {
    eventually("the end of a process", || child.try_wait().expect("it can be waited for"))
}

/// Sends a signal by its name.
#[track_caller]
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "{name} to {pid}");
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    /// Where the HTTP API listens, `host:port`.
    pub(crate) address: String,
    /// The first line that it printed.
    pub(crate) line: String,
    log: PathBuf,
}

impl Node {
    /// Starts a node on a free port.
    #[track_caller]
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts a node with further flags; its log goes into a file beside its data.
    #[track_caller]
    pub(crate) fn start_with(data: &Path, flags: &[&str]) -> Self {
        let mut command = command(SPRAWL);
        if !flags.contains(&"--http-port") {
            command.args(["--http-port", "0"]);
        }
        command.arg("--data-dir").arg(data).args(flags);
        Self::spawn(command, data.with_extension("log"))
    }

    /// Starts a command that becomes a node, and waits until it is ready.
    #[track_caller]
    pub(crate) fn spawn(command: Command, log: PathBuf) -> Self {
        let node = Self::launch(command, log);
        node.ready();
        node
    }

    /// Starts a command that becomes a node; one that looks for others is not ready for long.
    #[track_caller]
    pub(crate) fn launch(mut command: Command, log: PathBuf) -> Self {
        let to = File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(to);
        let mut child = command.spawn().expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("its output is text");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let Some(address) = address.map(str::to_owned) else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("the node printed {line:?} and said {said:?}");
        };
        Self { child, address, line, log }
    }

    /// Waits until it is ready.
    #[track_caller]
    pub(crate) fn ready(&self) {
        eventually("a node that is ready", || {
            (http::get(&self.address, "/health/ready").status == 200).then_some(())
        });
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log file")
    }

    /// Ends it without warning.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Tells it to stop, and gives how it ended.
    #[track_caller]
    pub(crate) fn stop(mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        end_of(&mut self.child)
    }

    /// How it ended by itself.
    #[track_caller]
    pub(crate) fn ended(mut self) -> ExitStatus {
        end_of(&mut self.child)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody takes by chance: it lies below those that the kernel gives to connections,
/// and is given once.
pub(crate) fn free_port() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let is_free = |port: &u16| {
        let address = ("127.0.0.1", *port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    let tried = || (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
    let mut ports = std::iter::repeat_with(|| 10_000 + tried());
    ports.find(is_free).expect("there is always another").to_string()
}
