//! What subscribers receive, when, and what becomes of what they cannot take.

use std::time::Duration;

use sprawl_core::broker::delivery::AckToken;
use sprawl_core::broker::replica::{Body, Submission, Terms};
use sprawl_core::broker::routing::Routed;
use sprawl_core::cluster::pattern::TopicPattern;
use sprawl_core::cluster::subscription::{DeliveryAsked, Filter, StartFrom, Test};
use sprawl_core::cluster::topic::ConfigPatch;
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use crate::world::{Disk, Node, published, subscription, topic};

const SECOND: Duration = Duration::from_secs(1);

fn after(delay: Duration) -> Terms {
    Terms { delay, ..Terms::default() }
}

fn lasting(ttl: Duration) -> Terms {
    Terms { ttl: Some(ttl), ..Terms::default() }
}

fn urgent(number: u8) -> Terms {
    Terms { priority: Priority::new(number).expect("a priority"), ..Terms::default() }
}

/// A node with a subscription to the topic, from its first message.
fn subscribed(delivery: DeliveryAsked) -> Node {
    let mut node = Node::start(Disk::default());
    node.subscribe_to(topic().into(), StartFrom::Earliest, delivery);
    node.sync();
    node
}

fn offsets(node: &mut Node) -> Vec<u64> {
    node.pull().into_iter().map(|(offset, ..)| offset).collect()
}

fn settle(node: &mut Node, tokens: Vec<AckToken>, verdict: Verdict) -> u32 {
    let subscription = subscription();
    let id = node.request(Request::Settle { subscription, tokens, verdict });
    match node.answers.remove(&id) {
        Some(Response::Settled { count, .. }) => count,
        other => panic!("a verdict is answered at once: {other:?}"),
    }
}

fn tokens(node: &mut Node) -> Vec<AckToken> {
    node.pull().into_iter().map(|(.., token)| token).collect()
}

const NACK: Verdict = Verdict::Nack { delay: None, dead_letter: false };

#[test]
fn a_delayed_message_comes_when_it_is_due_and_holds_nobody_back() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish_on("late", after(10 * SECOND));
    node.publish("now");
    node.sync();
    assert_eq!(offsets(&mut node), [1]);
    node.pass(9_999 * SECOND / 1_000);
    node.sync();
    assert!(!offsets(&mut node).contains(&0), "it is not due");
    node.pass(SECOND / 1_000);
    assert!(offsets(&mut node).contains(&0), "it is due");
}

#[test]
fn a_delay_survives_a_crash() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish_on("late", after(10 * SECOND));
    node.sync();
    node.pass(4 * SECOND);
    let mut node = node.crash();
    assert_eq!(offsets(&mut node), [0; 0]);
    node.pass(5_999 * SECOND / 1_000);
    assert_eq!(offsets(&mut node), [0; 0]);
    node.pass(SECOND / 1_000);
    assert_eq!(offsets(&mut node), [0]);
}

#[test]
fn a_delayed_message_of_another_priority_waits_after_a_crash_too() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish_on("late", Terms { delay: 10 * SECOND, ..urgent(9) });
    node.sync();
    let mut node = node.crash();
    assert_eq!(offsets(&mut node), [0; 0]);
    node.pass(10 * SECOND);
    assert_eq!(offsets(&mut node), [0]);
}

#[test]
fn what_is_too_old_is_not_delivered_and_not_read() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish_on("short", lasting(2 * SECOND));
    node.publish("long");
    node.sync();
    assert_eq!(node.read_all(), ["short", "long"]);
    node.pass(2 * SECOND);
    assert_eq!(node.read_all(), ["long"]);
    assert_eq!(offsets(&mut node), [1]);
}

#[test]
fn a_message_that_expires_before_it_is_due_is_refused() {
    let mut node = subscribed(DeliveryAsked::default());
    let terms = Terms { ttl: Some(SECOND), ..after(2 * SECOND) };
    let id = node.publish_on("never", terms);
    let refused = Some(&Response::Refused(Refused::ExpiresBeforeDue));
    assert_eq!(format!("{:?}", node.answers.get(&id)), format!("{refused:?}"));
}

#[test]
fn the_urgent_go_first_but_let_the_others_pass() {
    let mut node = subscribed(DeliveryAsked::default());
    (0..4).for_each(|number| {
        node.publish(&format!("normal-{number}"));
    });
    node.publish_on("low", urgent(1));
    (0..20).for_each(|number| {
        node.publish_on(&format!("urgent-{number}"), urgent(9));
    });
    node.sync();
    let mut order = Vec::new();
    for _ in 0..3 {
        order.extend(offsets(&mut node));
    }
    let urgent: Vec<u64> = (5..13).collect();
    assert_eq!(order[..8], urgent, "eight urgent ones");
    assert_eq!(order[8], 0, "then one that waits");
    assert_eq!(order.last(), Some(&4), "the least urgent at the end");
    assert_eq!(order.len(), 25);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..25).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_filter_passes_over_what_is_not_wanted() {
    let filter = Filter { key: Some(Test::Exists(true)), headers: Vec::new() };
    let mut node = subscribed(DeliveryAsked { filter: Some(filter), ..DeliveryAsked::default() });
    (0..30).for_each(|number| {
        node.publish(&format!("m-{number}"));
    });
    node.sync();
    assert_eq!(offsets(&mut node), [0; 0]);
    node.pass(SECOND);
    node.sync();
    let mut node = node.crash();
    assert_eq!(offsets(&mut node), [0; 0], "what was passed over is done");
}

#[test]
fn a_message_given_back_comes_again_after_the_pause() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish("a");
    node.sync();
    let first = tokens(&mut node);
    let delay = Some(3 * SECOND);
    assert_eq!(settle(&mut node, first.clone(), Verdict::Nack { delay, dead_letter: false }), 1);
    node.sync();
    assert_eq!(settle(&mut node, first, NACK), 0, "its lease is over");
    assert_eq!(offsets(&mut node), [0; 0]);
    let mut node = node.crash();
    node.pass(2 * SECOND);
    assert_eq!(offsets(&mut node), [0; 0], "the pause survives a crash");
    node.pass(SECOND);
    let again = node.pull();
    assert_eq!(again.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(0, 2)]);
}

#[test]
fn a_lease_that_is_extended_lasts() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish("a");
    node.sync();
    let held = tokens(&mut node);
    node.pass(4 * SECOND);
    let by = Some(20 * SECOND);
    assert_eq!(settle(&mut node, held.clone(), Verdict::Extend { by }), 1);
    node.pass(15 * SECOND);
    node.sync();
    assert_eq!(offsets(&mut node), [0; 0]);
    assert_eq!(settle(&mut node, held, Verdict::Ack), 1);
}

/// What stands in a topic: ids and headers.
fn standing(node: &mut Node, topic: &str) -> Vec<(String, Vec<(String, String)>)> {
    let (partition, count_max, wait) = (0, 100, Duration::ZERO);
    let (topic, from) = (topic.parse().expect("a name"), FetchFrom::Offset(Offset(0)));
    let id = node.request(Request::Fetch { topic, partition, from, count_max, wait });
    let Some(Response::Fetched { records, .. }) = node.answers.remove(&id) else {
        return Vec::new();
    };
    let read = |record: &sprawl_core::broker::replica::Record| match record.body() {
        Ok(Body::Message(draft)) => (draft.envelope.id.to_string(), draft.envelope.headers),
        other => panic!("a fetch gives messages: {other:?}"),
    };
    records.iter().map(read).collect()
}

#[test]
fn a_message_that_nobody_can_take_becomes_a_dead_letter_once() {
    let max_deliver = Some(2);
    let mut node = subscribed(DeliveryAsked { max_deliver, ..DeliveryAsked::default() });
    node.publish("poison");
    node.publish("good");
    node.sync();
    for _ in 0..2 {
        let held = node.pull().into_iter().filter(|&(offset, ..)| offset == 0);
        let held = held.map(|(.., token)| token).collect();
        assert_eq!(settle(&mut node, held, NACK), 1);
        node.sync();
    }
    node.sync();
    let dead = standing(&mut node, "_dead.orders");
    assert_eq!(dead.len(), 1, "{dead:?}");
    let headers = &dead[0].1;
    let header = |name: &str| {
        let found = headers.iter().find(|(held, _)| held == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(header("Sprawl-Dead-Reason"), Some("max_deliver"));
    assert_eq!(header("Sprawl-Dead-Id"), Some("poison"));
    assert_eq!(header("Sprawl-Dead-Attempts"), Some("2"));
    node.pass(SECOND);
    node.sync();
    let mut node = node.crash();
    node.pass(10 * SECOND);
    node.sync();
    assert_eq!(offsets(&mut node), [1], "everything behind it flows");
    assert_eq!(standing(&mut node, "_dead.orders").len(), 1);
}

#[test]
fn a_dead_letter_that_a_crash_interrupted_is_stored_after_it() {
    let max_deliver = Some(1);
    let mut node = subscribed(DeliveryAsked { max_deliver, ..DeliveryAsked::default() });
    node.publish("poison");
    node.sync();
    let held = tokens(&mut node);
    settle(&mut node, held, NACK);
    // The attempt is stored, the dead letter is not.
    node.sync_one();
    let mut node = node.crash();
    node.sync();
    assert_eq!(standing(&mut node, "_dead.orders").len(), 1);
    assert_eq!(offsets(&mut node), [0; 0]);
}

#[test]
fn a_pattern_receives_topics_that_come_later() {
    let mut node = Node::start(Disk::default());
    let pattern = "orders.>".parse().expect("a pattern");
    node.subscribe_to(pattern, StartFrom::Latest, DeliveryAsked::default());
    node.sync();
    let (topic, terms) = ("orders.eu.paid".parse().expect("a name"), Terms::default());
    let other = "bills".parse().expect("a name");
    let draft = |id: &str| crate::world::draft(id);
    node.request(Request::Publish(Submission {
        source: Source(1),
        topic,
        draft: draft("a"),
        terms,
    }));
    node.request(Request::Publish(Submission {
        source: Source(1),
        topic: other,
        draft: draft("b"),
        terms,
    }));
    node.sync();
    let pulled = node.pull();
    assert_eq!(pulled.len(), 1, "the new topic, from its first message");
}

#[test]
fn a_pattern_over_hundreds_of_topics_begins_at_a_time() {
    const TOPICS: usize = 700;
    let mut node = Node::start(Disk::default());
    let publish = |node: &mut Node, when: &str| {
        let one = |number: usize| Submission {
            source: Source(1),
            topic: format!("orders.{number}").parse().expect("a name"),
            draft: crate::world::draft(&format!("{when}-{number}")),
            terms: Terms::default(),
        };
        node.request(Request::PublishBatch((0..TOPICS).map(one).collect(), Routed::default()));
        node.sync();
    };
    publish(&mut node, "before");
    node.pass(SECOND);
    let at = WallTime(node.disk.wall);
    publish(&mut node, "after");
    let pattern: TopicPattern = "orders.>".parse().expect("a pattern");
    let from = StartFrom::Time(at);
    let asked = node.subscribe_to(pattern, from, DeliveryAsked::default());
    node.sync();
    let answer = node.subscribed.remove(&asked);
    assert!(matches!(answer, Some(ControlResponse::Subscribed { .. })), "{answer:?}");
    let mut pulled = 0;
    loop {
        let offsets = offsets(&mut node);
        if offsets.is_empty() {
            break;
        }
        assert!(offsets.iter().all(|&offset| offset == 1), "{offsets:?}");
        pulled += offsets.len();
    }
    assert_eq!(pulled, TOPICS);
}

#[test]
fn retention_removes_what_is_old_from_readers_and_subscribers() {
    let mut node = subscribed(DeliveryAsked::default());
    let retention = Some(Some(60 * SECOND));
    let patch = ConfigPatch { retention, ..ConfigPatch::default() };
    node.ask_control(ControlRequest::ConfigureTopic { name: topic(), patch, reset: false });
    node.publish("old");
    node.sync();
    node.pass(30 * SECOND);
    node.publish("young");
    node.sync();
    node.pass(31 * SECOND);
    node.sync();
    assert_eq!(node.read_all(), ["young"]);
    assert_eq!(offsets(&mut node), [1]);
    let mut node = node.crash();
    assert_eq!(node.read_all(), ["young"]);
    node.pass(61 * SECOND);
    node.sync();
    assert_eq!(node.read_all(), [""; 0]);
    node.publish("new");
    node.sync();
    assert_eq!(node.read_all(), ["new"]);
}

#[test]
fn a_batch_is_answered_message_by_message() {
    let mut node = Node::start(Disk::default());
    let item = |topic: &str, id: &str, terms| {
        let topic = topic.parse().expect("a name");
        Submission { source: Source(1), topic, draft: crate::world::draft(id), terms }
    };
    let moved = Terms { expected: Some(Offset(7)), ..Terms::default() };
    let terms = Terms::default();
    let items = vec![
        item("a", "1", terms),
        item("b", "2", terms),
        item("a", "1", terms),
        item("a", "3", moved),
        item("c", "4", terms),
    ];
    let id = node.request(Request::PublishBatch(items, Routed::default()));
    node.sync();
    let Some(Response::Batch(outcomes)) = node.answers.remove(&id) else {
        panic!("{:?}", node.answers);
    };
    let places: Vec<_> = outcomes.iter().map(|one| published(Some(one))).collect();
    let first = Some((0, false));
    assert_eq!(places, [first, first, Some((0, true)), None, first]);
    let refused = Refused::OffsetMoved { expected: Offset(7), end: Offset(1) };
    assert!(matches!(&outcomes[3], Response::Refused(found) if *found == refused), "{outcomes:?}");
}

#[test]
fn a_deleted_topic_is_gone_and_one_of_its_name_begins_anew() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish("a");
    node.sync();
    let waiting = node.publish("b");
    let id = node.ask_control(ControlRequest::DeleteTopic { name: topic() });
    node.sync();
    assert_eq!(node.subscribed.get(&id), Some(&ControlResponse::Done));
    assert!(node.answers.contains_key(&waiting), "whoever waited is answered");
    assert_eq!(node.disk.logs.len(), 0, "the disk has forgotten it");
    node.publish("c");
    node.sync();
    assert_eq!(node.read_all(), ["c"]);
    assert_eq!(offsets(&mut node), [0], "the subscription means the new one too");
}

#[test]
fn a_subscription_made_anew_begins_anew() {
    let mut node = subscribed(DeliveryAsked::default());
    node.publish("a");
    node.sync();
    let held = tokens(&mut node);
    settle(&mut node, held, Verdict::Ack);
    node.pass(SECOND);
    node.sync();
    node.ask_control(ControlRequest::Unsubscribe { id: subscription() });
    node.sync();
    node.subscribe();
    node.sync();
    assert_eq!(offsets(&mut node), [0]);
}

#[test]
fn a_subscription_that_nobody_uses_is_removed() {
    let expires = Some(60 * SECOND);
    let mut node = subscribed(DeliveryAsked { expires, ..DeliveryAsked::default() });
    for _ in 0..10 {
        node.pass(20 * SECOND);
        node.sync();
        assert_eq!(offsets(&mut node), [0; 0], "it is there while it is used");
    }
    for _ in 0..8 {
        node.pass(20 * SECOND);
        node.sync();
    }
    let (subscription, wait) = (subscription(), Duration::ZERO);
    let id = node.request(Request::Pull { subscription, count_max: 10, wait });
    let answer = node.answers.remove(&id);
    let refused = matches!(answer, Some(Response::Refused(Refused::NoSubscription(_))));
    assert!(refused, "{answer:?}");
}

#[test]
fn a_reader_finds_messages_by_time_and_by_id() {
    let mut node = Node::start(Disk::default());
    for number in 0..5 {
        node.publish(&format!("m-{number}"));
        node.sync();
        node.pass(SECOND);
    }
    let mut fetch = |from| {
        let (topic, partition, count_max, wait) = (topic(), 0, 100, Duration::ZERO);
        let id = node.request(Request::Fetch { topic, partition, from, count_max, wait });
        match node.answers.remove(&id) {
            Some(Response::Fetched { records, .. }) => {
                Ok(records.iter().map(|record| record.header().offset.0).collect::<Vec<_>>())
            }
            Some(Response::Refused(refused)) => Err(refused),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(FetchFrom::Time(WallTime(0))), Ok(vec![0, 1, 2, 3, 4]));
    assert_eq!(fetch(FetchFrom::Time(WallTime(1_002_500))), Ok(vec![3, 4]));
    assert_eq!(fetch(FetchFrom::Time(WallTime(1_900_000))), Ok(vec![]));
    assert_eq!(fetch(FetchFrom::Id("m-2".parse().expect("an id"))), Ok(vec![2]));
    let unknown: MessageId = "x".parse().expect("an id");
    assert_eq!(fetch(FetchFrom::Id(unknown.clone())), Err(Refused::NoMessage(unknown)));
}

#[test]
fn a_message_that_is_too_old_is_not_found_by_its_id_and_no_other_is_given() {
    let mut node = Node::start(Disk::default());
    node.publish_on("short", lasting(SECOND));
    node.publish("long");
    node.sync();
    node.pass(SECOND);
    let short: MessageId = "short".parse().expect("an id");
    let (topic, partition, count_max, wait) = (topic(), 0, 100, Duration::ZERO);
    let from = FetchFrom::Id(short.clone());
    let id = node.request(Request::Fetch { topic, partition, from, count_max, wait });
    let refused = Some(Response::Refused(Refused::NoMessage(short)));
    assert_eq!(format!("{:?}", node.answers.remove(&id)), format!("{refused:?}"));
}

/// Publishes so many messages of which one delivery takes thirteen.
fn publish_long(node: &mut Node, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut draft = crate::world::draft(&format!("m-{number}"));
        draft.payload = vec![b'x'; 300_000].into();
        let (topic, terms) = (topic(), Terms::default());
        node.request(Request::Publish(Submission { source: Source(1), topic, draft, terms }));
    }
    node.sync();
}

#[test]
fn the_urgent_let_pass_what_was_not_read_before_what_comes_later() {
    let mut node = subscribed(DeliveryAsked::default());
    publish_long(&mut node, 0..20);
    let (subscription, wait) = (subscription(), Duration::ZERO);
    let id = node.request(Request::Pull { subscription, count_max: 20, wait });
    let Some(Response::Pulled(messages)) = node.answers.remove(&id) else {
        panic!("a pull without wait is answered at once");
    };
    let first = messages.len() as u64;
    assert!(first < 20, "some were leased and not read");
    publish_long(&mut node, 20..25);
    (0..12).for_each(|number| {
        node.publish_on(&format!("urgent-{number}"), urgent(9));
    });
    node.sync();
    let order = offsets(&mut node);
    let normal: Vec<u64> = order.into_iter().filter(|offset| *offset < 25).collect();
    assert_eq!(normal.first(), Some(&first));
    assert!(normal.is_sorted(), "{normal:?}");
}

#[test]
fn what_was_leased_and_not_read_keeps_its_place() {
    let mut node = subscribed(DeliveryAsked::default());
    publish_long(&mut node, 0..40);
    let mut order = Vec::new();
    while order.len() < 40 {
        let (subscription, wait) = (subscription(), Duration::ZERO);
        let id = node.request(Request::Pull { subscription, count_max: 1_000, wait });
        let Some(Response::Pulled(messages)) = node.answers.remove(&id) else {
            panic!("a pull without wait is answered at once");
        };
        assert!(!messages.is_empty(), "after {order:?}");
        order.extend(messages.iter().map(|message| message.record.header().offset.0));
        let tokens = messages.iter().map(|message| message.token).collect();
        settle(&mut node, tokens, Verdict::Ack);
        node.publish(&format!("more-{}", order.len()));
        node.sync();
    }
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_producers_number_tells_a_repeat_beyond_the_window_and_a_restart() {
    let mut node = Node::start(Disk::default());
    let numbered = |node: &mut Node, id: &str, number: u64| {
        let mut draft = crate::world::draft(id);
        let producer = "sensor-7".parse().expect("a name");
        draft.envelope.sequence = Some(Sequence { producer, number });
        let (source, terms) = (Source(1), Terms::default());
        node.request(Request::Publish(Submission { source, topic: topic(), draft, terms }))
    };
    let first = numbered(&mut node, "a", 1);
    let under_way = numbered(&mut node, "b", 1);
    assert!(node.answers.is_empty(), "neither is answered before the commit");
    node.sync();
    let published = |node: &mut Node, id| match node.answers.remove(&id) {
        Some(Response::Published { offset, duplicate, .. }) => (offset.0, duplicate),
        other => panic!("a publish was answered with {other:?}"),
    };
    assert_eq!(published(&mut node, first), (0, false));
    assert_eq!(published(&mut node, under_way), (0, true));
    let second = numbered(&mut node, "c", 5);
    node.sync();
    assert_eq!(published(&mut node, second), (1, false));
    for number in 0..20 {
        node.publish(&format!("other-{number}"));
        node.sync();
    }
    node.pass(Duration::from_secs(600));
    node.publish("much later");
    node.sync();
    let mut node = node.crash();
    let again = numbered(&mut node, "d", 5);
    assert_eq!(published(&mut node, again), (1, true), "ten minutes and a crash later");
    let passed = numbered(&mut node, "e", 4);
    match node.answers.remove(&passed) {
        Some(Response::Refused(Refused::NumberPassed { number: 4, newest: 5 })) => {}
        other => panic!("a number that was passed was answered with {other:?}"),
    }
    let next = numbered(&mut node, "f", 6);
    node.sync();
    assert_eq!(published(&mut node, next), (23, false));
}
