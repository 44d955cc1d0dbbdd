//! Requests that come to a node that does not lead their partitions.

mod nodes;

use std::time::Duration;

use proptest::prelude::*;
use sprawl_core::broker::delivery::{AckToken, Delivered};
use sprawl_core::broker::routing::{HOPS_MAX, Routed, wire};
use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::subscription::{Delivery, StartFrom};
use sprawl_core::cluster::topic::TopicConfig;
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use self::nodes::{Link, Nodes, disks, id_of, message, name};
use crate::world::{published, subscription};

/// The longest that a request is tried.
const ROUTE_WAIT: Duration = Duration::from_secs(10);

/// Three nodes, each of which leads the topic of its number.
fn three() -> Nodes {
    let mut nodes = Nodes::new(3);
    for disk in 1..=3 {
        nodes.lead(&format!("t{disk}"), DiskId(disk));
    }
    nodes.called();
    nodes
}

fn subscribe(nodes: &mut Nodes, topics: &[&str]) {
    let topics = topics.iter().map(|topic| name(topic).into()).collect();
    let (id, from, at) = (subscription(), StartFrom::Earliest, WallTime(1));
    let delivery = Delivery { ack_wait: Duration::from_secs(5), ..Delivery::default() };
    nodes.agree(Change::Subscribe { id, topics, from, delivery, at });
}

fn pull(nodes: &mut Nodes, disk: u128, wait: Duration) -> RequestId {
    let subscription = subscription();
    nodes.ask(disk, Request::Pull { subscription, count_max: 100, wait })
}

fn pulled(nodes: &mut Nodes, id: RequestId) -> Vec<Delivered> {
    match nodes.answers.remove(&id) {
        Some(Response::Pulled(messages)) => messages,
        other => panic!("messages: {other:?}"),
    }
}

fn settle(nodes: &mut Nodes, disk: u128, tokens: Vec<AckToken>, verdict: Verdict) -> (u32, usize) {
    let request = Request::Settle { subscription: subscription(), tokens, verdict };
    let id = nodes.ask(disk, request);
    match nodes.answers.remove(&id) {
        Some(Response::Settled { count, expired }) => (count, expired.len()),
        other => panic!("settled: {other:?}"),
    }
}

#[test]
fn any_node_takes_what_another_one_leads() {
    let mut nodes = three();
    for (door, topic) in [(1, "t1"), (1, "t2"), (2, "t2"), (3, "t2"), (3, "t1"), (2, "t3")] {
        let id = nodes.publish(door, topic, &format!("{topic}-by-{door}"));
        assert!(published(nodes.answers.get(&id)).is_some(), "{:?}", nodes.answers[&id]);
    }
    for door in 1..=3 {
        assert_eq!(nodes.read(door, "t1"), ["t1-by-1", "t1-by-3"]);
        assert_eq!(nodes.read(door, "t2"), ["t2-by-1", "t2-by-2", "t2-by-3"]);
        assert_eq!(nodes.read(door, "t3"), ["t3-by-2"]);
    }
    let repeat = nodes.publish(2, "t1", "t1-by-3");
    assert_eq!(published(nodes.answers.get(&repeat)), Some((1, true)));
    let trim = Request::Trim { topic: name("t2"), partition: 0, below: Offset(2) };
    let trim = nodes.ask(3, trim);
    assert!(matches!(nodes.answers[&trim], Response::Trimmed { start: Offset(2) }));
    assert_eq!(nodes.read(1, "t2"), ["t2-by-3"]);
}

#[test]
fn a_reader_waits_at_another_node() {
    let mut nodes = three();
    let (from, count_max) = (FetchFrom::Offset(Offset(0)), 10);
    let (topic, wait) = (name("t2"), Duration::from_secs(20));
    let id = nodes.ask(1, Request::Fetch { topic, partition: 0, from, count_max, wait });
    nodes.pass(Duration::from_secs(12));
    assert!(!nodes.answers.contains_key(&id));
    nodes.publish(3, "t2", "a");
    assert!(matches!(&nodes.answers[&id], Response::Fetched { records, .. } if records.len() == 1));
}

#[test]
fn a_batch_is_one_request_for_each_node() {
    let mut nodes = three();
    let items: Vec<_> =
        (0..30).map(|at| message(&format!("t{}", at % 3 + 1), &format!("{at:02}"))).collect();
    let id = nodes.ask(1, Request::PublishBatch(items, Routed::default()));
    let Response::Batch(outcomes) = &nodes.answers[&id] else { panic!("a batch") };
    let offsets: Vec<u64> =
        outcomes.iter().map(|one| published(Some(one)).expect("stored").0).collect();
    assert_eq!(offsets, (0..30).map(|at| at / 3).collect::<Vec<_>>());
    assert_eq!(nodes.called(), [2, 3]);
    for topic in ["t1", "t2", "t3"] {
        let stored = nodes.read(2, topic);
        assert!(stored.len() == 10 && stored.is_sorted(), "{stored:?}");
    }
}

#[test]
fn the_parts_of_a_batch_that_fail_are_tried_again_in_their_order() {
    let mut nodes = three();
    nodes.link(2, Link::Down);
    nodes.link(3, Link::Deaf);
    let items: Vec<_> =
        (0..30).map(|at| message(&format!("t{}", at % 3 + 1), &format!("{at:02}"))).collect();
    let id = nodes.ask(1, Request::PublishBatch(items, Routed::default()));
    nodes.pass(Duration::from_millis(300));
    assert!(!nodes.answers.contains_key(&id));
    nodes.link(2, Link::Good);
    nodes.link(3, Link::Good);
    nodes.pass(Duration::from_secs(2));
    let Response::Batch(outcomes) = &nodes.answers[&id] else { panic!("a batch") };
    assert!(outcomes.iter().all(|one| published(Some(one)).is_some()), "{outcomes:?}");
    for topic in ["t1", "t2", "t3"] {
        let stored = nodes.read(1, topic);
        assert!(stored.len() == 10 && stored.is_sorted(), "{topic}: {stored:?}");
    }
}

#[test]
fn a_batch_whose_outcome_was_unknown_is_not_refused() {
    let mut nodes = three();
    nodes.link(2, Link::Deaf);
    let items = ["a", "b"].map(|id| message("t2", id)).into();
    let id = nodes.ask(1, Request::PublishBatch(items, Routed::default()));
    nodes.link(2, Link::Down);
    nodes.pass(ROUTE_WAIT);
    let Response::Batch(outcomes) = &nodes.answers[&id] else { panic!("a batch") };
    assert!(outcomes.iter().all(|one| matches!(one, Response::Unknown)), "{outcomes:?}");
}

#[test]
fn what_was_not_delivered_is_tried_again() {
    let mut nodes = three();
    nodes.link(2, Link::Down);
    let id = nodes.publish(1, "t2", "a");
    nodes.pass(Duration::from_millis(200));
    assert!(!nodes.answers.contains_key(&id));
    assert!((3..=6).contains(&nodes.counters(1).calls), "{:?}", nodes.counters(1));
    nodes.link(2, Link::Good);
    nodes.pass(Duration::from_millis(500));
    assert_eq!(published(nodes.answers.get(&id)), Some((0, false)));
    assert_eq!(nodes.counters(1).call_retries, nodes.counters(1).calls - 1);
    assert_eq!(nodes.read(3, "t2"), ["a"]);
}

#[test]
fn what_is_never_delivered_is_refused() {
    let mut nodes = three();
    nodes.link(2, Link::Down);
    let id = nodes.publish(1, "t2", "a");
    nodes.pass(ROUTE_WAIT);
    assert!(matches!(nodes.answers[&id], Response::Refused(Refused::NotReady)));
    nodes.link(2, Link::Good);
    nodes.pass(Duration::from_secs(1));
    assert_eq!(nodes.read(1, "t2"), [""; 0]);
}

#[test]
fn after_a_try_of_unknown_outcome_nothing_is_refused() {
    let mut nodes = three();
    // It was stored, and the node that stored it is gone.
    nodes.link(2, Link::Deaf);
    let stored = nodes.publish(1, "t2", "a");
    nodes.link(2, Link::Down);
    nodes.pass(ROUTE_WAIT);
    assert!(matches!(nodes.answers[&stored], Response::Unknown), "{:?}", nodes.answers[&stored]);
    // A node refuses a try, and nobody knows of the one before.
    nodes.link(2, Link::Lossy);
    let refused = nodes.publish(1, "t2", "b");
    nodes.pass(Duration::from_millis(1_500));
    nodes.link(2, Link::Good);
    nodes.disk_space(2, DiskSpace::Full);
    nodes.pass(Duration::from_secs(2));
    assert!(matches!(nodes.answers[&refused], Response::Unknown), "{:?}", nodes.answers[&refused]);
    // The same message again finds the first one.
    nodes.disk_space(2, DiskSpace::Free);
    let again = nodes.publish(3, "t2", "a");
    assert_eq!(published(nodes.answers.get(&again)), Some((0, true)));
    assert_eq!(nodes.read(1, "t2"), ["a"]);
}

#[test]
fn a_try_whose_answer_was_lost_is_repeated_and_stored_once() {
    let mut nodes = three();
    nodes.link(2, Link::Deaf);
    let id = nodes.publish(1, "t2", "a");
    nodes.link(2, Link::Good);
    nodes.pass(Duration::from_millis(100));
    assert_eq!(published(nodes.answers.get(&id)), Some((0, true)));
    assert_eq!(nodes.read(1, "t2"), ["a"]);
}

#[test]
fn a_redirect_corrects_the_cache() {
    let mut nodes = three();
    nodes.publish(1, "t2", "a");
    nodes.place("t2", DiskId(3));
    nodes.catch_up(DiskId(2));
    nodes.catch_up(DiskId(3));
    nodes.run();
    nodes.called();
    let id = nodes.publish(1, "t2", "b");
    assert_eq!(published(nodes.answers.get(&id)), Some((0, false)), "in the topic made anew");
    assert_eq!(nodes.called(), [2, 3], "by way of the one that led it");
    assert_eq!(nodes.redirects(1), 1);
    nodes.catch_up(DiskId(1));
    nodes.publish(1, "t2", "c");
    assert_eq!(nodes.called(), [3]);
    assert_eq!(nodes.read(1, "t2"), ["b", "c"]);
}

#[test]
fn a_node_that_is_behind_is_asked_again() {
    let mut nodes = three();
    nodes.place("t2", DiskId(3));
    nodes.catch_up(DiskId(1));
    let id = nodes.publish(1, "t2", "a");
    nodes.pass(Duration::from_millis(300));
    assert!(!nodes.answers.contains_key(&id), "the new owner does not know yet");
    nodes.catch_up(DiskId(3));
    nodes.run();
    nodes.pass(Duration::from_millis(300));
    assert_eq!(published(nodes.answers.get(&id)), Some((0, false)));
}

/// HopBound, of nodes each of which knows of a later owner.
#[test]
fn a_request_is_handed_on_only_so_often() {
    let mut nodes = Nodes::new(6);
    nodes.lead("t", DiskId(2));
    for (sees, leader) in [(2, 3), (3, 4), (4, 5), (5, 6)] {
        nodes.place("t", DiskId(leader));
        nodes.see(DiskId(sees), nodes.agreed());
    }
    nodes.called();
    let id = nodes.publish(1, "t", "a");
    let hops: Vec<u8> = nodes.calls.iter().map(|(.., hops)| *hops).collect();
    assert_eq!(hops, (1..=HOPS_MAX).collect::<Vec<_>>(), "{:?}", nodes.calls);
    assert_eq!(nodes.called(), [2, 3, 4]);
    assert!(!nodes.answers.contains_key(&id));
    for disk in disks(&[1, 2, 3, 4, 5, 6]) {
        nodes.catch_up(disk);
    }
    nodes.run();
    nodes.pass(Duration::from_secs(1));
    assert_eq!(published(nodes.answers.get(&id)), Some((0, false)));
}

/// HopBound, of two nodes that each take the other one for the owner.
#[test]
fn two_nodes_that_hand_on_to_each_other_come_to_an_end() {
    let mut nodes = three();
    nodes.place("t1", DiskId(2));
    nodes.catch_up(DiskId(1));
    // Node 2 has not seen it: it takes node 1 for the owner, and node 1 takes it.
    nodes.called();
    let id = nodes.publish(1, "t1", "a");
    let other = nodes.publish(2, "t1", "b");
    assert!(nodes.calls.iter().all(|(.., hops)| *hops <= HOPS_MAX), "{:?}", nodes.calls);
    assert!(nodes.called().len() <= 6);
    nodes.catch_up(DiskId(2));
    nodes.run();
    nodes.pass(Duration::from_secs(1));
    for id in [id, other] {
        assert!(published(nodes.answers.get(&id)).is_some(), "{:?}", nodes.answers.get(&id));
    }
}

#[test]
fn a_breaker_opens_and_half_opens() {
    let mut nodes = three();
    nodes.link(2, Link::Down);
    let ids: Vec<_> = (0..50).map(|at| nodes.publish(1, "t2", &format!("{at:02}"))).collect();
    assert!(nodes.called().len() <= 10, "the breaker of each shard opens after five");
    assert!(nodes.counters(1).breakers_opened >= 1);
    nodes.pass(Duration::from_secs(5));
    let probes = nodes.called().len();
    assert!((4..=40).contains(&probes), "{probes} probes in 5 s, for 50 messages");
    let other = nodes.publish(1, "t3", "x");
    assert!(published(nodes.answers.get(&other)).is_some(), "another node's is its own");
    nodes.link(2, Link::Good);
    nodes.pass(Duration::from_millis(2_000));
    for id in ids {
        assert!(published(nodes.answers.get(&id)).is_some(), "{:?}", nodes.answers.get(&id));
    }
    assert_eq!(nodes.read(3, "t2").len(), 50);
}

#[test]
fn a_subscription_is_served_by_any_node_from_all() {
    let mut nodes = three();
    subscribe(&mut nodes, &["t1", "t2", "t3"]);
    for at in 0..9 {
        nodes.publish(at % 3 + 1, &format!("t{}", at / 3 + 1), &format!("m{at}"));
    }
    for door in [2, 3] {
        let mut tokens = Vec::new();
        let mut got = Vec::new();
        for _ in 0..3 {
            let id = pull(&mut nodes, door, Duration::ZERO);
            for message in pulled(&mut nodes, id) {
                tokens.push(message.token);
                got.push(id_of(&message.record));
            }
        }
        got.sort();
        let all: Vec<_> = (0..9).map(|at| format!("m{at}")).collect();
        assert_eq!(got, all, "each once, by way of {door}");
        let id = pull(&mut nodes, door, Duration::ZERO);
        assert_eq!(pulled(&mut nodes, id).len(), 0);
        if door == 2 {
            let back = Verdict::Nack { delay: Some(Duration::ZERO), dead_letter: false };
            assert_eq!(settle(&mut nodes, 1, tokens, back), (9, 0));
            nodes.pass(Duration::from_millis(100));
        } else {
            assert_eq!(settle(&mut nodes, 1, tokens.clone(), Verdict::Ack), (9, 0));
            assert_eq!(settle(&mut nodes, 2, tokens, Verdict::Ack), (9, 0), "again");
        }
    }
}

#[test]
fn a_pull_waits_for_what_another_node_leads() {
    let mut nodes = three();
    subscribe(&mut nodes, &["t2", "t3"]);
    let waiting = [1, 3].map(|door| pull(&mut nodes, door, Duration::from_secs(20)));
    nodes.pass(Duration::from_secs(12));
    assert!(waiting.iter().all(|id| !nodes.answers.contains_key(id)));
    nodes.publish(3, "t2", "a");
    nodes.publish(1, "t2", "b");
    let got: Vec<_> = waiting.into_iter().flat_map(|id| pulled(&mut nodes, id)).collect();
    assert_eq!(got.len(), 2);
    nodes.pass(Duration::from_secs(30));
    let (calls, now) = (nodes.counters(1).calls, nodes.now);
    nodes.pass(Duration::from_secs(10));
    assert_eq!(nodes.counters(1).calls, calls, "nobody waits at {now:?}: nobody is asked");
}

#[test]
fn a_pull_hears_of_a_topic_that_comes_while_it_waits() {
    let mut nodes = three();
    let (id, from, at) = (subscription(), StartFrom::Earliest, WallTime(1));
    let topics = vec!["new.*".parse().expect("a pattern")];
    nodes.agree(Change::Subscribe { id, topics, from, delivery: Delivery::default(), at });
    let id = pull(&mut nodes, 1, Duration::from_secs(20));
    nodes.pass(Duration::from_millis(100));
    nodes.lead("new.one", DiskId(2));
    nodes.publish(3, "new.one", "a");
    assert_eq!(pulled(&mut nodes, id).len(), 1);
}

#[test]
fn a_pull_goes_on_without_a_node_that_is_down() {
    let mut nodes = three();
    subscribe(&mut nodes, &["t2", "t3"]);
    nodes.publish(1, "t2", "a");
    nodes.link(3, Link::Down);
    let id = pull(&mut nodes, 1, Duration::ZERO);
    assert_eq!(pulled(&mut nodes, id).len(), 1);
    nodes.link(2, Link::Down);
    let id = pull(&mut nodes, 1, Duration::from_secs(1));
    nodes.pass(Duration::from_secs(1));
    assert!(matches!(nodes.answers[&id], Response::Refused(Refused::NotReady)));
    let id = pull(&mut nodes, 1, Duration::from_secs(20));
    nodes.link(3, Link::Good);
    nodes.pass(Duration::from_secs(2));
    nodes.publish(1, "t3", "b");
    assert_eq!(pulled(&mut nodes, id).len(), 1);
}

#[test]
fn verdicts_end_as_taken_refused_or_unknown() {
    let mut nodes = three();
    subscribe(&mut nodes, &["t2"]);
    nodes.publish(1, "t2", "a");
    let id = pull(&mut nodes, 1, Duration::ZERO);
    let tokens: Vec<_> = pulled(&mut nodes, id).into_iter().map(|one| one.token).collect();
    let say = |tokens: &[AckToken], verdict| {
        let (subscription, tokens) = (subscription(), tokens.to_vec());
        Request::Settle { subscription, tokens, verdict }
    };
    let back = Verdict::Nack { delay: None, dead_letter: false };
    nodes.link(2, Link::Down);
    let id = nodes.ask(1, say(&tokens, Verdict::Ack));
    nodes.pass(ROUTE_WAIT);
    assert!(matches!(nodes.answers[&id], Response::Refused(Refused::NotReady)));
    nodes.link(2, Link::Deaf);
    nodes.pass(Duration::from_secs(1));
    let given_back = nodes.ask(1, say(&tokens, back));
    nodes.pass(Duration::from_secs(2));
    assert!(matches!(nodes.answers[&given_back], Response::Unknown), "it is not said twice");
    let acked = nodes.ask(1, say(&tokens, Verdict::Ack));
    nodes.link(2, Link::Good);
    nodes.pass(Duration::from_secs(3));
    let answer = &nodes.answers[&acked];
    assert!(matches!(answer, Response::Settled { count: 1, .. }), "{answer:?}");
}

#[test]
fn a_dead_letter_goes_to_the_node_that_leads_its_topic() {
    let mut nodes = three();
    nodes.lead("_dead.t2", DiskId(3));
    subscribe(&mut nodes, &["t2"]);
    nodes.publish(1, "t2", "a");
    let id = pull(&mut nodes, 1, Duration::ZERO);
    let tokens = pulled(&mut nodes, id).into_iter().map(|one| one.token).collect();
    let bury = Verdict::Nack { delay: None, dead_letter: true };
    assert_eq!(settle(&mut nodes, 1, tokens, bury), (1, 0));
    nodes.pass(Duration::from_millis(200));
    assert_eq!(nodes.read(1, "_dead.t2").len(), 1);
    let id = pull(&mut nodes, 3, Duration::ZERO);
    assert_eq!(pulled(&mut nodes, id).len(), 0);
}

proptest! {
    /// Whatever another node sends, it is understood or it is not.
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0_u8..64) {
        let framed = [&[head, 0, 0, 0, 1][..], &bytes].concat();
        for bytes in [bytes, framed] {
            let _ = wire::decode_ask(bytes.clone().into());
            let _ = wire::decode_answer(bytes.into());
        }
    }
}

#[test]
fn a_set_that_waits_for_a_dead_member_refuses_at_once_and_answers_repeats() {
    let mut nodes = three();
    nodes.apart = true;
    nodes.agree(Change::Raise { level: REPLICATION_LEVEL });
    let stored = nodes.publish(3, "t1", "before");
    assert_eq!(published(nodes.answers.get(&stored)), Some((0, false)));
    let (partition, epoch, by) = (PartitionId(1), Epoch(1), (DiskId(1), Boot(1)));
    let nothing = |version| {
        let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
        let leader = None;
        Ruling { partition, epoch, version, leader, filled, removed, lost, placed, dropped }
    };
    nodes.agree(Change::Rule { rulings: vec![Ruling { placed: vec![DiskId(2)], ..nothing(1) }] });
    let added = vec![Addition { disk: DiskId(2), boot: Boot(1), standing: Standing::Whole }];
    let adjustment = Adjustment { partition, epoch, version: 2, added, removed: vec![] };
    nodes.agree(Change::Adjust { by, adjustments: vec![adjustment] });
    let (gone, at) = (vec![(DiskId(2), Boot(1))], WallTime(9));
    nodes.agree(Change::Fail { nodes: gone.clone(), at, rulings: vec![nothing(3)] });
    for door in [1, 3] {
        let refused = nodes.publish(door, "t1", "new");
        assert!(matches!(nodes.answers[&refused], Response::Refused(Refused::Frozen)));
        let repeat = nodes.publish(door, "t1", "before");
        assert_eq!(published(nodes.answers.get(&repeat)), Some((0, true)));
    }
    // It is back: what comes now waits for it.
    nodes.agree(Change::Revive { nodes: gone });
    let waits = nodes.publish(3, "t1", "new");
    assert!(!nodes.answers.contains_key(&waits));
}

/// A node leads no more while a message waits there for its commit.
#[test]
fn who_leads_next_has_the_publisher_answered() {
    for is_heard in [true, false] {
        let mut nodes = Nodes::new(3);
        nodes.agree(Change::Raise { level: REPLICATION_LEVEL });
        nodes.agree(Change::CreateTopic { name: name("t"), config: TopicConfig::default() });
        let before = nodes.partition("t");
        let [first, next, _] = before.replicas[..] else { panic!("three copies") };
        let stored = nodes.publish(first.0, "t", "a");
        assert_eq!(published(nodes.answers.get(&stored)), Some((0, false)));
        nodes.apart = true;
        let waits = nodes.publish(first.0, "t", "b");
        if is_heard {
            nodes.hear_once();
        }
        let (partition, epoch, version, leader) = (before.id, Epoch(1), 1, Some(next));
        let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
        let ruling =
            Ruling { partition, epoch, version, leader, filled, removed, lost, placed, dropped };
        nodes.agree(Change::Rule { rulings: vec![ruling] });
        assert_eq!(nodes.partition("t").led_by(), Some(next));
        assert!(!nodes.answers.contains_key(&waits), "{:?}", nodes.answers[&waits]);
        nodes.apart = false;
        nodes.pass(Duration::from_secs(1));
        let answer = nodes.answers.get(&waits);
        match is_heard {
            true => assert_eq!(published(answer), Some((1, false))),
            // Something else is in its place.
            false => assert!(matches!(answer, Some(Response::Refused(Refused::NotReady)))),
        }
        let again = nodes.publish(first.0, "t", "b");
        assert_eq!(published(nodes.answers.get(&again)), Some((1, is_heard)));
    }
}

/// Who leads next has the entry that says that a message was acknowledged, and not applied it.
#[test]
fn who_does_not_serve_yet_takes_no_verdict() {
    let mut nodes = Nodes::new(3);
    nodes.agree(Change::Raise { level: REPLICATION_LEVEL });
    nodes.agree(Change::CreateTopic { name: name("t"), config: TopicConfig::default() });
    subscribe(&mut nodes, &["t"]);
    nodes.pass(Duration::from_secs(1));
    let before = nodes.partition("t");
    let [first, next, door] = before.replicas[..] else { panic!("three copies") };
    nodes.publish(first.0, "t", "a");
    let id = pull(&mut nodes, first.0, Duration::ZERO);
    let tokens: Vec<_> = pulled(&mut nodes, id).into_iter().map(|one| one.token).collect();
    assert_eq!(settle(&mut nodes, first.0, tokens.clone(), Verdict::Ack), (1, 0));
    nodes.pass(Duration::from_secs(1));
    nodes.apart = true;
    let (partition, epoch, version, leader) = (before.id, Epoch(1), 1, Some(next));
    let [filled, removed, lost, placed, dropped] = [const { Vec::new() }; 5];
    let ruling =
        Ruling { partition, epoch, version, leader, filled, removed, lost, placed, dropped };
    nodes.agree(Change::Rule { rulings: vec![ruling] });
    let (subscription, verdict) = (subscription(), Verdict::Ack);
    let say = Request::Settle { subscription, tokens, verdict };
    let here = nodes.ask(next.0, say.clone());
    assert!(matches!(nodes.answers[&here], Response::Refused(Refused::NotReady)));
    let there = nodes.ask(door.0, say);
    assert!(!nodes.answers.contains_key(&there), "{:?}", nodes.answers[&there]);
    nodes.apart = false;
    nodes.pass(Duration::from_secs(1));
    let answer = &nodes.answers[&there];
    assert!(matches!(answer, Response::Settled { count: 1, .. }), "{answer:?}");
}
