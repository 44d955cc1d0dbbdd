//! What openraft's parameters are here, and its times.

use std::fmt;
use std::net::SocketAddr;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::{Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use sprawl_core::cluster::metadata::Change;
use sprawl_core::ids::DiskId;
use sprawl_core::zoo::{Bug, planted};

use super::runtime::Runtime;
use crate::peer::Peer;

/// The shortest time without a leader after which a voter stands for election, in milliseconds.
const ELECTION_MS_MIN: u64 = 300;
/// The longest. It is drawn anew for each election, so that two voters do not collide for ever.
const ELECTION_MS_MAX: u64 = 600;
/// How often a leader says that it is there, in milliseconds.
const HEARTBEAT_MS: u64 = 100;
/// For how long a leader that no majority answers is silent, and then speaks again, in
/// milliseconds: it is in its silence that the others elect.
const PROBE_MS: u64 = 1_200;
/// After how many entries the metadata are stored as a snapshot, unless somebody says otherwise.
pub const SNAPSHOT_ENTRIES: u64 = 4_096;
/// Which part of them stays in the log behind a snapshot, for followers that are a little behind.
const KEPT_PART: u64 = 4;
/// How long a snapshot may take, in milliseconds.
const SNAPSHOT_MS_MAX: u64 = 60_000;
/// How many entries go in one request: as many of the largest fit into a frame of their lane.
const REQUEST_ENTRIES_MAX: u64 = 32;

const _: () = assert!(3 * HEARTBEAT_MS <= ELECTION_MS_MIN, "a lost heartbeat is no election");
const _: () = assert!(PROBE_MS >= 2 * ELECTION_MS_MAX, "openraft asks for that much");
const _: () = assert!(KEPT_PART > 1, "a snapshot shortens the log");

/// Who a member is, and where it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) disk: DiskId,
    pub(crate) address: SocketAddr,
}

impl Place {
    pub(super) fn peer(&self) -> Peer {
        Peer { address: self.address, disk: Some(self.disk), moves: true }
    }
}

/// Openraft wants one; no member is there.
impl Default for Place {
    fn default() -> Self {
        Self { disk: DiskId(0), address: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

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
        Node = Place,
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

/// The group's times and sizes, with a snapshot after so many entries.
pub(super) fn config(snapshot_entries: u64) -> Config {
    let kept_entries = snapshot_entries / KEPT_PART;
    let jitterless = planted(Bug::ElectionWithoutJitter);
    let election_max = if jitterless { ELECTION_MS_MIN + 1 } else { ELECTION_MS_MAX };
    Config {
        cluster_name: "sprawl".to_owned(),
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: election_max,
        heartbeat_interval: HEARTBEAT_MS,
        install_snapshot_timeout: SNAPSHOT_MS_MAX,
        max_payload_entries: REQUEST_ENTRIES_MAX,
        // A peer that was away is tried again soon: its session is timed.
        backoff: "50ms, 100ms, 200ms ...400ms".to_owned(),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
        replication_lag_threshold: snapshot_entries + kept_entries,
        max_in_snapshot_log_to_keep: kept_entries,
        quorum_loss_probe_interval: Some(PROBE_MS),
        enable_pre_vote: Some(true),
        // Up to where the log is committed is stored late: a leader that returns is elected anew.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
