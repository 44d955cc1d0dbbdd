//! What was acknowledged survives any crash.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::broker::ShardOptions;
use sprawl_core::cluster::control::CHANGE_WAIT;
use sprawl_core::cluster::metadata::Change;
use sprawl_core::cluster::subscription::{DeliveryAsked, StartFrom};
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use crate::world::{Disk, Node, SHARDS, published, subscription, topic};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/lone_node.txt");

#[test]
fn nothing_is_acknowledged_before_the_disk_has_it() {
    let mut node = Node::start(Disk::default());
    let first = node.publish("a");
    while !node.unsynced.is_empty() {
        assert!(!node.answers.contains_key(&first), "{:?}", node.answers);
        node.sync_one();
    }
    assert_eq!(published(node.answers.get(&first)), Some((0, false)));
}

#[test]
fn a_repeat_of_an_id_under_way_waits_and_answers_with_the_first_ones_offset() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    let (first, repeat) = (node.publish("b"), node.publish("b"));
    assert!(!node.answers.contains_key(&first) && !node.answers.contains_key(&repeat));
    node.sync();
    assert_eq!(published(node.answers.get(&first)), Some((1, false)));
    assert_eq!(published(node.answers.get(&repeat)), Some((1, true)));
    let again = node.publish("b");
    assert_eq!(published(node.answers.get(&again)), Some((1, true)));
}

#[test]
fn what_is_asked_before_the_node_is_registered_waits_for_that() {
    let mut node = Node::begin_with(Disk::default(), ShardOptions::default());
    let published = node.publish("a");
    let subscribed = node.subscribe();
    let again = node.subscribe_to(topic().into(), StartFrom::Latest, DeliveryAsked::default());
    let id = "nobody".parse().expect("a name");
    let unsubscribed = node.ask_control(ControlRequest::Unsubscribe { id });
    assert!(node.answers.is_empty() && node.subscribed.is_empty());
    node.sync();
    assert!(matches!(node.answers[&published], Response::Published { .. }));
    for id in [subscribed, again] {
        let answer = &node.subscribed[&id];
        assert!(matches!(answer, ControlResponse::Subscribed { .. }), "{answer:?}");
    }
    let answer = &node.subscribed[&unsubscribed];
    assert!(matches!(answer, ControlResponse::Refused(Refused::NoSubscription(_))), "{answer:?}");
    assert_eq!(node.pull().len(), 1, "the first to ask said: from the earliest");
}

#[test]
fn what_waits_in_vain_for_the_registration_is_refused() {
    let mut node = Node::begin_with(Disk::default(), ShardOptions::default());
    let subscribed = node.subscribe();
    node.pass(CHANGE_WAIT);
    let answer = node.subscribed.remove(&subscribed);
    assert!(matches!(answer, Some(ControlResponse::Refused(Refused::NotReady))), "{answer:?}");
    node.sync();
    assert!(!node.disk.changes.iter().any(|change| matches!(change, Change::Subscribe { .. })));
}

#[test]
fn a_full_disk_refuses_what_is_new_and_answers_what_is_known() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    (0..SHARDS).for_each(|at| node.shard(ShardId(at), ShardInput::DiskSpace(DiskSpace::Full)));
    let (known, new) = (node.publish("a"), node.publish("b"));
    assert_eq!(published(node.answers.get(&known)), Some((0, true)));
    let refused = node.answers.get(&new);
    assert!(matches!(refused, Some(Response::Refused(Refused::DiskFull))), "{refused:?}");
    assert_eq!(node.read_all(), ["a"]);
}

#[test]
fn after_a_failed_sync_nothing_is_answered() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    (0..SHARDS).for_each(|at| node.shard(ShardId(at), ShardInput::DiskFailed));
    let id = node.publish("a");
    assert!(!node.answers.contains_key(&id));
}

#[test]
fn a_reader_of_a_damaged_log_is_not_told_that_it_saw_the_end() {
    let mut node = Node::start(Disk::default());
    (0..10).for_each(|number| {
        node.publish(&format!("m-{number}"));
        node.sync();
    });
    let log = node.disk.logs.values_mut().next().expect("a partition");
    let last = log.pop().expect("an entry");
    let mut flipped = last.to_vec();
    *flipped.last_mut().expect("a byte") ^= 1;
    log.push(Bytes::from(flipped));
    let damaged = EntryIndex(log.len() as u64);
    let mut node = node.crash();
    let Some(Response::Fetched { records, next, end, .. }) = node.fetch(Offset(0)) else {
        panic!("what the stored state covers is served");
    };
    assert_eq!((records.len() as u64, end), (next.0, next.next()));
    assert!(next > Offset(0));
    match node.fetch(next) {
        Some(Response::Refused(Refused::Damaged(damage))) => {
            assert_eq!(damage.index, damaged);
        }
        other => panic!("the damaged entry is named: {other:?}"),
    }
}

#[test]
fn an_unacknowledged_message_comes_again_and_an_acknowledged_one_does_not() {
    let mut node = Node::start(Disk::default());
    ["a", "b", "c"].iter().for_each(|id| {
        node.publish(id);
    });
    let asked = node.subscribe();
    assert!(!node.subscribed.contains_key(&asked), "the cursor is fixed before the answer");
    node.sync();
    let topics = vec![topic().into()];
    assert_eq!(node.subscribed.get(&asked), Some(&ControlResponse::Subscribed { topics }));

    let first = node.pull();
    assert_eq!(first.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(node.pull(), []);
    let (tokens, subscription) = (vec![first[0].2, first[2].2], subscription());
    let id = node.request(Request::Settle { subscription, tokens, verdict: Verdict::Ack });
    let answer = node.answers.get(&id);
    assert!(matches!(answer, Some(Response::Settled { count: 2, .. })), "{answer:?}");

    node.pass(Duration::from_secs(6));
    assert_eq!(node.pull(), [], "the attempt is committed before it is delivered");
    node.sync();
    let again = node.pull();
    assert_eq!(again.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(1, 2)]);

    let mut node = node.crash();
    let after = node.pull();
    assert_eq!(after.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(1, 2)]);
}

/// How much time passes at most: less than the two minutes for which ids are remembered.
const PASSED_MILLIS_MAX: u64 = 110_000;

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    SyncOne,
    Sync,
    Pass(u16),
    PullAndAcknowledge,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..40).prop_map(Step::Publish),
        6 => Just(Step::SyncOne),
        2 => Just(Step::Sync),
        2 => (0u16..9_000).prop_map(Step::Pass),
        2 => Just(Step::PullAndAcknowledge),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..Config::default()
    })]

    /// Whatever happens while ids are remembered: an acknowledged id stands once, at the offset
    /// that was told.
    #[test]
    fn an_acknowledged_message_stands_once_at_its_offset(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut node = Node::start(Disk::default());
        let mut asked: BTreeMap<RequestId, String> = BTreeMap::new();
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        let mut passed = 0;
        node.subscribe();
        for step in steps {
            match step {
                Step::Publish(id) => {
                    let id = format!("m{id}");
                    asked.insert(node.publish(&id), id);
                }
                Step::SyncOne => node.sync_one(),
                Step::Sync => node.sync(),
                // Beyond that the window forgets.
                Step::Pass(millis) if passed + u64::from(millis) >= PASSED_MILLIS_MAX => {}
                Step::Pass(millis) => {
                    passed += u64::from(millis);
                    node.pass(Duration::from_millis(millis.into()));
                }
                Step::PullAndAcknowledge => {
                    let id = subscription();
                    let known = node.disk.changes.iter().any(
                        |change| matches!(change, Change::Subscribe { .. }));
                    if known {
                        let tokens = node.pull().into_iter().map(|(.., token)| token).collect();
                        let verdict = Verdict::Ack;
                        node.request(Request::Settle { subscription: id, tokens, verdict });
                    }
                }
                Step::Crash => {
                    node = node.crash();
                    asked.clear();
                }
            }
            for (id, response) in std::mem::take(&mut node.answers) {
                let offset = published(Some(&response)).map(|(offset, _)| offset);
                if let (Some(id), Some(offset)) = (asked.remove(&id), offset) {
                    let before = *told.entry(id.clone()).or_insert(offset);
                    prop_assert_eq!(before, offset, "{} moved", id);
                }
            }
        }
        node.sync();
        let all = node.read_all();
        for (id, offset) in &told {
            prop_assert_eq!(all.get(*offset as usize), Some(id));
        }
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len(), "an id stands twice: {:?}", all);
    }
}
