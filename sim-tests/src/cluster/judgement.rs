//! When all has healed: there is a leader soon, all that live agree, and every node takes changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sprawl_core::cluster::metadata::{Partition, View};
use sprawl_core::cluster::placement::Candidates;
use sprawl_core::ids::TopicName;
use sprawl_io::handle::NodeHandle;

use super::clients::Fate;
use super::machine::{Machine, Standing};
use super::mail::{self, Probe};
use super::world::World;
use super::{backlog, goodput};

/// How long it may take until somebody leads.
const LEADER_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take until all nodes are registered and have one view.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// For how long nothing happens then.
const CALM: Duration = Duration::from_secs(8);
/// How long it may take until a copy of a directory ends.
const COPY_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take until every topic takes a message.
const WRITABLE_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take until all is published again when a third of the machines is dead.
const SERVES_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take until subscriptions have had all that stands in their topics.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take from when one is told to end: nobody has to notice its silence.
const SERVES_ON_LIMIT: Duration = Duration::from_millis(1_200);
/// How often a change is tried through a node, of which the first may meet an election.
const TRIES: u32 = 3;

pub(super) async fn judge(world: &mut World) {
    let healed = world.began.elapsed();
    let probe = world.mail.probe("all-healed", world.plan.seed);
    let led = until(world, healed + LEADER_LIMIT, |world| leads(world).then_some(())).await;
    world.outcome.led_after = world.began.elapsed() - healed;
    if led.is_none() {
        let detail = format!("nobody leads {LEADER_LIMIT:?} after healing");
        world.findings.violated("LeaderWithin", detail);
    }
    let settled =
        until(world, healed + SETTLE_LIMIT, |world| differs(world).is_none().then_some(()));
    let settled = settled.await;
    world.outcome.settled_after = world.began.elapsed() - healed;
    if settled.is_none() {
        let why = differs(world).unwrap_or_default();
        world.findings.violated("Converges", format!("after {SETTLE_LIMIT:?}: {why}"));
        return;
    }
    if !takes_messages(world, &probe).await {
        return;
    }
    stay_calm(world).await;
    goodput::returns(world).await;
    lose_the_leader(world).await;
    end_one(world).await;
    copy_one(world).await;
    lose_a_third(world).await;
    propose_everywhere(world).await;
    world.flip_again();
    world.mail.judge(&live(world), &BTreeSet::new(), SETTLE_LIMIT).await;
    drain(world).await;
    for (machine, node) in live(world) {
        world.replicas.look(machine.number, &node).await;
        world.book.check(machine.number, &node);
    }
}

/// WritableWithin: every partition takes messages soon after healing.
async fn takes_messages(world: &mut World, probe: &Probe) -> bool {
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    let took = until(world, limit, |_| probe.took()).await;
    if took.is_none_or(|took| took > WRITABLE_LIMIT) {
        let view = live(world).first().map(|(_, node)| node.view());
        let unled = |view: &View| {
            let mut all = view.partitions.values();
            all.find(|one| one.led_by().is_none()).map(|one| Partition::clone(one))
        };
        let stands = match view.and_then(|view| unled(&view)) {
            Some(partition) => mail::standing(&live(world), &partition).await,
            None => "every partition is led".to_owned(),
        };
        world.findings.violated("WritableWithin", format!("it took {took:?}; {stands}"));
    }
    world.outcome.writable_after = took.unwrap_or(SETTLE_LIMIT);
    took.is_some()
}

/// AtLeastOnce, SubscribedMeansFromHere: what was read back has come to whoever subscribed to it,
/// or does within the limit.
async fn drain(world: &mut World) {
    let limit = world.began.elapsed() + DRAIN_LIMIT;
    let began = world.began.elapsed();
    loop {
        let Some((_, node)) = live(world).into_iter().next() else { return };
        let is_late = world.began.elapsed() >= limit;
        if world.subscribers.are_served(&node, is_late).await || is_late {
            world.outcome.drained_after = Some(world.began.elapsed() - began);
            return;
        }
        world.pass_until(world.began.elapsed() + Duration::from_millis(200)).await;
    }
}

/// NoOscillation: where links are good and nothing happens nobody is declared down or back,
/// whatever the clock on the leader's wall shows.
async fn stay_calm(world: &mut World) {
    world.calm_links();
    // What is still on its way arrives, and what it led to passes.
    world.pass_until(world.began.elapsed() + CALM).await;
    let before = world.watch.verdicts();
    let jumps: Vec<i64> = world.plan.faults.iter().filter_map(|fault| fault.what.jump()).collect();
    for by_ms in jumps {
        let leader = live(world).into_iter().find(|(_, node)| node.group().is_leader_ready);
        leader.iter().for_each(|(machine, _)| machine.jump(by_ms));
        world.pass_until(world.began.elapsed() + CALM / 4).await;
    }
    world.pass_until(world.began.elapsed() + CALM).await;
    let verdicts = world.watch.verdicts() - before;
    if verdicts > 0 {
        let detail = format!("{verdicts} times somebody was declared down or back for nothing");
        world.findings.violated("NoOscillation", detail);
    }
}

/// LeaderWithin: where links are good and the leader's process is killed, the others have another.
async fn lose_the_leader(world: &mut World) {
    let all = live(world);
    let leader = all.into_iter().find(|(_, node)| node.group().is_leader_ready);
    let Some((leader, node)) = leader else { return };
    if node.group().voters.len() < 3 {
        return;
    }
    leader.stands(Standing::Struck);
    leader.kill(false);
    let lost = world.began.elapsed();
    let led = until(world, lost + LEADER_LIMIT, |world| leads(world).then_some(())).await;
    if led.is_none() {
        let detail = format!("nobody leads {LEADER_LIMIT:?} after machine {}", leader.number);
        world.findings.violated("LeaderWithin", detail);
    }
    world.outcome.led_again_after = Some(world.began.elapsed() - lost);
    leader.start();
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    until(world, limit, |world| differs(world).is_none().then_some(())).await;
}

/// ServesOnWithin: where one process is told to end, it does, and every partition takes messages
/// through the others at once.
async fn end_one(world: &mut World) {
    let all = live(world);
    let Some((machine, _)) = all.get((world.plan.seed as usize + 1) % all.len().max(1)) else {
        return;
    };
    if all.len() < 2 || !has_copies(world).await {
        return;
    }
    // Who has just come serves by now.
    for (_, node) in &all {
        node.settled(SERVES_LIMIT).await;
    }
    let told = world.began.elapsed();
    machine.stands(Standing::Struck);
    let ended = tokio::spawn({
        let machine = machine.clone();
        async move { machine.end().await }
    });
    let limit = world.began.elapsed() + SERVES_LIMIT;
    if until(world, limit, |_| ended.is_finished().then_some(())).await.is_none() {
        let detail = format!("machine {} has not ended in {SERVES_LIMIT:?}", machine.number);
        world.findings.violated("ServesOnWithin", detail);
    }
    machine.kill(false);
    let probe = world.mail.probe("one-ended", world.plan.seed);
    let limit = world.began.elapsed() + SERVES_LIMIT;
    let served = until(world, limit, |_| probe.took());
    let is_served = served.await.is_some();
    let took = world.began.elapsed() - told;
    if !is_served || took > SERVES_ON_LIMIT {
        let detail = format!("it took {took:?} after machine {} was told to end", machine.number);
        world.findings.violated("ServesOnWithin", detail);
    }
    world.outcome.served_on_after = Some(took);
    machine.start();
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    until(world, limit, |world| differs(world).is_none().then_some(())).await;
}

/// CopiesAreMade, CopiesAreSpread: waits until each partition has as many copies as it wants, no
/// zone has two of them where another one could have one more, and no node holds two more than
/// another one. Where zones do not allow the last nothing is said of it.
async fn has_copies(world: &mut World) -> bool {
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    let ready = |world: &World| lacks(world).is_none() && is_uneven(world).is_none();
    until(world, limit, |world| ready(world).then_some(())).await;
    if let Some(partition) = lacks(world) {
        let stands = mail::standing(&live(world), &partition).await;
        world.findings.violated("CopiesAreMade", format!("{SETTLE_LIMIT:?}: {stands}"));
        return false;
    }
    if let Some(held) = is_uneven(world) {
        world.findings.violated("CopiesAreSpread", format!("{SETTLE_LIMIT:?}: {held}"));
    }
    true
}

/// How many copies the nodes hold, where that is uneven.
fn is_uneven(world: &World) -> Option<String> {
    let all = live(world);
    let view = all.first()?.1.view();
    let held: Vec<usize> = view.nodes.keys().map(|disk| view.partitions_held(*disk)).collect();
    if world.plan.zones > 1 {
        let places = Candidates::of(&view);
        return view.partitions.values().find_map(|one| {
            let (zone, has, most) = places.neglected(&one.replicas)?;
            let (id, topic) = (one.id, &one.topic);
            Some(format!("{has} copies of '{topic}', {id}, in zone '{zone}', {most} in another"))
        });
    }
    let uneven = held.iter().max()? - held.iter().min()? > 1;
    uneven.then(|| format!("nodes hold {held:?} copies"))
}

/// ServesAgainWithin: where a third of the machines is killed at once, every partition of which one
/// that counts is left takes messages again through the others.
async fn lose_a_third(world: &mut World) {
    let all = live(world);
    if all.len() < 3 || !has_copies(world).await {
        return;
    }
    let struck = a_third(&all, world);
    let third = struck.len();
    let disks = struck.iter().filter_map(|one| Some(one.handle()?.identity().disk));
    let disks: Vec<_> = disks.collect();
    for machine in &struck {
        machine.stands(Standing::Struck);
        machine.kill(true);
    }
    let (lost, probe) = (world.began.elapsed(), world.mail.probe("third-died", world.plan.seed));
    let served = until(world, lost + SERVES_LIMIT, |_| probe.took());
    if served.await.is_none() {
        let detail = format!("{SERVES_LIMIT:?} after {third} of {} machines died", all.len());
        world.findings.violated("ServesAgainWithin", detail);
    }
    world.outcome.served_again_after = Some(world.began.elapsed() - lost);
    backlog::grow(world, &disks).await;
    struck.iter().for_each(Machine::start);
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    until(world, limit, |world| differs(world).is_none().then_some(())).await;
}

/// A third of the machines, with each seed from another one on, but so that each partition keeps
/// one of those that count, on a disk that has it as it was written; and as many as its set is to
/// keep, where it acknowledges early: there no copy counts before it has everything.
fn a_third(all: &[(Machine, NodeHandle)], world: &World) -> Vec<Machine> {
    let (view, seed) = (all[0].1.view(), world.plan.seed);
    let (mut struck, mut disks) = (Vec::new(), BTreeSet::new());
    for at in 0..all.len() {
        let (machine, node) = &all[(seed as usize + at) % all.len()];
        disks.insert(node.identity().disk);
        let keeps = |partition: &Partition| {
            let kept = all.iter().filter(|(other, node)| {
                let disk = node.identity().disk;
                let counts = partition.member(disk).is_some() && !disks.contains(&disk);
                counts && !world.watch.has_flipped(other.number, partition.id)
            });
            kept.count() >= if partition.early { partition.min_in_sync as usize } else { 1 }
        };
        if view.partitions.values().all(|partition| keeps(partition)) {
            struck.push(machine.clone());
        } else {
            disks.remove(&node.identity().disk);
        }
        if struck.len() == all.len() / 3 {
            break;
        }
    }
    struck
}

/// Whether every partition has a leader that holds what was acknowledged.
fn is_led(node: &NodeHandle) -> bool {
    node.view().partitions.values().all(|partition| partition.led_by().is_some())
}

/// A partition of which fewer copies count than it wants.
fn lacks(world: &World) -> Option<Partition> {
    let view = live(world).first()?.1.view();
    lacking(&view).next().map(|one| Partition::clone(one))
}

/// The partitions of which fewer copies count than they want.
pub(super) fn lacking(view: &View) -> impl Iterator<Item = &Arc<Partition>> {
    view.partitions.values().filter(|one| one.frozen || view.is_under_replicated(one))
}

/// CopiesAreRefused: a copy of the directory of a node that runs ends with a line that says so,
/// and the node goes on.
async fn copy_one(world: &mut World) {
    let all = live(world);
    let Some((machine, node)) = all.get(world.plan.seed as usize % all.len().max(1)) else {
        return;
    };
    let copy = machine.copied(world.machines.len());
    copy.start();
    let limit = world.began.elapsed() + COPY_LIMIT;
    let said = until(world, limit, |_| copy.take_exit()).await;
    copy.kill(false);
    let refused =
        said.as_ref().is_some_and(|said| said.contains("copy") || said.contains("copied"));
    if !refused {
        let detail =
            format!("a copy of machine {} within {COPY_LIMIT:?}: {said:?}", machine.number);
        world.findings.violated("CopiesAreRefused", detail);
    }
    let goes_on = machine.handle().is_some_and(|now| now.identity() == node.identity());
    if !goes_on {
        let detail = format!("machine {} has ended for its copy", machine.number);
        world.findings.violated("CopiesAreRefused", detail);
    }
}

async fn propose_everywhere(world: &mut World) {
    for (machine, _) in live(world) {
        let mut fate = Fate::Unknown;
        for attempt in 0..TRIES {
            let name = format!("last-{}-{attempt}", machine.number);
            let name: TopicName = name.parse().expect("a good name");
            fate = world.book.ask(&machine, &name, true).await;
            if fate == Fate::Agreed || machine.standing() == Standing::Gone {
                break;
            }
            world.pass_until(world.began.elapsed() + Duration::from_millis(500)).await;
        }
        if fate != Fate::Agreed && machine.standing() != Standing::Gone {
            let detail = format!("no change is agreed through machine {}", machine.number);
            world.findings.violated("ProposalsAgreed", detail);
        }
    }
    let limit = world.began.elapsed() + LEADER_LIMIT;
    if until(world, limit, |world| differs(world).is_none().then_some(())).await.is_none() {
        let why = differs(world).unwrap_or_default();
        world.findings.violated("Converges", format!("after the last changes: {why}"));
    }
}

/// Lets time pass until something is so.
pub(super) async fn until<T>(
    world: &mut World,
    limit: Duration,
    look: impl Fn(&World) -> Option<T>,
) -> Option<T> {
    loop {
        if let Some(found) = look(world) {
            return Some(found);
        }
        if world.began.elapsed() >= limit {
            return None;
        }
        world.pass_until(world.began.elapsed() + Duration::from_millis(50)).await;
    }
}

/// The machines on which a node runs.
pub(super) fn live(world: &World) -> Vec<(Machine, NodeHandle)> {
    let handle = |machine: &Machine| Some((machine.clone(), machine.handle()?));
    world.machines.iter().filter_map(handle).collect()
}

fn leads(world: &World) -> bool {
    live(world).iter().any(|(_, node)| node.group().is_leader_ready)
}

/// Why the nodes are not of one mind, if they are not.
pub(super) fn differs(world: &World) -> Option<String> {
    let staying: Vec<_> =
        world.machines.iter().filter(|machine| machine.standing() != Standing::Gone).collect();
    let live = live(world);
    if live.len() < staying.len() {
        let missing = staying.iter().find(|machine| machine.handle().is_none())?;
        return Some(format!("machine {} does not run", missing.number));
    }
    let newest = live.iter().map(|(_, node)| node.view().version).max()?;
    for (machine, node) in &live {
        let (view, number) = (node.view(), machine.number);
        if let Some(why) = node.waits() {
            return Some(format!("machine {number} waits: {why}"));
        }
        if view.version != newest {
            return Some(format!("machine {number} is at {}, {newest} is known", view.version));
        }
        let identity = node.identity();
        match view.nodes.get(&identity.disk) {
            None => return Some(format!("machine {number} is not registered")),
            Some(known) if known.boot != identity.boot => {
                return Some(format!("another run of machine {number} is registered"));
            }
            Some(known) if known.down.is_some() => {
                return Some(format!("machine {number} is held for down"));
            }
            Some(known) if known.leaving.is_some() && is_led(node) => {
                return Some(format!("machine {number} was told to leave, and has not"));
            }
            Some(_) => {}
        }
    }
    None
}
