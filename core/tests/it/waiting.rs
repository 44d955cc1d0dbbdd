//! Publishes that wait for their turn: each ends as stored, refused or unknown, once and in order.

use std::time::Duration;

use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::{Submission, Terms};
use sprawl_core::broker::routing::Routed;
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use crate::world::{Disk, Node, draft, published, topic};

/// How long a publish waits for its turn.
const LOBBY_WAIT: Duration = Duration::from_secs(5);

/// A node whose disk has something before it, so that whatever comes now waits; each sync lets
/// the next one in.
fn busy(waiting_bytes: usize) -> (Node, RequestId) {
    let options = ShardOptions { in_flight_bytes: 1, waiting_bytes, ..ShardOptions::default() };
    let mut node = Node::start_with(Disk::default(), options);
    node.publish("first");
    node.sync();
    let under_way = node.publish("under way");
    (node, under_way)
}

fn submission(id: &str, source: u64) -> Submission {
    let mut draft = draft(id);
    draft.envelope.key = Some("key".to_owned());
    Submission { source: Source(source), topic: topic(), draft, terms: Terms::default() }
}

fn send(node: &mut Node, id: &str, source: u64) -> RequestId {
    node.request(Request::Publish(submission(id, source)))
}

fn waiting(node: &Node) -> u64 {
    node.shards.iter().map(|shard| shard.status().admission.waiting_bytes).sum()
}

#[test]
fn a_clients_messages_keep_their_order_alone_and_in_batches() {
    let (mut node, _) = busy(1 << 20);
    for round in 0..5 {
        send(&mut node, &format!("{round}-a"), 1);
        let batch = ["b", "c"].map(|letter| submission(&format!("{round}-{letter}"), 1));
        node.request(Request::PublishBatch(batch.into(), Routed::default()));
        send(&mut node, &format!("{round}-d"), 1);
        node.sync_one();
    }
    assert!(waiting(&node) > 0);
    node.sync();
    let stored: Vec<String> = node.read_all().split_off(2);
    assert_eq!(stored.len(), 20);
    assert!(stored.is_sorted(), "{stored:?}");
    assert_eq!(waiting(&node), 0);
}

#[test]
fn a_repeat_of_what_waits_is_the_same_message() {
    let (mut node, _) = busy(1 << 20);
    let (one, again) = (send(&mut node, "a", 1), send(&mut node, "a", 1));
    let elsewhere = send(&mut node, "a", 2);
    node.sync();
    assert_eq!(published(node.answers.get(&one)), Some((2, false)));
    assert_eq!(published(node.answers.get(&again)), Some((2, true)));
    assert_eq!(published(node.answers.get(&elsewhere)), Some((2, true)));
}

#[test]
fn a_repeat_of_what_was_given_up_is_stored() {
    let (mut node, _) = busy(1 << 20);
    let one = send(&mut node, "a", 1);
    node.pass(Duration::from_secs(3));
    let again = send(&mut node, "a", 1);
    node.pass(LOBBY_WAIT - Duration::from_secs(3));
    let answer = node.answers.get(&one);
    assert!(matches!(answer, Some(Response::Refused(Refused::Busy { .. }))), "{answer:?}");
    assert!(!node.answers.contains_key(&again));
    node.sync();
    assert_eq!(published(node.answers.get(&again)), Some((2, false)));
}

#[test]
fn what_waits_for_a_topic_that_is_deleted_is_refused() {
    let (mut node, under_way) = busy(1 << 20);
    let (next, alone) = (send(&mut node, "a", 1), send(&mut node, "b", 1));
    let batch = node.request(Request::PublishBatch(
        vec![submission("c", 1), submission("d", 1)],
        Routed::default(),
    ));
    node.ask_control(ControlRequest::DeleteTopic { name: topic() });
    node.sync();
    assert_eq!(published(node.answers.get(&under_way)), Some((1, false)));
    let answer = &node.answers[&next];
    assert!(matches!(answer, Response::Unknown), "it was on its way to the disk: {answer:?}");
    let refused = |answer: &Response| matches!(answer, Response::Refused(Refused::NotReady));
    assert!(refused(&node.answers[&alone]), "{:?}", node.answers[&alone]);
    match &node.answers[&batch] {
        Response::Batch(outcomes) => assert!(outcomes.iter().all(refused), "{outcomes:?}"),
        other => panic!("a batch was answered with {other:?}"),
    }
    assert_eq!(waiting(&node), 0);
    assert_eq!(node.read_all(), [""; 0]);
}

#[test]
fn what_waits_when_the_disk_fills_up_is_refused_and_repeats_are_known() {
    let (mut node, under_way) = busy(1 << 20);
    let (new, repeat) = (send(&mut node, "a", 1), node.publish("first"));
    for shard in 0..crate::world::SHARDS {
        node.shard(ShardId(shard), ShardInput::DiskSpace(DiskSpace::Full));
    }
    let at_once = send(&mut node, "b", 1);
    let full = |node: &Node, id| {
        matches!(node.answers.get(&id), Some(Response::Refused(Refused::DiskFull)))
    };
    assert!(full(&node, at_once), "a full disk lets nobody wait");
    node.sync();
    assert_eq!(published(node.answers.get(&under_way)), Some((1, false)));
    assert!(full(&node, new), "{:?}", node.answers.get(&new));
    assert_eq!(published(node.answers.get(&repeat)), Some((0, true)));
    assert_eq!(waiting(&node), 0);
}

#[test]
fn one_that_is_larger_than_the_room_gets_in_when_nobody_waits() {
    let (mut node, _) = busy(2_000);
    let large = |id: &str| {
        let mut submission = submission(id, 1);
        submission.draft.payload = vec![b'x'; 100_000].into();
        Request::Publish(submission)
    };
    let one = node.request(large("a"));
    assert!(waiting(&node) > 100_000);
    let (second, other) = (node.request(large("b")), send(&mut node, "c", 2));
    for id in [second, other] {
        assert!(matches!(node.answers[&id], Response::Refused(_)), "{:?}", node.answers[&id]);
    }
    node.sync();
    assert_eq!(published(node.answers.get(&one)), Some((2, false)));
}

#[test]
fn a_crash_forgets_what_waits_and_answers_nothing() {
    let (mut node, _) = busy(1 << 20);
    let waits = send(&mut node, "a", 1);
    node.shard(ShardId(0), ShardInput::DiskFailed);
    node.shard(ShardId(1), ShardInput::DiskFailed);
    node.pass(2 * LOBBY_WAIT);
    assert!(!node.answers.contains_key(&waits));
    let mut node = node.crash();
    assert_eq!(node.read_all(), ["first"]);
    let again = send(&mut node, "a", 1);
    node.sync();
    assert_eq!(published(node.answers.get(&again)), Some((1, false)));
}
