//! This node's member of the group: it finds its cluster, takes part, and shows how the group
//! stands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use sprawl_core::cluster::consensus::{RaftChange, RaftStatus};
use sprawl_core::cluster::founding::{SeedAnswer, SeedQuestion};
use sprawl_core::cluster::message::JoinRefused;
use sprawl_core::cluster::raft::{RaftEvent, Recovered};
use sprawl_core::ids::{ChangeIndex, NodeId};
use sprawl_core::machine::Time;
use sprawl_core::wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::entry::{DoorAsk, FOUNDER, Newcomer};
use super::kinds::Place;
use super::log::{Disk, Log};
use super::machine::Metadata;
use super::network::Routes;
use super::observed::Observed;
use super::proposals::Proposals;
use super::serving::Serving;
use super::stored::{self, Membership};
use super::{
    Applied, BadMetadata, CHANGES_MAX, Group, PROPOSALS_MAX, Raft, Search, Stored, VISITORS_MAX,
    Visitor, kinds,
};
use crate::clock::Clock;
use crate::handle::Ended;
use crate::peer::{Inbound, Incoming, Lane, Network};
use crate::signal::{Follower, Signal};
use crate::storage::Cell;
use crate::writer::WriterHandle;

/// How long a node that has moved waits for an answer from where it was.
const LOOK_WAIT: Duration = Duration::from_secs(3);

/// What a member is reached by: the network, and the lanes that are the group's.
pub(crate) struct Reached<N> {
    network: N,
    door: mpsc::Receiver<Incoming>,
    requests: mpsc::Receiver<Incoming>,
    pieces: mpsc::Receiver<Incoming>,
}

impl<N> Reached<N> {
    pub(crate) fn new(network: N, inbound: &mut Inbound) -> Self {
        Self {
            network,
            door: inbound.lane(Lane::Join),
            requests: inbound.lane(Lane::Raft),
            pieces: inbound.lane(Lane::Snapshot),
        }
    }
}

/// This node's member of the group.
pub(crate) struct Member<N, C> {
    membership: Option<Membership>,
    /// Whether nobody else votes, so that there is nobody to wait for.
    is_alone: bool,
    /// Where the node was registered last, if that was at another address.
    moved_from: Option<SocketAddr>,
    search: Search,
    clock: C,
    log: Log,
    metadata: Metadata,
    disk: Disk,
    observed: Observed,
    /// What the disk held at the start, for whoever observes.
    recovered: Recovered,
    reached: Reached<N>,
    proposals: Proposals,
    changes: mpsc::Receiver<RaftChange>,
    visitors: mpsc::Sender<Visitor>,
    status: Signal<RaftStatus>,
    waits: Signal<Option<String>>,
    stop: Signal<Option<Ended>>,
    stopped: Follower<Option<Ended>>,
}

impl<N: Network, C: Clock> Member<N, C> {
    /// A member as its disk left it, and the group as control sees it.
    pub(crate) fn new(
        mut stored: Stored,
        applied: Applied,
        search: Search,
        reached: Reached<N>,
        (clock, writer, observed): (C, WriterHandle, Observed),
        stop: Signal<Option<Ended>>,
    ) -> Result<(Self, Group), BadMetadata> {
        // Decisions are bounded by the changes that the disk takes while control is busy.
        let (decide, decisions) = mpsc::unbounded_channel();
        let (propose, proposed) = mpsc::channel(PROPOSALS_MAX);
        let (change, changes) = mpsc::channel(CHANGES_MAX);
        let (visit, visitors) = mpsc::channel(VISITORS_MAX);
        let membership = stored.membership;
        let all = stored.all()?;
        let is_alone = membership.is_some_and(|me| all.voters().eq([me.node]));
        let disk = Disk::new(writer);
        let said = &search.said;
        let registered_at = applied.view.nodes.get(&said.disk).map(|node| node.address);
        let moved_from = registered_at.filter(|address| *address != said.address);
        let recovered = observed.recovered(&stored);
        let snapshot = stored.snapshot.take();
        let log = Log::new(&mut stored, disk.clone(), observed.clone());
        let version = applied.view.version;
        let metadata = Metadata::new(applied, snapshot, decide, (disk.clone(), observed.clone()));
        let status = Signal::new(RaftStatus { applied: version, ..RaftStatus::default() });
        let waits = Signal::new(Some("it has just started".to_owned()));
        let group = Group {
            proposals: propose,
            changes: change,
            decisions,
            visitors,
            status: status.follow(),
            waits: waits.follow(),
        };
        let member = Self {
            membership,
            is_alone,
            moved_from,
            search,
            clock,
            log,
            metadata,
            disk,
            observed,
            recovered,
            reached,
            proposals: Proposals::new(proposed),
            changes,
            visitors: visit,
            status,
            waits,
            stopped: stop.follow(),
            stop,
        };
        Ok((member, group))
    }

    /// Takes part until the node ends.
    pub(crate) async fn run(mut self) {
        if let Err(why) = self.take_part().await
            // A disk that has failed is the reason, where it has.
            && self.stop.set_where(Option::is_none, Some(Ended::Halted(why.clone())))
        {
            tracing::error!(why, "the node halts");
        }
    }

    async fn take_part(&mut self) -> Result<(), String> {
        let mut stopped = self.stop.follow();
        let membership = tokio::select! {
            biased;
            // Looking for a cluster has no end of its own. What comes after it is not broken off:
            // openraft is shut down, or others who wait for that would wait for nobody.
            _ = stopped.until(Option::is_some) => return Ok(()),
            membership = self.belong() => membership?,
        };
        let raft = self.start(membership).await?;
        self.waits.set(None);
        let mut metrics = raft.metrics();
        let mut serving = Serving::new(raft.clone(), self.observed.clone());
        let (mut changing, mut resigned): (Option<JoinHandle<()>>, _) = (None, 0);
        loop {
            let status = self.seen(&raft, membership);
            let is_changing = changing.as_ref().is_some_and(|change| !change.is_finished());
            if status.is_leader_ready && !is_changing && is_half_changed(&raft) {
                changing = Some(finish_change(&raft));
            }
            let votes = status.voters.contains(&NodeId(membership.node));
            if status.is_leader_ready && !status.is_joint && !votes && resigned < status.term {
                resigned = status.term;
                tokio::spawn(hand_over(raft.clone()));
            }
            // Time means nothing to a leader that has nobody: it sends no heartbeats, and none are
            // missing.
            let has_nobody = status.voters.len() == 1 && status.learners.is_empty();
            raft.runtime_config().tick(!(status.is_leader_ready && has_nobody));
            let leader = self.leader(&raft, &status);
            self.status.set(status);
            tokio::select! {
                biased;
                _ = self.stopped.until(Option::is_some) => break,
                Some(incoming) = self.reached.requests.recv() => serving.request(incoming),
                Some(incoming) = self.reached.pieces.recv() => serving.piece(incoming),
                Some(incoming) = self.reached.door.recv() => self.open(incoming, membership),
                Some(proposal) = self.proposals.next(), if leader.is_some() => {
                    if let Some(leader) = leader {
                        self.proposals.hand_on(proposal, leader, &raft, &self.reached.network);
                    }
                }
                Some(change) = self.changes.recv() => changing = Some(reconfigure(&raft, change)),
                changed = metrics.changed() => changed.map_err(|_| fate(&raft))?,
            }
        }
        raft.shutdown().await.map_err(|error| error.to_string())
    }

    /// Belongs to a cluster: as the disk says, or after a search.
    async fn belong(&mut self) -> Result<Membership, String> {
        let membership = match self.membership {
            Some(membership) => membership,
            None => {
                let Search { said, seeds, founds, fresh, .. } = self.search.clone();
                let newcomer = Newcomer {
                    network: &self.reached.network,
                    door: &mut self.reached.door,
                    said,
                    seeds,
                    founds,
                    fresh,
                    waits: &self.waits,
                };
                let membership = newcomer.enter().await?;
                let cell = stored::write_cell(Cell::Membership, &membership);
                self.disk.sync(vec![cell]).await.map_err(|error| error.to_string())?;
                membership
            }
        };
        self.reached.network.belong(membership.cluster);
        self.look_for_original().await?;
        Ok(membership)
    }

    /// A copy has the vote of its original, and one of a node that alone votes has nobody who would
    /// refuse it. So a run that has moved looks for itself where it was registered.
    async fn look_for_original(&self) -> Result<(), String> {
        let Some(address) = self.moved_from else {
            return Ok(());
        };
        let disk = self.search.said.disk;
        let ask = Bytes::from(wire::encode(&DoorAsk::Seed(SeedQuestion { disk })));
        let asked = self.reached.network.call((address, disk), Lane::Join, ask, LOOK_WAIT).await;
        match asked {
            Ok(_) => Err(JoinRefused::Copied(address).to_string()),
            Err(error) => {
                tracing::info!(%address, %error, "the node has moved: nobody is where it was");
                Ok(())
            }
        }
    }

    fn place(&self) -> Place {
        Place { disk: self.search.said.disk, address: self.search.said.address }
    }

    async fn start(&mut self, membership: Membership) -> Result<Raft, String> {
        self.observed.is_member(membership.node);
        let recovered = std::mem::take(&mut self.recovered);
        self.observed.tell(|| RaftEvent::Started);
        self.observed.tell(|| RaftEvent::Recovered(recovered));
        let config = kinds::config(self.search.snapshot_entries)
            .validate()
            .map_err(|error| error.to_string())?;
        let (log, metadata) = (self.log.clone(), self.metadata.clone());
        let routes = Routes(self.reached.network.clone());
        let raft = Raft::new(membership.node, Arc::new(config), routes, log, metadata);
        let raft = raft.await.map_err(|error| error.to_string())?;
        let initialized = raft.is_initialized().await.map_err(|error| error.to_string())?;
        if membership.node == FOUNDER && !initialized {
            let members = BTreeMap::from([(membership.node, self.place())]);
            raft.initialize(members).await.map_err(|error| error.to_string())?;
        } else if self.is_alone {
            raft.trigger().elect(false).await.map_err(|error| error.to_string())?;
        }
        Ok(raft)
    }

    /// Somebody is at the door: a node that looks for its cluster.
    fn open(&self, incoming: Incoming, membership: Membership) {
        let (ask, Some(answer)) = (wire::decode(&incoming.body), incoming.answer) else {
            return;
        };
        match ask {
            Ok(DoorAsk::Seed(_)) => {
                let disk = self.search.said.disk;
                let told = SeedAnswer { disk, cluster: Some(membership.cluster), set: None };
                answer.answer(wire::encode(&told).into());
            }
            // Whoever finds no room asks again.
            Ok(DoorAsk::Join(said)) => drop(self.visitors.try_send(Visitor { said, answer })),
            Err(error) => tracing::debug!(%error, "nobody understands what is said at the door"),
        }
    }

    /// How the group stands.
    fn seen(&self, raft: &Raft, membership: Membership) -> RaftStatus {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<_> = members.voter_ids().map(NodeId).collect();
        let leads = metrics.state.is_leader();
        let applied = metrics.last_applied;
        let in_term =
            applied.is_some_and(|id| id.committed_leader_id().term == metrics.current_term);
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            Some(replication.get(id)?.as_ref()?.index)
        };
        // A lone voter needs nobody's answer.
        let alone = voters.len() == 1 && voters.contains(&NodeId(membership.node));
        let acked = metrics.last_quorum_acked.filter(|_| leads && !alone);
        let quorum_acked = acked.map(|at| {
            let now = self.clock.now().since_start;
            Time(now.0.saturating_sub(at.elapsed().as_micros() as u64))
        });
        RaftStatus {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            is_leader_ready: leads && in_term,
            quorum_acked,
            is_joint: members.get_joint_config().len() > 1
                || *metrics.membership_config.log_id() > applied,
            learners: members
                .learner_ids()
                .map(|id| (NodeId(id), matched(&id).unwrap_or(0)))
                .collect(),
            voters,
            applied: ChangeIndex(applied.map_or(0, |id| id.index)),
        }
    }

    /// Whom to hand proposals to: nobody while it is unknown who leads.
    fn leader(&self, raft: &Raft, status: &RaftStatus) -> Option<Option<Place>> {
        let leader = status.leader?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if leader.0 == metrics.id {
            return Some(None);
        }
        let place = metrics.membership_config.membership().get_node(&leader.0).copied();
        place.map(Some)
    }
}

/// Whether the first step of a change of the voters is agreed on, and the second not begun.
fn is_half_changed(raft: &Raft) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let members = &metrics.membership_config;
    members.membership().get_joint_config().len() > 1 && *members.log_id() <= metrics.last_applied
}

/// Ends a change of the voters: between its two steps both the old and the new voters decide, and
/// nothing else is changed. Another leader began it, or this one did, and was not sure at its
/// second step that it still led.
fn finish_change(raft: &Raft) -> JoinHandle<()> {
    let raft = raft.clone();
    tokio::spawn(async move {
        // Nobody is added: openraft takes the one step that is left.
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        match raft.change_membership(nobody, true).await {
            Ok(_) => tracing::info!("a change of the voters that was half done is finished"),
            Err(error) => tracing::debug!(%error, "a change of the voters is not finished"),
        }
    })
}

/// Hands the lead to the voter that has most of the log, when this node is about to end or has no
/// vote any more: a leader that was taken out of the voters by a change that another one began
/// leads on as far as openraft is concerned, and hears nobody. Where that is lost, the voters miss
/// its heartbeats and elect one of them.
async fn hand_over(raft: Raft) {
    let successor = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = |id: &u64| metrics.replication.as_ref()?.get(id).copied().flatten();
        let members = metrics.membership_config.membership();
        members.voter_ids().filter(|id| *id != metrics.id).max_by_key(matched)
    };
    let Some(successor) = successor else { return };
    match raft.trigger().transfer_leader(successor).await {
        Ok(()) => tracing::info!(successor, "this node hands the lead on"),
        Err(error) => tracing::debug!(%error, successor, "the lead is not handed on"),
    }
}

/// Changes the group, if this node leads it and nothing else is being changed.
fn reconfigure(raft: &Raft, change: RaftChange) -> JoinHandle<()> {
    let raft = raft.clone();
    tokio::spawn(async move {
        let changed = match change.clone() {
            RaftChange::AddLearner { node, disk, address } => {
                raft.add_learner(node.0, Place { disk, address }, false).await
            }
            RaftChange::Voters(voters) => {
                let voters = voters.into_iter().map(|node| node.0).collect();
                raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await
            }
            RaftChange::Remove(node) => {
                let nodes = [node.0].into();
                raft.change_membership(ChangeMembers::RemoveNodes(nodes), true).await
            }
            RaftChange::HandOver => return hand_over(raft).await,
        };
        match changed {
            Ok(_) => tracing::info!(?change, "the group that agrees has changed"),
            Err(error) => tracing::debug!(%error, ?change, "the group has not changed"),
        }
    })
}

/// Why the member has ended.
fn fate(raft: &Raft) -> String {
    let why = match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "it ended without a reason".to_owned(),
        Err(fatal) => fatal.to_string(),
    };
    format!("consensus on the metadata failed: {why}")
}
