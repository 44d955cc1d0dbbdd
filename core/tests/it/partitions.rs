//! Partitions in the metadata: who may change whose set, and how small a set becomes.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::topic::{ConfigPatch, TopicConfig};
use sprawl_core::ids::*;
use sprawl_core::machine::WallTime;

use crate::world::registration;

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/partitions.txt");

const ONE: PartitionId = PartitionId(1);

fn apply(view: &mut View, change: Change) {
    view.apply(ChangeIndex(view.version.0 + 3), &change);
    assert_eq!(view.check(), Ok(()), "after {change:?}");
    let restored = View::restore(&view.snapshot()).expect("it was a snapshot");
    assert_eq!(restored.fingerprint(), view.fingerprint());
}

fn register(view: &mut View, disk: u128, boot: u64) {
    let said = Registration { level: 2, ..registration(DiskId(disk), Boot(boot)) };
    apply(view, Change::Register(said));
}

/// A cluster of the nodes 1 to `nodes` that replicates, with a topic of one partition.
fn cluster(nodes: u128, replication: u32) -> View {
    let mut view = View::default();
    apply(&mut view, Change::Found { cluster: ClusterId(7) });
    (1..=nodes).for_each(|disk| register(&mut view, disk, 1));
    apply(&mut view, Change::Raise { level: 2 });
    let config = TopicConfig { replication, ..TopicConfig::default() };
    apply(&mut view, Change::CreateTopic { name: "t".parse().expect("a name"), config });
    view
}

fn one(view: &View) -> Partition {
    Partition::clone(&view.partitions[&ONE])
}

fn set(view: &View) -> Vec<DiskId> {
    one(view).members().collect()
}

fn ruling(view: &View) -> Ruling {
    let Partition { id, epoch, version, .. } = one(view);
    let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
    Ruling { partition: id, epoch, version, leader: None, filled, removed, lost, placed, dropped }
}

fn fail(view: &mut View, nodes: &[DiskId], rulings: Vec<Ruling>) {
    let nodes = nodes.iter().map(|disk| (*disk, view.nodes[disk].boot)).collect();
    apply(view, Change::Fail { nodes, at: WallTime(5), rulings });
}

fn adjust(view: &mut View, added: &[(DiskId, u64, Standing)], removed: &[DiskId]) {
    let Partition { id, epoch, version, leader, .. } = one(view);
    let addition = |&(disk, boot, standing)| Addition { disk, boot: Boot(boot), standing };
    let (added, removed) = (added.iter().map(addition).collect(), removed.to_vec());
    let adjustments = vec![Adjustment { partition: id, epoch, version, added, removed }];
    let by = (leader, view.nodes[&leader].boot);
    apply(view, Change::Adjust { by, adjustments });
}

#[test]
fn a_set_keeps_half_of_its_copies() {
    for (nodes, replication, copies, kept) in
        [(1, 3, 1, 1), (2, 3, 2, 1), (3, 3, 3, 2), (5, 3, 3, 2), (4, 4, 4, 2), (9, 5, 5, 3)]
    {
        let partition = one(&cluster(nodes, replication));
        assert_eq!((partition.replicas.len(), partition.min_in_sync), (copies, kept));
        assert_eq!(partition.led_by(), Some(partition.replicas[0]));
    }
}

#[test]
fn what_is_made_while_too_few_live_keeps_as_many_as_ever_and_waits_for_them() {
    let mut view = cluster(3, 3);
    fail(&mut view, &[DiskId(2), DiskId(3)], Vec::new());
    apply(
        &mut view,
        Change::CreateTopic {
            name: "later".parse().expect("a good name"),
            config: TopicConfig { replication: 3, ..TopicConfig::default() },
        },
    );
    let later = view.partitions.values().next_back().expect("it was made");
    assert_eq!(later.leader, DiskId(1), "who lives leads");
    assert_eq!((later.in_sync.len(), later.min_in_sync, later.frozen), (3, 2, true));
}

#[test]
fn before_every_node_knows_replication_there_is_one_copy() {
    let mut view = View::default();
    apply(&mut view, Change::Found { cluster: ClusterId(7) });
    (1..=3).for_each(|disk| register(&mut view, disk, 1));
    let name = "t".parse().expect("a name");
    apply(&mut view, Change::CreateTopic { name, config: TopicConfig::default() });
    assert_eq!((one(&view).replicas.len(), one(&view).min_in_sync), (1, 1));
    apply(&mut view, Change::Raise { level: 2 });
    assert_eq!(one(&view).min_in_sync, 1, "a set of one does not keep two");
}

#[test]
fn what_has_moved_is_not_changed() {
    let mut view = cluster(3, 3);
    let [leader, second, _] = set(&view)[..] else { panic!("three members") };
    let late = Ruling { leader: Some(second), ..ruling(&view) };
    adjust(&mut view, &[], &[second]);
    let before = one(&view);
    assert_eq!((before.in_sync.len(), before.version), (2, 2));
    apply(&mut view, Change::Rule { rulings: vec![late] });
    assert_eq!(one(&view), before);
    // A leader of a former epoch, by whatever version.
    let (partition, version, removed) = (ONE, before.version, vec![]);
    let added = vec![Addition { disk: second, boot: Boot(1), standing: Standing::Whole }];
    let old = Adjustment { partition, epoch: Epoch(0), version, added, removed };
    apply(&mut view, Change::Adjust { by: (leader, Boot(1)), adjustments: vec![old.clone()] });
    let foreign = Adjustment { epoch: before.epoch, ..old };
    for by in [(second, Boot(1)), (leader, Boot(2))] {
        apply(&mut view, Change::Adjust { by, adjustments: vec![foreign.clone()] });
    }
    assert_eq!(one(&view), before, "only the registered run of the leader adjusts");
}

#[test]
fn an_addition_names_the_registered_run_and_a_refused_one_is_decided() {
    let mut view = cluster(3, 3);
    let [_, second, third] = set(&view)[..] else { panic!("three members") };
    adjust(&mut view, &[], &[second]);
    let version = one(&view).version;
    register(&mut view, second.0, 2);
    assert_eq!(one(&view).version, version + 1, "what was proposed for its first run is decided");
    adjust(&mut view, &[(second, 1, Standing::Whole)], &[]);
    assert_eq!((set(&view).len(), one(&view).version), (2, version + 2));
    adjust(&mut view, &[(DiskId(9), 1, Standing::Whole)], &[]);
    adjust(&mut view, &[], &[third]);
    assert_eq!(set(&view).len(), 2, "nobody is removed from a set of two that keeps two");
    adjust(&mut view, &[(second, 2, Standing::Tail)], &[third]);
    assert_eq!(one(&view).member(second).map(|member| member.standing), Some(Standing::Tail));
    adjust(&mut view, &[(second, 2, Standing::Whole)], &[]);
    adjust(&mut view, &[(second, 2, Standing::Tail)], &[]);
    assert_eq!(one(&view).member(second), Some(Member::whole(second)), "it lost nothing");
}

#[test]
fn a_failure_takes_the_dead_out_and_names_a_leader_in_one_change() {
    let mut view = cluster(3, 3);
    let [first, second, third] = set(&view)[..] else { panic!("three members") };
    let (leader, removed) = (Some(second), vec![first]);
    let rulings = vec![Ruling { leader, removed, ..ruling(&view) }];
    fail(&mut view, &[first], rulings);
    let partition = one(&view);
    assert_eq!((partition.led_by(), partition.epoch), (Some(second), Epoch(2)));
    assert_eq!((set(&view), partition.frozen), (vec![second, third], false));
    assert!(partition.replicas.contains(&first), "its copy is there when it comes back");

    // With the next one the set would be too small: it freezes, and both stay electable.
    let removing = Ruling { removed: vec![third], ..ruling(&view) };
    let freezing = ruling(&view);
    let mut other = view.clone();
    fail(&mut view, &[third], vec![removing]);
    assert_eq!(one(&view), partition, "a removal that would leave too few is not made");
    fail(&mut other, &[third], vec![freezing]);
    let frozen = one(&other);
    assert_eq!((frozen.frozen, frozen.epoch, set(&other).len()), (true, Epoch(2), 2));
    assert!(frozen.in_sync.iter().all(Member::is_electable));
    let mut heard = other.clone();
    apply(&mut heard, Change::Revive { nodes: vec![(third, Boot(1))] });
    register(&mut other, third.0, 2);
    for view in [&heard, &other] {
        assert_eq!((one(view).frozen, one(view).version), (false, frozen.version + 1));
    }
}

#[test]
fn a_frozen_set_exchanges_its_dead_in_one_change() {
    let mut view = cluster(4, 3);
    let [leader, second, third] = set(&view)[..] else { panic!("three members") };
    let fourth = *view.nodes.keys().find(|disk| !set(&view).contains(disk)).expect("four nodes");
    adjust(&mut view, &[], &[third]);
    let rulings = vec![Ruling { placed: vec![fourth], ..ruling(&view) }];
    fail(&mut view, &[second], rulings);
    assert!(one(&view).frozen && view.partitions_held(fourth) == 1);
    adjust(&mut view, &[(fourth, 1, Standing::Tail)], &[second]);
    assert_eq!(set(&view), [leader, fourth]);
    assert!(!one(&view).frozen);
    // The leader dies: the tail member cannot lead, and does not become all that is left.
    let removing = Ruling { removed: vec![leader], ..ruling(&view) };
    let electing = Ruling { leader: Some(fourth), ..ruling(&view) };
    let before = one(&view);
    fail(&mut view, &[leader], vec![removing, electing.clone()]);
    assert_eq!(one(&view), before);
    // Nor is anybody else taken for filled; it leads when it has said that it is.
    let mut filled = view.clone();
    let wrong = Ruling { filled: vec![leader], ..electing.clone() };
    let right = Ruling { filled: vec![fourth], ..electing };
    apply(&mut filled, Change::Rule { rulings: vec![wrong] });
    assert_eq!(one(&filled), before);
    apply(&mut filled, Change::Rule { rulings: vec![right] });
    assert_eq!(one(&filled).led_by(), Some(fourth));
    let rulings = vec![Ruling { dropped: vec![second], ..ruling(&view) }];
    apply(&mut view, Change::Rule { rulings });
    assert!(one(&view).frozen && !one(&view).replicas.contains(&second));
}

#[test]
fn who_lost_what_it_acknowledged_stays_in_a_set_that_is_too_small() {
    let mut view = cluster(3, 3);
    let [first, second, third] = set(&view)[..] else { panic!("three members") };
    adjust(&mut view, &[], &[third]);
    let rulings = vec![Ruling { lost: vec![first], leader: Some(second), ..ruling(&view) }];
    apply(&mut view, Change::Rule { rulings });
    let partition = one(&view);
    assert_eq!(partition.member(first).map(|member| member.is_electable()), Some(false));
    assert_eq!((partition.frozen, partition.led_by()), (true, Some(second)));
    // With no other leader, the reign ends all the same.
    let rulings = vec![Ruling { lost: vec![second], ..ruling(&view) }];
    apply(&mut view, Change::Rule { rulings });
    assert_eq!((one(&view).led_by(), one(&view).epoch), (None, Epoch(3)));
    let by = (second, Boot(1));
    let (epoch, version) = (one(&view).epoch, one(&view).version);
    let nothing = Adjustment { partition: ONE, epoch, version, added: vec![], removed: vec![] };
    apply(&mut view, Change::Adjust { by, adjustments: vec![nothing] });
    assert_eq!(one(&view).version, version, "nobody leads");
}

#[test]
fn the_number_that_a_set_keeps_follows_joins_and_leaves_and_never_failures() {
    let mut view = cluster(2, 3);
    assert_eq!(one(&view).min_in_sync, 1);
    register(&mut view, 3, 1);
    assert_eq!(one(&view).min_in_sync, 2, "the set has two already");
    let [first, second] = set(&view)[..] else { panic!("two members") };
    let rulings = vec![ruling(&view)];
    fail(&mut view, &[first, second, DiskId(3)], rulings);
    assert_eq!((one(&view).min_in_sync, one(&view).frozen), (2, true));
    apply(&mut view, Change::Retire { disk: DiskId(3), boot: Boot(1) });
    assert_eq!(one(&view).min_in_sync, 1);
    // A retired leader leaves nobody who may lead while nobody else is there.
    apply(&mut view, Change::Retire { disk: first, boot: Boot(1) });
    let left = one(&view);
    assert_eq!((left.led_by(), left.in_sync.len(), left.epoch), (None, 2, Epoch(2)));
    register(&mut view, second.0, 2);
    let rulings = vec![Ruling { leader: Some(second), removed: vec![first], ..ruling(&view) }];
    apply(&mut view, Change::Rule { rulings });
    assert_eq!((one(&view).led_by(), set(&view)), (Some(second), vec![second]));
}

#[test]
fn a_disk_that_is_replaced_leaves_the_number_as_it_is() {
    let mut view = cluster(3, 3);
    let [first, second, third] = set(&view)[..] else { panic!("three members") };
    let rulings = vec![Ruling { removed: vec![third], ..ruling(&view) }];
    apply(&mut view, Change::Rule { rulings });
    assert_eq!((one(&view).min_in_sync, set(&view)), (2, vec![first, second]));
    let name = view.nodes[&second].name.clone();
    let by = Registration { level: REPLICATION_LEVEL, name, ..registration(DiskId(9), Boot(1)) };
    let replace = |boot| Change::Replace { disk: second, boot, by: by.clone() };
    let before = view.fingerprint();
    let mut other = view.clone();
    apply(&mut other, replace(Boot(2)));
    assert!(other.nodes.contains_key(&second) && !other.nodes.contains_key(&DiskId(9)));
    apply(&mut view, replace(Boot(1)));
    assert_ne!(view.fingerprint(), before);
    assert!(view.retired.contains_key(&second) && view.nodes.contains_key(&DiskId(9)));
    // One of two that count is gone: the other one alone is not enough, so it waits.
    let left = one(&view);
    let standing = left.member(second).map(|member| member.standing);
    assert_eq!((left.min_in_sync, left.frozen, standing), (2, true, Some(Standing::Lost)));
}

#[test]
fn less_replication_keeps_fewer() {
    let mut view = cluster(3, 3);
    let patch = ConfigPatch { replication: Some(1), ..ConfigPatch::default() };
    let name: TopicName = "t".parse().expect("a name");
    apply(&mut view, Change::ConfigureTopic { name, patch, reset: false });
    assert_eq!((one(&view).min_in_sync, one(&view).version), (1, 2));
}

/// A change about the partition, whose epoch and version are filled in when it comes.
fn change() -> impl Strategy<Value = Change> {
    let disk = || (1_u128..6).prop_map(DiskId);
    let disks = move || prop::collection::vec(disk(), 0..3);
    let run = move || (disk(), (1_u64..4).prop_map(Boot));
    let standing = prop::sample::select(vec![
        Standing::Whole,
        Standing::Tail,
        Standing::Lost,
        Standing::Unsure,
    ]);
    let addition =
        (run(), standing).prop_map(|((disk, boot), standing)| Addition { disk, boot, standing });
    let ruling = (prop::option::of(disk()), disks(), disks(), disks(), disks(), disks());
    let rulings = ruling.prop_map(|(leader, filled, removed, lost, placed, dropped)| {
        let (partition, epoch, version) = (ONE, Epoch(0), 0);
        vec![Ruling { partition, epoch, version, leader, filled, removed, lost, placed, dropped }]
    });
    let adjustment = (prop::collection::vec(addition, 0..3), disks());
    let adjustments = adjustment.prop_map(|(added, removed)| {
        let (partition, epoch, version) = (ONE, Epoch(0), 0);
        vec![Adjustment { partition, epoch, version, added, removed }]
    });
    let runs = move || prop::collection::vec(run(), 0..3);
    prop_oneof![
        2 => run().prop_map(|(disk, boot)| {
            Change::Register(Registration { level: 2, ..registration(disk, boot) })
        }),
        1 => run().prop_map(|(disk, boot)| Change::Retire { disk, boot }),
        1 => (run(), run()).prop_map(|((disk, boot), (by, next))| {
            // A node that comes back under the name of another one.
            let name = registration(disk, boot).name;
            Change::Replace { disk, boot, by: Registration { name, ..registration(by, next) } }
        }),
        2 => (runs(), rulings.clone())
            .prop_map(|(nodes, rulings)| Change::Fail { nodes, at: WallTime(1), rulings }),
        1 => runs().prop_map(|nodes| Change::Revive { nodes }),
        3 => rulings.prop_map(|rulings| Change::Rule { rulings }),
        4 => adjustments.prop_map(|adjustments| {
            Change::Adjust { by: (DiskId(0), Boot(0)), adjustments }
        }),
    ]
}

/// Fills in whose turn it is, so that the change is not refused for that alone.
fn aim(view: &View, change: &mut Change) {
    let Partition { epoch, version, leader, .. } = one(view);
    match change {
        Change::Fail { rulings, .. } | Change::Rule { rulings } => {
            rulings.iter_mut().for_each(|one| (one.epoch, one.version) = (epoch, version));
        }
        Change::Adjust { by, adjustments } => {
            *by = (leader, view.nodes.get(&leader).map_or(Boot(0), |node| node.boot));
            adjustments.iter_mut().for_each(|one| (one.epoch, one.version) = (epoch, version));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        cases: 2_000,
        ..Config::default()
    })]

    #[test]
    fn a_set_is_never_made_too_small(
        nodes in 2_u128..6,
        changes in prop::collection::vec(change(), 0..40),
    ) {
        let mut view = cluster(nodes, 3);
        for mut change in changes {
            aim(&view, &mut change);
            let before = one(&view);
            apply(&mut view, change.clone());
            let after = one(&view);
            prop_assert!(after.epoch >= before.epoch && after.version >= before.version);
            prop_assert!(after == before || after.version == before.version + 1);
            let reigns = (before.led_by(), after.led_by());
            prop_assert!(reigns.0 == reigns.1 || after.epoch > before.epoch, "{reigns:?}");
            let live = |member: &&Member| view.is_live(member);
            let shrunk = before.members().any(|disk| after.member(disk).is_none());
            if shrunk {
                let left = after.in_sync.iter().filter(live).count();
                prop_assert!(left >= after.min_in_sync as usize);
                prop_assert!(after.in_sync.iter().filter(live).any(Member::is_electable));
            }
            let grown = after.members().any(|disk| before.member(disk).is_none());
            let by_leader = matches!(change, Change::Adjust { .. });
            prop_assert!(!grown || by_leader);
            let is_failure = matches!(change, Change::Fail { .. } | Change::Revive { .. });
            prop_assert!(!is_failure || after.min_in_sync >= before.min_in_sync);
        }
    }
}
