//! What becomes of one partition: who leads, who is removed, where copies are to be.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Ends, REPLACE_AFTER};
use crate::cluster::dht;
use crate::cluster::metadata::{Member, Partition, REPLICAS_MAX, Ruling, View};
use crate::cluster::placement::Candidates;
use crate::ids::{DiskId, PartitionId};
use crate::machine::WallTime;

/// What is decided by: the metadata with those who failed, and who does not hold what it
/// acknowledged.
pub(super) struct Judge<'a> {
    pub(super) view: &'a View,
    pub(super) damaged: &'a BTreeSet<(PartitionId, DiskId)>,
}

impl Judge<'_> {
    fn is_up(&self, disk: DiskId) -> bool {
        self.view.nodes.get(&disk).is_some_and(|node| node.down.is_none())
    }

    fn is_whole(&self, partition: &Partition, member: &Member) -> bool {
        member.is_electable() && !self.damaged.contains(&(partition.id, member.disk))
    }

    /// Whether somebody leads who may go on to.
    pub(super) fn is_led(&self, partition: &Partition) -> bool {
        let leader = partition.led_by().and_then(|disk| partition.member(disk));
        leader.is_some_and(|one| self.view.is_live(&one) && self.is_whole(partition, &one))
    }

    /// Whoever may lead.
    pub(super) fn candidates(&self, partition: &Partition) -> impl Iterator<Item = DiskId> {
        let may = |one: &&Member| self.view.is_live(one) && self.is_whole(partition, one);
        partition.in_sync.iter().filter(may).map(|member| member.disk)
    }

    /// Whether a partition is to be looked at again, though nothing can be done for it now.
    pub(super) fn is_unwell(&self, partition: &Partition) -> bool {
        let wanted = self.view.replicas_wanted(&partition.config);
        let up = partition.replicas.iter().filter(|disk| self.is_up(**disk)).count();
        let lives = |member: &Member| self.view.is_live(member);
        !self.is_led(partition) || up < wanted || !partition.in_sync.iter().all(lives)
    }

    /// The partition with this number of its topic would be placed by this key.
    fn key(partition: &Partition) -> u64 {
        dht::key(&partition.topic, partition.number).slot()
    }

    /// What is decided now; `None` where everything may stay as it is. `complainer` leads and
    /// waits for a member that the set cannot do without: somebody else is to try.
    pub(super) fn rule(
        &self,
        partition: &Partition,
        complainer: Option<DiskId>,
        ends: &Ends,
        time: WallTime,
        places: &mut Candidates,
    ) -> Option<Ruling> {
        let Partition { id, epoch, version, .. } = *partition;
        let elects = complainer.is_some() || !self.is_led(partition);
        let best = if elects { self.best(partition, complainer, ends) } else { None };
        let leader = best.filter(|best| Some(*best) != complainer);
        let (removed, lost) = self.rid(partition, leader.unwrap_or(partition.leader));
        let (dropped, mut placed) = (self.spare(partition, &removed), Vec::new());
        // Nobody gets a copy while there is nobody to get it from.
        if leader.is_some() || self.is_led(partition) {
            let room = REPLICAS_MAX - (partition.replicas.len() - dropped.len());
            let count = self.missing(partition, &removed, time).min(room);
            placed = places.choose_beside(Self::key(partition), &partition.replicas, count);
        }
        let ruling =
            Ruling { partition: id, epoch, version, leader, removed, lost, placed, dropped };
        let live = |member: &Member| self.view.is_live(member);
        let freezes = !partition.frozen && !partition.in_sync.iter().all(live);
        let says = ruling.leader.is_some()
            || [&ruling.removed, &ruling.lost, &ruling.placed, &ruling.dropped]
                .iter()
                .any(|part| !part.is_empty());
        (says || freezes).then_some(ruling)
    }

    /// Who holds the most of those who may lead; who has not said is behind those who have, and who
    /// complains is last.
    fn best(&self, partition: &Partition, last: Option<DiskId>, ends: &Ends) -> Option<DiskId> {
        self.candidates(partition).max_by_key(|disk| {
            let end = ends.get(disk).map(|end| (end.epoch, end.last));
            (Some(*disk) != last, end, std::cmp::Reverse(*disk))
        })
    }

    /// Who is taken out of the set, and who is marked because that cannot be.
    fn rid(&self, partition: &Partition, leader: DiskId) -> (Vec<DiskId>, Vec<DiskId>) {
        let is_damaged = |one: &Member| one.is_electable() && !self.is_whole(partition, one);
        let is_dead = |one: &Member| !self.view.is_live(one);
        let those = |which: &dyn Fn(&Member) -> bool| {
            let those = partition.in_sync.iter().filter(|one| which(one) && one.disk != leader);
            those.map(|one| one.disk).collect::<Vec<DiskId>>()
        };
        let may_go = |removed: &[DiskId]| {
            let left = partition.in_sync.iter().filter(|one| !removed.contains(&one.disk));
            let left: Vec<Member> = left.copied().collect();
            self.view.is_enough(&left, partition.min_in_sync)
        };
        let damaged = those(&is_damaged);
        let all = those(&|one| is_damaged(one) || is_dead(one));
        let leads_on = partition.member(leader).filter(|one| is_damaged(one)).map(|one| one.disk);
        // Who is damaged and alone leads on: nobody holds more, and what is whole is still read.
        let is_other = self.candidates(partition).next().is_some();
        let leads_on: Vec<DiskId> = leads_on.filter(|_| is_other).into_iter().collect();
        if leads_on.is_empty() && may_go(&all) {
            (all, Vec::new())
        } else if leads_on.is_empty() && may_go(&damaged) {
            (damaged, Vec::new())
        } else {
            (Vec::new(), damaged.into_iter().chain(leads_on).collect())
        }
    }

    /// Who does not need to hold a copy any more, because enough others hold everything.
    fn spare(&self, partition: &Partition, removed: &[DiskId]) -> Vec<DiskId> {
        let whole = |one: &&Member| self.view.is_live(one) && self.is_whole(partition, one);
        let wanted = self.view.replicas_wanted(&partition.config);
        if partition.in_sync.iter().filter(whole).count() < wanted {
            return Vec::new();
        }
        let counts = |disk: &DiskId| partition.member(*disk).is_some() && !removed.contains(disk);
        partition.replicas.iter().filter(|disk| !counts(disk)).copied().collect()
    }

    /// How many copies are to be made. Where nothing commits, all that are missing; where enough
    /// members count, whoever is down may come back first.
    fn missing(&self, partition: &Partition, removed: &[DiskId], time: WallTime) -> usize {
        let wanted = self.view.replicas_wanted(&partition.config);
        let up = partition.replicas.iter().filter(|disk| self.is_up(**disk)).count();
        let mut staying = partition.in_sync.iter().filter(|one| !removed.contains(&one.disk));
        let freezes = staying.any(|one| !self.view.is_live(one));
        let gone = |disk: &DiskId| match self.view.nodes.get(disk).map(|node| node.down) {
            Some(None) => false,
            Some(Some(since)) => {
                let away = Duration::from_millis(time.0.saturating_sub(since.0));
                freezes || away >= REPLACE_AFTER
            }
            None => true,
        };
        let gone = partition.replicas.iter().filter(|disk| gone(disk)).count();
        let never_made = wanted.saturating_sub(partition.replicas.len());
        wanted.saturating_sub(up).min(gone + never_made)
    }
}
