//! Raft's rules as a pure model: it is fed with what every node stored, said and applied, and says
//! which rule was broken first.
//!
//! It observes and decides nothing. The rules are those of Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm" (2014), figure 3, with the durability that they rest on. A
//! term has one vote of each node, so an implementation that ranks candidates within a term hands
//! in terms that rank them too. What the model remembers grows with the log: it is made for runs
//! that end.

mod server;

use std::collections::{BTreeMap, BTreeSet};

use self::server::Server;
use crate::ids::NodeId;
use crate::machine::Broken;

/// The place of an entry, and the term of the leader that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term.
    pub term: u64,
    /// The place in the log, from 1.
    pub index: u64,
}

/// The sets of voters that each must agree by majority: one, or two while they change.
pub type Voters = Vec<BTreeSet<NodeId>>;

/// An entry as a node stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// A hash of its content.
    pub content: u64,
    /// Who votes from this entry on, if it says so.
    pub voters: Option<Voters>,
}

/// What a node found on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// The newest vote: its term, and for whom.
    pub vote: Option<(u64, NodeId)>,
    /// The log, in its order.
    pub log: Vec<Entry>,
    /// Up to where the log was purged.
    pub purged: u64,
    /// The last entry of the snapshot.
    pub snapshot: LogId,
    /// Who votes after the snapshot.
    pub voters: Voters,
}

/// What a node did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RaftEvent {
    /// Its process has started: what it had not synced is gone.
    Started,
    /// It has read its disk, and takes part with what it found there.
    Recovered(Recovered),
    /// Its vote is on the disk, synced.
    VoteStored {
        /// The term.
        term: u64,
        /// For whom.
        candidate: NodeId,
    },
    /// It knows who leads, and has that on its disk, synced: it votes for nobody else in the term.
    LeaderStored {
        /// The term.
        term: u64,
        /// Who leads.
        leader: NodeId,
    },
    /// It granted its vote, to another node or to itself.
    VoteAnswered {
        /// The term.
        term: u64,
        /// To whom.
        candidate: NodeId,
    },
    /// It leads.
    Elected {
        /// The term.
        term: u64,
    },
    /// It handed consecutive entries to its disk.
    Appended(Vec<Entry>),
    /// Its disk has its log up to here, synced.
    Flushed(LogId),
    /// It told a leader that it has the log up to here.
    AppendAnswered {
        /// In which term that one leads.
        term: u64,
        /// The last entry.
        last: LogId,
    },
    /// It removed its log from this place on.
    Truncated {
        /// The first index that is gone.
        from: u64,
    },
    /// It has a snapshot on its disk, synced and whole.
    SnapshotStored {
        /// The last entry that the snapshot contains.
        last: LogId,
        /// Who votes after it.
        voters: Voters,
        /// Whether it came from another node.
        is_installed: bool,
    },
    /// It removed its log up to and including this place.
    Purged {
        /// The last index that is gone.
        upto: u64,
    },
    /// It holds its log for committed up to here.
    Committed(LogId),
    /// Its state machine has applied an entry.
    Applied {
        /// The entry's place.
        index: u64,
        /// The digest of the state after it.
        digest: u64,
    },
}

/// How often things happened: a run in which they did not has shown nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RaftCounts {
    /// Leaders elected.
    pub elections: u64,
    /// Votes granted.
    pub votes: u64,
    /// Entries committed.
    pub commits: u64,
    /// Entries applied, over all nodes.
    pub applied: u64,
    /// Logs cut back.
    pub truncations: u64,
    /// Snapshots taken from another node.
    pub snapshots_installed: u64,
    /// Entries committed that say who votes.
    pub membership_changes: u64,
    /// Logs purged.
    pub purges: u64,
    /// Starts of processes.
    pub starts: u64,
}

/// Everything that was seen of one Raft group.
#[derive(Clone, Debug, Default)]
pub struct RaftModel {
    servers: BTreeMap<NodeId, Server>,
    /// Every entry that was ever handed to a disk: its content, and what stood before it.
    entries: BTreeMap<LogId, (u64, LogId)>,
    leaders: BTreeMap<u64, NodeId>,
    granted: BTreeMap<(NodeId, u64), NodeId>,
    committed: BTreeMap<u64, LogId>,
    /// The last entry that was committed in each term, which may be the entry's or a later one.
    committed_in: BTreeMap<u64, LogId>,
    digests: BTreeMap<u64, u64>,
    counts: RaftCounts,
}

fn violated(invariant: &'static str, detail: String) -> Result<(), Broken> {
    Err(Broken { invariant, detail })
}

impl RaftModel {
    /// A node did something.
    ///
    /// # Errors
    ///
    /// The rule that it broke, with the values: ElectionSafety, LogMatching, LeaderCompleteness,
    /// StateMachineSafety, CommittedOnQuorum, VoteDurable, LogDurable, OneVotePerTerm or
    /// SnapshotCoversPurged.
    pub fn observe(&mut self, node: NodeId, event: &RaftEvent) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        match event {
            RaftEvent::Started => {
                self.counts.starts += 1;
                server.start();
                self.covers_purged(node)
            }
            RaftEvent::Recovered(found) => self.recover(node, found),
            RaftEvent::VoteStored { term, candidate } => self.store_vote(node, *term, *candidate),
            RaftEvent::LeaderStored { term, leader } => {
                match server.vote {
                    Some((known, _)) if known >= *term => {}
                    Some(_) | None => server.vote = Some((*term, *leader)),
                }
                Ok(())
            }
            RaftEvent::VoteAnswered { term, candidate } => self.vote(node, *term, *candidate),
            RaftEvent::Elected { term } => self.elect(node, *term),
            RaftEvent::Appended(entries) => {
                entries.iter().try_for_each(|entry| self.append(node, entry))
            }
            RaftEvent::Flushed(last) => {
                server.flush(*last);
                Ok(())
            }
            RaftEvent::AppendAnswered { term, last } => self.vouch(node, *term, *last),
            RaftEvent::Truncated { from } => self.truncate(node, *from),
            RaftEvent::SnapshotStored { last, voters, is_installed } => {
                self.counts.snapshots_installed += u64::from(*is_installed);
                let before = server.snapshot;
                server.take_snapshot(*last, voters.clone(), *is_installed);
                if last.index < before.index {
                    let detail = format!("{node} stored its snapshot {last:?} over {before:?}");
                    return violated("SnapshotCoversPurged", detail);
                }
                self.agrees(node, *last, "a snapshot")
            }
            RaftEvent::Purged { upto } => {
                self.counts.purges += 1;
                server.purge(*upto);
                self.covers_purged(node)
            }
            RaftEvent::Committed(last) => self.commit(node, *last),
            RaftEvent::Applied { index, digest } => self.apply(node, *index, *digest),
        }
    }

    /// How often things happened.
    #[must_use]
    pub fn counts(&self) -> RaftCounts {
        self.counts
    }

    fn recover(&mut self, node: NodeId, found: &Recovered) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        let (before, vote) = (server.vote, found.vote);
        if before.is_some_and(|(term, _)| vote.is_none_or(|(found, _)| found < term)) {
            let detail = format!("{node} had stored the vote {before:?}, and found {vote:?}");
            return violated("VoteDurable", detail);
        }
        if let Some(lost) = server.recover(found) {
            return violated("LogDurable", format!("{node} had synced {lost:?}, and lost it"));
        }
        let is_other = |entry: &&Entry| {
            self.entries.get(&entry.id).is_none_or(|(content, _)| *content != entry.content)
        };
        if let Some(entry) = found.log.iter().find(is_other) {
            let detail = format!("{node} found {:?} on its disk, nobody wrote that", entry.id);
            return violated("LogMatching", detail);
        }
        self.covers_purged(node)
    }

    fn store_vote(&mut self, node: NodeId, term: u64, candidate: NodeId) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        let before = server.vote.replace((term, candidate));
        match before {
            Some((old, other)) if old == term && other != candidate => {
                let detail = format!("{node} stored votes for {other} and {candidate} in {term}");
                violated("OneVotePerTerm", detail)
            }
            Some((old, _)) if old > term => {
                violated("VoteDurable", format!("{node} went back from term {old} to {term}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn vote(&mut self, node: NodeId, term: u64, candidate: NodeId) -> Result<(), Broken> {
        self.counts.votes += 1;
        let first = *self.granted.entry((node, term)).or_insert(candidate);
        if first != candidate {
            let detail = format!("{node} voted for {first} and {candidate} in term {term}");
            return violated("OneVotePerTerm", detail);
        }
        let stored = self.servers.entry(node).or_default().vote;
        let holds = stored == Some((term, candidate)) || stored.is_some_and(|(t, _)| t > term);
        if holds {
            return Ok(());
        }
        // A restart would forget it, and vote again.
        let detail = format!("{node} voted for {candidate} in term {term}, stored is {stored:?}");
        violated("OneVotePerTerm", detail)
    }

    fn elect(&mut self, node: NodeId, term: u64) -> Result<(), Broken> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            return violated("ElectionSafety", format!("{first} and {node} lead in term {term}"));
        }
        self.counts.elections += 1;
        let server = self.servers.entry(node).or_default();
        if server.vote != Some((term, node)) {
            let detail =
                format!("{node} leads in term {term}, its stored vote is {:?}", server.vote);
            return violated("OneVotePerTerm", detail);
        }
        // Who was elected in an earlier term, and hears of it late, is deposed before it commits.
        let before = self.committed_in.range(..term).next_back();
        let Some((_, last)) = before else { return Ok(()) };
        if self.servers.entry(node).or_default().has(*last) {
            return Ok(());
        }
        let detail = format!("{node} leads in term {term} without the committed {last:?}");
        violated("LeaderCompleteness", detail)
    }

    fn append(&mut self, node: NodeId, entry: &Entry) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        let before = server.last();
        server.append(entry);
        if before.index + 1 != entry.id.index {
            let detail = format!("{node} appends {:?} after {before:?}", entry.id);
            return violated("LogMatching", detail);
        }
        let found = (entry.content, before);
        let known = *self.entries.entry(entry.id).or_insert(found);
        if known == found {
            return Ok(());
        }
        let id = entry.id;
        let detail = format!("{id:?} is {known:?} (content, predecessor), on {node} {found:?}");
        violated("LogMatching", detail)
    }

    fn vouch(&mut self, node: NodeId, term: u64, last: LogId) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        // What it says to a leader that was deposed meanwhile was so when that one asked.
        let is_deposed = server.vote.is_some_and(|(newer, _)| newer > term);
        if server.has_durably(last) || is_deposed && server.had_durably(last) {
            return Ok(());
        }
        violated("LogMatching", format!("{node} says that it has {last:?}, its disk does not"))
    }

    fn truncate(&mut self, node: NodeId, from: u64) -> Result<(), Broken> {
        self.counts.truncations += 1;
        let server = self.servers.entry(node).or_default();
        let committed = self.committed.range(from..).find(|(_, id)| server.has(**id));
        let lost = committed.map(|(_, id)| *id);
        server.truncate(from);
        match lost {
            Some(id) => violated("LeaderCompleteness", format!("{node} cut the committed {id:?}")),
            None => Ok(()),
        }
    }

    fn covers_purged(&mut self, node: NodeId) -> Result<(), Broken> {
        let server = self.servers.entry(node).or_default();
        if server.snapshot.index >= server.purged {
            return Ok(());
        }
        let (purged, snapshot) = (server.purged, server.snapshot);
        let detail = format!("{node} purged its log up to {purged}, its snapshot is {snapshot:?}");
        violated("SnapshotCoversPurged", detail)
    }

    /// What a node takes for committed is what was committed.
    fn agrees(&self, node: NodeId, id: LogId, what: &str) -> Result<(), Broken> {
        match self.committed.get(&id.index) {
            Some(known) if *known == id => Ok(()),
            // Below what was committed first there is nothing to agree on.
            None if self.committed.keys().next().is_none_or(|first| id.index < *first) => Ok(()),
            known => {
                let detail = format!("{node} has {what} at {id:?}, committed is {known:?}");
                violated("StateMachineSafety", detail)
            }
        }
    }

    fn commit(&mut self, node: NodeId, last: LogId) -> Result<(), Broken> {
        let newest = self.committed.keys().next_back().copied().unwrap_or(0);
        if last.index <= newest {
            return self.agrees(node, last, "a commit");
        }
        let first = self.servers.entry(node).or_default().clone();
        if !first.has(last) {
            return violated("CommittedOnQuorum", format!("{node} commits {last:?} without it"));
        }
        // Who voted is what the log of the leader says that made the entry or took it over.
        let leader = self.leaders.values().next_back().and_then(|id| self.servers.get(id));
        let log = leader.filter(|leader| leader.has(last)).unwrap_or(&first);
        for set in log.voters() {
            let holds =
                |id: &&NodeId| self.servers.get(*id).is_some_and(|server| server.has_durably(last));
            let holders = set.iter().filter(holds).count();
            if holders * 2 <= set.len() {
                let detail = format!("{node} commits {last:?}, {holders} of {set:?} hold it");
                return violated("CommittedOnQuorum", detail);
            }
        }
        for id in first.range(newest + 1, last.index) {
            self.counts.commits += 1;
            self.counts.membership_changes += u64::from(first.says_voters(id.index));
            self.committed.insert(id.index, id);
        }
        self.committed.insert(last.index, last);
        let term = first.vote.map_or(last.term, |(term, _)| term);
        self.committed_in.insert(term, last);
        Ok(())
    }

    fn apply(&mut self, node: NodeId, index: u64, digest: u64) -> Result<(), Broken> {
        self.counts.applied += 1;
        if !self.committed.contains_key(&index) {
            let detail = format!("{node} applied {index}, which nobody has committed");
            return violated("StateMachineSafety", detail);
        }
        let first = *self.digests.entry(index).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        let detail = format!("after {index} one state is {first:x}, on {node} it is {digest:x}");
        violated("StateMachineSafety", detail)
    }
}
