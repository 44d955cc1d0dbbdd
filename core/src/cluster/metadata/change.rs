//! One agreed step of the metadata, as it stands in the log.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::partitions::Standing;
use crate::cluster::pattern::TopicPattern;
use crate::cluster::subscription::{Delivery, StartFrom};
use crate::cluster::topic::{ConfigPatch, TopicConfig};
use crate::ids::{Boot, ClusterId, DiskId, Epoch, PartitionId, SubscriptionId, TopicName};
use crate::machine::WallTime;

/// The highest feature level that this version understands: it rises with each change, message
/// or rule that older versions do not know.
pub const FEATURE_LEVEL: u32 = 2;
/// The capacity of a node that does not say.
pub const CAPACITY_NORMAL: u32 = 100;

/// How many partitions the controller decides about in one change.
pub const RULINGS_MAX: usize = 1_000;
/// How many partitions a leader decides about in one change.
pub const ADJUSTMENTS_MAX: usize = 1_000;

/// What a node says of itself and of its run when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registration {
    /// The node's identity.
    pub disk: DiskId,
    /// Its run.
    pub boot: Boot,
    /// A random number of this run, by which a copied directory under the same boot is told apart.
    pub run: u64,
    /// Its name, for people.
    pub name: String,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub http: SocketAddr,
    /// What it shares a fate with: a rack, a room; empty where nobody said.
    pub zone: String,
    /// How much it is to hold beside others: a node of 200 gets twice what one of 100 gets.
    pub capacity: u32,
    /// The highest feature level that it understands.
    pub level: u32,
    /// Whether its last run that had registered, and every one since, ended in order: its disk
    /// holds all that it ever said to have received.
    pub clean: bool,
}

/// How a node leaves the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Leaving {
    /// When it holds no partition any more.
    Empty,
    /// Now; what it alone holds is lost.
    AtOnce,
}

/// What the controller decides about one partition. One that changes nothing else says that the
/// set is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ruling {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that it was decided by.
    pub epoch: Epoch,
    /// The version that it was decided by.
    pub version: u64,
    /// Who is to lead from now on, in a new epoch; `None` where nobody new is named.
    pub leader: Option<DiskId>,
    /// Tails that have said that they lack nothing any more.
    pub filled: Vec<DiskId>,
    /// Who does not count any more.
    pub removed: Vec<DiskId>,
    /// Who does not hold what it acknowledged, and stays because too few would be left.
    pub lost: Vec<DiskId>,
    /// Who is to hold a copy from now on.
    pub placed: Vec<DiskId>,
    /// Who is not to hold one any more; nobody who counts still.
    pub dropped: Vec<DiskId>,
}

/// A node that counts from now on, or that holds more than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addition {
    /// The node.
    pub disk: DiskId,
    /// The run of it that acknowledged what is committed.
    pub boot: Boot,
    /// What it holds.
    pub standing: Standing,
}

/// What the leader of a partition decides about the set that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Adjustment {
    /// The partition.
    pub partition: PartitionId,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The version that it was decided by.
    pub version: u64,
    /// Who comes to the set.
    pub added: Vec<Addition>,
    /// Who leaves it.
    pub removed: Vec<DiskId>,
}

/// One agreed step of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The first change of a cluster's life.
    Found {
        /// The cluster's identity.
        cluster: ClusterId,
    },
    /// A node has started: a new node, or a known one under a new boot, which ends the reign of
    /// its former run over every partition that it led. Nothing happens where
    /// [`View::unfit`](super::View::unfit) says why not.
    Register(Registration),
    /// A node has started under a name whose former owner is gone for ever: that is retired and
    /// this registered in one step, so that the cluster has never fewer nodes, and no partition
    /// asks for fewer copies, than before. Nothing happens where another run of the former owner
    /// has registered meanwhile, where the newcomer is known, or where
    /// [`View::unfit`](super::View::unfit) says why not without the former owner.
    Replace {
        /// The former owner of the name.
        disk: DiskId,
        /// Its run.
        boot: Boot,
        /// The node that takes its place.
        by: Registration,
    },
    /// An identity leaves the cluster and never comes back; nothing happens when another run of it
    /// has registered meanwhile.
    Retire {
        /// The identity.
        disk: DiskId,
        /// Its run.
        boot: Boot,
    },
    /// A node is to leave the cluster; the controller retires it when the rest can do without it.
    Decommission {
        /// The node.
        disk: DiskId,
        /// How.
        how: Leaving,
    },
    /// Nodes are down: all that were found so together.
    Fail {
        /// The runs that nobody hears.
        nodes: Vec<(DiskId, Boot)>,
        /// When that was found, in cluster time.
        at: WallTime,
        /// What becomes of partitions that they led or counted for, as many as one change holds.
        rulings: Vec<Ruling>,
    },
    /// Nodes that were down are heard again.
    Revive {
        /// The runs.
        nodes: Vec<(DiskId, Boot)>,
    },
    /// What every node understands may be used from now on; nothing happens while one does not.
    Raise {
        /// The feature level.
        level: u32,
    },
    /// A topic, with its partitions; nothing happens when it exists.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// Its configuration.
        config: TopicConfig,
    },
    /// A durable subscription, and the topics that it names plainly and that do not exist; nothing
    /// happens when the subscription exists.
    Subscribe {
        /// Its id.
        id: SubscriptionId,
        /// What it means.
        topics: Vec<TopicPattern>,
        /// Where it begins.
        from: StartFrom,
        /// How its messages are delivered.
        delivery: Delivery,
        /// Cluster time when it was asked for.
        at: WallTime,
    },
    /// A topic is made, or kept in another way from now on. The number of partitions of a topic
    /// that exists does not change.
    ConfigureTopic {
        /// Its name.
        name: TopicName,
        /// What changes.
        patch: ConfigPatch,
        /// Whether what the patch does not name goes back to its default.
        reset: bool,
    },
    /// A topic and all that it holds is gone.
    DeleteTopic {
        /// Its name.
        name: TopicName,
    },
    /// A subscription is gone.
    Unsubscribe {
        /// Its id.
        id: SubscriptionId,
        /// Only if nobody used it after this.
        unused_since: Option<WallTime>,
    },
    /// Subscriptions that were used.
    Used {
        /// Which ones.
        subscriptions: Vec<SubscriptionId>,
        /// Until when, in cluster time.
        at: WallTime,
    },
    /// The controller decides about partitions; those that have moved meanwhile stay as they are.
    Rule {
        /// What it decides, at most [`RULINGS_MAX`].
        rulings: Vec<Ruling>,
    },
    /// A node decides about partitions that it leads; those that have moved stay as they are.
    Adjust {
        /// The node and its run.
        by: (DiskId, Boot),
        /// What it decides, at most [`ADJUSTMENTS_MAX`].
        adjustments: Vec<Adjustment>,
    },
}
