//! What is seen of the nodes of a cluster: every step of every control machine and every deed of
//! every member of the group, in one chain hash and past the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprawl_core::broker::Shard;
use sprawl_core::cluster::Control;
use sprawl_core::cluster::gossip::Gossip;
use sprawl_core::cluster::message::ControlMessage;
use sprawl_core::cluster::metadata::{Fingerprint, Member, Standing, View};
use sprawl_core::cluster::placement::PlacementWatch;
use sprawl_core::cluster::raft::{RaftCounts, RaftEvent, RaftModel, Voters};
use sprawl_core::ids::{ChangeIndex, ClusterId, DiskId, NodeId, PartitionId};
use sprawl_core::machine::{
    Broken, ControlEffect, ControlInput, GossipEffect, GossipInput, Now, Report, ShardEffect,
    ShardInput,
};
use sprawl_io::raft::{self, Pending};
use sprawl_io::storage::MetadataWrite;
use sprawl_io::trace::{Observer, Trace, TraceRaft};
use tokio::time::Instant;

use super::plan::Point;
use crate::chronicle::{Chronicle, elapsed};
use crate::coverage::{Coverage, Phase, Reached};
use crate::invariants::{BoundsHold, Findings};
use crate::story::{self, Kind, Lane, Story, machine_at};

/// What was moved between nodes that live.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moves {
    /// Copies.
    pub(super) copies: u64,
    /// The lead of partitions.
    pub(super) leads: u64,
    /// Members that came to a set with nothing that is older than their state.
    pub(super) tails: u64,
}

impl Moves {
    fn note(&mut self, before: &View, after: &View) {
        for old in before.partitions.values() {
            let Some(new) = after.partitions.get(&old.id) else { continue };
            let lives = |member: &&Member| before.is_live(member) && after.is_live(member);
            let out = |member: &&Member| !new.replicas.contains(&member.disk);
            let copies = old.in_sync.iter().filter(lives).filter(out).count();
            let leads = old.in_sync.iter().filter(lives);
            let leads = leads.filter(|one| one.disk == old.leader && old.leader != new.leader);
            let tails = new.in_sync.iter().filter(|one| {
                one.standing == Standing::Tail && old.member(one.disk) != Some(**one)
            });
            self.tails += tails.count() as u64;
            self.copies += copies as u64;
            self.leads += leads.count() as u64;
        }
    }
}

/// Watches all nodes of a run. A clone is the same one.
#[derive(Clone)]
pub(super) struct Watch {
    inner: Arc<Mutex<Watched>>,
}

struct Watched {
    chronicle: Chronicle,
    story: Story,
    findings: Findings,
    raft: RaftModel,
    /// What each machine has shown last, and the fingerprint of each version that any has shown.
    shown: BTreeMap<usize, Fingerprint>,
    views: BTreeMap<ChangeIndex, u64>,
    compared: u64,
    clusters: BTreeSet<ClusterId>,
    placement: PlacementWatch,
    /// The newest view that was shown, who is down by it, and how often that has changed.
    newest: (Arc<View>, BTreeSet<DiskId>, u64),
    moves: Moves,
    coverage: Coverage,
    /// When a copy of a partition was last taken on trust, as far as was shown.
    trusted: BTreeMap<PartitionId, Instant>,
    sprung: u64,
    /// Copies of which a bit has turned over, on which machines.
    flipped: BTreeSet<(PartitionId, usize)>,
    /// Who votes by which entry of the log, with its term, from the newest committed one on.
    voters: BTreeMap<u64, (u64, Voters)>,
    /// What entries will do to copies that nobody has applied, by their index, with their term.
    pending: BTreeMap<u64, (u64, Pending)>,
    /// Whom the leader of a partition wants out of its set, as of the newest version that it knew.
    asked: BTreeMap<PartitionId, (u64, BTreeSet<DiskId>)>,
    /// The last entry that anybody has applied.
    applied: u64,
    /// Which member of the group a machine is.
    members: BTreeMap<usize, NodeId>,
    /// Machines whose disks are not what the group knows: what they store and say counts nowhere.
    ghosts: BTreeSet<usize>,
}

impl Watch {
    pub(super) fn new(findings: Findings, chronicle: Chronicle, story: Story) -> Self {
        let watched = Watched {
            chronicle,
            story,
            findings,
            raft: RaftModel::default(),
            shown: BTreeMap::new(),
            views: BTreeMap::new(),
            compared: 0,
            clusters: BTreeSet::new(),
            placement: PlacementWatch::default(),
            newest: Default::default(),
            moves: Moves::default(),
            coverage: Coverage::default(),
            trusted: BTreeMap::new(),
            sprung: 0,
            flipped: BTreeSet::new(),
            voters: BTreeMap::new(),
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            applied: 0,
            members: BTreeMap::new(),
            ghosts: BTreeSet::new(),
        };
        Self { inner: Arc::new(Mutex::new(watched)) }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What watches one machine.
    pub(super) fn of(&self, machine: usize) -> NodeTrace {
        NodeTrace { watch: self.clone(), machine }
    }

    /// Something that the world did.
    pub(super) fn world(&self, event: &str) {
        let mut watched = self.lock();
        watched.chronicle.event(event);
        if watched.chronicle.is_short() {
            watched.chronicle.print("world", event);
        }
        watched.story.happens(Lane::World, Kind::Fault, None, || event.to_owned());
    }

    /// A process of a machine starts, or ends.
    pub(super) fn process(&self, machine: usize, what: &str) {
        let mut watched = self.lock();
        watched.chronicle.event((machine, what));
        if watched.chronicle.is_short() {
            watched.chronicle.print("world", &format!("machine {machine} {what}"));
        }
        watched.story.happens(Lane::Machine(machine), Kind::Process, None, || what.to_owned());
    }

    /// A machine loses power at a point.
    pub(super) fn springs(&self, machine: usize, point: Point) {
        self.world(&format!("machine {machine} loses power at: {point:?}"));
        self.lock().sprung += 1;
    }

    /// A fault of a class strikes.
    pub(super) fn strikes(&self, class: &'static str) {
        self.lock().coverage.strikes(class, elapsed());
    }

    /// What faults have met.
    pub(super) fn reached(&self) -> Reached {
        self.lock().coverage.reached()
    }

    /// How often a machine has lost power at a point.
    pub(super) fn sprung(&self) -> u64 {
        self.lock().sprung
    }

    /// Something that a client saw.
    pub(super) fn client(&self, event: &str) {
        let mut watched = self.lock();
        watched.chronicle.event(event);
        if watched.chronicle.is_short() {
            watched.chronicle.print("client", event);
        }
        watched.story.happens(Lane::Clients, Kind::Client, None, || event.to_owned());
    }

    /// The chain hash so far, and over how many events.
    pub(super) fn chain(&self) -> (u64, u64) {
        self.lock().chronicle.sum()
    }

    /// What the group did, and how often views were compared.
    pub(super) fn counts(&self) -> (RaftCounts, u64) {
        let watched = self.lock();
        (watched.raft.counts(), watched.compared)
    }

    /// When a copy of a partition was last taken on trust.
    pub(super) fn trusted(&self, partition: PartitionId) -> Option<Instant> {
        self.lock().trusted.get(&partition).copied()
    }

    /// A bit of a partition has turned over on a machine's disk.
    pub(super) fn flipped(&self, machine: usize, partition: PartitionId) {
        self.world(&format!("a bit of partition {partition} turns over on machine {machine}"));
        self.lock().flipped.insert((partition, machine));
    }

    /// Whether a change that was asked for, and that nobody has applied, takes somebody out of a
    /// partition's set.
    pub(super) fn is_leaving(&self, partition: PartitionId, disk: DiskId) -> bool {
        let watched = self.lock();
        let mut pending = watched.pending.values();
        let known = watched.newest.0.partitions.get(&partition).map_or(0, |known| known.version);
        let asked = watched.asked.get(&partition).filter(|(version, _)| *version >= known);
        asked.is_some_and(|(_, removed)| removed.contains(&disk))
            || pending.any(|(_, pending)| pending.excluded.contains(&(partition, disk)))
    }

    /// Whether a change that nobody has applied makes partitions.
    pub(super) fn are_made(&self) -> bool {
        self.lock().pending.values().any(|(_, pending)| pending.creates)
    }

    /// Whether one has.
    pub(super) fn has_flipped(&self, machine: usize, partition: PartitionId) -> bool {
        self.lock().flipped.contains(&(partition, machine))
    }

    /// The partitions of which a bit has turned over somewhere.
    pub(super) fn damaged(&self) -> BTreeSet<PartitionId> {
        self.lock().flipped.iter().map(|(partition, _)| *partition).collect()
    }

    /// How often a node was declared down, or back.
    pub(super) fn verdicts(&self) -> u64 {
        self.lock().newest.2
    }

    /// What was moved though nobody had failed.
    pub(super) fn moves(&self) -> Moves {
        self.lock().moves
    }

    /// The newest metadata that a node has shown.
    pub(super) fn newest(&self) -> Arc<View> {
        self.lock().newest.0.clone()
    }

    /// Every set of voters whose majority may matter now.
    pub(super) fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        self.lock().voters.values().flat_map(|(_, voters)| voters).cloned().collect()
    }

    /// Which member of the group a machine is, if it is one.
    pub(super) fn member(&self, machine: usize) -> Option<NodeId> {
        self.lock().members.get(&machine).copied()
    }

    /// Whether a machine is all of those who vote.
    pub(super) fn is_alone(&self, machine: usize) -> bool {
        let me: BTreeSet<NodeId> = self.member(machine).into_iter().collect();
        self.voters().iter().all(|set| *set == me)
    }

    /// A machine has an empty disk.
    pub(super) fn wiped(&self, machine: usize) {
        let mut watched = self.lock();
        watched.flipped.retain(|(_, other)| *other != machine);
        watched.members.remove(&machine);
        watched.ghosts.remove(&machine);
    }

    /// A machine has the disk of a member as it once was, or as another one has it: whoever counts
    /// on what it says, counts on nothing.
    pub(super) fn haunts(&self, machine: usize) {
        let mut watched = self.lock();
        watched.members.remove(&machine);
        watched.ghosts.insert(machine);
    }
}

impl Watch {
    /// Somebody has decided that one of these machines goes on with what it knows: the group is
    /// another one, which nobody has elected, and its views are compared from here on.
    pub(super) fn recovered(&self, machines: impl Iterator<Item = usize>) {
        machines.for_each(|machine| self.haunts(machine));
        let mut watched = self.lock();
        watched.views.clear();
        watched.newest = Default::default();
    }
}

impl Watched {
    fn check(&mut self, checked: Result<(), Broken>) {
        if let Err(Broken { invariant, detail }) = checked {
            if self.chronicle.is_short() {
                self.chronicle.print("VIOLATED", &format!("{invariant}: {detail}"));
            }
            self.findings.violated(invariant, detail);
        }
    }

    fn raft(&mut self, machine: usize, node: NodeId, event: &RaftEvent) {
        self.chronicle.event((machine, node, event));
        if self.ghosts.contains(&machine) {
            return;
        }
        self.members.insert(machine, node);
        if let Some(phase) = Phase::of_raft(event) {
            self.coverage.passes(phase, elapsed());
        }
        self.story.happens(Lane::Machine(machine), Kind::Raft, None, || format!("{event:?}"));
        let quiet = matches!(
            event,
            RaftEvent::Applied { .. }
                | RaftEvent::Committed(_)
                | RaftEvent::Flushed(_)
                | RaftEvent::Appended(_)
                | RaftEvent::AppendAnswered { .. }
                | RaftEvent::Recovered(_)
                | RaftEvent::Purged { .. }
        );
        if self.chronicle.is_full() || (self.chronicle.is_short() && !quiet) {
            self.chronicle.print(&format!("member {node}"), &format!("{event:?}"));
        }
        match event {
            RaftEvent::Appended(entries) => {
                for entry in entries {
                    let id = entry.id;
                    // Who lags appends what others have long had; only a later term takes back.
                    self.voters.retain(|at, (term, _)| *at < id.index || *term >= id.term);
                    self.pending.retain(|at, (term, _)| *at < id.index || *term >= id.term);
                    let oldest = self.voters.first_key_value().map(|(at, _)| *at);
                    if let Some(voters) = &entry.voters
                        && oldest.is_none_or(|oldest| id.index > oldest)
                    {
                        self.voters.entry(id.index).or_insert_with(|| (id.term, voters.clone()));
                    }
                }
            }
            RaftEvent::Committed(last) => {
                let newest = self.voters.range(..=last.index).next_back();
                if let Some(newest) = newest.map(|(index, _)| *index) {
                    self.voters = self.voters.split_off(&newest);
                }
            }
            RaftEvent::Started
            | RaftEvent::Recovered(_)
            | RaftEvent::VoteStored { .. }
            | RaftEvent::LeaderStored { .. }
            | RaftEvent::VoteAnswered { .. }
            | RaftEvent::Elected { .. }
            | RaftEvent::Flushed(_)
            | RaftEvent::AppendAnswered { .. }
            | RaftEvent::Truncated { .. }
            | RaftEvent::SnapshotStored { .. }
            | RaftEvent::Purged { .. } => {}
            RaftEvent::Applied { index, .. } => {
                self.applied = self.applied.max(*index);
                self.pending = self.pending.split_off(&(self.applied + 1));
            }
        }
        let checked = self.raft.observe(node, event);
        self.check(checked);
    }

    /// ViewsArePrefixes: one version is one view, on all nodes. OneClusterPerSeeds.
    fn shown(&mut self, machine: usize, view: &Arc<View>) {
        let found = self.shown.entry(machine).or_default().of(view);
        let known = match self.views.insert(view.version, found) {
            None => {
                BoundsHold::shown(view, &self.findings);
                found
            }
            Some(known) => {
                self.compared += 1;
                known
            }
        };
        if known != found {
            let detail = format!("two nodes have different views of version {}", view.version);
            self.findings.violated("ViewsArePrefixes", detail);
        }
        self.clusters.extend(view.cluster);
        if self.clusters.len() > 1 {
            let detail = format!("there are the clusters {:?}", self.clusters);
            self.findings.violated("OneClusterPerSeeds", detail);
        }
        let checked = self.placement.shown(view);
        self.check(checked);
        let (newest, down, verdicts) = &mut self.newest;
        if view.version > newest.version {
            let found = view.nodes.iter().filter(|(_, node)| node.down.is_some());
            let found: BTreeSet<DiskId> = found.map(|(disk, _)| *disk).collect();
            *verdicts += found.symmetric_difference(down).count() as u64;
            self.moves.note(newest, view);
            Phase::of_views(newest, view, |phase| self.coverage.passes(phase, elapsed()));
            story::view_changes(&self.story, newest, view);
            for (id, new) in &view.partitions {
                let before = newest.partitions.get(id).map_or(0, |old| old.trusted);
                if new.trusted > before {
                    self.trusted.insert(*id, Instant::now());
                }
            }
            (*newest, *down) = (view.clone(), found);
        }
    }
}

/// What watches one machine.
#[derive(Clone)]
pub(super) struct NodeTrace {
    watch: Watch,
    machine: usize,
}

impl NodeTrace {
    /// The machine's process has written a step of the metadata log.
    pub(super) fn written(&self, step: &MetadataWrite) {
        let mut watched = self.watch.lock();
        if let Some((id, pending)) = raft::pending(step)
            && id.index > watched.applied
            && (pending.creates || !pending.excluded.is_empty())
        {
            watched.pending.insert(id.index, (id.term, pending));
        }
    }

    /// The machine's disk has synced a step of the metadata log.
    pub(super) fn synced(&self, step: &MetadataWrite) {
        let mut watched = self.watch.lock();
        let member = watched.members.get(&self.machine).copied();
        if let (Some(event), Some(node)) = (raft::synced(step), member) {
            watched.raft(self.machine, node, &event);
        }
    }
}

impl NodeTrace {
    fn lane(&self) -> Lane {
        Lane::Machine(self.machine)
    }

    /// Where what is found is put.
    pub(super) fn findings(&self) -> Findings {
        self.watch.lock().findings.clone()
    }
}

impl TraceRaft for NodeTrace {
    fn raft(&self) -> Observer {
        let Self { watch, machine } = self.clone();
        Observer::new(move |node, event| watch.lock().raft(machine, node, &event))
    }
}

impl Trace<Control> for NodeTrace {
    fn input(&self, _: &Control, now: Now, input: &ControlInput) {
        let mut watched = self.watch.lock();
        watched.chronicle.event((self.machine, now, input));
        if watched.chronicle.is_full() {
            watched.chronicle.print(&format!("control {}", self.machine), &format!("<- {input:?}"));
        }
        if let ControlInput::Heard { message, .. } = input {
            watched.story.arrives(self.lane(), message);
        }
    }

    fn handled(&self, control: &Control, effects: &[ControlEffect]) {
        let mut watched = self.watch.lock();
        watched.chronicle.event(effects);
        for effect in effects {
            match effect {
                ControlEffect::Show(view) | ControlEffect::Meet(view) => {
                    watched.shown(self.machine, view);
                }
                ControlEffect::Halt(_)
                | ControlEffect::Decide(_)
                | ControlEffect::Reconfigure(_)
                | ControlEffect::Joined(_) => {
                    if watched.chronicle.is_short() {
                        watched
                            .chronicle
                            .print(&format!("control {}", self.machine), &format!("{effect:?}"));
                    }
                }
                // They say every 200 ms that all is as it was.
                ControlEffect::Send {
                    message: ControlMessage::Heartbeat(_) | ControlMessage::HeartbeatAnswer(_),
                    ..
                } => {}
                ControlEffect::Send { to, message, .. } => {
                    let node = watched.newest.0.nodes.get(to);
                    if let Some(to) = node.and_then(|node| machine_at(node.address)) {
                        watched.story.leaves((self.lane(), to), Kind::Control, None, message);
                    }
                }
                ControlEffect::Propose(_)
                | ControlEffect::AskShards { .. }
                | ControlEffect::Tell(_)
                | ControlEffect::Reply { .. } => {}
            }
        }
        BoundsHold::stepped(control, &watched.findings);
    }
}

impl Trace<Gossip> for NodeTrace {
    fn input(&self, _: &Gossip, now: Now, input: &GossipInput) {
        let mut watched = self.watch.lock();
        watched.chronicle.event((self.machine, now, input));
        if watched.chronicle.is_full() {
            watched.chronicle.print(&format!("gossip {}", self.machine), &format!("<- {input:?}"));
        }
    }

    fn handled(&self, gossip: &Gossip, effects: &[GossipEffect]) {
        let mut watched = self.watch.lock();
        watched.chronicle.event(effects);
        BoundsHold::stepped(gossip, &watched.findings);
    }
}

impl Trace<Shard> for NodeTrace {
    fn input(&self, _: &Shard, now: Now, input: &ShardInput) {
        let mut watched = self.watch.lock();
        watched.chronicle.event((self.machine, now, input));
        if watched.chronicle.is_full() {
            watched.chronicle.print(&format!("shard {}", self.machine), &format!("<- {input:?}"));
        }
        if let Some(phase) = Phase::of_input(input) {
            watched.coverage.passes(phase, elapsed());
        }
        story::shard_takes(&watched.story, self.lane(), input);
    }

    fn handled(&self, shard: &Shard, effects: &[ShardEffect]) {
        let mut watched = self.watch.lock();
        watched.chronicle.event(effects);
        let Watched { coverage, newest, asked, .. } = &mut *watched;
        for effect in effects {
            if let ShardEffect::Report(Report::Adjust(wanted)) = effect {
                let entry = asked.entry(wanted.partition).or_default();
                if entry.0 < wanted.version {
                    *entry = (wanted.version, BTreeSet::new());
                }
                entry.1.extend(&wanted.removed);
            }
            Phase::of_effect(effect, &newest.0, |phase| coverage.passes(phase, elapsed()));
        }
        story::shard_does(&watched.story, self.lane(), effects);
        BoundsHold::stepped(shard, &watched.findings);
    }
}
