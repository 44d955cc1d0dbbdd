//! One connection: two ends, and what is under way from each to the other.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// How many bytes may be written and not yet read at the other end.
pub(super) const WINDOW_BYTES: usize = 256 << 10;
/// After how long what is not answered is sent again, at first; then it doubles.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The same for what opens a connection.
const OPEN_RETRY: Duration = Duration::from_secs(1);
/// After how long without success a connection is given up.
pub(super) const GIVE_UP: Duration = Duration::from_secs(60);

/// What one end sends to the other.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// Somebody wants to connect.
    Open,
    /// Somebody listens.
    Opened,
    /// Both know.
    Established,
    Data(Bytes),
    /// How many bytes were read; this end may write as many more.
    Read(usize),
    /// Nothing more comes.
    Finish,
}

/// Why segments wait: the link or the other machine is silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    pub(super) since: Instant,
    pub(super) retry: Duration,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) at: SocketAddr,
    /// What it has sent that did not arrive yet, in order, with when it will.
    pub(super) under_way: VecDeque<(Instant, Segment)>,
    pub(super) stall: Option<Stall>,
    /// Bytes written that the other end has not read, as far as this one knows.
    pub(super) unread: usize,
    pub(super) received: VecDeque<Bytes>,
    pub(super) open: bool,
    /// It has said that nothing more comes.
    pub(super) finished: bool,
    /// The other end has said so.
    pub(super) ended: bool,
    pub(super) broken: Option<ErrorKind>,
    /// Its process has let go of it.
    pub(super) gone: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl End {
    pub(super) fn new(at: SocketAddr) -> Self {
        Self {
            at,
            under_way: VecDeque::new(),
            stall: None,
            unread: 0,
            received: VecDeque::new(),
            open: false,
            finished: false,
            ended: false,
            broken: None,
            gone: false,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn wake(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// It hears nothing more, and says nothing more.
    pub(super) fn fail(&mut self, kind: ErrorKind) {
        self.broken = self.broken.or(Some(kind));
        self.under_way.clear();
        self.stall = None;
        self.wake();
    }

    /// What it has sent meets silence: when to try again, or never.
    pub(super) fn stall(&mut self, now: Instant) -> Option<Instant> {
        let opening = matches!(self.under_way.front(), Some((_, Segment::Open)));
        let first = if opening { OPEN_RETRY } else { RETRY_MIN };
        let stall = match self.stall {
            None => Stall { since: now, retry: first },
            Some(Stall { since, retry }) => Stall { since, retry: (retry * 2).min(RETRY_MAX) },
        };
        self.stall = Some(stall);
        (now.duration_since(stall.since) < GIVE_UP).then(|| now + stall.retry)
    }
}

/// The time that a loss costs a connection.
pub(super) fn lost() -> Duration {
    RETRY_MIN
}
