//! What the controller decides about partitions when nodes fail: whom it asks, who leads, who goes,
//! where copies are made.

mod balance;

use std::collections::BTreeMap;
use std::time::Duration;

use sprawl_core::cluster::controller::{
    ASKED_MAX, Failover, LOG_ENDS_WAIT, LOG_ENDS_WAIT_MAX, REPLACE_AFTER, Remedy,
    SLOW_ELECTION_INTERVAL,
};
use sprawl_core::cluster::message::{AskLogEnds, LogEnd, LogEnds};
use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::topic::{ConfigPatch, Durability, TopicConfig};
use sprawl_core::ids::*;
use sprawl_core::machine::{Time, WallTime};

use crate::world::registration;

const ONE: PartitionId = PartitionId(1);

struct World {
    view: View,
    failover: Failover,
    now: Time,
    /// What nodes answer about every partition.
    ends: BTreeMap<DiskId, LogEnd>,
    /// How long their answers take, and those under way.
    late: Duration,
    answers: Vec<(Time, DiskId, LogEnds)>,
    asked: Vec<(DiskId, AskLogEnds)>,
    decided: Vec<Change>,
}

impl World {
    /// Nodes 1 to `nodes`, and a topic of some partitions with three copies each.
    fn new(nodes: u128, partitions: u32) -> Self {
        let (ends, asked, decided) = (BTreeMap::new(), vec![], vec![]);
        let (view, failover, now) = (View::default(), Failover::default(), Time(0));
        let (late, answers) = (Duration::ZERO, vec![]);
        let mut world = Self { view, failover, now, ends, late, answers, asked, decided };
        world.agree(&Change::Found { cluster: ClusterId(7) });
        (1..=nodes).for_each(|disk| world.register(DiskId(disk), 1));
        world.agree(&Change::Raise { level: REPLICATION_LEVEL });
        let config = TopicConfig { partitions, ..TopicConfig::default() };
        world.agree(&Change::CreateTopic { name: "t".parse().expect("a name"), config });
        world.look(Duration::ZERO);
        assert_eq!((world.asked.len(), world.decided.len()), (0, 0), "all is well");
        world
    }

    fn register(&mut self, disk: DiskId, boot: u64) {
        let said = registration(disk, Boot(boot));
        self.agree(&Change::Register(Registration { level: REPLICATION_LEVEL, ..said }));
    }

    fn agree(&mut self, change: &Change) {
        self.view.apply(self.view.version.next(), change);
        assert_eq!(self.view.check(), Ok(()), "after {change:?}");
    }

    fn one(&self) -> Partition {
        Partition::clone(&self.view.partitions[&ONE])
    }

    fn members(&self) -> Vec<DiskId> {
        self.one().members().collect()
    }

    /// The controller looks around after some time; who is asked and is to answer does.
    fn look(&mut self, span: Duration) {
        self.now = self.now + span;
        for (_, from, ends) in self.answers.extract_if(.., |(at, ..)| *at <= self.now) {
            self.failover.heard(from, ends);
        }
        let mut remedies = Vec::new();
        let time = WallTime(self.now.0 / 1_000);
        self.failover.decide(&self.view, self.now, time, &mut remedies);
        assert_eq!(self.failover.check(), Ok(()));
        for remedy in remedies {
            match remedy {
                Remedy::Ask { to, ask } => {
                    if let Some(end) = self.ends.get(&to) {
                        let ends = ask.partitions.iter().map(|id| (*id, *end)).collect();
                        let ends = LogEnds { number: ask.number, ends };
                        self.answers.push((self.now + self.late, to, ends));
                    }
                    self.asked.push((to, ask));
                }
                Remedy::Decide(change) => {
                    self.agree(&change);
                    self.decided.push(change);
                }
            }
        }
    }

    fn fail(&mut self, nodes: &[DiskId]) {
        let runs = nodes.iter().map(|disk| (*disk, self.view.nodes[disk].boot));
        self.failover.fail(runs.collect::<Vec<_>>());
    }

    fn ends(&mut self, disk: DiskId, epoch: u64, last: u64, commit: u64) {
        let (epoch, last, commit) = (Epoch(epoch), EntryIndex(last), EntryIndex(commit));
        self.ends.insert(disk, LogEnd { epoch, last, commit, damaged: false });
    }
}

#[test]
fn the_greatest_end_leads_and_the_dead_are_out_in_one_change() {
    let mut world = World::new(3, 1);
    let [first, second, third] = world.members()[..] else { panic!("three members") };
    world.ends(second, 1, 9, 4);
    world.ends(third, 2, 5, 4);
    world.fail(&[first]);
    world.look(Duration::ZERO);
    assert_eq!((world.asked.len(), world.decided.len()), (2, 0), "both are asked first");
    world.look(Duration::from_millis(1));
    assert_eq!(world.decided.len(), 1);
    assert_eq!((world.one().led_by(), world.members()), (Some(third), vec![second, third]));
    assert_eq!(world.view.nodes[&first].down, Some(WallTime(1)));
    world.look(Duration::from_secs(9));
    assert_eq!(world.decided.len(), 1, "and that is that");
}

#[test]
fn who_does_not_answer_is_waited_for_a_little_and_comes_last() {
    let mut world = World::new(3, 1);
    let [first, second, third] = world.members()[..] else { panic!("three members") };
    world.ends(third, 1, 0, 0);
    world.fail(&[first]);
    world.look(Duration::ZERO);
    world.look(LOG_ENDS_WAIT / 2);
    assert_eq!(world.decided.len(), 0);
    world.look(LOG_ENDS_WAIT);
    assert_eq!(world.one().led_by(), Some(third), "{second} may have more, and has not said so");
}

#[test]
fn who_ends_below_what_is_committed_is_asked_again_before_it_is_damaged() {
    for catches_up in [true, false] {
        let mut world = World::new(3, 1);
        let [first, second, third] = world.members()[..] else { panic!("three members") };
        world.ends(second, 1, 8, 7);
        world.ends(third, 1, 5, 5);
        world.fail(&[first]);
        world.look(Duration::ZERO);
        if catches_up {
            world.ends(third, 1, 9, 5);
        }
        world.look(Duration::ZERO);
        assert_eq!((world.asked.last().map(|(to, _)| *to), world.decided.len()), (Some(third), 0));
        world.look(Duration::ZERO);
        let partition = world.one();
        let standing = partition.member(third).map(|member| member.standing);
        if catches_up {
            assert_eq!((partition.led_by(), standing), (Some(third), Some(Standing::Whole)));
        } else {
            // Two are to stay: the damaged one is marked, and so is nobody else.
            assert_eq!((partition.led_by(), standing), (Some(second), Some(Standing::Lost)));
            assert!(partition.frozen && partition.member(first).is_some());
        }
        assert_eq!(partition.replicas.len(), 3, "there is no other node");
    }
}

#[test]
fn a_set_that_is_too_small_freezes_and_gets_a_copy_elsewhere_at_once() {
    let mut world = World::new(5, 1);
    let [first, second, third] = world.members()[..] else { panic!("three members") };
    world.ends(second, 1, 8, 7);
    world.ends(third, 1, 8, 7);
    world.fail(&[first]);
    world.look(Duration::ZERO);
    world.look(Duration::ZERO);
    assert_eq!(world.one().replicas.len(), 3, "two count: the third may come back");
    let leader = world.one().leader;
    let other = if leader == second { third } else { second };
    world.fail(&[other]);
    world.look(Duration::ZERO);
    let frozen = world.one();
    assert!(frozen.frozen && frozen.led_by() == Some(leader) && frozen.in_sync.len() == 2);
    assert_eq!(frozen.replicas.len(), 5, "both others hold a copy from now on");
    // Nobody of a partition without a leader can give a copy away.
    world.fail(&[leader]);
    world.look(Duration::ZERO);
    world.look(Duration::ZERO);
    assert_eq!(world.one().led_by(), Some(leader), "it led last and will lead on");
    world.register(other, 2);
    world.ends(other, 1, 8, 7);
    (0..9).for_each(|_| world.look(Duration::from_millis(500)));
    assert_eq!((world.one().led_by(), world.one().in_sync.len()), (Some(other), 2));
}

#[test]
fn a_copy_of_a_node_that_stays_away_is_made_elsewhere_and_then_not_wanted_any_more() {
    let mut world = World::new(4, 1);
    let [leader, second, third] = world.members()[..] else { panic!("three members") };
    world.ends(leader, 1, 0, 0);
    world.fail(&[third]);
    world.look(Duration::ZERO);
    (0..9).for_each(|_| world.look(Duration::from_secs(1)));
    assert_eq!((world.members(), world.one().replicas.len()), (vec![leader, second], 3));
    world.look(REPLACE_AFTER);
    let fourth = *world.one().replicas.last().expect("there are some");
    assert_eq!(world.one().replicas.len(), 4);
    let Partition { epoch, version, .. } = world.one();
    let (boot, standing) = (Boot(1), Standing::Whole);
    let added = vec![Addition { disk: fourth, boot, standing }];
    let adjustment = Adjustment { partition: ONE, epoch, version, added, removed: vec![] };
    world.agree(&Change::Adjust { by: (leader, boot), adjustments: vec![adjustment] });
    (0..3).for_each(|_| world.look(Duration::from_secs(1)));
    assert_eq!(world.one().replicas, [leader, second, fourth]);
}

#[test]
fn nobody_leaves_a_set_before_its_leader_is_heard_however_far_that_is() {
    let mut world = World::new(3, 1);
    let [leader, second, third] = world.members()[..] else { panic!("three members") };
    world.fail(&[third]);
    world.look(Duration::ZERO);
    (0..9).for_each(|_| world.look(LOG_ENDS_WAIT_MAX));
    assert_eq!(world.members(), [leader, second, third], "the leader may be gone too");
    assert!(world.one().frozen && world.view.nodes[&third].down.is_some());
    // Its answers take longer than the first questions waited.
    world.late = LOG_ENDS_WAIT * 3;
    world.ends(leader, 1, 0, 0);
    (0..99).for_each(|_| world.look(LOG_ENDS_WAIT / 2));
    assert_eq!((world.members(), world.one().frozen), (vec![leader, second], false));
}

#[test]
fn nobody_is_trusted_where_no_disk_of_the_set_is_whole() {
    let mut world = World::new(3, 1);
    let patch = ConfigPatch { durability: Some(Durability::Replicated), ..ConfigPatch::default() };
    let name = "t".parse().expect("a name");
    world.agree(&Change::ConfigureTopic { name, patch, reset: false });
    let [leader, second, third] = world.members()[..] else { panic!("three members") };
    world.ends(leader, 1, 8, 7);
    world.fail(&[third]);
    (0..3).for_each(|_| world.look(Duration::ZERO));
    assert_eq!(world.members(), [leader, second]);
    // What the two commit from now on the third does not hold.
    world.register(third, 2);
    world.ends(third, 1, 8, 7);
    let said = registration(DiskId(7), Boot(1));
    let name = world.view.nodes[&second].name.clone();
    let by = Registration { level: REPLICATION_LEVEL, name, ..said };
    world.agree(&Change::Replace { disk: second, boot: Boot(1), by });
    let said = registration(leader, Boot(2));
    let run = Registration { level: REPLICATION_LEVEL, clean: false, ..said };
    world.agree(&Change::Register(run));
    assert!(world.view.is_forsaken(&world.one()), "one is left that may be trusted");
    world.ends.get_mut(&leader).expect("it was said").damaged = true;
    (0..9).for_each(|_| world.look(Duration::from_secs(1)));
    assert_eq!((world.one().led_by(), world.one().trusted), (None, 0));
    let standing = world.one().member(leader).map(|member| member.standing);
    assert_eq!(standing, Some(Standing::Lost), "and may not any more");
}

#[test]
fn a_leader_that_cannot_do_without_a_slow_member_gives_way_once_in_a_while() {
    let mut world = World::new(3, 1);
    let [leader, second, third] = world.members()[..] else { panic!("three members") };
    let disks = [leader, second, third];
    disks.iter().for_each(|disk| world.ends(*disk, 1, 5, 5));
    world.ends(leader, 1, 9, 5);
    world.failover.complain(leader, ONE, Epoch(1));
    world.look(Duration::ZERO);
    world.look(Duration::ZERO);
    let next = world.one().led_by().expect("somebody leads");
    assert!(next != leader && world.one().in_sync.len() == 3, "the complainer comes last");
    world.failover.complain(next, ONE, world.one().epoch);
    (0..4).for_each(|_| world.look(SLOW_ELECTION_INTERVAL / 5));
    assert_eq!(world.one().led_by(), Some(next), "not so soon");
    (0..9).for_each(|_| world.look(SLOW_ELECTION_INTERVAL / 5));
    assert_ne!(world.one().led_by(), Some(next));
    let changes = world.decided.len();
    world.failover.complain(next, ONE, Epoch(2));
    (0..9).for_each(|_| world.look(SLOW_ELECTION_INTERVAL));
    assert_eq!(world.decided.len(), changes, "who leads no more complains in vain");
}

#[test]
fn many_partitions_are_one_question_a_node_and_as_few_changes_as_may_be() {
    let mut world = World::new(3, 1_024);
    let second_topic = TopicConfig { partitions: 1_024, ..TopicConfig::default() };
    world.agree(&Change::CreateTopic { name: "u".parse().expect("a name"), config: second_topic });
    (1..=3).for_each(|disk| world.ends(DiskId(disk), 1, 5, 5));
    let led = world.view.partitions.values().filter(|one| one.leader == DiskId(1)).count();
    world.fail(&[DiskId(1)]);
    world.look(Duration::ZERO);
    assert!(world.asked.iter().all(|(_, ask)| ask.partitions.len() <= ASKED_MAX));
    let asked: usize = world.asked.iter().map(|(_, ask)| ask.partitions.len()).sum();
    let others = world.view.partitions.len() - led;
    assert_eq!((world.asked.len(), asked), (4, 2 * led + others), "of the others only who leads");
    world.look(Duration::ZERO);
    assert_eq!(world.decided.len(), 2_048_usize.div_ceil(RULINGS_MAX));
    let gone = |one: &Partition| one.member(DiskId(1)).is_none() && one.leader != DiskId(1);
    assert!(world.view.partitions.values().all(|one| gone(one)));
}

#[test]
fn a_topic_that_is_made_while_a_node_is_down_goes_on_with_those_who_live() {
    let mut world = World::new(3, 1);
    [1, 2].into_iter().for_each(|disk| world.ends(DiskId(disk), 1, 0, 0));
    world.fail(&[DiskId(3)]);
    (0..3).for_each(|_| world.look(Duration::from_millis(10)));
    assert!(!world.view.is_up(DiskId(3)));
    let name = "later".parse().expect("a name");
    world.agree(&Change::CreateTopic { name, config: TopicConfig::default() });
    let later = |world: &World| {
        let later = world.view.partitions.values().next_back().expect("it was made");
        (later.members().collect::<Vec<_>>(), later.frozen)
    };
    assert_eq!(later(&world).0.len(), 3, "whoever is down holds all that there is");
    (0..2).for_each(|_| world.look(Duration::from_millis(10)));
    let (members, frozen) = later(&world);
    assert!(!members.contains(&DiskId(3)) && !frozen, "{members:?}, frozen {frozen}");
}
