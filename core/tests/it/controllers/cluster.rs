//! A cluster of control machines: its log never fails, and the test says who leads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use sprawl_core::cluster::consensus::{RaftChange, RaftStatus};
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::message::ControlMessage;
use sprawl_core::cluster::metadata::{Change, Node, Registration, View};
use sprawl_core::cluster::verdicts::{Verdict, Verdicts};
use sprawl_core::cluster::{ClusterClock, Control};
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use crate::world::registration;

/// What right clocks show when the world begins, in milliseconds.
const WALL_BEGAN: u64 = 1_000_000_000_000;
/// One step of the world, in microseconds.
const STEP: u64 = 10_000;

/// A process.
pub(super) struct Process {
    pub(super) control: Control,
    pub(super) said: Registration,
    pub(super) started: u64,
    /// The metadata as far as it has them: how many entries of the log.
    pub(super) applied: usize,
    pub(super) view: View,
    /// Who it is in the Raft group, once it knows.
    pub(super) node: Option<NodeId>,
    pub(super) halted: Option<Halt>,
    /// Whether it was told that its run is registered.
    pub(super) joined: bool,
    pub(super) is_paused: bool,
    pub(super) replies: Vec<ControlResponse>,
    /// By how much its wall clock is wrong, in milliseconds.
    pub(super) wall_off: i64,
    /// What it has told the node's other parts of cluster time.
    clock: ClusterClock,
}

/// A cluster with a log that never fails, and a Raft group of which the test says who leads.
pub(super) struct World {
    /// True time, in microseconds.
    pub(super) now: u64,
    pub(super) dice: u64,
    pub(super) loss_percent: u64,
    pub(super) processes: Vec<Process>,
    pub(super) log: Vec<(ChangeIndex, Change)>,
    pub(super) next_index: u64,
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) learners: BTreeSet<NodeId>,
    /// The process that leads, and the term.
    pub(super) leads: Option<usize>,
    pub(super) term: u64,
    /// The newest time on the disks of those who start.
    pub(super) newest: WallTime,
    pub(super) wire: VecDeque<(u64, usize, DiskId, ControlMessage)>,
    pub(super) voter_changes: Vec<BTreeSet<NodeId>>,
}

impl World {
    pub(super) fn new(dice: u64, loss_percent: u64) -> Self {
        Self {
            now: 1_000_000,
            dice,
            loss_percent,
            processes: Vec::new(),
            log: Vec::new(),
            next_index: 1,
            voters: BTreeSet::from([NodeId(0)]),
            learners: BTreeSet::new(),
            leads: None,
            term: 0,
            newest: WallTime(0),
            wire: VecDeque::new(),
            voter_changes: Vec::new(),
        }
    }

    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % below
    }

    /// Starts a process on an empty disk; the first one founds.
    pub(super) fn start(&mut self, said: Registration) -> usize {
        let founds = self.processes.is_empty().then_some(ClusterId(7));
        self.start_from(said, founds, 0)
    }

    /// Starts one whose disk has the first `applied` entries of the log.
    pub(super) fn start_from(
        &mut self,
        said: Registration,
        founds: Option<ClusterId>,
        applied: usize,
    ) -> usize {
        let mut view = View::default();
        self.log[..applied].iter().for_each(|(index, change)| view.apply(*index, change));
        let node = view.nodes.get(&said.disk).map(|node| node.id);
        let node = node.or(founds.map(|_| NodeId(0)));
        // One clock of three is a quarter of an hour late.
        let wall_off = if said.disk.0.is_multiple_of(3) { -900_000 } else { 0 };
        let wall = WallTime((WALL_BEGAN + self.now / 1_000).saturating_add_signed(wall_off));
        let origin = Now { since_start: Time(0), wall };
        let (shown, newest) = (Arc::new(view.clone()), self.newest);
        let seed = ControlSeed { said: said.clone(), founds, view: shown, origin, newest };
        let mut control = Control::recover(seed);
        // Gossip knows whoever runs.
        let running = self.processes.iter().filter(|other| other.halted.is_none());
        let known = running.map(|other| (other.said.disk, Verdict::Live)).collect();
        let judged = ControlInput::Judged(Arc::new(Verdicts(known)));
        control.handle(origin, judged, &mut Vec::new());
        let (started, halted, is_paused, replies) = (self.now, None, false, Vec::new());
        self.processes.push(Process {
            control,
            said,
            started,
            applied,
            view,
            node,
            halted,
            joined: false,
            is_paused,
            replies,
            wall_off,
            clock: ClusterClock::new(origin),
        });
        let at = self.processes.len() - 1;
        if founds.is_some() {
            self.lead(at);
        }
        at
    }

    /// `count` nodes, in three zones, that have become a cluster.
    pub(super) fn cluster(count: u128, dice: u64, loss_percent: u64) -> Self {
        let mut world = Self::new(dice, loss_percent);
        for disk in 1..=count {
            let zone = format!("z{}", disk % 3);
            world.start(Registration { zone, ..registration(DiskId(disk), Boot(1)) });
        }
        world.pass(6_000);
        world.expect_members(&(1..=count).collect::<Vec<_>>());
        world
    }

    pub(super) fn lead(&mut self, at: usize) {
        self.leads = Some(at);
        self.term += 1;
    }

    pub(super) fn runs(&self, at: usize) -> bool {
        let process = &self.processes[at];
        process.halted.is_none() && !process.is_paused
    }

    pub(super) fn moment(&self, at: usize) -> Now {
        let process = &self.processes[at];
        let wall = (WALL_BEGAN + self.now / 1_000).saturating_add_signed(process.wall_off);
        Now { since_start: Time(self.now - process.started), wall: WallTime(wall) }
    }

    pub(super) fn feed(&mut self, at: usize, input: ControlInput) {
        if !self.runs(at) {
            return;
        }
        let (now, mut effects) = (self.moment(at), Vec::new());
        let process = &mut self.processes[at];
        process.control.handle(now, input, &mut effects);
        assert_eq!(process.control.check(), Ok(()));
        for effect in effects {
            self.perform(at, effect);
        }
    }

    pub(super) fn perform(&mut self, at: usize, effect: ControlEffect) {
        match effect {
            ControlEffect::Tell(clock) => self.processes[at].clock = clock,
            ControlEffect::Meet(view) => assert_eq!(view.check(), Ok(())),
            ControlEffect::Show(view) => {
                assert_eq!(view.check(), Ok(()));
                self.expect_time(at, &view);
            }
            ControlEffect::Propose(change) => {
                if self.leads.is_some_and(|leader| self.runs(leader)) {
                    self.append(change);
                }
            }
            ControlEffect::Decide(change) => {
                if self.leads == Some(at) {
                    self.append(change);
                }
            }
            ControlEffect::Send { to, message, .. } => {
                if self.draw(100) >= self.loss_percent {
                    let due = self.now + 1_000 + self.draw(20_000);
                    self.wire.push_back((due, at, to, message));
                }
            }
            ControlEffect::Reconfigure(change) if self.leads == Some(at) => match change {
                RaftChange::AddLearner { node, .. } => {
                    assert!(!self.voters.contains(&node) && self.learners.insert(node));
                }
                RaftChange::Voters(next) => {
                    let out: Vec<NodeId> = self.voters.difference(&next).copied().collect();
                    self.learners.extend(out);
                    self.learners.retain(|id| !next.contains(id));
                    self.voters = next.clone();
                    self.voter_changes.push(next);
                }
                RaftChange::Remove(node) => assert!(self.learners.remove(&node)),
                RaftChange::HandOver => self.elect(),
            },
            ControlEffect::Joined(joined) => {
                assert!(!std::mem::replace(&mut self.processes[at].joined, true), "said once");
                self.processes[at].node = Some(joined.node);
            }
            ControlEffect::Halt(why) => self.processes[at].halted = Some(why),
            ControlEffect::Reply { response, .. } => self.processes[at].replies.push(response),
            ControlEffect::Reconfigure(_) | ControlEffect::AskShards { .. } => {}
        }
    }

    /// Whoever acts by a view knows what time it is.
    fn expect_time(&self, at: usize, view: &View) {
        let Process { said, clock, .. } = &self.processes[at];
        let is_run = |node: &Arc<Node>| (node.boot, node.run) == (said.boot, said.run);
        if view.nodes.get(&said.disk).is_some_and(is_run) {
            let off = clock.at(self.moment(at)).0.abs_diff(WALL_BEGAN + self.now / 1_000);
            assert!(off <= 1_000, "node {} begins {off} ms off", said.disk);
        }
    }

    pub(super) fn append(&mut self, change: Change) {
        self.next_index += 1 + self.draw(3);
        self.log.push((ChangeIndex(self.next_index), change));
    }

    /// Gives a process what it lacks of the log, if it receives the log.
    pub(super) fn replicate(&mut self, at: usize) {
        let receives = |id: &NodeId| self.voters.contains(id) || self.learners.contains(id);
        if !self.processes[at].node.as_ref().is_some_and(receives) {
            return;
        }
        while self.runs(at) && self.processes[at].applied < self.log.len() {
            let process = &mut self.processes[at];
            let (index, change) = self.log[process.applied].clone();
            process.applied += 1;
            process.view.apply(index, &change);
            let view = Arc::new(process.view.clone());
            self.feed(at, ControlInput::Decided { index, change, view });
        }
    }

    pub(super) fn status(&self, at: usize) -> RaftStatus {
        let leads = self.leads == Some(at);
        let leader = self.leads.and_then(|leader| self.processes[leader].node);
        let matched = |id: &NodeId| {
            let holder = self.processes.iter().find(|process| process.node == Some(*id));
            (*id, holder.map_or(0, |process| process.view.version.0))
        };
        let live = self.voters.iter().filter(|id| {
            (0..self.processes.len())
                .any(|at| self.runs(at) && self.processes[at].node == Some(**id))
        });
        let has_quorum = live.count() * 2 > self.voters.len();
        RaftStatus {
            leader,
            term: self.term,
            is_leader_ready: leads,
            quorum_acked: (leads && has_quorum).then(|| self.moment(at).since_start),
            voters: self.voters.clone(),
            is_joint: false,
            learners: self.learners.iter().map(matched).collect(),
            applied: self.processes[at].view.version,
        }
    }

    /// Lets so many milliseconds pass.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + millis * 1_000;
        while self.now < end {
            self.now += STEP;
            for at in 0..self.processes.len() {
                self.replicate(at);
            }
            let all = std::mem::take(&mut self.wire);
            let (due, later): (VecDeque<_>, VecDeque<_>) =
                all.into_iter().partition(|(due, ..)| *due <= self.now);
            self.wire = later;
            for (_, from, to, message) in due {
                self.deliver(from, to, message);
            }
            for at in 0..self.processes.len() {
                if (self.now / STEP).is_multiple_of(10) {
                    let status = self.status(at);
                    self.feed(at, ControlInput::Raft(status));
                }
                let wakeup = self.processes[at].control.wakeup();
                if wakeup.is_some_and(|wakeup| wakeup <= self.moment(at).since_start) {
                    self.feed(at, ControlInput::Woke);
                }
            }
        }
    }

    /// To every process of that identity at which the network may take the message to arrive: the
    /// one that was heard last by its address is not told apart from a copy.
    pub(super) fn deliver(&mut self, from: usize, to: DiskId, message: ControlMessage) {
        let said = &self.processes[from].said;
        let sender = (said.disk, said.boot);
        for at in 0..self.processes.len() {
            if self.processes[at].said.disk == to && at != from {
                self.feed(at, ControlInput::Heard { from: sender, message: message.clone() });
            }
        }
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.processes[at].is_paused = true;
        if self.leads == Some(at) {
            self.leads = None;
        }
    }

    /// Another voter that runs leads.
    pub(super) fn elect(&mut self) {
        let able = |at: &usize| {
            self.runs(*at) && self.processes[*at].node.is_some_and(|id| self.voters.contains(&id))
        };
        let count = self.processes.len();
        let first = self.leads.map_or(0, |before| before + 1);
        let mut turn = (0..count).map(|at| (first + at) % count);
        let leader = turn.find(able).expect("a voter runs");
        self.lead(leader);
    }

    /// The metadata as the log has them.
    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        self.log.iter().for_each(|(index, change)| view.apply(*index, change));
        view
    }

    #[track_caller]
    pub(super) fn expect_members(&self, disks: &[u128]) {
        let view = self.view();
        let members: Vec<u128> = view.nodes.keys().map(|disk| disk.0).collect();
        assert_eq!(members, disks, "the members");
        for disk in disks {
            let mut running = (0..self.processes.len())
                .filter(|at| self.runs(*at) && self.processes[*at].said.disk.0 == *disk);
            let agrees = running.all(|at| {
                self.processes[at].joined && self.processes[at].view.version == view.version
            });
            assert!(agrees, "node {disk} has not joined, or not the newest metadata");
        }
    }

    pub(super) fn down(&self) -> Vec<u128> {
        let view = self.view();
        let down = view.nodes.iter().filter(|(_, node)| node.down.is_some());
        down.map(|(disk, _)| disk.0).collect()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Change) -> bool) -> usize {
        self.log.iter().filter(|(_, change)| wanted(change)).count()
    }

    pub(super) fn fails(&self) -> usize {
        self.count(|change| matches!(change, Change::Fail { .. }))
    }

    pub(super) fn ask(&mut self, at: usize, request: ControlRequest) {
        self.feed(at, ControlInput::Requested { id: RequestId(1), request });
    }
}
