//! What is acknowledged before it is synced: who may lead, and who may come to the set.

use std::time::Duration;

use sprawl_core::cluster::metadata::{Change, Member, Standing};
use sprawl_core::cluster::topic::{ConfigPatch, Durability};
use sprawl_core::ids::EntryIndex;

use super::cluster::Cluster;

/// Three copies of a partition that acknowledges what is received, a message that all have and no
/// disk, and who leads.
fn received_and_not_synced() -> (Cluster, usize) {
    let mut cluster = Cluster::kept(3, 3, Durability::Replicated);
    cluster.heal(Duration::from_secs(1));
    let leader = cluster.position(cluster.partition().leader);
    let index = cluster.publish(leader).expect("it leads");
    (0..2).for_each(|_| (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false)));
    let run = cluster.nodes[leader].run.as_ref().expect("it runs");
    assert_eq!((run.replication.received_by_all(), run.replication.commit().0), (index, 1));
    (cluster, leader)
}

#[test]
fn what_all_have_received_is_acknowledged_and_outlives_all_but_one() {
    let (mut cluster, leader) = received_and_not_synced();
    let second = (leader + 1) % 3;
    cluster.crash(leader, 0);
    cluster.crash(second, 0);
    cluster.restart(leader);
    cluster.restart(second);
    cluster.work(Duration::from_secs(3));
    let third = cluster.nodes[(leader + 2) % 3].disk;
    assert_eq!((cluster.partition().leader, cluster.partition().trusted), (third, 0));
    assert!(cluster.laws.committed() > 2, "Start, the message, and the next Start");
    assert_eq!(cluster.partition().in_sync.len(), 3);
}

#[test]
fn where_all_have_crashed_the_longest_log_leads_when_all_have_said_what_they_hold() {
    let (mut cluster, leader) = received_and_not_synced();
    cluster.crash(leader, usize::MAX);
    cluster.restart(leader);
    for at in [1, 2].map(|next| (leader + next) % 3) {
        cluster.crash(at, 0);
        cluster.restart(at);
    }
    assert!(cluster.view.is_forsaken(&cluster.partition()));
    cluster.crash(leader, 0);
    cluster.work(Duration::from_secs(3));
    let partition = cluster.partition();
    assert!(cluster.view.is_leaderless(&partition) && partition.trusted == 0, "{partition:?}");
    cluster.restart(leader);
    cluster.work(Duration::from_secs(3));
    let partition = cluster.partition();
    assert_eq!((partition.led_by(), partition.trusted), (Some(cluster.nodes[leader].disk), 1));
    assert_eq!((partition.in_sync.len(), partition.frozen), (3, false));
    assert_eq!(cluster.laws.committed(), 3, "Start, the message, and the next Start");
}

#[test]
fn who_ended_in_order_counts_as_before() {
    let (mut cluster, leader) = received_and_not_synced();
    (0..3).for_each(|at| cluster.stop(at));
    (0..3).for_each(|at| cluster.restart(at));
    let partition = cluster.partition();
    assert!(partition.in_sync.iter().all(Member::is_electable), "{partition:?}");
    cluster.work(Duration::from_secs(2));
    assert_eq!(cluster.partition().led_by(), Some(cluster.nodes[leader].disk));
}

#[test]
fn nobody_is_answered_by_what_they_lack_who_come_to_the_set() {
    let mut cluster = Cluster::kept(3, 3, Durability::Replicated);
    cluster.heal(Duration::from_secs(1));
    let [first, second, third] = cluster.partition().replicas[..] else { panic!("three copies") };
    let leader = cluster.position(first);
    let index = cluster.publish(leader).expect("it leads");
    cluster.packets.retain(|packet| packet.to == second);
    (0..2).for_each(|_| (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false)));
    cluster.reshape(cluster.position(third), 0);
    cluster.show(leader);
    let received = |cluster: &Cluster| {
        cluster.nodes[leader].run.as_ref().map(|run| run.replication.received_by_all())
    };
    assert_eq!(received(&cluster), Some(EntryIndex(index.0 - 1)), "the third is about to come");
    assert_eq!(cluster.proposals.len(), 1, "{:?}", cluster.proposals);
    cluster.work(Duration::from_secs(3));
    assert!(cluster.partition().member(third).is_some());
    assert!(received(&cluster) >= Some(index));
}

#[test]
fn whoever_holds_the_most_leads_on_trust_though_the_others_were_thought_to_live() {
    let (mut cluster, leader) = received_and_not_synced();
    let [second, third] = [1, 2].map(|next| (leader + next) % 3);
    cluster.crash(second, usize::MAX);
    cluster.crash(leader, 0);
    cluster.crash(third, 0);
    // When it registers, nobody has noticed yet that the others are gone.
    cluster.restart(second);
    let disk = cluster.nodes[second].disk;
    let standing = cluster.partition().member(disk).map(|member| member.standing);
    assert_eq!(standing, Some(Standing::Unsure), "nobody is heard who would go on without it");
    cluster.restart(leader);
    cluster.restart(third);
    assert!(cluster.view.is_forsaken(&cluster.partition()));
    cluster.work(Duration::from_secs(3));
    let partition = cluster.partition();
    assert_eq!((partition.led_by(), partition.trusted), (Some(disk), 1));
    assert_eq!((partition.in_sync.len(), partition.frozen), (3, false));
    assert_eq!(cluster.laws.committed(), 3, "Start, the message, and the next Start");
}

#[test]
fn what_was_received_is_relied_on_though_the_topic_waits_for_syncs_by_now() {
    let (mut cluster, leader) = received_and_not_synced();
    let patch = ConfigPatch { durability: Some(Durability::Fsync), ..ConfigPatch::default() };
    let name = cluster.partition().topic;
    cluster.agree(&Change::ConfigureTopic { name, patch, reset: false });
    for at in [0, 1].map(|next| (leader + next) % 3) {
        cluster.crash(at, 0);
        cluster.restart(at);
    }
    cluster.work(Duration::from_secs(3));
    let third = cluster.nodes[(leader + 2) % 3].disk;
    assert_eq!((cluster.partition().leader, cluster.partition().trusted), (third, 0));
}
