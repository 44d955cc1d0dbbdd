//! A third of a cluster dies while every partition is written to: when does each take messages
//! again, is anything lost that was acknowledged, and when are there as many copies as before.
//!
//! Partitions are told apart by how many of those that counted are left of them. One of which
//! nobody is left is unavailable and says so; where no majority of voters is left, only those go on
//! that have lost nobody.

mod plan;
mod recovery;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sprawl_core::cluster::metadata::Partition;
use sprawl_core::ids::{DiskId, Offset, TopicName};
use sprawl_core::machine::Response;

pub(crate) use plan::{Scenario, ThirdPlan};
use writers::Writers;

use super::Outcome;
use super::judgement::{differs, lacking, live, until};
use super::machine::{Machine, Standing};
use super::mail::{self, topic};
use super::watch::Watch;
use super::world::World;
use crate::invariants::Findings;

/// How long it may take until all nodes are one cluster, and until all are even.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Within what time each partition takes messages again of which enough is left.
const WRITABLE_LIMIT: Duration = Duration::from_secs(5);
/// How long is waited for one that takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is written after the deaths at least.
const AFTER: Duration = Duration::from_secs(9);
/// Within what time each partition has its copies again where there are nodes for them: a node that
/// is dead is waited for a minute first.
const RESTORE_LIMIT: Duration = Duration::from_secs(120);
/// How many copies each partition has.
const COPIES: usize = 3;
/// How many messages are acknowledged in a run at least.
const ENOUGH: u64 = 10_000;

/// What became of a partition when a third died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// So many of those that counted are left.
    Left(usize),
    /// So many are, and no majority of those who vote on the metadata.
    NoQuorum(usize),
}

/// What was seen of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Third {
    pub(crate) acknowledged: u64,
    /// Of each partition how long after the deaths it took a message again, if it did.
    pub(crate) gaps: Vec<(Class, Option<Duration>)>,
    /// After how long all copies were there again, where those who died do not come back.
    pub(crate) restored_after: Option<Duration>,
}

impl Third {
    /// Whether too little was written for the run to say anything.
    pub(crate) fn is_vacuous(&self) -> bool {
        let went_on = self.gaps.iter().all(|(class, _)| matches!(class, Class::Left(_)));
        went_on && self.acknowledged < ENOUGH
    }
}

/// A run, from the first start to its judgement.
pub(super) async fn live_through(
    plan: ThirdPlan,
    findings: Findings,
    watch: Watch,
) -> (Outcome, Third) {
    let mut world = World::new(plan.cluster.clone(), findings, watch);
    world.begin();
    let writers = Writers::new(world.mail.clone(), world.crowd.clone());
    let mut seen = Third::default();
    if let Some(classes) = strike(&mut world, &plan, &writers).await {
        judge(&mut world, &plan, &writers, &classes, &mut seen).await;
    }
    (world.end().await, seen)
}

/// The partitions by their numbers.
type Classes = BTreeMap<u64, Class>;

/// The cluster comes together, is written to, and loses a third; gives what is left of each
/// partition.
async fn strike(world: &mut World, plan: &ThirdPlan, writers: &Writers) -> Option<Classes> {
    let settled = |world: &World| differs(world).is_none().then_some(());
    if until(world, SETTLE_LIMIT, settled).await.is_none() {
        let why = differs(world).unwrap_or_default();
        world.findings.violated("Converges", format!("{SETTLE_LIMIT:?} after the start: {why}"));
        return None;
    }
    writers.begin(plan.partitions, Duration::from_millis(plan.pause_ms), plan.cluster.seed);
    let all_begun = |world: &World| {
        let is_whole =
            live(world).first().is_some_and(|one| lacking(&one.1.view()).next().is_none());
        (is_whole && writers.begun() as u64 == plan.partitions).then_some(())
    };
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    if until(world, limit, all_begun).await.is_none() {
        let detail = format!("{} of {} partitions are whole", writers.begun(), plan.partitions);
        world.findings.violated("CopiesAreMade", detail);
        return None;
    }
    world.pass_until(world.began.elapsed() + Duration::from_millis(plan.before_ms)).await;
    let struck: Vec<(Machine, Duration)> = plan
        .struck
        .iter()
        .map(|&(number, down_ms)| (world.machines[number].clone(), Duration::from_millis(down_ms)))
        .collect();
    let classes = classes(world, &struck, plan.partitions);
    writers.struck();
    for (machine, down) in struck {
        world.watch.world(&format!("machine {} loses power", machine.number));
        machine.kill(true);
        if plan.is_for_ever() {
            machine.stands(Standing::Gone);
            machine.wipe();
        } else {
            machine.stands(Standing::Struck);
            machine.start_after(down);
        }
    }
    Some(classes)
}

/// What will be left of each partition.
fn classes(world: &World, struck: &[(Machine, Duration)], partitions: u64) -> Classes {
    let view = world.watch.newest();
    let disk = |machine: &Machine| Some(machine.handle()?.identity().disk);
    let disks: BTreeSet<DiskId> = struck.iter().filter_map(|(one, _)| disk(one)).collect();
    let voters = world.watch.voters();
    let dead: BTreeSet<_> =
        struck.iter().filter_map(|(one, _)| world.watch.member(one.number)).collect();
    let has_quorum = voters.iter().all(|set| set.intersection(&dead).count() * 2 < set.len());
    let class = |number: u64| {
        let partition = view.partition_number(&topic(number), 0)?;
        let left = partition.members().filter(|disk| !disks.contains(disk)).count();
        Some((number, if has_quorum { Class::Left(left) } else { Class::NoQuorum(left) }))
    };
    (0..partitions).filter_map(class).collect()
}

/// Waits for what is to happen, and says what did not.
async fn judge(
    world: &mut World,
    plan: &ThirdPlan,
    writers: &Writers,
    classes: &Classes,
    seen: &mut Third,
) {
    let struck = world.began.elapsed();
    // Those who come back are waited for.
    let back = plan.struck.iter().map(|&(_, down_ms)| Duration::from_millis(down_ms)).max();
    let back = back.filter(|_| !plan.is_for_ever()).unwrap_or_default();
    let limit_of = |class: Class| match class {
        Class::Left(0) | Class::NoQuorum(0..=2) if plan.is_for_ever() => None,
        Class::Left(0) | Class::NoQuorum(0..=2) => Some(back + WRITABLE_LIMIT),
        Class::Left(_) | Class::NoQuorum(_) => Some(WRITABLE_LIMIT),
    };
    let written = |_: &World| {
        let mut waited_for = classes.iter().filter(|(_, class)| limit_of(**class).is_some());
        waited_for.all(|(&number, _)| writers.gap(number).is_some()).then_some(())
    };
    until(world, struck + PATIENCE, written).await;
    world.pass_until(struck + AFTER).await;
    // On slow disks three nodes take less in that time.
    let enough = |_: &World| (writers.acknowledged() >= ENOUGH).then_some(());
    until(world, struck + PATIENCE, enough).await;
    seen.acknowledged = writers.acknowledged();
    for (&number, &class) in classes {
        let gap = writers.gap(number);
        seen.gaps.push((class, gap));
        match (limit_of(class), gap) {
            (Some(limit), None) => {
                let detail = format!("partition {number}, {class:?}: not within {PATIENCE:?}");
                world.findings.violated("WritableWithin", format!("{detail}, and not {limit:?}"));
            }
            (Some(limit), Some(_)) if writers.stood_still(number) > limit => {
                let took = writers.stood_still(number);
                let detail = format!("partition {number}, {class:?}: nothing for {took:?}");
                world.findings.violated("WritableWithin", detail);
            }
            (None, Some(gap)) => {
                let detail = format!("partition {number}, {class:?}: written after {gap:?}");
                world.findings.violated("NothingAckedIsLost", detail);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    world.crowd.close();
    let gone = lost(plan, classes);
    if classes.values().any(|class| matches!(class, Class::NoQuorum(_))) && plan.is_for_ever() {
        recovery::recover(world).await;
    } else if world.machines.len() - plan.struck.len() >= COPIES || !plan.is_for_ever() {
        let after = restore(world, &gone, struck).await;
        // Where machines come back that is soon, and was not looked at.
        seen.restored_after = after.filter(|_| plan.is_for_ever());
    }
    read_back(world, &gone).await;
}

/// CopiesAreMade: there are as many copies as before of what is left; says after how long.
async fn restore(
    world: &mut World,
    gone: &BTreeSet<TopicName>,
    struck: Duration,
) -> Option<Duration> {
    let lacks = |world: &World| {
        let view = live(world).first()?.1.view();
        let mut lacking = lacking(&view).filter(|one| !gone.contains(&one.topic));
        lacking.next().map(|one| Partition::clone(one))
    };
    let whole = |world: &World| lacks(world).is_none().then_some(());
    if until(world, struck + RESTORE_LIMIT, whole).await.is_some() {
        return Some(world.began.elapsed() - struck);
    }
    let stands = mail::standing(&live(world), &lacks(world)?).await;
    world.findings.violated("CopiesAreMade", format!("{RESTORE_LIMIT:?}: {stands}"));
    None
}

/// The topics of which nothing is left.
fn lost(plan: &ThirdPlan, classes: &Classes) -> BTreeSet<TopicName> {
    let is_gone = |class: &Class| matches!(class, Class::Left(0) | Class::NoQuorum(0));
    let gone = classes.iter().filter(|(_, class)| plan.is_for_ever() && is_gone(class));
    gone.map(|(&number, _)| topic(number)).collect()
}

/// NothingAckedIsLost: everything is read back but what was in partitions of which nothing is left;
/// and these do not read as if they were empty.
async fn read_back(world: &mut World, gone: &BTreeSet<TopicName>) {
    let live = live(world);
    let Some((machine, node)) = live.first() else { return };
    for topic in gone {
        let request = mail::fetch(topic, 0, Offset(0), 1, Duration::ZERO);
        let answer = node.request(request).await;
        if !matches!(answer, Response::Refused(_)) {
            let detail = format!("'{topic}' is lost, and machine {}: {answer:?}", machine.number);
            world.findings.violated("NothingAckedIsLost", detail);
        }
    }
    world.mail.judge(&live, gone, SETTLE_LIMIT).await;
}
