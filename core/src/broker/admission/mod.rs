//! What a shard takes on: how much goes to the disk at once, who goes next, who is sent away.
//!
//! Bytes of publishes are in one of two places. In flight is what the disk has before it: a
//! [window](window) bounds it, which follows the measured time to commit. What comes while the
//! window is closed waits in the [lobby](lobby), where clients take turns by bytes, and within a
//! client its partitions. Nobody is refused for the load of others while there is room: a client
//! may hold as many bytes as are free (the dynamic threshold of Choudhury and Hahne, 1998), so
//! that one greedy client keeps half of the lobby and everyone else finds the other half.

mod events;
mod lobby;
mod turns;
mod window;

use std::time::Duration;

pub(crate) use lobby::Waiting;
pub use turns::Turns;
pub use window::Window;

use self::events::Announcer;
use self::lobby::{Full, Lobby};
use self::window::RATE_MIN;
use super::desk::{ReplyTo, ShardOptions};
use super::replica::Submission;
use crate::ids::Source;
use crate::machine::{AdmissionStatus, LoadLevel, Now, Refused, Time};

/// How many bytes the disk may have before it at least.
const WINDOW_MIN: usize = 64 << 10;
/// How long a publish waits for its turn before it is refused.
pub(crate) const LOBBY_WAIT: Duration = Duration::from_secs(5);
/// From which share of the lobby on the load is high, and severe, in eighths. One greedy client
/// fills four, three fill six, seven fill seven.
const HIGH_EIGHTHS: usize = 4;
const SEVERE_EIGHTHS: usize = 7;

/// The gate of a shard.
#[derive(Debug)]
pub(crate) struct Admission {
    window: Window,
    lobby: Lobby,
    announcer: Announcer,
}

impl Admission {
    /// The gate of a shard of this name, unique among all runs of all nodes.
    pub(crate) fn new(options: &ShardOptions, name: String) -> Self {
        let window = Window::new(WINDOW_MIN, options.in_flight_bytes);
        Self { window, lobby: Lobby::new(options.waiting_bytes), announcer: Announcer::new(name) }
    }

    /// Whether a publish may go to the disk at once, with so many bytes before it.
    pub(crate) fn is_open(&self, in_flight: usize) -> bool {
        self.lobby.is_empty() && self.window.is_open(in_flight)
    }

    /// Lets publishes wait for their turn, or says why they may not; they are then given back.
    pub(crate) fn wait(&mut self, waiting: Waiting, now: Now) -> Result<(), (Waiting, Refused)> {
        self.window.is_short();
        let (clients, rate) = (self.lobby.clients().max(1), self.window.rate());
        let lasts = |bytes: usize, sharers: usize| {
            let rate = rate.unwrap_or(RATE_MIN);
            Duration::from_millis((bytes * sharers) as u64 * 1_000 / rate)
        };
        let own = self.lobby.held_by(source(&waiting.messages));
        let result = if rate.is_some() && lasts(own, clients) > LOBBY_WAIT {
            // Its turn would not come in time: it is told so now. Nobody is on a guess.
            Err((waiting, Full::Client(own)))
        } else {
            self.lobby.enter(waiting, now.since_start + LOBBY_WAIT)
        };
        result.map_err(|(waiting, full)| {
            let refused = match full {
                Full::Client(held) => Refused::OverShare { retry_after: lasts(held, clients) },
                Full::Topic(held) | Full::Node(held) => {
                    Refused::Busy { retry_after: lasts(held, 1) }
                }
            };
            (waiting, refused)
        })
    }

    /// Whose turn it is, if the disk takes more.
    pub(crate) fn next(&mut self, in_flight: usize) -> Option<Waiting> {
        if self.window.is_open(in_flight) { self.lobby.next() } else { None }
    }

    /// One whose time is over.
    pub(crate) fn give_up(&mut self, now: Time) -> Option<(Waiting, Refused)> {
        let waiting = self.lobby.give_up(now)?;
        Some((waiting, Refused::Busy { retry_after: LOBBY_WAIT }))
    }

    /// Learns from what has become durable: `entered` bytes in all since the start, of which
    /// `in_flight` are not.
    pub(crate) fn observe(&mut self, now: Now, entered: u64, in_flight: usize) {
        self.window.observe(now.since_start, entered, in_flight);
    }

    /// An event to publish, if there is something to tell.
    pub(crate) fn announce(&mut self, now: Now) -> Option<Submission> {
        let status = self.status();
        self.announcer.announce(now, &status)
    }

    /// Bytes that wait for their turn.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lobby.bytes()
    }

    pub(crate) fn status(&self) -> AdmissionStatus {
        let (waiting, room) = (self.lobby.bytes(), self.lobby.room());
        let level = match waiting * 8 / room.max(1) {
            0 if waiting == 0 => LoadLevel::Calm,
            eighths if eighths < HIGH_EIGHTHS => LoadLevel::Elevated,
            eighths if eighths < SEVERE_EIGHTHS => LoadLevel::High,
            _ => LoadLevel::Severe,
        };
        AdmissionStatus {
            level,
            waiting_bytes: waiting as u64,
            waiting_clients: self.lobby.clients() as u64,
            window_bytes: self.window.limit() as u64,
            commit_latency: self.window.latency(),
        }
    }

    /// When to give somebody up, or to tell what was held back.
    pub(crate) fn wakeup(&self) -> Option<Time> {
        [self.lobby.wakeup(), self.announcer.wakeup()].into_iter().flatten().min()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.lobby.check()
    }
}

/// Whose publishes these are: of one request, and so of one client.
pub(crate) fn source(messages: &[(ReplyTo, Submission)]) -> Source {
    messages.first().map_or(Source::NODE, |(_, submission)| submission.source)
}
