//! The lead for nodes that lead fewer than others, of partitions that they hold.
//!
//! Whoever leads most may hold nothing together with whoever leads least: then the lead of one
//! partition goes from the first to a second node, that of another one from there to a third, and
//! those in between lead as many as before. The shortest such way is found by a search by breadth.

use std::collections::BTreeMap;

use super::balance::MOVES_MAX;
use super::ruling::{Judge, Wish};
use crate::cluster::metadata::Partition;
use crate::cluster::placement::{self, Candidates, Fill};
use crate::ids::{DiskId, PartitionId};

/// The lead of a partition goes from one node to another.
#[derive(Clone, Copy, Debug)]
struct Step {
    partition: PartitionId,
    from: DiskId,
    to: DiskId,
}

/// Who leads what, and is to lead it.
pub(super) struct Leads<'a> {
    judge: &'a Judge<'a>,
    /// Whether a node may lead more.
    may_take: &'a dyn Fn(DiskId) -> bool,
    /// How many partitions each node leads, with the wishes.
    fills: BTreeMap<DiskId, Fill>,
    led: BTreeMap<DiskId, Vec<&'a Partition>>,
    wishes: BTreeMap<PartitionId, Wish>,
}

impl<'a> Leads<'a> {
    pub(super) fn of(
        judge: &'a Judge<'a>,
        places: &Candidates,
        may_take: &'a dyn Fn(DiskId) -> bool,
    ) -> Self {
        let fills = placement::leads(judge.view, places);
        let mut led: BTreeMap<DiskId, Vec<&Partition>> = BTreeMap::new();
        for partition in judge.view.partitions.values().filter(|one| !judge.is_unwell(one)) {
            led.entry(partition.leader).or_default().push(partition);
        }
        Self { judge, may_take, fills, led, wishes: BTreeMap::new() }
    }

    /// Who is to lead what, [`MOVES_MAX`] at most; nothing where nobody can lead less.
    pub(super) fn plan(mut self) -> BTreeMap<PartitionId, Wish> {
        while let Some(steps) = self.next()
            && self.wishes.len() + steps.len() <= MOVES_MAX
        {
            for Step { partition, from, to } in steps {
                self.fills.entry(from).and_modify(|fill| fill.held -= 1);
                self.fills.entry(to).and_modify(|fill| fill.held += 1);
                self.wishes.insert(partition, Wish { leader: Some(to), ..Wish::default() });
            }
        }
        self.wishes
    }

    /// How one of those who lead most, the first who can, leads one less.
    fn next(&self) -> Option<Vec<Step>> {
        let least = self.fills.iter().filter(|(disk, _)| (self.may_take)(**disk));
        let least = *least.map(|(_, fill)| fill).min_by(|a, b| a.compare(b))?;
        let mut givers: Vec<_> = self.fills.iter().map(|(disk, fill)| (*disk, *fill)).collect();
        givers.retain(|(_, given)| given.may_give_to(&least));
        givers.sort_by(|(a, one), (b, other)| other.compare(one).then(a.cmp(b)));
        givers.into_iter().find_map(|(from, given)| self.way(from, given))
    }

    /// The shortest way from a node to one who leads less, and of those the one to who leads least.
    fn way(&self, first: DiskId, given: Fill) -> Option<Vec<Step>> {
        let (mut came, mut reached) = (BTreeMap::new(), vec![first]);
        while !reached.is_empty() {
            let mut next = Vec::new();
            for step in reached.into_iter().flat_map(|from| self.steps(from)) {
                if step.to != first && !came.contains_key(&step.to) {
                    came.insert(step.to, step);
                    next.push(step.to);
                }
            }
            let takes = |disk: &&DiskId| given.may_give_to(&self.fills[disk]);
            let order = |a: &&DiskId, b: &&DiskId| {
                self.fills[a].compare(&self.fills[b]).then_with(|| a.cmp(b))
            };
            if let Some(last) = next.iter().filter(takes).min_by(order) {
                let to = |disk: &DiskId| came.get(disk).copied();
                return Some(std::iter::successors(to(last), |step| to(&step.from)).collect());
            }
            reached = next;
        }
        None
    }

    /// To whom a node may hand the lead of what it leads.
    fn steps(&self, from: DiskId) -> impl Iterator<Item = Step> {
        let free = self.led.get(&from).into_iter().flatten();
        let free = free.filter(|partition| !self.wishes.contains_key(&partition.id));
        free.flat_map(move |partition| {
            let takes = |to: &DiskId| {
                let may = self.fills.contains_key(to) && (self.may_take)(*to);
                *to != from && may && self.judge.counts(partition, *to)
            };
            let takers = partition.replicas.iter().copied().filter(takes);
            let steps = takers.map(|to| Step { partition: partition.id, from, to });
            steps.collect::<Vec<_>>()
        })
    }
}
