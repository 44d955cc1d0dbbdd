//! Replication as pure machines: whatever is lost, doubled, turned round or crashes, what was
//! committed stays, and when all is well again the partition goes on.

mod cluster;
mod early;
mod given;
mod laws;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::topic::Durability;
use sprawl_core::ids::*;
use sprawl_core::machine::{Unreadable, WallTime};

use self::cluster::{Cluster, Disk, PARTITION};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/replication.txt");

/// One step of a schedule: what happens, and two numbers that say to whom and how.
type Step = (u8, u16, u16);

impl Cluster {
    fn ruling(&self) -> Ruling {
        let Partition { id, epoch, version, .. } = self.partition();
        let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
        let leader = None;
        Ruling { partition: id, epoch, version, leader, filled, removed, lost, placed, dropped }
    }

    /// Somebody of the set who lives and may lead, chosen by `dice`; not the worst choice only, but
    /// any that the rules allow.
    fn anybody(&self, dice: u16, but: &[DiskId]) -> Option<DiskId> {
        let partition = self.partition();
        let may = |one: &&Member| {
            one.is_electable() && self.view.is_live(one) && !but.contains(&one.disk)
        };
        let may: Vec<DiskId> = partition.in_sync.iter().filter(may).map(|one| one.disk).collect();
        (!may.is_empty()).then(|| may[usize::from(dice) % may.len()])
    }

    /// The controller takes a node for dead, whether it is or not.
    fn bury(&mut self, at: usize, dice: u16) {
        let (disk, boot) = (self.nodes[at].disk, self.nodes[at].boot);
        let partition = self.partition();
        let mut ruling = self.ruling();
        if partition.led_by() == Some(disk) {
            ruling.leader = self.anybody(dice, &[disk]);
        }
        let leads_on = ruling.leader.is_none() && partition.leader == disk;
        let others = partition.in_sync.iter().filter(|one| one.disk != disk).copied();
        let others: Vec<Member> = others.collect();
        let was_member = others.len() < partition.in_sync.len();
        if was_member && !leads_on && self.view.is_enough(&others, partition.min_in_sync) {
            ruling.removed.push(disk);
        }
        let fail =
            Change::Fail { nodes: vec![(disk, boot)], at: WallTime(1), rulings: vec![ruling] };
        self.agree(&fail);
    }

    /// The controller names another leader, for no reason that the replicas know of.
    fn elect(&mut self, dice: u16) {
        let rulings = vec![Ruling { leader: self.anybody(dice, &[]), ..self.ruling() }];
        self.agree(&Change::Rule { rulings });
    }

    /// The controller removes somebody, or has a copy placed.
    fn reshape(&mut self, at: usize, dice: u16) {
        let (disk, partition) = (self.nodes[at].disk, self.partition());
        let mut ruling = self.ruling();
        if !partition.replicas.contains(&disk) {
            ruling.placed.push(disk);
        } else if partition.member(disk).is_none() {
            ruling.dropped.push(disk);
        } else {
            ruling.removed.push(disk);
            if partition.leader == disk {
                ruling.leader = self.anybody(dice, &[disk]);
            }
        }
        self.agree(&Change::Rule { rulings: vec![ruling] });
    }

    fn step(&mut self, (kind, a, b): Step) {
        let (one, other) = (usize::from(a), usize::from(b));
        let at = one % self.nodes.len();
        let packet = one.checked_rem(self.packets.len());
        match (kind, packet) {
            (0..30, Some(packet)) => self.deliver(packet, false),
            (30..34, Some(packet)) => drop(self.packets.swap_remove(packet)),
            (34..39, Some(packet)) => self.deliver(packet, true),
            (39..54, _) => self.sync(at, 1 + other % 4),
            (54..66, _) => drop(self.publish(at)),
            (66..76, _) => self.show(at),
            (76..82, _) => self.pass(at, Duration::from_millis(u64::from(b) % 1_200)),
            (82..85, _) => self.crash(at, other % 4),
            (85..89, _) => self.restart(at),
            (89..93, _) if !self.proposals.is_empty() => {
                let at = one % self.proposals.len();
                let change = self.proposals.swap_remove(at);
                if other % 8 > 0 {
                    self.agree(&change);
                }
                if other % 4 == 1 {
                    self.proposals.push(change);
                }
            }
            (93..95, _) => self.bury(at, b),
            (95, _) => {
                let node = &self.nodes[at];
                let nodes = vec![(node.disk, node.boot)];
                self.agree(&Change::Revive { nodes });
            }
            (96, _) => self.elect(b),
            (97..99, _) => self.reshape(at, b),
            (99, _) if !self.reads.is_empty() => self.read(one % self.reads.len()),
            (100..108, _) => (0..1 + other % 3).for_each(|_| self.flow()),
            (112..115, _) => self.trim(at, u64::from(b) % 4),
            (115..118, _) => self.stop(at),
            (108..112, _) => {
                let silent = if other % 3 == 0 { vec![at] } else { Vec::new() };
                let span = Duration::from_millis(u64::from(b) % 150);
                self.govern(&silent, span, |asked| b & (1 << asked) > 0);
            }
            _ => {}
        }
        // More than this on their way is only more of the same.
        self.packets.truncate(200);
        self.proposals.truncate(20);
    }

    /// All that is on its way arrives, and every disk syncs.
    fn flow(&mut self) {
        (0..self.reads.len()).for_each(|_| self.read(0));
        (0..self.nodes.len()).for_each(|at| self.sync(at, usize::MAX));
        (0..self.packets.len()).for_each(|_| self.deliver(0, false));
    }

    /// Everything that runs works for a while.
    fn work(&mut self, span: Duration) {
        let tick = Duration::from_millis(50);
        for _ in 0..span.as_millis() / tick.as_millis() {
            (0..4).for_each(|_| self.flow());
            let all = 0..self.nodes.len();
            let dead: Vec<usize> = all.filter(|at| self.nodes[*at].run.is_none()).collect();
            self.govern(&dead, tick, |_| true);
            for change in std::mem::take(&mut self.proposals) {
                self.agree(&change);
            }
            self.revive();
            for at in 0..self.nodes.len() {
                self.show(at);
                self.pass(at, tick);
            }
            self.check().expect("all is well");
        }
    }

    /// Everything works for a while.
    fn heal(&mut self, span: Duration) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].run.is_none() {
                self.restart(at);
            }
        }
        self.work(span);
    }

    /// Whoever runs and was taken for dead is heard.
    fn revive(&mut self) {
        let is_down = |disk| self.view.nodes.get(disk).is_some_and(|node| node.down.is_some());
        let down = self.nodes.iter().filter(|node| node.run.is_some() && is_down(&node.disk));
        let nodes: Vec<_> = down.map(|node| (node.disk, node.boot)).collect();
        if !nodes.is_empty() {
            self.agree(&Change::Revive { nodes });
        }
    }

    /// What is published now is committed soon.
    fn expect_progress(&mut self) -> Result<(), TestCaseError> {
        let before = self.laws.committed();
        let leader = self.partition().led_by().expect("somebody leads");
        let index = self.publish(self.position(leader)).expect("it leads");
        self.work(Duration::from_secs(3));
        let after = self.laws.committed();
        prop_assert!(index.0 > before && after >= index.0, "{before}, {index}, {after}");
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0_u8..118, any::<u16>(), any::<u16>()), 0..400)
}

proptest! {
    #![proptest_config(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        cases: 4_000,
        max_shrink_iters: 20_000,
        ..Config::default()
    })]

    #[test]
    fn what_was_committed_stays_and_the_partition_goes_on(
        nodes in 2_u128..6,
        replication in 2_u32..5,
        durability in prop::sample::select(vec![Durability::Fsync, Durability::Replicated]),
        newest_first_bytes in prop::sample::select(vec![0, 500, u64::MAX]),
        steps in steps(),
    ) {
        let mut cluster = Cluster::with(nodes, replication, durability, newest_first_bytes);
        for (at, step) in steps.into_iter().enumerate() {
            cluster.step(step);
            let checked = cluster.check();
            prop_assert!(checked.is_ok(), "{checked:?} after step {at}: {step:?}");
        }
        cluster.heal(Duration::from_secs(8));
        cluster.expect_progress()?;
        let partition = cluster.partition();
        let members = partition.in_sync.len();
        prop_assert!(members >= 2 && !partition.frozen, "{partition:?}");
        // The leader dies for good: as long as enough are left, the others go on.
        if members > partition.min_in_sync as usize {
            cluster.crash(cluster.position(partition.leader), 0);
            cluster.work(Duration::from_secs(3));
            prop_assert!(cluster.partition().leader != partition.leader);
            cluster.expect_progress()?;
        }
    }
}

#[test]
fn a_follower_that_was_away_is_removed_comes_back_and_counts() {
    let mut cluster = Cluster::new(3, 3);
    cluster.heal(Duration::from_secs(1));
    let [leader, second, _] = cluster.partition().replicas[..] else { panic!("three copies") };
    let (at, away) = (cluster.position(leader), cluster.position(second));
    cluster.crash(away, 0);
    assert!(cluster.publish(at).is_some());
    for _ in 0..40 {
        (0..3).for_each(|at| cluster.sync(at, usize::MAX));
        (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
        (0..3).for_each(|at| cluster.pass(at, Duration::from_millis(50)));
        for change in std::mem::take(&mut cluster.proposals) {
            cluster.agree(&change);
        }
        cluster.show(at);
        assert_eq!(cluster.check(), Ok(()));
    }
    assert!(cluster.partition().member(second).is_none());
    assert_eq!(cluster.laws.committed(), 2, "Start and the message, by two of three");
    cluster.heal(Duration::from_secs(2));
    assert_eq!(cluster.partition().member(second), Some(Member::whole(second)));
    assert_eq!(cluster.nodes[away].hard.log.len(), 2);
    assert_eq!(cluster.partition().id, PARTITION);
}

#[test]
fn who_was_removed_for_lag_waits_but_not_where_nothing_commits_without_it() {
    for is_wanted in [false, true] {
        let mut cluster = Cluster::new(3, 3);
        cluster.heal(Duration::from_secs(1));
        let places = cluster.partition().replicas;
        let [at, away, other] = [0, 1, 2].map(|one| cluster.position(places[one]));
        cluster.crash(away, 0);
        assert!(cluster.publish(at).is_some());
        for _ in 0..40 {
            if cluster.partition().member(places[1]).is_some() {
                (0..4).for_each(|_| cluster.flow());
                (0..3).for_each(|at| cluster.pass(at, Duration::from_millis(50)));
                let proposed = std::mem::take(&mut cluster.proposals);
                proposed.iter().for_each(|change| cluster.agree(change));
                cluster.show(at);
            }
        }
        assert!(cluster.partition().member(places[1]).is_none());
        if is_wanted {
            cluster.crash(other, usize::MAX);
            cluster.bury(other, 0);
        }
        cluster.restart(away);
        cluster.work(Duration::from_millis(600));
        assert_eq!(cluster.partition().member(places[1]).is_some(), is_wanted);
    }
}

#[test]
fn a_follower_keeps_what_is_committed_whatever_a_leader_says() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let leader = cluster.position(cluster.partition().leader);
    assert!((0..5).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    assert_eq!(cluster.laws.committed(), 6);
    // The leader starts with nothing, under its old identity, and leads again.
    cluster.crash(leader, 0);
    cluster.nodes[leader].hard = Disk::default();
    cluster.restart(leader);
    for _ in 0..3 {
        cluster.flow();
        (0..3).for_each(|at| cluster.show(at));
    }
    for at in (0..3).filter(|at| *at != leader) {
        let node = &cluster.nodes[at];
        let run = node.run.as_ref().expect("it runs");
        assert_eq!(node.hard.log.len(), 6, "nothing was cut");
        assert!(run.replication.log_end(&run.replica).damaged);
        assert!(cluster.damaged.contains(&node.disk));
    }
}

#[test]
fn what_was_not_committed_is_cut_from_who_has_it_and_no_one_else_does() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let old = cluster.position(cluster.partition().leader);
    // Entries that only the leader has, on its disk or on the way there.
    assert!((0..3).all(|_| cluster.publish(old).is_some()));
    cluster.packets.clear();
    cluster.sync(old, 2);
    assert_eq!(cluster.nodes[old].hard.log.len(), 3);
    cluster.bury(old, 0);
    cluster.work(Duration::from_secs(4));
    let [leader, second] = [0, 1].map(|number| cluster.partition().in_sync[number].disk);
    assert_eq!(cluster.check(), Ok(()));
    let logs = [leader, second].map(|disk| cluster.nodes[cluster.position(disk)].hard.log.clone());
    assert_eq!(logs[0], logs[1]);
    assert_eq!(cluster.nodes[old].hard.log, logs[0], "Start, and the Start of the next reign");
    assert_eq!((logs[0].len(), cluster.partition().in_sync.len()), (2, 3));
}

#[test]
fn an_answer_of_an_earlier_epoch_says_nothing() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let disks = cluster.partition().replicas;
    let [first, second, third] = [0, 1, 2].map(|number| cluster.position(disks[number]));
    // The third holds what the first has published, and its answer is late.
    assert!((0..5).all(|_| cluster.publish(first).is_some()));
    cluster.packets.retain(|packet| packet.to == disks[2]);
    (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
    cluster.sync(third, usize::MAX);
    let mut late = std::mem::take(&mut cluster.packets);
    assert!(!late.is_empty() && cluster.nodes[third].hard.log.len() == 6);
    // Under the second it cuts that; then the first leads again, and the third is slow.
    for leader in [second, first] {
        let leader = Some(cluster.nodes[leader].disk);
        cluster.agree(&Change::Rule { rulings: vec![Ruling { leader, ..cluster.ruling() }] });
        (0..3).for_each(|at| cluster.show(at));
        (0..5).for_each(|_| cluster.flow());
    }
    assert!((0..4).all(|_| cluster.publish(first).is_some()));
    for _ in 0..3 {
        (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
        [first, second].into_iter().for_each(|at| cluster.sync(at, usize::MAX));
    }
    assert_eq!(cluster.check(), Ok(()));
    let before = cluster.laws.committed();
    assert_eq!(cluster.nodes[third].hard.log.len() as u64, before);
    cluster.packets.append(&mut late);
    (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
    assert_eq!((cluster.check(), cluster.laws.committed()), (Ok(()), before));
    cluster.flow();
    assert_eq!(cluster.check(), Ok(()));
    cluster.flow();
    assert_eq!((cluster.check(), cluster.laws.committed()), (Ok(()), before + 4));
}

#[test]
fn a_set_that_waits_for_who_never_answers_takes_others_in() {
    let mut cluster = Cluster::new(5, 3);
    cluster.work(Duration::from_secs(1));
    let before = cluster.partition();
    let leader = cluster.position(before.leader);
    assert!((0..3).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    assert_eq!((before.in_sync.len(), cluster.laws.committed()), (3, 4));
    // Two disks are gone for good, and the leader's first entry of its new run waits for one.
    for disk in before.members().filter(|disk| *disk != before.leader) {
        let at = cluster.position(disk);
        cluster.crash(at, 0);
        let boot = cluster.nodes[at].boot;
        cluster.agree(&Change::Retire { disk, boot });
    }
    assert!(cluster.partition().in_sync.iter().any(|one| one.standing == Standing::Lost));
    cluster.restart(leader);
    cluster.work(Duration::from_secs(6));
    let after = cluster.partition();
    assert_eq!((after.in_sync.len(), after.frozen), (3, false), "{after:?}");
    cluster.expect_progress().expect("it goes on");
}

#[test]
fn what_was_said_of_a_copy_that_was_dropped_says_nothing_of_the_next() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let [leader, second, third] = cluster.partition().replicas[..] else { panic!("three") };
    let (first, at) = (cluster.position(leader), cluster.position(third));
    assert!((0..3).all(|_| cluster.publish(first).is_some()));
    cluster.work(Duration::from_secs(1));
    // Its copy is asked once more where it parts, says so, and that is late.
    cluster.restart(at);
    cluster.packets.clear();
    cluster.show(first);
    (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
    cluster.sync(at, usize::MAX);
    let late = cluster.said_to(leader, third);
    assert!(!late.is_empty(), "it has answered");
    for (placed, dropped) in [(vec![], vec![third]), (vec![third], vec![])] {
        let removed = cluster.partition().member(third).map(|member| member.disk);
        let rulings = vec![Ruling {
            removed: removed.into_iter().collect(),
            placed,
            dropped,
            ..cluster.ruling()
        }];
        cluster.agree(&Change::Rule { rulings });
        cluster.show(at);
    }
    cluster.packets.clear();
    (0..3).for_each(|at| cluster.show(at));
    assert_eq!(cluster.nodes[at].hard.log.len(), 0, "a new copy");
    for packet in late.into_iter().flat_map(|packet| [packet.clone(), packet]) {
        cluster.packets.insert(0, packet);
        cluster.deliver(0, false);
        cluster.show(first);
        cluster.pass(first, Duration::from_millis(300));
    }
    let proposed = |change: &Change| match change {
        Change::Adjust { adjustments, .. } => {
            adjustments.iter().any(|one| one.added.iter().any(|added| added.disk == third))
        }
        _ => false,
    };
    assert!(!cluster.proposals.iter().any(proposed), "{:?}", cluster.proposals);
    assert_eq!(cluster.partition().replicas, [leader, second, third]);
    cluster.heal(Duration::from_secs(3));
    assert_eq!(cluster.partition().member(third), Some(Member::whole(third)));
}

#[test]
fn a_leader_whose_disk_is_silent_gives_its_partition_up() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let before = cluster.partition();
    let (leader, committed) = (cluster.position(before.leader), cluster.laws.committed());
    assert!(cluster.publish(leader).is_some());
    let tick = Duration::from_millis(50);
    for _ in 0..100 {
        let others = (0..3).filter(|at| *at != leader);
        others.for_each(|at| cluster.sync(at, usize::MAX));
        (0..cluster.packets.len()).for_each(|_| cluster.deliver(0, false));
        cluster.govern(&[], tick, |_| true);
        for change in std::mem::take(&mut cluster.proposals) {
            cluster.agree(&change);
        }
        for at in 0..3 {
            cluster.show(at);
            cluster.pass(at, tick);
        }
        assert_eq!(cluster.check(), Ok(()));
    }
    let after = cluster.partition();
    assert!(after.leader != before.leader && after.epoch > before.epoch, "{after:?}");
    assert!(cluster.laws.committed() > committed, "what waited is committed by the others");
}

#[test]
fn a_member_that_lost_what_it_held_is_said_to_and_holds_it_again() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let [leader, second, _] = cluster.partition().replicas[..] else { panic!("three copies") };
    let (first, at) = (cluster.position(leader), cluster.position(second));
    assert!((0..5).all(|_| cluster.publish(first).is_some()));
    cluster.work(Duration::from_secs(1));
    cluster.crash(at, 0);
    cluster.nodes[at].hard = Disk::default();
    cluster.restart(at);
    for _ in 0..4 {
        (0..3).for_each(|at| cluster.show(at));
        cluster.flow();
    }
    assert_eq!(cluster.damaged, [second], "it must not lead before it has everything again");
    assert_eq!(cluster.nodes[at].hard.log.len(), cluster.nodes[first].hard.log.len());
}

#[test]
fn how_far_it_is_committed_is_said_until_it_is_heard() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let leader = cluster.position(cluster.partition().leader);
    cluster.loses_commits = true;
    let last = cluster.publish(leader).expect("it leads");
    cluster.work(Duration::from_secs(1));
    let commits = |cluster: &Cluster| {
        let commit = |at: usize| cluster.nodes[at].run.as_ref().map(|run| run.replica.commit());
        [commit(leader), commit((leader + 1) % 3), commit((leader + 2) % 3)]
    };
    let before = commits(&cluster);
    assert!(before[0] == Some(last) && before[1] < Some(last), "{before:?}");
    cluster.loses_commits = false;
    // Nothing more is published.
    cluster.work(Duration::from_secs(5));
    assert_eq!(commits(&cluster), [Some(last); 3]);
}

#[test]
fn a_disk_that_does_not_read_once_is_asked_again() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let leader = cluster.position(cluster.partition().leader);
    let away = (leader + 1) % 3;
    assert!((0..5).all(|_| cluster.publish(leader).is_some()));
    cluster.crash(away, 0);
    cluster.work(Duration::from_secs(5));
    // Nothing is in its memory then.
    cluster.crash(leader, usize::MAX);
    [leader, away].into_iter().for_each(|at| cluster.restart(at));
    cluster.failing_reads = 3;
    cluster.work(Duration::from_secs(5));
    assert_eq!((cluster.failing_reads, cluster.damaged.len()), (0, 0), "no entry is damaged");
    assert!(cluster.partition().in_sync.iter().all(Member::is_electable));
}

#[test]
fn a_copy_that_cannot_be_read_is_made_whole_by_the_next_leader() {
    let mut cluster = Cluster::new(3, 3);
    cluster.work(Duration::from_secs(1));
    let before = cluster.partition();
    let leader = cluster.position(before.leader);
    assert!((0..5).all(|_| cluster.publish(leader).is_some()));
    cluster.work(Duration::from_secs(1));
    cluster.nodes[leader].hard.log.insert(3, Bytes::from_static(b"rot"));
    let damage = Unreadable { partition: PARTITION, index: EntryIndex(3), reason: "rot".into() };
    cluster.act(leader, |replication, scene| replication.finds_damage(damage, scene));
    assert_eq!(std::mem::take(&mut cluster.damaged), [before.leader], "another one is to lead");
    assert!(cluster.publish(leader).is_some(), "it goes on until another one does");
    let next = before.members().find(|disk| *disk != before.leader);
    let removed = vec![before.leader];
    let rulings = vec![Ruling { leader: next, removed, ..cluster.ruling() }];
    cluster.agree(&Change::Rule { rulings });
    cluster.work(Duration::from_secs(5));
    assert_eq!(cluster.partition().member(before.leader), Some(Member::whole(before.leader)));
    let next = cluster.position(next.expect("there are three"));
    assert_eq!(cluster.nodes[leader].hard.log, cluster.nodes[next].hard.log);
}
