//! What is moved though nothing has failed: to nodes that have come, away from nodes that are to
//! leave, and back to nodes that lead nothing any more.

use std::time::Duration;

use sprawl_core::cluster::controller::{BALANCE_AFTER, BALANCE_INTERVAL, MOVES_MAX, SLOW_REST};
use sprawl_core::cluster::metadata::*;
use sprawl_core::ids::*;

use super::World;

impl World {
    /// How many copies the nodes hold, and how many partitions they lead, ascending by node.
    fn loads(&self) -> Vec<(usize, usize)> {
        let led = |disk| self.view.partitions.values().filter(|one| one.leader == disk).count();
        self.view.nodes.keys().map(|disk| (self.view.partitions_held(*disk), led(*disk))).collect()
    }

    /// Every copy that is being made is whole: its leader says that it counts.
    fn fill(&mut self) {
        for partition in self.view.partitions.values().cloned().collect::<Vec<_>>() {
            let Partition { id, epoch, version, leader, .. } = *partition;
            let comes = partition.replicas.iter().filter(|disk| partition.member(**disk).is_none());
            let standing = Standing::Whole;
            let boot = |disk: &DiskId| self.view.nodes[disk].boot;
            let addition = |disk: &DiskId| Addition { disk: *disk, boot: boot(disk), standing };
            let added: Vec<Addition> = comes.map(addition).collect();
            if !added.is_empty() {
                let by = (leader, boot(&leader));
                let removed = Vec::new();
                let adjustment = Adjustment { partition: id, epoch, version, added, removed };
                self.agree(&Change::Adjust { by, adjustments: vec![adjustment] });
            }
        }
    }

    /// Lets what is moved arrive, for so many looks.
    fn settle(&mut self, looks: usize) {
        for _ in 0..looks {
            self.fill();
            self.look(BALANCE_INTERVAL / 2);
        }
    }

    fn all_answer(&mut self) {
        let disks: Vec<DiskId> = self.view.nodes.keys().copied().collect();
        disks.into_iter().for_each(|disk| self.ends(disk, 1, 5, 5));
    }
}

#[test]
fn a_node_that_comes_gets_its_share_and_nobody_is_without_a_copy_meanwhile() {
    let mut world = World::new(3, 40);
    world.all_answer();
    world.register(DiskId(4), 1);
    world.all_answer();
    world.look(BALANCE_AFTER / 2);
    assert_eq!(world.loads()[3], (0, 0), "not at once");
    world.look(BALANCE_AFTER);
    let placed = world.loads()[3].0;
    assert_eq!(placed, MOVES_MAX, "so many are under way");
    world.look(BALANCE_INTERVAL);
    assert_eq!(world.loads()[3].0, MOVES_MAX, "and no more while they are");
    let whole = |one: &Partition| one.in_sync.len() == 3 && !one.frozen;
    assert!(world.view.partitions.values().all(|one| whole(one)), "nobody has given up a copy");
    world.settle(60);
    assert_eq!(world.loads().iter().map(|(held, _)| *held).collect::<Vec<_>>(), [30; 4]);
    assert_eq!(world.loads().iter().map(|(_, led)| *led).collect::<Vec<_>>(), [10; 4]);
    let changes = world.decided.len();
    world.settle(60);
    assert_eq!(world.decided.len(), changes, "then there is peace");
}

#[test]
fn a_node_that_is_to_leave_is_empty_in_the_end_and_its_lead_goes_first() {
    let mut world = World::new(4, 20);
    world.all_answer();
    world.agree(&Change::Decommission { disk: DiskId(2), how: Leaving::Empty });
    world.look(Duration::ZERO);
    let held = world.view.partitions_held(DiskId(2));
    assert!(held > 0, "others do not have what it holds yet");
    world.settle(20);
    assert_eq!(world.loads()[1], (0, 0));
    assert!(world.view.partitions.values().all(|one| one.in_sync.len() == 3));
    let held: Vec<usize> = world.loads().iter().map(|(held, _)| *held).collect();
    assert_eq!(held, [20, 0, 20, 20]);
}

#[test]
fn of_three_nodes_one_may_leave_and_two_copies_are_what_is_wanted_then() {
    let mut world = World::new(3, 4);
    world.all_answer();
    world.agree(&Change::Decommission { disk: DiskId(1), how: Leaving::Empty });
    world.settle(10);
    assert_eq!(world.loads()[0], (0, 0));
    let two = |one: &Partition| (one.in_sync.len(), one.min_in_sync) == (2, 1);
    assert!(world.view.partitions.values().all(|one| two(one)));
}

#[test]
fn the_lead_goes_back_to_who_lost_it_one_step_at_a_time() {
    let mut world = World::new(3, 12);
    world.all_answer();
    world.fail(&[DiskId(1)]);
    world.look(Duration::ZERO);
    world.look(Duration::ZERO);
    assert_eq!(world.loads()[0].1, 0);
    world.register(DiskId(1), 2);
    world.fill();
    world.look(BALANCE_AFTER / 2);
    assert_eq!(world.loads()[0].1, 0, "who has just come may go again");
    world.settle(60);
    assert_eq!(world.loads(), [(12, 4); 3]);
}

#[test]
fn the_lead_goes_by_way_of_others_where_the_most_and_the_least_share_nothing() {
    let mut world = World::new(10, 50);
    world.all_answer();
    // Whoever has the lowest number leads.
    for partition in world.view.partitions.values().cloned().collect::<Vec<_>>() {
        let Partition { id: partition, epoch, version, leader, ref replicas, .. } = *partition;
        let first = replicas.iter().min().copied().filter(|first| *first != leader);
        let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
        let leader = first;
        let ruling =
            Ruling { partition, epoch, version, leader, filled, removed, lost, placed, dropped };
        if first.is_some() {
            world.agree(&Change::Rule { rulings: vec![ruling] });
        }
    }
    assert!(world.loads()[0].1 > 10, "{:?}", world.loads());
    world.look(BALANCE_AFTER);
    world.settle(60);
    assert_eq!(world.loads().iter().map(|(_, led)| *led).collect::<Vec<_>>(), [5; 10]);
    let changes = world.decided.len();
    world.settle(60);
    assert_eq!(world.decided.len(), changes, "then there is peace");
}

#[test]
fn who_does_not_say_what_it_holds_or_was_slow_is_not_handed_the_lead_for_a_while() {
    let mut world = World::new(3, 12);
    world.fail(&[DiskId(1)]);
    (0..3).for_each(|_| world.look(Duration::from_millis(100)));
    world.register(DiskId(1), 2);
    world.settle(60);
    assert_eq!(world.loads()[0].1, 0, "nobody answers");
    world.all_answer();
    world.settle(60);
    assert_eq!(world.loads()[0].1, 0, "others lead meanwhile");
    world.look(SLOW_REST);
    world.failover.rebalance();
    world.settle(60);
    assert_eq!(world.loads()[0].1, 4);
    // It leads, and says that it, or somebody whom it needs, is slow.
    let led: Vec<_> =
        world.view.partitions.values().filter(|one| one.leader == DiskId(1)).collect();
    let led: Vec<_> = led.iter().map(|one| (one.id, one.epoch)).collect();
    led.iter().for_each(|(id, epoch)| world.failover.complain(DiskId(1), *id, *epoch));
    world.settle(60);
    assert_eq!(world.loads()[0].1, 0, "it is not given the lead back");
}

#[test]
fn who_is_to_leave_is_given_nothing_where_nobody_takes_anything() {
    let mut world = World::new(4, 6);
    world.all_answer();
    let leave = |disk| Change::Decommission { disk: DiskId(disk), how: Leaving::Empty };
    (1..=3).for_each(|disk| world.agree(&leave(disk)));
    world.fail(&[DiskId(4)]);
    let held = |world: &World| world.loads()[..3].iter().map(|(held, _)| *held).sum::<usize>();
    let before = held(&world);
    (0..20).for_each(|_| world.look(BALANCE_INTERVAL));
    assert!(held(&world) <= before, "{:?}", world.loads());
    world.register(DiskId(4), 2);
    world.all_answer();
    world.settle(60);
    assert_eq!(world.loads(), [(0, 0), (0, 0), (0, 0), (6, 6)]);
}

#[test]
fn while_somebody_is_down_who_may_be_back_soon_nothing_is_moved() {
    let mut world = World::new(4, 20);
    world.all_answer();
    world.fail(&[DiskId(3)]);
    world.look(Duration::ZERO);
    world.look(Duration::ZERO);
    let before = world.loads();
    world.register(DiskId(5), 1);
    world.all_answer();
    (0..9).for_each(|_| world.look(Duration::from_secs(2)));
    assert_eq!(world.loads()[..4], before[..]);
    world.register(DiskId(3), 2);
    world.settle(90);
    assert_eq!(world.loads(), [(12, 4); 5]);
}
