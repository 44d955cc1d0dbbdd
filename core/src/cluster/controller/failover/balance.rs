//! What is moved though nothing has failed: copies to nodes that hold fewer, and then the lead to
//! nodes that lead fewer.
//!
//! A copy is moved by placing another one: when that counts, whoever holds the most for its size,
//! of those who have one, gives up its own ([`Judge::kept`]). So a move needs no state of its own,
//! and whoever leads the metadata next goes on with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::is_away;
use super::leads::Leads;
use super::ruling::{Judge, Wish};
use crate::cluster::metadata::{Partition, REPLICATION_LEVEL, View};
use crate::cluster::placement::{self, Candidate, Candidates, moves};
use crate::ids::{ChangeIndex, DiskId, PartitionId};
use crate::machine::{Time, WallTime};

/// For how long nodes neither come nor go before anything is moved.
pub const BALANCE_AFTER: Duration = Duration::from_secs(5);
/// How long it is from one look to the next.
pub const BALANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How many copies are on their way at a time, and how often the lead changes in one step, at most.
pub const MOVES_MAX: usize = 16;
/// For how long a node is not given the lead of a partition that complained while it led, or that
/// was asked whether it could lead and was silent.
pub const SLOW_REST: Duration = Duration::from_secs(300);

/// What is known of the balance.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// Nothing is moved before then.
    at: Time,
    /// When it was last looked at.
    looked: Option<Time>,
    /// The metadata by which there was nothing to move.
    even: Option<ChangeIndex>,
    /// How many copies the nodes had when all was as even as it can be.
    stuck: Vec<(DiskId, u64)>,
    /// Nodes that are not given the lead of more partitions before then.
    slow: BTreeMap<DiskId, Time>,
}

impl Balance {
    /// Nodes come or go: what that leads to comes first.
    pub(super) fn wait(&mut self, now: Time) {
        self.at = now + BALANCE_AFTER;
        self.stuck.clear();
    }

    /// Looks at the next occasion.
    pub(super) fn hurry(&mut self) {
        (self.at, self.even) = (Time(0), None);
        self.stuck.clear();
    }

    /// A node is slow, or silent: others lead better for a while.
    pub(super) fn is_slow(&mut self, disk: DiskId, now: Time) {
        self.slow.insert(disk, now + SLOW_REST);
    }

    /// What is to be moved now.
    pub(super) fn plan(
        &mut self,
        judge: &Judge<'_>,
        (now, time): (Time, WallTime),
    ) -> BTreeMap<PartitionId, Wish> {
        let view = judge.view;
        let is_early = self.looked.is_some_and(|at| now < at + BALANCE_INTERVAL);
        if is_early || now < self.at || self.even == Some(view.version) {
            return BTreeMap::new();
        }
        self.looked = Some(now);
        self.slow.retain(|disk, until| *until > now && view.nodes.contains_key(disk));
        if view.level < REPLICATION_LEVEL || !is_calm(view, time) {
            return BTreeMap::new();
        }
        let places = Candidates::of(view);
        let mut wishes = self.copies(judge, &places);
        if wishes.is_empty() {
            let may_take = |disk| !self.slow.contains_key(&disk);
            wishes = Leads::of(judge, &places, &may_take).plan();
        }
        self.even = wishes.is_empty().then_some(view.version);
        wishes
    }

    /// Copies for zones that lack one, and for nodes that hold fewer than others, as many as may be
    /// under way.
    fn copies(&mut self, judge: &Judge<'_>, places: &Candidates) -> BTreeMap<PartitionId, Wish> {
        let held = places.nodes().iter().map(|node| (node.disk, node.held));
        let is_even = placement::are_even(places.nodes().iter().map(Candidate::fill));
        if is_even && !places.have_zones() || held.clone().eq(self.stuck.iter().copied()) {
            return BTreeMap::new();
        }
        let comes = |partition: &&Arc<Partition>| {
            let is_whole = |disk| partition.member(disk).is_some_and(|one| one.is_electable());
            let comes = |disk: &DiskId| judge.stays(*disk) && !is_whole(*disk);
            partition.replicas.iter().any(comes)
        };
        let moving = judge.view.partitions.values().filter(comes).take(MOVES_MAX).count();
        if moving == MOVES_MAX {
            return BTreeMap::new();
        }
        let owners =
            judge.view.partitions.values().map(|partition| {
                (partition.id, Judge::key(partition), judge.kept(partition, places))
            });
        let owners: Vec<_> = owners.collect();
        let is_well = |id| judge.view.partitions.get(&id).is_some_and(|one| !judge.is_unwell(one));
        let moves = moves(places, &owners, &is_well, MOVES_MAX - moving);
        if moves.is_empty() && moving == 0 {
            self.stuck = held.collect();
        }
        let wish = |to| Wish { holder: Some(to), ..Wish::default() };
        moves.into_iter().map(|step| (step.partition, wish(step.to))).collect()
    }

    pub(super) fn slow(&self) -> usize {
        self.slow.len()
    }
}

/// Whether nobody is down who may be back soon.
fn is_calm(view: &View, time: WallTime) -> bool {
    view.nodes.values().filter_map(|node| node.down).all(|since| is_away(since, time))
}
