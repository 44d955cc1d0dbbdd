//! The planted bugs: each breaks one rule, so that the simulator can show that it would notice.
//!
//! They exist only under `--cfg zoo`. A run plants at most one, on its own thread, so that runs
//! side by side do not disturb one another.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The writer reports entries as durable before it has synced them.
    NoSync,
    /// The checksum of an entry is not verified when it is read.
    ChecksumUnverified,
    /// The dedup window is empty after a start.
    WindowNotRebuilt,
    /// The producers' newest numbers are forgotten at a start.
    ProducersNotRebuilt,
    /// A restarted leader goes on in its old epoch.
    EpochResumed,
    /// A repeat of an id that is not yet committed is answered at once.
    RepeatAnsweredEarly,
    /// A delayed message is delivered like any other.
    DelayIgnored,
    /// Whether a message's time is over is judged by the wall clock.
    TtlByTheWallClock,
    /// What is too old is judged by the wall clock.
    RetentionByTheWallClock,
    /// A subscription's window has no bound in bytes.
    WindowWithoutBound,
    /// What waits for its turn to be stored has no bound in bytes.
    LobbyWithoutBound,
    /// Whoever comes first may have all the room in which publishes wait.
    LobbyWithoutShares,
    /// A message is done before its dead letter is stored.
    BuriedAfterDone,
    /// A subscription from the latest message begins at its first poll.
    LatestAtFirstPull,
}

#[cfg(zoo)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or none.
#[cfg(zoo)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted here; without `--cfg zoo`, never.
#[cfg(zoo)]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted here; without `--cfg zoo`, never.
#[cfg(not(zoo))]
#[must_use]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}
