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
    /// Who is to own a partition depends on an order that differs from node to node.
    PlacementUnordered,
    /// Owners are chosen without regard to their zones.
    ZoneIgnored,
    /// A leader takes for committed what its own disk has.
    FollowersNotAwaited,
    /// A follower that was given the state counts before it has the messages that are retained.
    RetainedNotCopied,
    /// A member that lacks what is older than its state may lead.
    TailMayLead,
    /// A leader that cannot read an entry tells only whoever asked for it.
    DamageKeptToItself,
    /// A copy that is moved counts before it holds anything.
    MovedBeforeInSync,
    /// Whoever says that it is about to end is waited for until it is silent.
    FarewellUnheard,
    /// A follower says that it holds entries before they are synced.
    ReplicaAnsweredEarly,
    /// A leader counts by the set that it has proposed, agreed on or not.
    SetChangedBeforeAgreed,
    /// A member whose run did not end in order counts as before where that is relied on.
    UncleanRunCounts,
    /// A set may become smaller than it is to stay.
    SetBelowMin,
    /// A new leader cuts what it does not know to be committed.
    LeaderCutsItsTail,
    /// A new leader serves its whole log before its first entry is committed.
    ServesBeforeStart,
    /// A new leader goes on in the epoch of the one before.
    EpochInherited,
    /// A member grants its vote before it is stored.
    VoteAnsweredEarly,
    /// A member says that it has entries before they are synced.
    AppendAnsweredEarly,
    /// What a snapshot covers is stored before the snapshot.
    SnapshotHeadFirst,
    /// A snapshot is stored over a newer one.
    SnapshotReplacedByOlder,
    /// Metadata that are damaged are taken for none.
    DamageTakenForNone,
    /// A node whose disk was replaced goes on as the member that it was.
    WipedKeepsIdentity,
    /// All voters wait equally long before they stand for election.
    ElectionWithoutJitter,
    /// A node that no seed answers founds a cluster of its own.
    FoundsInSilence,
    /// A change is acknowledged when it is proposed.
    ChangeAnsweredEarly,
    /// A change that does not come to the leader itself goes nowhere.
    ProposalNotHandedOn,
    /// Since when a node is down, each node says by something of its own.
    DownByOwnClock,
    /// A node ends when a voter does not know it yet.
    UnknownTakenForRetired,
    /// How long a node has been silent is judged by the wall clock.
    SessionsByTheWallClock,
    /// A member that objects to a suspicion does not raise its incarnation.
    RefutesWithoutRaise,
    /// A verdict about an old incarnation overrides the word of a newer one.
    OldFailedOverrides,
    /// A newcomer is told of once, on one datagram.
    JoinToldOnce,
    /// A node that hands on what another one handed to it does not count that.
    HopsCountedAtTheOriginOnly,
    /// What a follower holds of an earlier reign counts in the next one, without a look at where
    /// its log parts from the leader's.
    EarlierReignCounts,
    /// A leader counts answers and not followers: one that says the same twice is two.
    AnswersCounted,
    /// Who leads no more acknowledges what it appended when its place is committed, whatever now
    /// stands there.
    DeposedAcknowledges,
    /// As much is sent to a follower as there is, whether it answers or not.
    FlightWithoutBound,
    /// The checksum of an entry is of its content alone: neither partition nor index is in it.
    PlaceNotSealed,
    /// Followers are sent to in the order of a hash map.
    SentInHashOrder,
    /// A breaker that was opened once is never closed again.
    BreakerNeverCloses,
}

#[cfg(zoo)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    static SEAT: std::cell::Cell<u128> = const { std::cell::Cell::new(0) };
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

/// How many answers there were for each entry, whoever gave them, where that is planted.
#[cfg(zoo)]
#[derive(Debug, Default)]
pub struct Tally(std::collections::BTreeMap<crate::ids::EntryIndex, usize>);

/// Nothing: answers are not counted.
#[cfg(not(zoo))]
#[derive(Debug, Default)]
pub struct Tally(());

#[cfg(zoo)]
impl Tally {
    /// Somebody has answered that he holds all up to this entry.
    pub fn count(&mut self, held: crate::ids::EntryIndex) {
        *self.0.entry(held).or_insert(0) += 1;
    }

    /// The last entry for which there were so many answers; none where that is not planted.
    #[must_use]
    pub fn reached(&self, answers: usize) -> crate::ids::EntryIndex {
        let enough = |(_, count): &(_, &usize)| **count >= answers;
        let last = self.0.iter().rev().find(enough).map(|(index, _)| *index);
        last.filter(|_| planted(Bug::AnswersCounted)).unwrap_or_default()
    }

    /// What was answered before this entry says nothing any more.
    pub fn forget(&mut self, before: crate::ids::EntryIndex) {
        self.0 = self.0.split_off(&before);
    }
}

#[cfg(not(zoo))]
impl Tally {
    /// Somebody has answered.
    #[inline]
    pub const fn count(&mut self, _: crate::ids::EntryIndex) {}

    /// None.
    #[must_use]
    #[inline]
    pub const fn reached(&self, _: usize) -> crate::ids::EntryIndex {
        crate::ids::EntryIndex(0)
    }

    /// Nothing is remembered.
    #[inline]
    pub const fn forget(&mut self, _: crate::ids::EntryIndex) {}
}

/// Puts these into the order of a hash map whose seed is an address, and so differs from process to
/// process, where this bug is planted.
#[cfg(zoo)]
pub fn jumble(bug: Bug, some: &mut [crate::ids::DiskId]) {
    use std::hash::{Hash, Hasher};
    let seed = PLANTED.with(|cell| std::ptr::from_ref(cell).addr());
    if planted(bug) {
        some.sort_by_key(|disk| {
            let mut hash = crate::machine::Digest::default();
            (seed, disk).hash(&mut hash);
            hash.finish()
        });
    }
}

/// Leaves these in their order.
#[cfg(not(zoo))]
#[inline]
pub const fn jumble(_: Bug, _: &mut [crate::ids::DiskId]) {}

/// A node's machine works on this thread from now on: what an order without rule would depend on.
#[cfg(zoo)]
pub fn sit(seat: u128) {
    SEAT.set(seat);
}

/// A node's machine works on this thread from now on.
#[cfg(not(zoo))]
#[inline]
pub const fn sit(_: u128) {}

/// What the node has for itself where this bug is planted, instead of a rule; otherwise 0.
#[cfg(zoo)]
#[must_use]
pub fn seat(bug: Bug) -> u128 {
    if planted(bug) { SEAT.get() } else { 0 }
}

/// What the node has for itself where this bug is planted, instead of a rule; otherwise 0.
#[cfg(not(zoo))]
#[must_use]
#[inline]
pub const fn seat(_: Bug) -> u128 {
    0
}
