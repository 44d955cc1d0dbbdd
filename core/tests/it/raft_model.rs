//! Raft's rules as a model: good histories pass and are counted, and each bad one is named.

use std::collections::BTreeSet;

use sprawl_core::cluster::raft::{Entry, LogId, RaftCounts, RaftEvent, RaftModel, Voters};
use sprawl_core::ids::NodeId;

const THREE: [u64; 3] = [1, 2, 3];

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn voters(ids: &[u64]) -> Voters {
    vec![ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>()]
}

fn entry(term: u64, index: u64) -> Entry {
    let voters = (index == 1).then(|| voters(&THREE));
    Entry { id: id(term, index), content: term * 1_000 + index, voters }
}

fn appended(term: u64, indexes: std::ops::RangeInclusive<u64>) -> RaftEvent {
    RaftEvent::Appended(indexes.map(|index| entry(term, index)).collect())
}

fn stored(term: u64, candidate: u64) -> RaftEvent {
    RaftEvent::VoteStored { term, candidate: NodeId(candidate) }
}

fn voted(term: u64, candidate: u64) -> RaftEvent {
    RaftEvent::VoteAnswered { term, candidate: NodeId(candidate) }
}

/// A history, and the name of the rule that its last event breaks.
struct History {
    model: RaftModel,
}

fn answered(term: u64, last: LogId) -> RaftEvent {
    RaftEvent::AppendAnswered { term, last }
}

impl History {
    /// Node 1 leads in term 1 and has committed two entries on all three.
    fn begun() -> Self {
        let mut history = Self { model: RaftModel::default() };
        for node in THREE {
            history.good(node, stored(1, 1));
            history.good(node, voted(1, 1));
        }
        history.good(1, RaftEvent::Elected { term: 1 });
        for node in THREE {
            history.good(node, appended(1, 1..=2));
            history.good(node, RaftEvent::Flushed(id(1, 2)));
            history.good(node, answered(1, id(1, 2)));
        }
        for node in THREE {
            history.good(node, RaftEvent::Committed(id(1, 2)));
            history.good(node, RaftEvent::Applied { index: 2, digest: 7 });
        }
        history
    }

    #[track_caller]
    fn good(&mut self, node: u64, event: RaftEvent) {
        assert_eq!(self.model.observe(NodeId(node), &event), Ok(()), "{node} {event:?}");
    }

    #[track_caller]
    fn bad(&mut self, node: u64, event: RaftEvent, rule: &str) {
        let found = self.model.observe(NodeId(node), &event);
        assert_eq!(found.map_err(|broken| broken.invariant), Err(rule), "{node} {event:?}");
    }
}

#[test]
fn a_good_history_is_counted() {
    let mut history = History::begun();
    // Node 3 dies with an entry that nobody else has; node 2 leads; node 3 comes back.
    history.good(3, stored(2, 3));
    history.good(3, RaftEvent::Elected { term: 2 });
    history.good(3, appended(2, 3..=4));
    history.good(3, RaftEvent::Flushed(id(2, 3)));
    history.good(3, RaftEvent::Started);
    for node in [1, 2] {
        history.good(node, stored(3, 2));
        history.good(node, voted(3, 2));
    }
    history.good(2, RaftEvent::Elected { term: 3 });
    for node in [1, 2] {
        history.good(node, appended(3, 3..=3));
        history.good(node, RaftEvent::Flushed(id(3, 3)));
    }
    history.good(2, RaftEvent::Committed(id(3, 3)));
    history.good(3, RaftEvent::Truncated { from: 3 });
    history.good(3, appended(3, 3..=3));
    // Node 1 makes a snapshot and purges; node 2 is sent it.
    let snapshot = |is_installed| RaftEvent::SnapshotStored {
        last: id(3, 3),
        voters: voters(&THREE),
        is_installed,
    };
    history.good(1, snapshot(false));
    history.good(1, RaftEvent::Purged { upto: 3 });
    history.good(3, snapshot(true));
    history.good(3, RaftEvent::Started);
    history.good(3, RaftEvent::Applied { index: 3, digest: 9 });
    history.good(2, RaftEvent::Applied { index: 3, digest: 9 });
    let expected = RaftCounts {
        elections: 3,
        votes: 5,
        commits: 3,
        applied: 5,
        truncations: 1,
        snapshots_installed: 1,
        membership_changes: 1,
        purges: 1,
        starts: 2,
    };
    assert_eq!(history.model.counts(), expected);
}

#[test]
fn two_leaders_of_a_term_are_noticed() {
    let mut history = History::begun();
    history.bad(2, RaftEvent::Elected { term: 1 }, "ElectionSafety");
}

#[test]
fn two_votes_in_a_term_are_noticed() {
    let mut history = History::begun();
    history.bad(3, stored(1, 2), "OneVotePerTerm");
    let mut history = History::begun();
    history.good(3, stored(2, 2));
    history.good(3, voted(2, 2));
    history.bad(3, voted(2, 1), "OneVotePerTerm");
}

#[test]
fn a_vote_that_is_not_on_the_disk_is_noticed() {
    let mut history = History::begun();
    history.bad(3, voted(2, 2), "OneVotePerTerm");
    let mut history = History::begun();
    history.bad(2, RaftEvent::Elected { term: 2 }, "OneVotePerTerm");
    let mut history = History::begun();
    history.good(3, stored(5, 2));
    history.bad(3, stored(4, 2), "VoteDurable");
}

#[test]
fn entries_that_differ_are_noticed() {
    let mut history = History::begun();
    history.good(1, appended(1, 3..=3));
    let other = Entry { content: 1, ..entry(1, 3) };
    history.bad(2, RaftEvent::Appended(vec![other]), "LogMatching");
    let mut history = History::begun();
    history.bad(2, appended(1, 4..=4), "LogMatching");
    // The same entry after another one.
    let mut history = History::begun();
    history.good(1, appended(2, 3..=4));
    history.good(2, appended(3, 3..=3));
    history.bad(2, appended(2, 4..=4), "LogMatching");
}

#[test]
fn an_answer_before_the_flush_is_noticed() {
    let mut history = History::begun();
    history.good(2, appended(1, 3..=3));
    history.bad(2, answered(1, id(1, 3)), "LogMatching");
    history.good(2, RaftEvent::Flushed(id(1, 3)));
    history.good(2, answered(1, id(1, 3)));
    history.good(2, RaftEvent::Started);
    history.good(2, answered(1, id(1, 3)));
}

#[test]
fn what_was_cut_back_is_said_only_to_who_leads_no_more() {
    let mut history = History::begun();
    history.good(2, appended(1, 3..=3));
    history.good(2, RaftEvent::Flushed(id(1, 3)));
    history.good(2, appended(1, 4..=4));
    history.good(2, RaftEvent::LeaderStored { term: 2, leader: NodeId(3) });
    history.good(2, RaftEvent::Truncated { from: 3 });
    history.good(2, answered(1, id(1, 3)));
    history.bad(2, answered(1, id(1, 4)), "LogMatching");
    history.bad(2, answered(2, id(1, 3)), "LogMatching");
    history.good(2, RaftEvent::Started);
    history.bad(2, answered(1, id(1, 3)), "LogMatching");
}

#[test]
fn a_leader_that_lacks_what_was_committed_is_noticed() {
    let mut history = History::begun();
    for node in [1, 2] {
        history.good(node, appended(1, 3..=3));
        history.good(node, RaftEvent::Flushed(id(1, 3)));
    }
    history.good(1, RaftEvent::Committed(id(1, 3)));
    history.good(3, stored(2, 3));
    history.bad(3, RaftEvent::Elected { term: 2 }, "LeaderCompleteness");
    history.bad(2, RaftEvent::Truncated { from: 3 }, "LeaderCompleteness");
}

#[test]
fn who_hears_late_that_it_was_elected_may_lack_what_was_committed_since() {
    let mut history = History::begun();
    history.good(3, stored(2, 3));
    for node in [1, 2] {
        history.good(node, stored(3, 1));
        history.good(node, appended(3, 3..=3));
        history.good(node, RaftEvent::Flushed(id(3, 3)));
    }
    history.good(1, RaftEvent::Elected { term: 3 });
    history.good(1, RaftEvent::Committed(id(3, 3)));
    history.good(3, RaftEvent::Elected { term: 2 });
    history.good(3, stored(4, 3));
    history.bad(3, RaftEvent::Elected { term: 4 }, "LeaderCompleteness");
}

#[test]
fn a_commit_without_a_quorum_on_disks_is_noticed() {
    let mut history = History::begun();
    for node in [1, 2] {
        history.good(node, appended(1, 3..=3));
    }
    history.good(1, RaftEvent::Flushed(id(1, 3)));
    history.bad(1, RaftEvent::Committed(id(1, 3)), "CommittedOnQuorum");
    history.good(2, RaftEvent::Flushed(id(1, 3)));
    history.good(1, RaftEvent::Committed(id(1, 3)));
    // While voters change both sets must have it.
    let both = vec![voters(&THREE).remove(0), voters(&[3, 4, 5]).remove(0)];
    let change = Entry { voters: Some(both), ..entry(1, 4) };
    for node in [1, 2] {
        history.good(node, RaftEvent::Appended(vec![change.clone()]));
        history.good(node, RaftEvent::Flushed(id(1, 4)));
    }
    history.bad(1, RaftEvent::Committed(id(1, 4)), "CommittedOnQuorum");
}

#[test]
fn states_that_differ_are_noticed() {
    let mut history = History::begun();
    history.bad(1, RaftEvent::Applied { index: 2, digest: 8 }, "StateMachineSafety");
    history.bad(1, RaftEvent::Applied { index: 3, digest: 8 }, "StateMachineSafety");
    history.bad(1, RaftEvent::Committed(id(2, 2)), "StateMachineSafety");
}

#[test]
fn a_purge_beyond_the_snapshot_is_noticed() {
    let mut history = History::begun();
    history.bad(1, RaftEvent::Purged { upto: 2 }, "SnapshotCoversPurged");
    let mut history = History::begun();
    let (last, voters) = (id(1, 1), voters(&THREE));
    history.good(1, RaftEvent::SnapshotStored { last, voters, is_installed: false });
    history.good(1, RaftEvent::Purged { upto: 1 });
    history.bad(1, RaftEvent::Purged { upto: 2 }, "SnapshotCoversPurged");
    history.bad(1, RaftEvent::Started, "SnapshotCoversPurged");
}

#[test]
fn a_snapshot_stored_over_a_newer_one_is_noticed() {
    let mut history = History::begun();
    let stored = |index| {
        let (last, voters) = (id(1, index), voters(&THREE));
        RaftEvent::SnapshotStored { last, voters, is_installed: false }
    };
    history.good(1, stored(2));
    history.good(1, stored(2));
    history.bad(1, stored(1), "SnapshotCoversPurged");
}
