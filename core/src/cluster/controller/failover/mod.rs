//! Who leads, and who is to hold a copy, when nodes fail: decided from what their logs end with.
//!
//! All that failed together is one question to those who are left and one change. A partition that
//! needs nothing costs nothing: what has to be looked at is found when nodes come or go.

mod balance;
mod leads;
mod ruling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use self::balance::Balance;
pub use self::balance::{BALANCE_AFTER, BALANCE_INTERVAL, MOVES_MAX, SLOW_REST};
use self::ruling::{Judge, Wish};
use crate::cluster::message::{AskLogEnds, LogEnd, LogEnds};
use crate::cluster::metadata::{Change, Leaving, NODES_MAX, Partition, RULINGS_MAX, Ruling, View};
use crate::cluster::placement::Candidates;
use crate::ids::{Boot, DiskId, EntryIndex, Epoch, PartitionId};
use crate::machine::{Time, WallTime};

/// How long the answers to a question are waited for: twice as long after each that was not
/// answered by all, so that who is far away is heard too.
pub const LOG_ENDS_WAIT: Duration = Duration::from_millis(100);
/// How long they are waited for at most.
pub const LOG_ENDS_WAIT_MAX: Duration = Duration::from_millis(400);
/// How many partitions one message asks about at most.
pub const ASKED_MAX: usize = 1_000;
/// How often a partition gets another leader, at most, because a member is slow.
pub const SLOW_ELECTION_INTERVAL: Duration = Duration::from_secs(5);
/// How many complaints about slow or damaged members are kept at most.
pub const COMPLAINTS_MAX: usize = 10_000;
/// After what time what was decided, and does not show, is decided again.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long a node is down before its copies are made elsewhere, where enough others count.
pub const REPLACE_AFTER: Duration = Duration::from_secs(60);

/// What is to be done about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Ask a node what its logs end with.
    Ask {
        /// The node.
        to: DiskId,
        /// The question.
        ask: AskLogEnds,
    },
    /// Have this agreed on.
    Decide(Change),
}

/// Whether a node that is down since then is not waited for any more.
fn is_away(since: WallTime, time: WallTime) -> bool {
    Duration::from_millis(time.0.saturating_sub(since.0)) >= REPLACE_AFTER
}

/// What is known of a partition's logs.
type Ends = BTreeMap<DiskId, LogEnd>;

/// A question that waits for its answers.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    until: Time,
    /// The partitions that it is about because they need a leader.
    about: BTreeSet<PartitionId>,
    /// Who was asked about what and has not answered.
    awaited: BTreeSet<(DiskId, PartitionId)>,
    ends: BTreeMap<PartitionId, Ends>,
    /// What the members of a partition knew to be committed, before those who ended below it were
    /// asked again; empty in the first round.
    known: BTreeMap<PartitionId, EntryIndex>,
}

/// A member that is said to be slow, and by whom.
#[derive(Clone, Copy, Debug)]
struct Complaint {
    epoch: Epoch,
    by: DiskId,
}

/// The controller's care for partitions.
///
/// Invariants, checked by [`Failover::check`]: (1) no more nodes are failing than there may be;
/// (2) no more complaints are kept than [`COMPLAINTS_MAX`].
#[derive(Debug, Default)]
pub struct Failover {
    /// Nodes that are to be declared failed.
    failing: BTreeSet<(DiskId, Boot)>,
    /// Partitions to look at.
    scope: BTreeSet<PartitionId>,
    /// Partitions that want something that there is not, and when to look at them again.
    unwell: BTreeSet<PartitionId>,
    look_again: Time,
    /// The nodes, as they were when all partitions were looked at.
    nodes: Vec<(DiskId, Boot, Option<WallTime>, Option<Leaving>)>,
    /// The partitions, as they were when it was last found out which of them have changed.
    seen: OrdMap<PartitionId, Arc<Partition>>,
    complaints: BTreeMap<PartitionId, Complaint>,
    /// Members that do not hold what they acknowledged.
    damaged: BTreeSet<(PartitionId, DiskId)>,
    /// When partitions got another leader because of a slow member.
    elected: BTreeMap<PartitionId, Time>,
    /// What was decided, by which version, and when to decide it again.
    decided: BTreeMap<PartitionId, (u64, Time)>,
    round: Option<Round>,
    asked: u64,
    /// How often in a row somebody has not answered in time.
    unanswered: u32,
    /// Evens out what nodes have to do.
    balance: Balance,
    /// What that wants, until it is decided.
    wishes: BTreeMap<PartitionId, Wish>,
}

impl Failover {
    /// What was known is not: another node leads the metadata, or this one leads them anew.
    pub fn clear(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    /// These runs are silent; they are declared failed with what follows from it.
    pub fn fail(&mut self, nodes: impl IntoIterator<Item = (DiskId, Boot)>) {
        self.failing.extend(nodes);
    }

    /// What nodes have to do is to be evened out now.
    pub fn rebalance(&mut self) {
        self.balance.hurry();
    }

    /// The leader of a partition says that a member holds up the others, and that the set cannot do
    /// without it.
    pub fn complain(&mut self, by: DiskId, partition: PartitionId, epoch: Epoch) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.insert(partition, Complaint { epoch, by });
            self.scope.insert(partition);
        }
    }

    /// A member does not hold what it acknowledged.
    pub fn damaged(&mut self, partition: PartitionId, member: DiskId) {
        if self.damaged.len() < COMPLAINTS_MAX {
            self.damaged.insert((partition, member));
            self.scope.insert(partition);
        }
    }

    /// A node says what its logs end with.
    pub fn heard(&mut self, from: DiskId, answer: LogEnds) {
        let Some(round) = self.round.as_mut().filter(|round| round.number == answer.number) else {
            return;
        };
        for (partition, end) in answer.ends {
            if round.awaited.remove(&(from, partition)) {
                round.ends.entry(partition).or_default().insert(from, end);
            }
        }
    }

    /// Looks at what there is to do. `time` is cluster time.
    pub fn decide(&mut self, view: &View, now: Time, time: WallTime, out: &mut Vec<Remedy>) {
        self.look_around(view, now);
        if self.look_again <= now {
            self.look_again = now + AGAIN;
            self.scope.append(&mut self.unwell);
        }
        self.elected.retain(|_, at| now.since(*at) < SLOW_ELECTION_INTERVAL);
        self.decided.retain(|_, (_, again)| *again > now);
        let after = self.after(view, time);
        match self.round.take() {
            Some(round) if !round.awaited.is_empty() && round.until > now => {
                self.round = Some(round);
            }
            Some(round) => {
                let is_answered = round.awaited.is_empty();
                self.unanswered = if is_answered { 0 } else { self.unanswered.saturating_add(1) };
                if let Some(again) = self.ask_again(&round, now, out) {
                    self.round = Some(again);
                } else {
                    self.rule(&after, &round, (now, time), out);
                }
            }
            None => {
                self.even_out(&after, (now, time));
                if !self.ask(&after, now, out) {
                    self.rule(&after, &Round::default(), (now, time), out);
                }
            }
        }
    }

    /// Finds out what to move, where nothing else is to be done.
    fn even_out(&mut self, view: &View, (now, time): (Time, WallTime)) {
        if self.scope.is_empty() && self.failing.is_empty() {
            let judge = Judge { view, damaged: &self.damaged };
            self.wishes = self.balance.plan(&judge, (now, time));
            self.scope.extend(self.wishes.keys());
        }
    }

    /// When to look again, if nothing happens before.
    #[must_use]
    pub fn wakeup(&self) -> Option<Time> {
        self.round.as_ref().map(|round| round.until)
    }

    /// Partitions that have changed may need something; when nodes came, went, are to go, or began
    /// a new run, all may.
    fn look_around(&mut self, view: &View, now: Time) {
        let nodes = view.nodes.iter();
        let nodes: Vec<_> =
            nodes.map(|(disk, node)| (*disk, node.boot, node.down, node.leaving)).collect();
        if nodes != self.nodes {
            self.nodes = nodes;
            self.balance.wait(now);
            self.scope.extend(view.partitions.keys());
        } else {
            self.scope.extend(self.seen.diff(&view.partitions).map(|change| match change {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) => *id,
                DiffItem::Update { new: (id, _), .. } => *id,
            }));
        }
        self.seen = view.partitions.clone();
        let failing = std::mem::take(&mut self.failing);
        for (disk, boot) in failing {
            if view.nodes.get(&disk).is_some_and(|node| node.boot == boot && node.down.is_none()) {
                self.failing.insert((disk, boot));
                self.scope.extend(view.held_by(disk).map(|partition| partition.id));
            }
        }
    }

    /// The metadata as they will be when the failing nodes are declared failed.
    fn after(&self, view: &View, at: WallTime) -> View {
        let mut after = view.clone();
        if !self.failing.is_empty() {
            let nodes = self.failing.iter().copied().collect();
            after.apply(view.version.next(), &Change::Fail { nodes, at, rulings: Vec::new() });
        }
        after
    }

    fn judge<'a>(&'a self, view: &'a View) -> Judge<'a> {
        Judge { view, damaged: &self.damaged }
    }

    /// What is wanted of a partition, by its leader, if that complains and may be heard, and for
    /// the sake of balance.
    fn wish(&self, partition: &Partition) -> Wish {
        let wish = self.wishes.get(&partition.id).copied().unwrap_or_default();
        let complaint = self.complaints.get(&partition.id);
        let is_new = |complaint: &&Complaint| complaint.epoch == partition.epoch;
        let may = !self.elected.contains_key(&partition.id);
        let complainer = complaint.filter(is_new).filter(|_| may).map(|complaint| complaint.by);
        Wish { complainer, ..wish }
    }

    /// Asks whoever may lead a partition that needs a leader, and the leaders of those of which
    /// somebody is to leave the set; `false` where nobody is to be asked.
    fn ask(&mut self, view: &View, now: Time, out: &mut Vec<Remedy>) -> bool {
        if self.scope.is_empty() {
            return false;
        }
        let (judge, places) = (self.judge(view), Candidates::of(view));
        let (mut awaited, mut about) = (BTreeSet::new(), BTreeSet::new());
        for partition in self.scope.iter().filter_map(|id| view.partitions.get(id)) {
            let waits =
                self.decided.get(&partition.id).is_some_and(|(by, _)| *by >= partition.version);
            let kept = judge.kept(partition, &places);
            if waits {
                continue;
            }
            if judge.elects(partition, &self.wish(partition), &kept) {
                awaited.extend(judge.candidates(partition).map(|disk| (disk, partition.id)));
                about.insert(partition.id);
            } else if judge.thins(partition, &kept) {
                awaited.insert((partition.leader, partition.id));
            }
        }
        let is_put = self.put_question(awaited, BTreeMap::new(), now, out);
        self.round.as_mut().into_iter().for_each(|round| round.about.append(&mut about));
        is_put
    }

    fn put_question(
        &mut self,
        awaited: BTreeSet<(DiskId, PartitionId)>,
        known: BTreeMap<PartitionId, EntryIndex>,
        now: Time,
        out: &mut Vec<Remedy>,
    ) -> bool {
        if awaited.is_empty() {
            return false;
        }
        self.asked += 1;
        let wait = LOG_ENDS_WAIT * 2_u32.pow(self.unanswered.min(4));
        let (number, until) = (self.asked, now + wait.min(LOG_ENDS_WAIT_MAX));
        let mut by_node: BTreeMap<DiskId, Vec<PartitionId>> = BTreeMap::new();
        for &(disk, partition) in &awaited {
            by_node.entry(disk).or_default().push(partition);
        }
        for (to, partitions) in by_node {
            for part in partitions.chunks(ASKED_MAX) {
                let ask = AskLogEnds { number, partitions: part.to_vec() };
                out.push(Remedy::Ask { to, ask });
            }
        }
        self.round = Some(Round { number, until, awaited, known, ..Round::default() });
        true
    }

    /// Who ended below what another knows to be committed is asked again: it may have received that
    /// since it answered. Who ends below it even so is damaged.
    fn ask_again(&mut self, round: &Round, now: Time, out: &mut Vec<Remedy>) -> Option<Round> {
        let mut suspects = BTreeSet::new();
        let mut known = BTreeMap::new();
        for (&partition, ends) in &round.ends {
            for (&disk, _) in ends.iter().filter(|(_, end)| end.damaged) {
                self.damaged.insert((partition, disk));
            }
            let most = ends.values().map(|end| end.commit).max().unwrap_or_default();
            let was_known = round.known.get(&partition).copied();
            for (&disk, end) in ends {
                match was_known {
                    Some(was_known) if end.last < was_known => {
                        self.damaged.insert((partition, disk));
                    }
                    None if end.last < most => {
                        suspects.insert((disk, partition));
                        known.insert(partition, most);
                    }
                    Some(_) | None => {}
                }
            }
        }
        if !self.put_question(suspects, known, now, out) {
            return None;
        }
        let mut again = self.round.take().expect("a question was put");
        again.about.clone_from(&round.about);
        again.ends.clone_from(&round.ends);
        for (disk, partition) in &again.awaited {
            again.ends.get_mut(partition).map(|ends| ends.remove(disk));
        }
        Some(again)
    }

    /// Decides what follows for every partition that is to be looked at.
    fn rule(
        &mut self,
        view: &View,
        round: &Round,
        (now, time): (Time, WallTime),
        out: &mut Vec<Remedy>,
    ) {
        self.forget(view);
        if self.scope.is_empty() && self.failing.is_empty() {
            return;
        }
        let mut rulings = Vec::new();
        let mut places = Candidates::of(view);
        let none = Ends::new();
        let mut again = BTreeSet::new();
        for id in std::mem::take(&mut self.scope) {
            let Some(partition) = view.partitions.get(&id) else { continue };
            let (wish, judge) = (self.wish(partition), self.judge(view));
            let kept = judge.kept(partition, &places);
            let elects = judge.elects(partition, &wish, &kept);
            let waits = self.decided.get(&id).is_some_and(|(at, _)| *at >= partition.version);
            let unasked = elects && !round.about.contains(&id);
            if waits || unasked && judge.candidates(partition).next().is_some() {
                self.unwell.insert(id);
                continue;
            }
            let ends = round.ends.get(&id).unwrap_or(&none);
            let leader = partition.leader;
            let is_asked = ends.contains_key(&leader) || round.awaited.contains(&(leader, id));
            if !elects && !is_asked && judge.thins(partition, &kept) {
                again.insert(id);
                continue;
            }
            let ruling = judge.rule(partition, &wish, &kept, ends, time, &mut places);
            if let Some(by) = wish.complainer {
                self.elected.insert(id, now);
                self.complaints.remove(&id);
                self.balance.is_slow(by, now);
            }
            if let Some(to) = wish.leader.filter(|to| !ends.contains_key(to)) {
                self.balance.is_slow(to, now);
            }
            let waits = self.complaints.contains_key(&id) || ruling.is_some();
            if waits || self.judge(view).is_unwell(partition) {
                self.unwell.insert(id);
            }
            if let Some(ruling) = ruling {
                self.decided.insert(id, (partition.version, now + AGAIN));
                rulings.push(ruling);
            }
        }
        self.wishes.clear();
        self.scope = again;
        self.put(rulings, time, out);
    }

    /// What was said about partitions and members that are not there any more, or about leaders
    /// that lead no more, is over.
    fn forget(&mut self, view: &View) {
        let is_member = |&(partition, disk): &(PartitionId, DiskId)| {
            let partition = view.partitions.get(&partition);
            partition.is_some_and(|one| one.member(disk).is_some_and(|one| one.holds_committed()))
        };
        self.damaged.retain(is_member);
        self.complaints.retain(|id, complaint| {
            view.partitions.get(id).is_some_and(|one| one.epoch == complaint.epoch)
        });
    }

    fn put(&mut self, rulings: Vec<Ruling>, at: WallTime, out: &mut Vec<Remedy>) {
        let nodes: Vec<(DiskId, Boot)> = std::mem::take(&mut self.failing).into_iter().collect();
        let mut parts = rulings.chunks(RULINGS_MAX).map(<[Ruling]>::to_vec);
        if !nodes.is_empty() {
            let rulings = parts.next().unwrap_or_default();
            out.push(Remedy::Decide(Change::Fail { nodes, at, rulings }));
        }
        out.extend(parts.map(|rulings| Remedy::Decide(Change::Rule { rulings })));
    }

    /// Checks the invariants.
    ///
    /// # Errors
    ///
    /// Says what breaks which.
    pub fn check(&self) -> Result<(), String> {
        let bounds = [
            ("(1) nodes failing", self.failing.len(), NODES_MAX),
            ("(2) complaints", self.complaints.len(), COMPLAINTS_MAX),
            ("(2) damaged members", self.damaged.len(), 2 * COMPLAINTS_MAX),
            ("(2) slow nodes", self.balance.slow(), NODES_MAX + COMPLAINTS_MAX),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(format!("{len} {what}, the bound is {max}")),
            None => Ok(()),
        }
    }
}
