//! What becomes of one partition: who leads, who is removed, where copies are to be.

use std::collections::BTreeSet;

use super::{Ends, is_away};
use crate::cluster::dht;
use crate::cluster::metadata::{Member, Partition, REPLICAS_MAX, Ruling, Standing, View};
use crate::cluster::placement::Candidates;
use crate::ids::{DiskId, PartitionId};
use crate::machine::WallTime;

/// What is wanted of a partition beyond what its state asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    /// It leads, and waits for a member that the set cannot do without: somebody else is to try.
    pub(super) complainer: Option<DiskId>,
    /// Who is to lead, though whoever does may go on.
    pub(super) leader: Option<DiskId>,
    /// Who is to hold a copy, in the place of whoever has most.
    pub(super) holder: Option<DiskId>,
}

/// What is decided by: the metadata with those who failed, and who does not hold what it
/// acknowledged.
pub(super) struct Judge<'a> {
    pub(super) view: &'a View,
    pub(super) damaged: &'a BTreeSet<(PartitionId, DiskId)>,
}

impl Judge<'_> {
    /// Whether a node lives and is to stay.
    pub(super) fn stays(&self, disk: DiskId) -> bool {
        self.view.nodes.get(&disk).is_some_and(|node| node.takes_partitions())
    }

    fn is_whole(&self, partition: &Partition, member: &Member) -> bool {
        member.is_electable() && !self.damaged.contains(&(partition.id, member.disk))
    }

    /// Whether this node runs and counts, with all that was ever acknowledged.
    pub(super) fn counts(&self, partition: &Partition, disk: DiskId) -> bool {
        let member = partition.member(disk);
        member.is_some_and(|one| self.view.is_live(&one) && self.is_whole(partition, &one))
    }

    /// Whether somebody leads who may go on to.
    pub(super) fn is_led(&self, partition: &Partition) -> bool {
        partition.led_by().is_some_and(|leader| self.counts(partition, leader))
    }

    /// Whether this node runs and counts, though not with all that was ever acknowledged, as far as
    /// is known.
    fn is_tail(&self, partition: &Partition, disk: DiskId) -> bool {
        let member = partition.member(disk);
        member.is_some_and(|one| one.standing == Standing::Tail && self.view.is_live(&one))
    }

    /// Whoever may lead, and is asked what it holds; where nobody is left who certainly holds
    /// everything, and that may happen, whoever has a copy and runs; and where nobody who holds
    /// everything runs, those who may by now.
    pub(super) fn candidates(&self, partition: &Partition) -> impl Iterator<Item = DiskId> {
        let is_forsaken = self.view.is_forsaken(partition);
        let is_held = self.is_held(partition);
        partition.replicas.iter().copied().filter(move |disk| match (is_forsaken, is_held) {
            (true, _) => self.view.is_up(*disk),
            (false, true) => self.counts(partition, *disk),
            (false, false) => self.is_tail(partition, *disk),
        })
    }

    /// Whether somebody runs and counts with all that was ever acknowledged.
    fn is_held(&self, partition: &Partition) -> bool {
        partition.members().any(|disk| self.counts(partition, disk))
    }

    /// Who may be taken on trust, when every member of the set that is not gone for ever has said
    /// what it holds, and the log verifies of one that has synced all that is committed, which then
    /// is in every greater log too. The choice is the greatest, if its node runs.
    fn most_trusted(&self, partition: &Partition, ends: &Ends) -> Option<DiskId> {
        let mut there = partition.members().filter(|disk| self.view.nodes.contains_key(disk));
        let is_whole = |one: &Member| ends.get(&one.disk).is_some_and(|end| !end.damaged);
        let mut holders = partition.in_sync.iter().filter(|one| one.holds_committed());
        if !there.all(|disk| ends.contains_key(&disk)) || !holders.any(is_whole) {
            return None;
        }
        let whole = ends.iter().filter(|(_, end)| !end.damaged);
        let most = whole
            .max_by_key(|(disk, end)| (end.epoch, end.last, std::cmp::Reverse(**disk)))
            .map(|(disk, _)| *disk);
        most.filter(|disk| partition.replicas.contains(disk) && self.view.is_up(*disk))
    }

    /// Whether a partition is to be looked at again, though nothing can be done for it now.
    pub(super) fn is_unwell(&self, partition: &Partition) -> bool {
        let wanted = self.view.replicas_wanted(&partition.config);
        let staying = partition.replicas.iter().filter(|disk| self.stays(**disk)).count();
        let counts = |disk: &DiskId| self.counts(partition, *disk);
        !self.is_led(partition)
            || staying != wanted
            || partition.replicas.len() != wanted
            || !partition.replicas.iter().all(counts)
    }

    /// By which a partition is placed.
    pub(super) fn key(partition: &Partition) -> u64 {
        dht::key(&partition.topic, partition.number).slot()
    }

    /// Who is to hold a partition in the end, of those who have, or are to have, a copy, run and
    /// stay.
    pub(super) fn kept(&self, partition: &Partition, places: &Candidates) -> Vec<DiskId> {
        let wanted = self.view.replicas_wanted(&partition.config);
        let staying = partition.replicas.iter().copied().filter(|disk| self.stays(*disk));
        let mut kept: Vec<DiskId> = staying.collect();
        if kept.len() > wanted {
            // Of those who are equally good, whoever leads stays before whoever counts.
            let leads = |disk: &DiskId| Some(*disk) == partition.led_by();
            kept.sort_by_key(|disk| (!leads(disk), !self.counts(partition, *disk)));
        }
        while kept.len() > wanted
            && let Some(at) = places.surplus(&kept)
        {
            kept.remove(at);
        }
        kept
    }

    /// Whether these are enough, and hold everything: nobody else is needed.
    fn suffices(&self, partition: &Partition, kept: &[DiskId]) -> bool {
        kept.len() >= self.view.replicas_wanted(&partition.config)
            && kept.iter().all(|disk| self.counts(partition, *disk))
    }

    /// Whether there has to be another leader.
    pub(super) fn must_elect(&self, partition: &Partition, wish: &Wish) -> bool {
        !self.is_led(partition) || wish.complainer.is_some()
    }

    /// Whether another one is to lead, or has to.
    pub(super) fn elects(&self, partition: &Partition, wish: &Wish, kept: &[DiskId]) -> bool {
        let gives_way = || !kept.contains(&partition.leader) && self.suffices(partition, kept);
        self.must_elect(partition, wish) || wish.leader.is_some() || gives_way()
    }

    /// Whether somebody is to leave the set, or to give a copy up, under the leader that there is.
    pub(super) fn thins(&self, partition: &Partition, kept: &[DiskId]) -> bool {
        let drops = || partition.replicas.iter().any(|disk| !kept.contains(disk));
        self.is_led(partition)
            && (self.suffices(partition, kept) && kept.contains(&partition.leader) && drops()
                || !self.rid(partition, partition.leader).0.is_empty())
    }

    /// What is decided now, where these are to keep their copies; `None` where everything may stay
    /// as it is.
    pub(super) fn rule(
        &self,
        partition: &Partition,
        wish: &Wish,
        kept: &[DiskId],
        ends: &Ends,
        time: WallTime,
        places: &mut Candidates,
    ) -> Option<Ruling> {
        let Partition { id, epoch, version, .. } = *partition;
        let leader = if self.must_elect(partition, wish) {
            self.best(partition, wish.complainer, ends)
        } else if self.elects(partition, wish, kept) {
            self.successor(partition, wish, kept, ends)
        } else {
            None
        };
        let leads = leader.unwrap_or(partition.leader);
        let filled = leader.filter(|disk| self.is_tail(partition, *disk)).into_iter().collect();
        let (mut removed, lost) = self.rid(partition, leads);
        let mut dropped = Vec::new();
        if !ends.contains_key(&leads) {
            // It may be gone too, and whoever would leave may be the last to hold everything.
            removed.clear();
        } else if self.suffices(partition, kept) && kept.contains(&leads) {
            let goes = |disk: &&DiskId| !kept.contains(disk) && !lost.contains(disk);
            dropped.extend(partition.replicas.iter().filter(goes));
            dropped.iter().for_each(|disk| places.give_up(*disk));
            let counts = |disk: &&DiskId| partition.member(**disk).is_some();
            removed.extend(dropped.iter().filter(counts));
            removed.sort_unstable();
            removed.dedup();
        }
        // Nobody gets a copy while there is nobody to get it from.
        let mut placed = Vec::new();
        if leader.is_some() || self.is_led(partition) {
            let room = REPLICAS_MAX - (partition.replicas.len() - dropped.len());
            // Where nobody takes partitions, those who are to leave are not given more.
            let anybody = places.nodes().iter().any(|node| self.stays(node.disk));
            let missing = if anybody { self.missing(partition, &removed, time) } else { 0 };
            let count = missing.min(room);
            placed = places.choose_beside(Self::key(partition), &partition.replicas, count);
            let fits = |to: &DiskId| {
                room > 0 && count == 0 && !partition.replicas.contains(to) && self.stays(*to)
            };
            if let Some(to) = wish.holder.filter(fits) {
                places.take(to);
                placed.push(to);
            }
        }
        let ruling = Ruling {
            partition: id,
            epoch,
            version,
            leader,
            filled,
            removed,
            lost,
            placed,
            dropped,
        };
        let live = |member: &Member| self.view.is_live(member);
        let freezes = !partition.frozen && !partition.in_sync.iter().all(live);
        let says = ruling.leader.is_some()
            || [&ruling.removed, &ruling.lost, &ruling.placed, &ruling.dropped]
                .iter()
                .any(|part| !part.is_empty());
        (says || freezes).then_some(ruling)
    }

    /// Who holds the most of those who may lead; who has not said is behind those who have, and who
    /// complains is nobody better than.
    fn best(
        &self,
        partition: &Partition,
        complainer: Option<DiskId>,
        ends: &Ends,
    ) -> Option<DiskId> {
        if self.view.is_forsaken(partition) {
            return self.most_trusted(partition, ends);
        }
        // A tail leads when it has said that it is none any more.
        let is_whole = |disk: &DiskId| ends.get(disk).is_some_and(|end| !end.damaged);
        let may = |disk: &DiskId| !self.is_tail(partition, *disk) || is_whole(disk);
        let best = self.candidates(partition).filter(may).max_by_key(|disk| {
            let end = ends.get(disk).map(|end| (end.epoch, end.last));
            (Some(*disk) != complainer, end, std::cmp::Reverse(*disk))
        });
        best.filter(|best| Some(*best) != complainer)
    }

    /// Who takes the lead over from one that could go on: somebody who has said what it holds.
    fn successor(
        &self,
        partition: &Partition,
        wish: &Wish,
        kept: &[DiskId],
        ends: &Ends,
    ) -> Option<DiskId> {
        let fits = |disk: &DiskId| match wish.leader {
            Some(wanted) => *disk == wanted,
            None => kept.contains(disk),
        };
        let others = self.candidates(partition).filter(|disk| *disk != partition.leader);
        let said = others.filter(fits).filter_map(|disk| Some((ends.get(&disk)?, disk)));
        let best = said.max_by_key(|(end, disk)| (end.epoch, end.last, std::cmp::Reverse(*disk)));
        best.map(|(_, disk)| disk)
    }

    /// Who is taken out of the set, and who is marked because that cannot be.
    fn rid(&self, partition: &Partition, leader: DiskId) -> (Vec<DiskId>, Vec<DiskId>) {
        let is_damaged = |one: &Member| {
            one.holds_committed() && self.damaged.contains(&(partition.id, one.disk))
        };
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
        let is_other = self.view.is_forsaken(partition) || self.is_held(partition);
        let leads_on: Vec<DiskId> = leads_on.filter(|_| is_other).into_iter().collect();
        if leads_on.is_empty() && may_go(&all) {
            (all, Vec::new())
        } else if leads_on.is_empty() && may_go(&damaged) {
            (damaged, Vec::new())
        } else {
            (Vec::new(), damaged.into_iter().chain(leads_on).collect())
        }
    }

    /// How many copies are to be made. Where nothing commits, all that are missing; where enough
    /// members count, whoever is down may come back first, and whoever is to leave may not.
    fn missing(&self, partition: &Partition, removed: &[DiskId], time: WallTime) -> usize {
        let wanted = self.view.replicas_wanted(&partition.config);
        let staying = partition.replicas.iter().filter(|disk| self.stays(**disk)).count();
        let mut left = partition.in_sync.iter().filter(|one| !removed.contains(&one.disk));
        let freezes = left.any(|one| !self.view.is_live(one));
        let gone = |disk: &DiskId| match self.view.nodes.get(disk) {
            Some(node) => {
                let is_gone = |since| freezes || is_away(since, time);
                node.leaving.is_some() || node.down.is_some_and(is_gone)
            }
            None => true,
        };
        let gone = partition.replicas.iter().filter(|disk| gone(disk)).count();
        let never_made = wanted.saturating_sub(partition.replicas.len());
        wanted.saturating_sub(staying).min(gone + never_made)
    }
}
