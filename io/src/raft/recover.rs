//! When a majority of the voters is lost for good: how one node goes on with the metadata that it
//! has, and what that costs.
//!
//! Nothing agrees to this. What the lost nodes had agreed on and this one has not is forgotten, and
//! the lost ones are retired, so that they are refused if they come back. The next start finds a
//! log at whose end this node is the only voter.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use sprawl_core::cluster::metadata::{Change, View};
use sprawl_core::ids::{ClusterId, DiskId, NodeId, TopicName};

use super::kinds::{Agreed, Entry, Kinds, LogId, Place, Vote};
use super::stored::{BadMetadata, Membership, Stored, write_cell, write_entry};
use crate::storage::{Batch, Cell, CommitError, Disk, MetadataWrite, OpenError, Storage as _};

/// What is left of a cluster on one node's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The node that goes on.
    pub node: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// The term of the last entry of its metadata log, and its index: of several survivors the one
    /// for which this is the greatest knows most.
    pub end: (u64, u64),
    /// The nodes that are retired.
    pub lost: Vec<String>,
    /// The others that stay members.
    pub kept: Vec<String>,
    /// The topics of which partitions are nowhere but on lost nodes, with the number of these.
    pub topics: BTreeMap<TopicName, usize>,
}

/// Why a node does not go on. Its disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The database does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metadata do not read.
    #[error(transparent)]
    Metadata(#[from] BadMetadata),
    /// The directory has never belonged to a cluster.
    #[error("the directory belongs to no cluster: start the node with seeds")]
    NoCluster,
    /// Its identity was retired.
    #[error("this node was retired from its cluster, or never knew that it had joined it")]
    Retired,
    /// No node has the name.
    #[error("no node of the cluster is called '{0}'")]
    Nobody(String),
    /// There is nobody but this node.
    #[error("no other node is lost: start this one")]
    NothingLost,
    /// The cluster can agree as it is.
    #[error(
        "the nodes that stay have a majority of the votes ({alive} of {voters}): start them, and \
         they agree. Nodes that never come back: sprawlctl cluster decommission NODE"
    )]
    Majority {
        /// How many voters are left.
        alive: usize,
        /// How many there are.
        voters: usize,
    },
    /// The disk did not take it.
    #[error("nothing may be believed of the disk now: {0}")]
    Commit(#[from] CommitError),
}

/// What it would mean that the node of this disk goes on, with the nodes that are kept, and without
/// all others. Nothing is changed.
///
/// # Errors
///
/// [`RecoverError`].
pub async fn survey<D: Disk>(disk: &D, kept: &[String]) -> Result<Remains, RecoverError> {
    let storage = disk.open().await?;
    let planned = plan(&Stored::load(&storage).await?, kept);
    storage.close().await;
    Ok(planned?.0)
}

/// Has the node of this disk go on when it is started next: it alone votes then, the nodes that are
/// kept follow it, and all others are retired.
///
/// # Errors
///
/// [`RecoverError`].
pub async fn recover<D: Disk>(disk: &D, kept: &[String]) -> Result<Remains, RecoverError> {
    let storage = disk.open().await?;
    let done = async {
        let (remains, metadata) = plan(&Stored::load(&storage).await?, kept)?;
        storage.commit(&Batch { metadata, ..Batch::default() }).await?;
        Ok(remains)
    };
    let done = done.await;
    storage.close().await;
    done
}

fn plan(stored: &Stored, kept: &[String]) -> Result<(Remains, Vec<MetadataWrite>), RecoverError> {
    let Membership { node: me, cluster } = stored.membership.ok_or(RecoverError::NoCluster)?;
    let all = stored.all()?;
    let view = &all.view;
    let own = view.disk_of(NodeId(me)).and_then(|disk| Some((disk, view.nodes.get(&disk)?)));
    let (disk, node) = own.ok_or(RecoverError::Retired)?;
    let mut stay = BTreeSet::from([disk]);
    for name in kept {
        stay.insert(view.named(name).ok_or_else(|| RecoverError::Nobody(name.clone()))?);
    }
    let is_left = |id: &u64| view.disk_of(NodeId(*id)).is_some_and(|disk| stay.contains(&disk));
    // While voters change, a majority of each set is needed.
    let counts =
        all.voter_sets().iter().map(|set| (set.len(), set.iter().filter(|id| is_left(id)).count()));
    let (voters, alive) =
        counts.min_by_key(|(voters, alive)| 2 * alive > *voters).unwrap_or_default();
    if stay.len() == view.nodes.len() {
        return Err(RecoverError::NothingLost);
    }
    if 2 * alive > voters {
        return Err(RecoverError::Majority { alive, voters });
    }
    let end = all.last.ok_or(RecoverError::NoCluster)?;
    let names = |of_stay: bool| {
        let nodes = view.nodes.iter().filter(move |(other, _)| **other != disk);
        let some = nodes.filter(|(other, _)| stay.contains(*other) == of_stay);
        some.map(|(_, node)| node.name.clone()).collect()
    };
    let remains = Remains {
        node: node.name.clone(),
        cluster,
        end: (end.committed_leader_id().term, end.index),
        lost: names(false),
        kept: names(true),
        topics: gone(view, &stay),
    };
    Ok((remains, writes(stored, view, me, end, &stay)))
}

/// The topics of which partitions are nowhere but on lost nodes.
fn gone(view: &View, stay: &BTreeSet<DiskId>) -> BTreeMap<TopicName, usize> {
    let mut gone = BTreeMap::new();
    for partition in view.partitions.values() {
        // Other copies may lack what was acknowledged.
        let holders = partition.in_sync.iter().filter(|member| member.holds_committed());
        if !holders.map(|member| member.disk).any(|member| stay.contains(&member)) {
            *gone.entry(partition.topic.clone()).or_default() += 1;
        }
    }
    gone
}

/// So many terms are passed over: those that lost nodes may have led, of which this disk knows
/// nothing, are among them.
const TERMS_PASSED: u64 = 1 << 20;

/// The end of the log: the group of the one voter, and the changes by which the others are retired,
/// in a term that nobody else has led.
fn writes(
    stored: &Stored,
    view: &View,
    me: u64,
    end: LogId,
    stay: &BTreeSet<DiskId>,
) -> Vec<MetadataWrite> {
    let voted = stored.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(end.committed_leader_id().term) + TERMS_PASSED;
    let mut index = end.index;
    let mut entry = |payload| {
        index += 1;
        let leader = openraft::alias::CommittedLeaderIdOf::<Kinds>::new(term);
        write_entry(&Entry::new(LogId::new(leader, index), payload))
    };
    let staying = view.nodes.iter().filter(|(disk, _)| stay.contains(disk));
    let places: BTreeMap<u64, Place> = staying
        .map(|(disk, node)| (node.id.0, Place { disk: *disk, address: node.address }))
        .collect();
    let group = openraft::Membership::new(vec![BTreeSet::from([me])], places);
    let group = group.expect("the one voter has its place among them");
    let mut writes = vec![entry(EntryPayload::Membership(group))];
    for (disk, node) in view.nodes.iter().filter(|(disk, _)| !stay.contains(disk)) {
        let change = Change::Retire { disk: *disk, boot: node.boot };
        writes.push(entry(EntryPayload::Normal(Agreed(change))));
    }
    writes.push(write_cell(Cell::Vote, &Vote::new(term, me)));
    writes
}
