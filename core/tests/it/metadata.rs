//! The metadata as a state machine: what each change about nodes does, and what it refuses to do.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::cluster::metadata::{
    Change, FEATURE_LEVEL, Fingerprint, Leaving, Registration, Unfit, View,
};
use sprawl_core::cluster::pattern::TopicPattern;
use sprawl_core::cluster::placement::PlacementWatch;
use sprawl_core::cluster::subscription::{Delivery, StartFrom};
use sprawl_core::cluster::topic::TopicConfig;
use sprawl_core::ids::*;
use sprawl_core::machine::WallTime;

use crate::world::registration;

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/metadata.txt");

fn config() -> Config {
    let persistence = FileFailurePersistence::Direct(REGRESSIONS);
    Config { failure_persistence: Some(Box::new(persistence)), ..Config::default() }
}

/// A cluster of the nodes 1 to `count`; indexes leave holes.
fn cluster(count: u128) -> View {
    let mut view = View::default();
    apply(&mut view, Change::Found { cluster: ClusterId(7) });
    for disk in 1..=count {
        apply(&mut view, Change::Register(registration(DiskId(disk), Boot(1))));
    }
    assert_eq!(view.nodes.len() as u128, count);
    view
}

fn apply(view: &mut View, change: Change) {
    view.apply(ChangeIndex(view.version.0 + 3), &change);
    assert_eq!(view.check(), Ok(()), "after {change:?}");
}

fn create(view: &mut View, topic: &str, partitions: u32) {
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    apply(view, Change::CreateTopic { name: topic.parse().expect("a name"), config });
}

#[test]
fn the_founder_is_zero_and_others_are_named_by_their_change() {
    let view = cluster(3);
    let ids: Vec<u64> = (1..=3).map(|disk| view.nodes[&DiskId(disk)].id.0).collect();
    assert_eq!(ids, [0, 9, 12]);
    assert_eq!(view.disk_of(NodeId(9)), Some(DiskId(2)));
    let mut later = view.clone();
    apply(&mut later, Change::Register(registration(DiskId(2), Boot(4))));
    assert_eq!(later.nodes[&DiskId(2)].id, NodeId(9), "a restart keeps the id");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut view = cluster(2);
    create(&mut view, "t", 4);
    apply(&mut view, Change::Retire { disk: DiskId(1), boot: Boot(1) });
    let fresh = registration(DiskId(5), Boot(1));
    let cases: [(Registration, Unfit); 6] = [
        (registration(DiskId(1), Boot(9)), Unfit::Retired),
        (registration(DiskId(2), Boot(1)), Unfit::Boot(Boot(1))),
        (Registration { name: "node-2".to_owned(), ..fresh.clone() }, Unfit::Name(DiskId(2))),
        (Registration { capacity: 0, ..fresh.clone() }, Unfit::Range),
        (Registration { zone: "z".repeat(250), ..fresh.clone() }, Unfit::Range),
        (Registration { name: String::new(), ..fresh.clone() }, Unfit::Range),
    ];
    for (said, why) in cases {
        assert_eq!(view.unfit(&said), Some(why));
        let before = view.clone();
        apply(&mut view, Change::Register(said));
        assert_eq!((&view.nodes, &view.partitions), (&before.nodes, &before.partitions));
    }
    assert_eq!(View::default().unfit(&fresh), Some(Unfit::Unfounded));
    apply(&mut view, Change::Raise { level: 1 });
    let old = Registration { level: 0, ..fresh.clone() };
    assert_eq!(view.unfit(&old), Some(Unfit::Level(1)));
    // The retired node's name is free.
    assert_eq!(view.unfit(&Registration { name: "node-1".to_owned(), ..fresh }), None);
}

#[test]
fn a_failure_names_runs_and_a_restart_ends_it() {
    let mut view = cluster(3);
    let at = WallTime(5);
    let nodes = vec![(DiskId(1), Boot(1)), (DiskId(2), Boot(2)), (DiskId(9), Boot(1))];
    apply(&mut view, Change::Fail { nodes, at, rulings: vec![] });
    let down = |view: &View| -> Vec<DiskId> {
        let down = view.nodes.iter().filter(|(_, node)| node.down.is_some());
        down.map(|(disk, _)| *disk).collect()
    };
    assert_eq!(down(&view), [DiskId(1)], "node 2 has another run, node 9 there is not");
    create(&mut view, "t", 20);
    assert_eq!(view.partitions_held(DiskId(1)), 0, "nothing is placed on a node that is down");
    let mut heard = view.clone();
    apply(&mut heard, Change::Revive { nodes: vec![(DiskId(1), Boot(1))] });
    apply(&mut view, Change::Register(registration(DiskId(1), Boot(2))));
    assert_eq!((down(&heard), down(&view)), (vec![], vec![]));
}

#[test]
fn a_restart_ends_the_reigns_of_the_former_run_and_moves_nothing() {
    let mut view = cluster(3);
    create(&mut view, "t", 30);
    let before = view.clone();
    apply(&mut view, Change::Register(registration(DiskId(2), Boot(2))));
    assert!(view.partitions_held(DiskId(2)) > 5);
    for (id, partition) in &view.partitions {
        let old = &before.partitions[id];
        assert_eq!(partition.leader, old.leader);
        let raised = u64::from(partition.leader == DiskId(2));
        assert_eq!(partition.epoch.0, old.epoch.0 + raised);
    }
}

#[test]
fn the_last_node_that_stays_is_not_sent_away() {
    let mut view = cluster(2);
    let leave = |disk| Change::Decommission { disk: DiskId(disk), how: Leaving::Empty };
    apply(&mut view, leave(1));
    apply(&mut view, leave(2));
    let leaving: Vec<bool> = view.nodes.values().map(|node| node.leaving.is_some()).collect();
    assert_eq!(leaving, [true, false]);
    apply(&mut view, Change::Retire { disk: DiskId(1), boot: Boot(2) });
    assert_eq!(view.nodes.len(), 2, "another run than the one that is to be retired");
    apply(&mut view, Change::Retire { disk: DiskId(1), boot: Boot(1) });
    apply(&mut view, Change::Retire { disk: DiskId(2), boot: Boot(1) });
    assert_eq!((view.nodes.len(), view.retired.len()), (1, 1));
}

#[test]
fn a_level_is_raised_when_all_know_it() {
    let mut view = cluster(2);
    let said = Registration { level: FEATURE_LEVEL + 1, ..registration(DiskId(1), Boot(2)) };
    apply(&mut view, Change::Register(said));
    let old = Registration { level: 1, ..registration(DiskId(2), Boot(2)) };
    apply(&mut view, Change::Register(old));
    apply(&mut view, Change::Raise { level: 2 });
    assert_eq!(view.level, 0);
    let said = Registration { level: 2, ..registration(DiskId(2), Boot(3)) };
    apply(&mut view, Change::Register(said));
    apply(&mut view, Change::Raise { level: 2 });
    assert_eq!(view.level, 2);
    apply(&mut view, Change::Raise { level: 1 });
    assert_eq!(view.level, 2, "it never falls");
}

/// Changes of all kinds, many of them impossible where they come.
fn change() -> impl Strategy<Value = Change> {
    let disk = || (1_u128..6).prop_map(DiskId);
    let run = move || (disk(), (1_u64..5).prop_map(Boot));
    let topic = || "[a-d]".prop_map(|name| name.parse::<TopicName>().expect("a name"));
    let subscription = || "[s-u]".prop_map(|id| id.parse::<SubscriptionId>().expect("a name"));
    let patterns = prop_oneof![Just("a"), Just("b"), Just("*"), Just("z.>")]
        .prop_map(|text| vec![text.parse::<TopicPattern>().expect("a pattern")]);
    let how = prop_oneof![Just(Leaving::Empty), Just(Leaving::AtOnce)];
    prop_oneof![
        3 => (run(), 1_u16..4, 0_u32..3, 0_u8..3).prop_map(|((disk, boot), name, level, zone)| {
            let mut said = registration(disk, boot);
            said.http = SocketAddr::from(([10, 0, 0, 1], name));
            (said.name, said.level, said.zone) = (format!("n{name}"), level, format!("{zone}"));
            Change::Register(said)
        }),
        1 => run().prop_map(|(disk, boot)| Change::Retire { disk, boot }),
        1 => (disk(), how).prop_map(|(disk, how)| Change::Decommission { disk, how }),
        1 => prop::collection::vec(run(), 0..4)
            .prop_map(|nodes| Change::Fail { nodes, at: WallTime(1), rulings: vec![] }),
        1 => prop::collection::vec(run(), 0..4).prop_map(|nodes| Change::Revive { nodes }),
        1 => (0_u32..4).prop_map(|level| Change::Raise { level }),
        2 => (topic(), 1_u32..9).prop_map(|(name, partitions)| {
            let config = TopicConfig { partitions, ..TopicConfig::default() };
            Change::CreateTopic { name, config }
        }),
        1 => topic().prop_map(|name| Change::DeleteTopic { name }),
        1 => (subscription(), patterns).prop_map(|(id, topics)| {
            let (from, at) = (StartFrom::Latest, WallTime(1));
            Change::Subscribe { id, topics, from, delivery: Delivery::default(), at }
        }),
        1 => subscription().prop_map(|id| Change::Unsubscribe { id, unused_since: None }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_change_applies_or_does_nothing(changes in prop::collection::vec(change(), 0..60)) {
        let (mut view, mut other) = (View::default(), View::default());
        let (mut watch, mut fingerprint) = (PlacementWatch::default(), Fingerprint::default());
        apply(&mut view, Change::Found { cluster: ClusterId(1) });
        other.apply(view.version, &Change::Found { cluster: ClusterId(1) });
        for change in changes {
            let before = view.clone();
            apply(&mut view, change.clone());
            other.apply(view.version, &change);
            prop_assert_eq!(fingerprint.of(&view), other.fingerprint());
            prop_assert_eq!(watch.shown(&view), Ok(()));
            for (disk, retired) in &before.retired {
                prop_assert_eq!(Some(retired), view.retired.get(disk), "for ever");
            }
            for (disk, node) in &before.nodes {
                let now = view.nodes.get(disk);
                prop_assert!(now.is_none_or(|now| now.id == node.id && now.boot >= node.boot));
                prop_assert!(now.is_some() || view.retired.contains_key(disk));
            }
            for (id, partition) in &before.partitions {
                let now = view.partitions.get(id);
                prop_assert!(now.is_none_or(|now| now.leader == partition.leader));
                prop_assert!(now.is_none_or(|now| now.epoch >= partition.epoch));
            }
            prop_assert!(view.level >= before.level);
        }
    }
}
