//! Copies that are given the state before the entries that it was made from.

use std::time::Duration;

use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::topic::Durability;
use sprawl_core::ids::*;

use super::cluster::Cluster;

/// Whether a node's replica has its state before its log.
fn fills(cluster: &Cluster, at: usize) -> bool {
    cluster.nodes[at].run.as_ref().is_some_and(|run| run.replica.is_filling())
}

/// A cluster of four of which one member is dead; who leads; and who has just been given the state
/// in its place, and nothing else.
fn given_the_state() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::new(4, 3);
    cluster.work(Duration::from_secs(1));
    let before = cluster.partition();
    let leader = cluster.position(before.leader);
    for _ in 0..20 {
        assert!(cluster.publish(leader).is_some());
        cluster.work(Duration::from_millis(100));
    }
    cluster.trim(leader, 4);
    cluster.work(Duration::from_secs(1));
    // What follows takes the state along, and with that the log is cut.
    assert!(cluster.publish(leader).is_some());
    cluster.work(Duration::from_secs(1));
    assert!(cluster.nodes[leader].hard.begins > 10, "{}", cluster.nodes[leader].hard.begins);
    // Nor does anybody's memory have what was removed.
    (0..4).for_each(|at| cluster.restart(at));
    cluster.work(Duration::from_secs(2));
    let leader = cluster.position(cluster.partition().leader);
    let newcomer = (1..=4).map(DiskId).find(|disk| !before.replicas.contains(disk));
    let newcomer = newcomer.expect("three of four have a copy");
    let at = cluster.position(newcomer);
    let third = before.replicas.iter().copied().find(|disk| cluster.position(*disk) != leader);
    cluster.crash(cluster.position(third.expect("there are three")), 0);
    let rulings = vec![Ruling { placed: vec![newcomer], ..cluster.ruling() }];
    cluster.agree(&Change::Rule { rulings });
    (0..4).for_each(|at| cluster.show(at));
    for _ in 0..1_000 {
        (0..cluster.reads.len().min(1)).for_each(|_| cluster.read(0));
        (0..cluster.packets.len().min(1)).for_each(|_| cluster.deliver(0, false));
        (0..4).for_each(|at| cluster.sync(at, 1));
        if fills(&cluster, at) && cluster.nodes[at].hard.begins > 10 {
            break;
        }
    }
    assert!(fills(&cluster, at) && cluster.nodes[at].hard.begins > 10);
    (cluster, leader, at)
}

#[test]
fn a_copy_that_lacks_what_was_removed_is_given_the_state() {
    let (mut cluster, leader, at) = given_the_state();
    let newcomer = cluster.nodes[at].disk;
    // It dies while it fills its log, and goes on from there.
    cluster.crash(at, 0);
    cluster.restart(at);
    assert!(fills(&cluster, at), "it knows that something is missing");
    cluster.work(Duration::from_secs(4));
    assert_eq!(cluster.partition().member(newcomer), Some(Member::whole(newcomer)));
    let digests = [leader, at].map(|at| {
        let run = cluster.nodes[at].run.as_ref().expect("it runs");
        (run.replica.commit(), run.replica.state_digest(), run.replica.begins())
    });
    assert_eq!(digests[0], digests[1]);
    cluster.expect_progress().expect("it goes on");
}

#[test]
fn what_is_behind_a_log_that_was_just_filled_is_compared() {
    let (mut cluster, leader, at) = given_the_state();
    let newcomer = cluster.nodes[at].disk;
    let may = |at: usize| at != leader && cluster.nodes[at].run.is_some();
    let other = cluster.partition().members().find(|disk| may(cluster.position(*disk)));
    let next = cluster.position(other.expect("two are left"));
    // What it lacks comes, and behind it what nobody else has; nothing of it is durable.
    assert!((0..3).all(|_| cluster.publish(leader).is_some()));
    for _ in 0..200 {
        (0..cluster.reads.len()).for_each(|_| cluster.read(0));
        cluster.packets.retain(|packet| packet.to == newcomer);
        (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
        cluster.sync(leader, usize::MAX);
        let all = cluster.packets.len();
        (0..all).for_each(|_| cluster.deliver(0, false));
        cluster.pass(leader, Duration::from_millis(10));
    }
    let last =
        |cluster: &Cluster, at: usize| cluster.nodes[at].run.as_ref().map(|run| run.replica.last());
    assert_eq!(last(&cluster, at), last(&cluster, leader));
    assert!(fills(&cluster, at), "it waits for its disk");
    let ruling = Ruling { leader: other, ..cluster.ruling() };
    cluster.agree(&Change::Rule { rulings: vec![ruling] });
    cluster.crash(leader, 0);
    (0..4).for_each(|at| cluster.show(at));
    assert!((0..5).all(|_| cluster.publish(next).is_some()));
    // It is asked where the logs part before its disk is done.
    (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
    assert!(fills(&cluster, at));
    cluster.work(Duration::from_secs(5));
    let counts = cluster.partition().member(newcomer);
    assert_eq!(counts, Some(Member::whole(newcomer)), "and all laws hold");
    let logs = [next, at].map(|at| cluster.nodes[at].hard.log.clone());
    assert!(logs[1].iter().all(|(index, bytes)| logs[0].get(index) == Some(bytes)));
}

/// A cluster of five of which two of three members are dead; who leads; and who has come to the set
/// in their place, with the state and what follows it and nothing that is older.
fn a_tail() -> (Cluster, usize, DiskId) {
    let mut cluster = Cluster::with(5, 3, Durability::Fsync, 0);
    cluster.work(Duration::from_secs(1));
    let before = cluster.partition();
    let leader = cluster.position(before.leader);
    for _ in 0..6 {
        assert!(cluster.publish(leader).is_some());
        cluster.work(Duration::from_millis(100));
    }
    cluster.withholds_older = true;
    for disk in before.members().filter(|disk| *disk != before.leader) {
        cluster.crash(cluster.position(disk), 0);
    }
    cluster.work(Duration::from_secs(3));
    let after = cluster.partition();
    let tail = after.in_sync.iter().find(|one| one.standing == Standing::Tail);
    let tail = tail.unwrap_or_else(|| panic!("{after:?}")).disk;
    assert!(!after.frozen && fills(&cluster, cluster.position(tail)));
    (cluster, leader, tail)
}

#[test]
fn a_tail_counts_and_does_not_lead() {
    let (mut cluster, leader, tail) = a_tail();
    let before = cluster.laws.committed();
    assert!((0..3).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    assert_eq!(cluster.laws.committed(), before + 3, "it counts");
    let at = cluster.position(tail);
    let log = &cluster.nodes[at].hard.log;
    assert!(log.contains_key(&(before + 3)) && !log.contains_key(&2), "and has what is new");
    // Who holds everything dies: nobody is left who does.
    cluster.crash(leader, 0);
    cluster.work(Duration::from_secs(3));
    let partition = cluster.partition();
    assert!(cluster.view.is_leaderless(&partition) && partition.frozen, "{partition:?}");
    // Back, it goes on, and gives what is missing.
    cluster.withholds_older = false;
    cluster.restart(leader);
    cluster.work(Duration::from_secs(10));
    assert_eq!(cluster.partition().member(tail), Some(Member::whole(tail)));
    let logs = [leader, at].map(|at| cluster.nodes[at].hard.log.clone());
    assert_eq!(logs[0], logs[1]);
    cluster.expect_progress().expect("it goes on");
}

#[test]
fn a_tail_that_dies_is_one_afterwards() {
    let (mut cluster, leader, tail) = a_tail();
    assert!(cluster.publish(leader).is_some());
    cluster.work(Duration::from_secs(1));
    let at = cluster.position(tail);
    cluster.restart(at);
    assert!(fills(&cluster, at));
    assert!(cluster.publish(leader).is_some());
    cluster.work(Duration::from_secs(1));
    assert_eq!(cluster.partition().member(tail).map(|one| one.standing), Some(Standing::Tail));
    cluster.withholds_older = false;
    // It has some of what is older when it dies again.
    for _ in 0..200 {
        if cluster.nodes[at].hard.log.contains_key(&2) {
            break;
        }
        cluster.flow();
        cluster.pass(at, Duration::from_millis(50));
    }
    cluster.crash(at, 0);
    cluster.restart(at);
    assert!(fills(&cluster, at) && cluster.nodes[at].hard.log.contains_key(&2));
    cluster.work(Duration::from_secs(5));
    assert_eq!(cluster.partition().member(tail), Some(Member::whole(tail)));
    assert_eq!(cluster.nodes[leader].hard.log, cluster.nodes[at].hard.log);
    cluster.expect_progress().expect("it goes on");
}

#[test]
fn who_was_replaced_by_a_tail_makes_it_whole() {
    let (mut cluster, leader, tail) = a_tail();
    assert!((0..3).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    // Who holds everything is gone for good. Who held it before is back, and does not count.
    let gone = cluster.nodes[leader].disk;
    cluster.crash(leader, 0);
    let before = cluster.partition();
    let back = before.replicas.iter().find(|disk| before.member(**disk).is_none());
    let back = cluster.position(*back.expect("they were replaced"));
    cluster.withholds_older = false;
    cluster.restart(back);
    cluster.work(Duration::from_secs(8));
    let after = cluster.partition();
    assert_eq!((after.leader, after.frozen), (tail, false), "{after:?}");
    assert_eq!(after.member(gone), None);
    cluster.expect_progress().expect("it goes on");
    let at = cluster.position(tail);
    assert!(!fills(&cluster, at) && cluster.nodes[at].hard.log.contains_key(&1));
}

#[test]
fn a_tail_keeps_what_it_has_when_what_it_lacks_is_removed() {
    let (mut cluster, leader, tail) = a_tail();
    assert!((0..9).all(|_| cluster.publish(leader).is_some()));
    // For so long the log stays as it is for who does not come on.
    cluster.work(Duration::from_secs(61));
    cluster.trim(leader, 1);
    cluster.work(Duration::from_secs(1));
    assert!((0..9).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    let at = cluster.position(tail);
    assert!(cluster.nodes[leader].hard.begins > 2 && fills(&cluster, at));
    assert_eq!(cluster.partition().member(tail).map(|one| one.standing), Some(Standing::Tail));
    // It asks, and is given a newer state: not before it counts no more, as the laws have it.
    cluster.withholds_older = false;
    cluster.work(Duration::from_secs(20));
    assert_eq!(cluster.partition().member(tail), Some(Member::whole(tail)));
    assert!(!fills(&cluster, at));
    cluster.expect_progress().expect("it goes on");
}

#[test]
fn that_a_tail_is_whole_is_said_again() {
    let (mut cluster, _, tail) = a_tail();
    cluster.withholds_older = false;
    // Nothing arrives of what it says to who leads.
    cluster.muted = Some(tail);
    let at = cluster.position(tail);
    for _ in 0..400 {
        if !fills(&cluster, at) {
            break;
        }
        cluster.flow();
        cluster.pass(at, Duration::from_millis(50));
    }
    assert!(!fills(&cluster, at));
    cluster.flow();
    assert_eq!(cluster.partition().member(tail).map(|one| one.standing), Some(Standing::Tail));
    cluster.muted = None;
    // Nothing is published.
    cluster.work(Duration::from_secs(8));
    assert_eq!(cluster.partition().member(tail), Some(Member::whole(tail)));
}
