//! What is moved though nothing has failed: copies to nodes that hold fewer, and then the lead to
//! nodes that lead fewer.
//!
//! A copy is moved by placing another one: when that counts, whoever holds the most for its size,
//! of those who have one, gives up its own ([`Judge::kept`]). So a move needs no state of its own,
//! and whoever leads the metadata next goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::REPLACE_AFTER;
use super::ruling::{Judge, Wish};
use crate::cluster::metadata::{Partition, REPLICATION_LEVEL, View};
use crate::cluster::placement::{self, Candidate, Candidates, Fill, moves};
use crate::ids::{ChangeIndex, DiskId, PartitionId};
use crate::machine::{Time, WallTime};

/// For how long nodes neither come nor go before anything is moved.
pub const BALANCE_AFTER: Duration = Duration::from_secs(5);
/// How long it is from one look to the next.
pub const BALANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How many copies are on their way at a time, and how often the lead changes in one step, at most.
pub const MOVES_MAX: usize = 16;
/// How many moves are looked at for each that is made: some partitions are moving already.
const PROPOSED: usize = 4;

/// What is known of the balance.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// When to look again.
    at: Time,
    /// The metadata by which there was nothing to move.
    even: Option<ChangeIndex>,
}

impl Balance {
    /// Nodes come or go: what that leads to comes first.
    pub(super) fn wait(&mut self, now: Time) {
        self.at = now + BALANCE_AFTER;
    }

    /// Looks at the next occasion.
    pub(super) fn hurry(&mut self) {
        *self = Self::default();
    }

    /// What is to be moved now.
    pub(super) fn plan(
        &mut self,
        judge: &Judge<'_>,
        (now, time): (Time, WallTime),
    ) -> BTreeMap<PartitionId, Wish> {
        let view = judge.view;
        if now < self.at || self.even == Some(view.version) {
            return BTreeMap::new();
        }
        self.at = now + BALANCE_INTERVAL;
        if view.level < REPLICATION_LEVEL || !is_calm(view, time) {
            return BTreeMap::new();
        }
        let places = Candidates::of(view);
        let mut wishes = copies(judge, &places);
        if wishes.is_empty() {
            wishes = leads(judge, &places);
        }
        self.even = wishes.is_empty().then_some(view.version);
        wishes
    }
}

/// Whether nobody is down who may be back soon.
fn is_calm(view: &View, time: WallTime) -> bool {
    let mut since = view.nodes.values().filter_map(|node| node.down);
    since.all(|since| Duration::from_millis(time.0.saturating_sub(since.0)) >= REPLACE_AFTER)
}

/// Copies for nodes that hold fewer than others, as many as may be under way.
fn copies(judge: &Judge<'_>, places: &Candidates) -> BTreeMap<PartitionId, Wish> {
    if placement::are_even(places.nodes().iter().map(Candidate::fill)) {
        return BTreeMap::new();
    }
    let (mut owners, mut well, mut room) = (Vec::new(), BTreeSet::new(), MOVES_MAX);
    for partition in judge.view.partitions.values() {
        let comes = |disk: &DiskId| judge.stays(*disk) && partition.member(*disk).is_none();
        if partition.replicas.iter().any(comes) {
            room = room.saturating_sub(1);
        } else if !judge.is_unwell(partition) {
            well.insert(partition.id);
        }
        owners.push((partition.id, Judge::key(partition), judge.kept(partition, places)));
    }
    let moves = moves(places, &owners, room * PROPOSED);
    let moves = moves.into_iter().filter(|step| well.contains(&step.partition)).take(room);
    let wish = |to| Wish { holder: Some(to), ..Wish::default() };
    moves.map(|step| (step.partition, wish(step.to))).collect()
}

/// The lead for nodes that lead fewer than others, of partitions that they hold.
fn leads(judge: &Judge<'_>, places: &Candidates) -> BTreeMap<PartitionId, Wish> {
    let mut fills = placement::leads(judge.view, places);
    if placement::are_even(fills.values().copied()) {
        return BTreeMap::new();
    }
    let mut led: BTreeMap<DiskId, Vec<&Partition>> = BTreeMap::new();
    for partition in judge.view.partitions.values().filter(|one| !judge.is_unwell(one)) {
        led.entry(partition.leader).or_default().push(partition);
    }
    let mut wishes = BTreeMap::new();
    while wishes.len() < MOVES_MAX
        && let Some((partition, from, to)) = next_lead(judge, &fills, &led, &wishes)
    {
        fills.entry(from).and_modify(|fill| fill.held -= 1);
        fills.entry(to).and_modify(|fill| fill.held += 1);
        wishes.insert(partition, Wish { leader: Some(to), ..Wish::default() });
    }
    wishes
}

/// A partition that whoever leads most may hand to whoever leads least.
fn next_lead(
    judge: &Judge<'_>,
    fills: &BTreeMap<DiskId, Fill>,
    led: &BTreeMap<DiskId, Vec<&Partition>>,
    chosen: &BTreeMap<PartitionId, Wish>,
) -> Option<(PartitionId, DiskId, DiskId)> {
    let mut takers: Vec<(DiskId, Fill)> = fills.iter().map(|(disk, fill)| (*disk, *fill)).collect();
    takers.sort_by(|(a, one), (b, other)| one.compare(other).then(a.cmp(b)));
    for &(to, taken) in &takers {
        for &(from, given) in takers.iter().rev() {
            if from == to || !given.may_give_to(&taken) {
                break;
            }
            let led = led.get(&from).into_iter().flatten();
            let mut free = led.filter(|partition| !chosen.contains_key(&partition.id));
            if let Some(found) = free.find(|partition| judge.counts(partition, to)) {
                return Some((found.id, from, to));
            }
        }
    }
    None
}
