//! The phases of the protocol, and what of the nodes' doings shows them.

use std::sync::Arc;

use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::cluster::metadata::{Partition, Standing, View};
use sprawl_core::cluster::raft::RaftEvent;
use sprawl_core::machine::{Response, ShardEffect, ShardInput};

/// Something that goes on in nodes for a moment, and that a fault may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// A process starts.
    Start,
    /// A member of the group is elected.
    Election,
    /// An entry changes who votes.
    Voters,
    /// A member removes the end of the group's log.
    GroupCut,
    /// A member stores a snapshot of the metadata, its own or another one's.
    Snapshot,
    /// A node is declared down, or back.
    Verdict,
    /// A partition is made.
    Made,
    /// A partition is led by another one, or in another epoch.
    Lead,
    /// The set that counts changes.
    InSync,
    /// A member comes to the set with a state and the tail of the log.
    Tail,
    /// A copy is wanted on a node that had none.
    Placed,
    /// A node is new.
    Join,
    /// A node is to leave.
    Leave,
    /// A leader and a replica look for the last entry that both have.
    Match,
    /// A replica that does not count yet is given entries.
    CatchUp,
    /// A replica is given a state.
    Install,
    /// A replica is given what is older than its state.
    Older,
    /// A replica removes the end of its log.
    Cut,
    /// A log loses its beginning.
    Trim,
    /// The state of a partition is stored.
    Checkpoint,
    /// Damage is found in an entry that is read.
    Damage,
    /// A message comes under an id that is known.
    Repeat,
    /// A message is delivered again.
    Redelivery,
    /// A message is delivered whose delay is over.
    Delay,
}

impl Phase {
    pub(crate) const COUNT: usize = 24;

    /// All, in their order.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Start,
        Self::Election,
        Self::Voters,
        Self::GroupCut,
        Self::Snapshot,
        Self::Verdict,
        Self::Made,
        Self::Lead,
        Self::InSync,
        Self::Tail,
        Self::Placed,
        Self::Join,
        Self::Leave,
        Self::Match,
        Self::CatchUp,
        Self::Install,
        Self::Older,
        Self::Cut,
        Self::Trim,
        Self::Checkpoint,
        Self::Damage,
        Self::Repeat,
        Self::Redelivery,
        Self::Delay,
    ];

    /// Those of a cluster: its messages have no delays.
    pub(crate) const OF_A_CLUSTER: &[Self] = Self::ALL.split_last().expect("there are some").1;

    /// Those of a node with its clients.
    pub(crate) const OF_A_NODE: [Self; 7] = [
        Self::Start,
        Self::Trim,
        Self::Checkpoint,
        Self::Damage,
        Self::Repeat,
        Self::Redelivery,
        Self::Delay,
    ];

    /// As tables and the list of excuses have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Election => "election",
            Self::Voters => "voters",
            Self::GroupCut => "group cut",
            Self::Snapshot => "snapshot",
            Self::Verdict => "verdict",
            Self::Made => "made",
            Self::Lead => "lead",
            Self::InSync => "in-sync",
            Self::Tail => "tail",
            Self::Placed => "placed",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Match => "match",
            Self::CatchUp => "catch-up",
            Self::Install => "install",
            Self::Older => "older",
            Self::Cut => "cut",
            Self::Trim => "trim",
            Self::Checkpoint => "checkpoint",
            Self::Damage => "damage",
            Self::Repeat => "repeat",
            Self::Redelivery => "redelivery",
            Self::Delay => "delay",
        }
    }

    /// What a member of the group shows.
    pub(crate) fn of_raft(event: &RaftEvent) -> Option<Self> {
        match event {
            RaftEvent::Elected { .. } => Some(Self::Election),
            RaftEvent::Truncated { .. } => Some(Self::GroupCut),
            RaftEvent::SnapshotStored { .. } => Some(Self::Snapshot),
            RaftEvent::Appended(entries) => {
                entries.iter().any(|entry| entry.voters.is_some()).then_some(Self::Voters)
            }
            RaftEvent::Started => Some(Self::Start),
            RaftEvent::Recovered(_)
            | RaftEvent::VoteStored { .. }
            | RaftEvent::LeaderStored { .. }
            | RaftEvent::VoteAnswered { .. }
            | RaftEvent::Flushed(_)
            | RaftEvent::AppendAnswered { .. }
            | RaftEvent::Purged { .. }
            | RaftEvent::Committed(_)
            | RaftEvent::Applied { .. } => None,
        }
    }

    /// What metadata show that are newer than others.
    pub(crate) fn of_views(before: &View, after: &View, mut tell: impl FnMut(Self)) {
        for (disk, node) in &after.nodes {
            match before.nodes.get(disk) {
                None => tell(Self::Join),
                Some(old) => {
                    if old.down.is_some() != node.down.is_some() {
                        tell(Self::Verdict);
                    }
                    if old.leaving.is_none() && node.leaving.is_some() {
                        tell(Self::Leave);
                    }
                }
            }
        }
        for (id, new) in &after.partitions {
            match before.partitions.get(id) {
                None => tell(Self::Made),
                Some(old) => Self::of_partitions(old, new, &mut tell),
            }
        }
    }

    fn of_partitions(old: &Arc<Partition>, new: &Arc<Partition>, mut tell: impl FnMut(Self)) {
        if Arc::ptr_eq(old, new) {
            return;
        }
        if (old.epoch, old.leader) != (new.epoch, new.leader) {
            tell(Self::Lead);
        }
        if old.in_sync != new.in_sync {
            tell(Self::InSync);
            let is_tail = |disk| {
                let tail = |of: &Partition| {
                    of.member(disk).is_some_and(|member| member.standing == Standing::Tail)
                };
                tail(new) && !tail(old)
            };
            if new.members().any(is_tail) {
                tell(Self::Tail);
            }
        }
        if new.replicas.iter().any(|disk| !old.replicas.contains(disk)) {
            tell(Self::Placed);
        }
    }

    /// What a shard shows by what it takes.
    pub(crate) fn of_input(input: &ShardInput) -> Option<Self> {
        match input {
            ShardInput::ReadDone { result: Err(_), .. } => Some(Self::Damage),
            ShardInput::ReadDone { .. }
            | ShardInput::Requested { .. }
            | ShardInput::Asked { .. }
            | ShardInput::Called { .. }
            | ShardInput::Replicated { .. }
            | ShardInput::Stored(_)
            | ShardInput::DiskFailed
            | ShardInput::DiskSpace(_)
            | ShardInput::Viewed(_)
            | ShardInput::Timed(_)
            | ShardInput::Received { .. }
            | ShardInput::LogEndsAsked { .. }
            | ShardInput::Sought { .. }
            | ShardInput::Woke => None,
        }
    }

    /// What a shard shows by what it wants done, where the metadata are these.
    pub(crate) fn of_effect(effect: &ShardEffect, view: &View, mut tell: impl FnMut(Self)) {
        match effect {
            ShardEffect::Store(store) => {
                for (is_so, phase) in [
                    (store.cut_after.is_some(), Self::Cut),
                    (store.cut.is_some(), Self::Trim),
                    (store.checkpoint.is_some(), Self::Checkpoint),
                ] {
                    if is_so {
                        tell(phase);
                    }
                }
            }
            ShardEffect::Tell { to, partition, message, .. } => match message {
                ReplicaMessage::Match { .. } => tell(Self::Match),
                ReplicaMessage::Install { .. } => tell(Self::Install),
                ReplicaMessage::Older { .. } => tell(Self::Older),
                ReplicaMessage::Append { records, .. } => {
                    let counts =
                        view.partitions.get(partition).is_none_or(|one| one.member(*to).is_some());
                    if !records.is_empty() && !counts {
                        tell(Self::CatchUp);
                    }
                }
                ReplicaMessage::MatchAnswer { .. }
                | ReplicaMessage::AppendAnswer { .. }
                | ReplicaMessage::Lacks { .. }
                | ReplicaMessage::InstallAnswer { .. }
                | ReplicaMessage::Unmatched { .. }
                | ReplicaMessage::Stale { .. } => {}
            },
            ShardEffect::Reply { response: Response::Pulled(all), .. } => {
                for one in all {
                    if one.token.attempt > 1 {
                        tell(Self::Redelivery);
                    }
                    if one.record.header().timing.due.0 > 0 {
                        tell(Self::Delay);
                    }
                }
            }
            ShardEffect::Reply {
                response: Response::Published { duplicate: true, .. }, ..
            } => {
                tell(Self::Repeat);
            }
            ShardEffect::Reply { response: Response::Batch(all), .. } => {
                let repeated =
                    |one: &Response| matches!(one, Response::Published { duplicate: true, .. });
                if all.iter().any(repeated) {
                    tell(Self::Repeat);
                }
            }
            ShardEffect::Reply { .. }
            | ShardEffect::Answer { .. }
            | ShardEffect::Call { .. }
            | ShardEffect::Erase { .. }
            | ShardEffect::Report(_)
            | ShardEffect::Read { .. }
            | ShardEffect::Scan { .. }
            | ShardEffect::Seek { .. }
            | ShardEffect::Send { .. } => {}
        }
    }
}
