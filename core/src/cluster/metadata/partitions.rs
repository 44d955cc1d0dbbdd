//! Partitions as the cluster agrees on them: who leads, who holds a copy, whose copy counts.
//!
//! A change of a partition names the epoch and the version that it was decided by, and does nothing
//! when either has moved. Two kinds of nodes decide: the leader of the current epoch, who alone
//! adds to the set that counts, because it alone knows who holds what it acknowledged; and the
//! controller, who removes, names a new leader, and says where copies are to be.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::View;
use super::change::{ADJUSTMENTS_MAX, Addition, Adjustment, RULINGS_MAX, Ruling};
use crate::cluster::placement::OWNERS_MAX;
use crate::cluster::topic::TopicConfig;
use crate::ids::{Boot, ChangeIndex, DiskId, Epoch, PartitionId, TopicName};
use crate::zoo::{Bug, planted};

/// The feature level from which on partitions have more than one copy.
pub const REPLICATION_LEVEL: u32 = 2;
/// How many nodes are to hold a copy of one partition at most: its owners, and as many again while
/// these take their places.
pub const REPLICAS_MAX: usize = 2 * OWNERS_MAX;

/// How a member of an in-sync set stands to what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It holds every entry that is retained: it may lead.
    Whole,
    /// It holds a state and every entry after it: it counts for commits, and does not lead before
    /// it holds the older ones too.
    Tail,
    /// It does not hold what it acknowledged, and stays because too few would be left: it counts
    /// as one that does not answer, and does not lead.
    Lost,
    /// Its run has ended without order: it holds what it had synced, and so all that is committed,
    /// and may lack what it acknowledged before. It counts as one that does not answer, and leads
    /// on trust, where nobody is whole.
    Unsure,
}

/// A member of an in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub disk: DiskId,
    /// What it holds.
    pub standing: Standing,
}

impl Member {
    /// A member that holds everything.
    #[must_use]
    pub fn whole(disk: DiskId) -> Self {
        Self { disk, standing: Standing::Whole }
    }

    /// Whether it may lead.
    #[must_use]
    pub fn is_electable(&self) -> bool {
        self.standing == Standing::Whole
            || self.standing == Standing::Tail && planted(Bug::TailMayLead)
    }

    /// Whether it is one that acknowledges, as long as its node runs.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(self.standing, Standing::Whole | Standing::Tail)
    }

    /// Whether all that is committed and retained is on its disk, if that is as it was written.
    #[must_use]
    pub fn holds_committed(&self) -> bool {
        matches!(self.standing, Standing::Whole | Standing::Unsure)
    }
}

/// A partition: who leads it, who holds it, who counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    /// The partition's own name.
    pub id: PartitionId,
    /// The topic that it is part of.
    pub topic: TopicName,
    /// How the topic is kept.
    pub config: Arc<TopicConfig>,
    /// Its number within the topic.
    pub number: u32,
    /// The change that made it.
    pub created: ChangeIndex,
    /// The current reign.
    pub epoch: Epoch,
    /// Raised by each accepted change to this partition, and by each that its leader asked for and
    /// did not get: whoever asked knows then that it is decided.
    pub version: u64,
    /// Who leads, or, where [`Partition::led_by`] gives nobody, who did last.
    pub leader: DiskId,
    /// Who is to hold a copy.
    pub replicas: Vec<DiskId>,
    /// Whose copies count for commits.
    pub in_sync: Vec<Member>,
    /// How many live members the set keeps at least: one is removed only from a larger one.
    pub min_in_sync: u32,
    /// Whether the set holds somebody who does not answer and cannot be removed: nothing commits.
    pub frozen: bool,
    /// Whether it acknowledges, or ever did, what is not synced on every member of the set: there
    /// may be some of that.
    pub early: bool,
    /// How often a copy was taken on trust: it leads, and may lack the newest that was acknowledged
    /// before it was synced, because every member of the set had ended without order.
    pub trusted: u64,
}

impl Partition {
    /// Who leads; nobody, where whoever did last does not hold what it acknowledged.
    #[must_use]
    pub fn led_by(&self) -> Option<DiskId> {
        self.member(self.leader).filter(Member::is_electable).map(|member| member.disk)
    }

    /// The node's place in the set that counts.
    #[must_use]
    pub fn member(&self, disk: DiskId) -> Option<Member> {
        self.in_sync.iter().find(|member| member.disk == disk).copied()
    }

    /// The identities of the set that counts.
    pub fn members(&self) -> impl Iterator<Item = DiskId> {
        self.in_sync.iter().map(|member| member.disk)
    }

    fn mark(&mut self, disk: DiskId, standing: Standing) {
        let member = self.in_sync.iter_mut().find(|member| member.disk == disk);
        member.into_iter().for_each(|member| member.standing = standing);
    }
}

impl View {
    /// How many nodes are to hold each partition of a topic that is kept like this.
    #[must_use]
    pub fn replicas_wanted(&self, config: &TopicConfig) -> usize {
        if self.level < REPLICATION_LEVEL {
            return 1;
        }
        (config.replication as usize).clamp(1, OWNERS_MAX).min(self.staying().max(1))
    }

    /// How many live members the sets of such a topic are to keep: half of the copies, rounded up.
    #[must_use]
    pub fn min_in_sync_wanted(&self, config: &TopicConfig) -> u32 {
        self.replicas_wanted(config).div_ceil(2) as u32
    }

    /// Whether a member can acknowledge: its node is not known to be down, and it holds what it
    /// acknowledged before.
    #[must_use]
    pub fn is_live(&self, member: &Member) -> bool {
        member.counts() && self.is_up(member.disk)
    }

    /// Whether a set may be what is left after a removal: it has enough live members, and one of
    /// them holds everything.
    #[must_use]
    pub fn is_enough(&self, set: &[Member], min_in_sync: u32) -> bool {
        let live = || set.iter().filter(|member| self.is_live(member));
        let is_large = live().count() >= min_in_sync as usize || planted(Bug::SetBelowMin);
        is_large && live().any(Member::is_electable)
    }

    /// Whether a partition that acknowledges what is not synced has nobody left who holds that for
    /// sure, but somebody who holds what is committed: one may be taken on trust.
    #[must_use]
    pub fn is_forsaken(&self, partition: &Partition) -> bool {
        let members = || partition.in_sync.iter();
        !members().any(Member::is_electable) && members().any(Member::holds_committed)
    }

    /// Whether a node is registered and not known to be down.
    #[must_use]
    pub fn is_up(&self, disk: DiskId) -> bool {
        self.nodes.get(&disk).is_some_and(|node| node.down.is_none())
    }

    /// Whether nobody who runs leads a partition.
    #[must_use]
    pub fn is_leaderless(&self, partition: &Partition) -> bool {
        let leader = partition.led_by().and_then(|disk| partition.member(disk));
        leader.is_none_or(|leader| !self.is_live(&leader))
    }

    /// Whether fewer nodes that run hold all that a partition has committed than are to.
    #[must_use]
    pub fn is_under_replicated(&self, partition: &Partition) -> bool {
        let topic = self.topics.get(&partition.topic);
        let wanted = topic.map_or(1, |topic| self.replicas_wanted(&topic.config));
        let whole = |member: &&Member| member.is_electable() && self.is_live(member);
        partition.in_sync.iter().filter(whole).count() < wanted
    }

    /// The partitions of which a node is to hold a copy.
    pub fn held_by(&self, disk: DiskId) -> impl Iterator<Item = &Arc<Partition>> {
        let held = self.held.get(&disk).into_iter().flat_map(|held| held.iter());
        held.filter_map(|id| self.partitions.get(id))
    }

    /// The controller has decided about these partitions.
    pub(super) fn rule(&mut self, rulings: &[Ruling]) {
        for ruling in rulings.iter().take(RULINGS_MAX) {
            if let Some(next) = self.ruled(ruling) {
                self.put(next);
            }
        }
    }

    fn ruled(&self, ruling: &Ruling) -> Option<Partition> {
        let Ruling { partition, epoch, version, leader, filled, removed, .. } = ruling;
        let Ruling { lost, placed, dropped, .. } = ruling;
        let before = self.partitions.get(partition)?;
        if (before.epoch, before.version) != (*epoch, *version) {
            return None;
        }
        let mut next = Partition::clone(before);
        let is_tail = |disk| next.member(disk).is_some_and(|one| one.standing == Standing::Tail);
        if !filled.iter().all(|disk| is_tail(*disk)) {
            return None;
        }
        filled.iter().for_each(|disk| next.mark(*disk, Standing::Whole));
        next.in_sync.retain(|member| !removed.contains(&member.disk));
        lost.iter().for_each(|disk| next.mark(*disk, Standing::Lost));
        if removed.iter().chain(lost).any(|disk| before.member(*disk).is_none())
            || !removed.is_empty() && !self.is_enough(&next.in_sync, next.min_in_sync)
        {
            return None;
        }
        next.replicas.retain(|disk| !dropped.contains(disk));
        for disk in placed {
            if next.replicas.contains(disk) || !self.nodes.contains_key(disk) {
                return None;
            }
            next.replicas.push(*disk);
            if planted(Bug::MovedBeforeInSync) {
                next.in_sync.push(Member::whole(*disk));
            }
        }
        if let Some(leader) = leader {
            if self.is_forsaken(before) && self.is_up(*leader) {
                // It may have been taken out of the set while others were thought to live.
                next.in_sync.retain(|member| member.disk != *leader);
                next.in_sync.push(Member::whole(*leader));
                next.trusted += 1;
            }
            let up = |member: &Member| member.is_electable() && self.is_live(member);
            next.member(*leader).filter(up)?;
            next.leader = *leader;
        }
        // Whoever is not to lead any more must not be heard by members who do not know it yet.
        let is_other = leader.is_some() || next.led_by() != before.led_by();
        if is_other && !planted(Bug::EpochInherited) {
            next.epoch = next.epoch.next();
        }
        let fits = next.members().all(|disk| next.replicas.contains(&disk))
            && next.member(next.leader).is_some()
            && next.replicas.len() <= REPLICAS_MAX;
        fits.then_some(next)
    }

    /// A leader has decided about the sets of partitions that it leads.
    pub(super) fn adjust(&mut self, by: (DiskId, Boot), adjustments: &[Adjustment]) {
        for adjustment in adjustments.iter().take(ADJUSTMENTS_MAX) {
            let Some(before) = self.partitions.get(&adjustment.partition) else { continue };
            let named = (adjustment.epoch, adjustment.version);
            if (before.epoch, before.version) != named
                || before.led_by() != Some(by.0)
                || !self.has_registered(by.0, by.1)
            {
                continue;
            }
            let next = self.adjusted(before, adjustment);
            // What is refused for what it asks is decided too: nobody has to count with it.
            self.put(next.unwrap_or_else(|| Partition::clone(before)));
        }
    }

    fn adjusted(&self, before: &Partition, adjustment: &Adjustment) -> Option<Partition> {
        let Adjustment { added, removed, .. } = adjustment;
        let mut next = Partition::clone(before);
        if removed.contains(&before.leader) {
            return None;
        }
        next.in_sync.retain(|member| !removed.contains(&member.disk));
        for Addition { disk, boot, standing } in added {
            let member = Member { disk: *disk, standing: *standing };
            let known = self.has_registered(*disk, *boot) && self.is_live(&member);
            if !known || !before.replicas.contains(disk) || removed.contains(disk) {
                return None;
            }
            match next.in_sync.iter_mut().find(|member| member.disk == *disk) {
                // Nobody holds less than before without having lost it.
                Some(held) if held.standing == Standing::Whole && *held != member => return None,
                Some(held) => *held = member,
                None => next.in_sync.push(member),
            }
        }
        let fits = removed.is_empty() || self.is_enough(&next.in_sync, next.min_in_sync);
        fits.then_some(next)
    }

    /// A partition after a change that was accepted.
    fn put(&mut self, mut next: Partition) {
        let id = next.id;
        let before = self.partitions.get(&id).expect("what changes is there").clone();
        next.version = before.version + 1;
        self.settle(&mut next);
        if next.replicas != before.replicas {
            self.let_go(&before);
            self.hold(&next);
        }
        self.partitions.insert(id, Arc::new(next));
    }

    /// What follows from the set and the nodes. The number of members that a set keeps falls at
    /// once, and rises when the set has that many.
    fn settle(&self, next: &mut Partition) {
        let wanted = self.min_in_sync_wanted(&next.config);
        let live = next.in_sync.iter().filter(|member| self.is_live(member)).count();
        if wanted < next.min_in_sync || live >= wanted as usize {
            next.min_in_sync = wanted;
        }
        next.frozen = live < next.in_sync.len();
    }

    /// The number of nodes, or how a topic is kept, has changed: what follows for these partitions.
    pub(super) fn recount(&mut self, ids: &[PartitionId]) {
        for id in ids {
            let Some(before) = self.partitions.get(id) else { continue };
            let mut next = Partition::clone(before);
            // Whether a set is frozen is not changed in passing: somebody has to see it.
            self.settle(&mut next);
            if next.min_in_sync != before.min_in_sync {
                self.put(next);
            }
        }
    }

    /// How many nodes are to stay, as far as that matters for how many copies there are to be.
    fn staying(&self) -> usize {
        let staying = self.nodes.values().filter(|node| node.leaving.is_none());
        staying.take(OWNERS_MAX + 1).count()
    }

    /// A node has come, or is to go, which matters while there are no more than a partition may
    /// want.
    pub(super) fn recount_all(&mut self) {
        if self.staying() <= OWNERS_MAX && self.level >= REPLICATION_LEVEL {
            let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
            self.recount(&ids);
        }
    }

    /// A run of a node begins: the reign of its former run ends over every partition that it led,
    /// and what was proposed for that run is decided. Where a former run has not ended in order, it
    /// may have received what its disk does not hold: where that was acknowledged it is unsure
    /// from now on. It leaves the set when somebody who stays is heard, and not before: all the
    /// others may be gone, and their disks with them.
    pub(super) fn begin_run(&mut self, disk: DiskId, clean: bool) {
        let held: Vec<Partition> = self.held_by(disk).map(|held| Partition::clone(held)).collect();
        for mut next in held {
            if next.leader == disk {
                next.epoch = next.epoch.next();
            }
            let standing = next.member(disk).map(|member| member.standing);
            let standing = match standing {
                Some(Standing::Whole) => Some(Standing::Unsure),
                // What is committed it does not hold alone.
                Some(Standing::Tail) => Some(Standing::Lost),
                Some(Standing::Lost | Standing::Unsure) | None => None,
            };
            let matters = next.early && !clean && !planted(Bug::UncleanRunCounts);
            standing.filter(|_| matters).into_iter().for_each(|now| next.mark(disk, now));
            self.put(next);
        }
    }

    /// Takes a member out of the set, where that has enough without it; marks it otherwise, as one
    /// that does not hold what it acknowledged. Says whether it is out.
    fn exclude(&self, next: &mut Partition, disk: DiskId) -> bool {
        let others = next.in_sync.iter().filter(|member| member.disk != disk).copied();
        let others: Vec<Member> = others.collect();
        let may_go = others.len() == next.in_sync.len()
            || next.leader != disk && self.is_enough(&others, next.min_in_sync);
        match may_go {
            true => next.in_sync = others,
            false => next.mark(disk, Standing::Lost),
        }
        may_go
    }

    /// A node is heard again: sets that waited for it alone go on.
    pub(super) fn thaw(&mut self, disk: DiskId) {
        let whole = |held: &Partition| held.in_sync.iter().all(|member| self.is_live(member));
        let frozen = self.held_by(disk).filter(|held| held.frozen && whole(held));
        let held: Vec<Partition> = frozen.map(|held| Partition::clone(held)).collect();
        held.into_iter().for_each(|next| self.put(next));
    }

    /// An identity has been retired: it is out of the sets that have enough without it, and in the
    /// others it is somebody who will never answer.
    pub(super) fn bereave(&mut self, disk: DiskId) {
        let held: Vec<Partition> = self.held_by(disk).map(|held| Partition::clone(held)).collect();
        for mut next in held {
            let wanted = self.min_in_sync_wanted(&next.config);
            next.min_in_sync = next.min_in_sync.min(wanted);
            let was_led = next.led_by();
            if self.exclude(&mut next, disk) {
                next.replicas.retain(|held| *held != disk);
            }
            if next.led_by() != was_led {
                next.epoch = next.epoch.next();
            }
            self.put(next);
        }
    }

    pub(super) fn check_partition(&self, partition: &Partition) -> Result<(), String> {
        let Partition { id, leader, replicas, in_sync, min_in_sync, .. } = partition;
        if partition.member(*leader).is_none() {
            return Err(format!("(1) the leader of partition {id} is not in its in-sync set"));
        }
        if !partition.members().all(|member| replicas.contains(&member)) {
            return Err(format!("(1) partition {id} has an in-sync member that is no replica"));
        }
        let distinct: BTreeSet<&DiskId> = replicas.iter().collect();
        let members: BTreeSet<DiskId> = partition.members().collect();
        let known =
            |disk: &&DiskId| self.nodes.contains_key(*disk) || self.retired.contains_key(*disk);
        if distinct.len() != replicas.len()
            || members.len() != in_sync.len()
            || replicas.len() > REPLICAS_MAX
            || !replicas.iter().all(|disk| known(&disk))
        {
            return Err(format!("(2) the replicas of partition {id} are {replicas:?}"));
        }
        let stands = self.partition_number(&partition.topic, partition.number);
        if stands.map(|held| held.id) != Some(*id) || *id > self.last_partition {
            return Err(format!("(3) partition {id} is not where its topic has it"));
        }
        let gone = in_sync.iter().find(|member| {
            member.standing != Standing::Lost && !self.nodes.contains_key(&member.disk)
        });
        if let Some(gone) = gone {
            return Err(format!("(8) {gone:?} of partition {id} is no node any more"));
        }
        let wanted = self.min_in_sync_wanted(&partition.config);
        if *min_in_sync == 0 || *min_in_sync > wanted || (*min_in_sync as usize) > in_sync.len() {
            let size = in_sync.len();
            return Err(format!(
                "(9) the set of partition {id} has {size} members, keeps {min_in_sync}, is to \
                 keep {wanted}"
            ));
        }
        let waits = in_sync.iter().any(|member| !self.is_live(member));
        if partition.frozen && !waits {
            return Err(format!("(10) partition {id} is frozen for nobody"));
        }
        Ok(())
    }
}
