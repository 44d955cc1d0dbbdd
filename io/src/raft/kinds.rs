//! What openraft's parameters are here, and its times.

use std::fmt;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::{BasicNode, Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use sprawl_core::cluster::metadata::Change;

use super::runtime::Runtime;

/// The shortest time without a leader after which a voter stands for election, in milliseconds.
const ELECTION_MS_MIN: u64 = 300;
/// The longest. It is drawn anew for each election, so that two voters do not collide for ever.
const ELECTION_MS_MAX: u64 = 600;
/// How often a leader says that it is there, in milliseconds.
const HEARTBEAT_MS: u64 = 100;
/// For how long a leader that no majority answers is silent, and then speaks again, in
/// milliseconds: it is in its silence that the others elect.
const PROBE_MS: u64 = 1_200;
/// After how many entries the metadata are stored as a snapshot.
const SNAPSHOT_ENTRIES: u64 = 4_096;
/// How many entries stay in the log behind a snapshot, for followers that are a little behind.
const KEPT_ENTRIES: u64 = 1_024;
/// How long a piece of a snapshot may take, in milliseconds.
const SNAPSHOT_MS_MAX: u64 = 10_000;

const _: () = assert!(3 * HEARTBEAT_MS <= ELECTION_MS_MIN, "a lost heartbeat is no election");
const _: () = assert!(PROBE_MS >= 2 * ELECTION_MS_MAX, "openraft asks for that much");
const _: () = assert!(KEPT_ENTRIES < SNAPSHOT_ENTRIES, "a snapshot shortens the log");

/// A change, as openraft carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreed(pub(crate) Change);

/// Openraft's own log lines name what they carry; what is in it stays out of them.
impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }
}

openraft::declare_raft_types!(
    /// The metadata's group: changes are agreed on, and answered by nothing but their place.
    pub(crate) Kinds:
        D = Agreed,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// An entry of the log.
pub(super) type Entry = EntryOf<Kinds>;
/// The place of an entry: whose term, which index.
pub(super) type LogId = LogIdOf<Kinds>;
/// Who leads, or is voted for.
pub(super) type Vote = VoteOf<Kinds>;
/// Who belongs to the group, and since which entry.
pub(super) type Members = StoredMembershipOf<Kinds>;
/// What a snapshot covers.
pub(super) type SnapshotMeta = SnapshotMetaOf<Kinds>;
/// A snapshot with the bytes of its view.
pub(super) type Snapshot = SnapshotOf<Kinds, bytes::Bytes>;

/// The group's times and sizes.
pub(super) fn config() -> Config {
    Config {
        cluster_name: "sprawl".to_owned(),
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        heartbeat_interval: HEARTBEAT_MS,
        install_snapshot_timeout: SNAPSHOT_MS_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        replication_lag_threshold: SNAPSHOT_ENTRIES + KEPT_ENTRIES,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        quorum_loss_probe_interval: Some(PROBE_MS),
        enable_pre_vote: Some(true),
        // Up to where the log is committed is stored late: a leader that returns is elected anew.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
