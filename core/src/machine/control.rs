//! What passes between the control machine and the world.

use std::sync::Arc;

use super::{ControlStatus, DiskSpace, Refused};
use crate::cluster::ClusterClock;
use crate::cluster::consensus::{RaftChange, RaftStatus};
use crate::cluster::message::{
    AskLogEnds, Complaint, ControlMessage, JoinRefused, Joined, LogEnds,
};
use crate::cluster::metadata::{Adjustment, Change, Leaving, View};
use crate::cluster::pattern::TopicPattern;
use crate::cluster::subscription::{DeliveryAsked, StartFrom};
use crate::cluster::topic::ConfigPatch;
use crate::cluster::verdicts::Verdicts;
use crate::ids::{
    Boot, ChangeIndex, DiskId, PartitionId, RequestId, ShardId, SubscriptionId, TopicName,
};

/// What happened to the control machine.
#[derive(Clone, Debug, Hash)]
pub enum ControlInput {
    /// A client asks for something that the metadata must agree to.
    Requested {
        /// Names the request in the reply.
        id: RequestId,
        /// What is asked.
        request: ControlRequest,
    },
    /// The metadata log committed a change; they come in the log's order, each once.
    Decided {
        /// Its position in the log.
        index: ChangeIndex,
        /// What was agreed.
        change: Change,
        /// The metadata after it.
        view: Arc<View>,
    },
    /// The metadata were replaced by a later snapshot of them; decided changes go on after it.
    Installed {
        /// The metadata as the snapshot has them.
        view: Arc<View>,
    },
    /// The Raft group of the metadata stands differently, or a majority has answered again.
    Raft(RaftStatus),
    /// The control machine of another node sent something.
    Heard {
        /// Which run of which node.
        from: (DiskId, Boot),
        /// What it sent.
        message: ControlMessage,
    },
    /// Gossip judges nodes differently.
    Judged(Arc<Verdicts>),
    /// A shard says something.
    Reported {
        /// Which shard.
        from: ShardId,
        /// What it says.
        report: Report,
    },
    /// The disk began or ceased to take writes.
    DiskSpace(DiskSpace),
    /// A sync failed. It is the last input: nothing is answered after it.
    DiskFailed,
    /// The time that `wakeup` named has come.
    Woke,
}

/// What the control machine wants done.
#[derive(Clone, Debug, Hash)]
pub enum ControlEffect {
    /// Have this change agreed and stored; it comes back as `Decided`.
    Propose(Change),
    /// The same, but by this node as the leader that it is now, or not at all: nobody hands it on.
    Decide(Change),
    /// Carry a message to the control machine of another node, or lose it.
    Send {
        /// To whom.
        to: DiskId,
        /// To which run of it, by the way by which that run was heard; `None` means the registered
        /// one, where the metadata have it.
        run: Option<Boot>,
        /// What.
        message: ControlMessage,
    },
    /// Ask the shards what their logs end with; `Reported` answers, once for each of them.
    AskShards {
        /// Who asks.
        asker: DiskId,
        /// What.
        ask: AskLogEnds,
    },
    /// Change the Raft group that this node leads.
    Reconfigure(RaftChange),
    /// This run is registered: who the node is in the cluster, and who else is.
    Joined(Joined),
    /// Cluster time goes on like this.
    Tell(ClusterClock),
    /// The node stops, with this one line; it is the last effect.
    Halt(Halt),
    /// Show all shards, and whoever else reads it, the newest view.
    Show(Arc<View>),
    /// Make known only who the nodes are and where: no shard is shown this view yet, because this
    /// run is registered in it and does not know cluster time.
    Meet(Arc<View>),
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        response: ControlResponse,
    },
}

/// Why a node may not go on. Its data are as they were.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Halt {
    /// It was refused when it asked to be registered.
    #[error("{0}")]
    Refused(JoinRefused),
    /// A later start of the same identity has registered.
    #[error(
        "this data directory was copied or rolled back: the cluster has registered start {known} \
         of it, this is start {mine}; start with an empty directory"
    )]
    Outdated {
        /// This run.
        mine: Boot,
        /// The registered one.
        known: Boot,
    },
    /// The cluster was recovered without what this directory knows of it.
    #[error(
        "the cluster was recovered from a node that had never heard of this one's registration: \
         start with an empty directory"
    )]
    Forgotten,
    /// The identity was retired: the node has left, or another took its place.
    #[error("this node was retired from the cluster; start it with an empty directory")]
    Retired,
}

impl Halt {
    /// Whether no later start from the same directory may go on either.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(why) => why.is_final(),
            Self::Outdated { .. } | Self::Forgotten | Self::Retired => true,
        }
    }
}

/// What a client asks of the metadata.
#[derive(Clone, Debug, Hash)]
pub enum ControlRequest {
    /// Make a durable subscription, and the topics that it names plainly and that do not exist.
    Subscribe {
        /// Its id; the same id again is the same subscription.
        id: SubscriptionId,
        /// What it means.
        topics: Vec<TopicPattern>,
        /// Where it begins in partitions that already exist.
        from: StartFrom,
        /// How its messages are delivered.
        delivery: DeliveryAsked,
    },
    /// Remove a subscription.
    Unsubscribe {
        /// Its id.
        id: SubscriptionId,
    },
    /// Make a topic, or keep it in another way.
    ConfigureTopic {
        /// Its name.
        name: TopicName,
        /// What changes.
        patch: ConfigPatch,
        /// Whether what the patch does not name goes back to its default.
        reset: bool,
    },
    /// Remove a topic and all that it holds.
    DeleteTopic {
        /// Its name.
        name: TopicName,
    },
    /// Have a node leave the cluster for good.
    Decommission {
        /// The node.
        disk: DiskId,
        /// How.
        how: Leaving,
    },
    /// Even out what nodes have to do, as soon as that can be.
    Rebalance,
    /// This run is about to end: have others take over what it leads. It is answered when they
    /// have, and as unknown where that takes too long; nothing else is to be expected of this run.
    Farewell,
    /// Say how the control plane stands, as this node sees it.
    Status,
}

/// What became of a [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ControlResponse {
    /// The subscription exists, and each of its partitions has committed where it begins.
    Subscribed {
        /// What it means.
        topics: Vec<TopicPattern>,
    },
    /// It is agreed and stored.
    Done,
    /// How the control plane stands.
    Status(ControlStatus),
    /// It did not happen and will not.
    Refused(Refused),
    /// It may have happened; the same request again finds out.
    Unknown,
}

/// What a shard tells control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// A message waits for a topic that the view does not have.
    TopicWanted(TopicName),
    /// A partition has committed where a subscription begins.
    CursorFixed {
        /// The subscription.
        subscription: SubscriptionId,
        /// The change that made it.
        created: ChangeIndex,
        /// The partition.
        partition: PartitionId,
    },
    /// Somebody took messages of a subscription; said now and then.
    Used(SubscriptionId),
    /// The leader of a partition wants another set to count.
    Adjust(Adjustment),
    /// The controller is to be told that something is wrong with a partition.
    Complaint(Complaint),
    /// What logs of this shard end with.
    LogEnds {
        /// Who asked.
        asker: DiskId,
        /// The answer.
        ends: LogEnds,
    },
}
