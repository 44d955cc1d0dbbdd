//! NothingAckedIsLost, RefusedMeansAbsent, NoDuplicateId, SubscribedMeansFromHere and AtLeastOnce:
//! the clients' history against what is read back at the end.

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

use super::Findings;
use crate::history::{History, Published, Seen, Subscribed, Try};

/// What was read back of one topic at the end, from its beginning.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    pub(crate) messages: Vec<Seen>,
    /// A fault destroyed something of it: reading ended with a clear error.
    pub(crate) damaged: bool,
}

/// Checks all answers that one message's tries got against one another.
pub(crate) fn check_published(id: &str, message: &Published, findings: &Findings) {
    let Some(first) = message.place() else {
        return;
    };
    for one in &message.tries {
        if let Try::Acknowledged { partition, offset, .. } = one
            && (*partition, *offset) != first
        {
            let detail = format!("{id} was acknowledged at {first:?} and at {partition}/{offset}");
            findings.violated("NoDuplicateId", detail);
        }
    }
}

/// Checks the whole history against what was read back.
pub(crate) fn check_messages(
    history: &History,
    back: &BTreeMap<u32, ReadBack>,
    findings: &Findings,
) {
    let mut at: BTreeMap<(u32, u32, Offset), &str> = BTreeMap::new();
    for (&topic, read) in back {
        for seen in &read.messages {
            at.insert((topic, seen.partition, seen.offset), &seen.id);
        }
    }
    for (id, message) in &history.published {
        let damaged = back.get(&message.topic).is_some_and(|read| read.damaged);
        if let Some((partition, offset)) = message.place() {
            let found = at.get(&(message.topic, partition, offset));
            if found != Some(&id.as_str()) && !damaged {
                let place = format!("{}/{partition}/{offset}", message.topic);
                let detail = format!("{id} was acknowledged at {place}, where {found:?} stands");
                findings.violated("NothingAckedIsLost", detail);
            }
        }
        if message.is_refused() && at.values().any(|found| found == id) {
            findings.violated("RefusedMeansAbsent", format!("{id} was refused, and is there"));
        }
    }
    for (name, subscription) in &history.subscribed {
        check_subscription(name, subscription, history, back, findings);
    }
}

fn check_subscription(
    name: &str,
    subscription: &Subscribed,
    history: &History,
    back: &BTreeMap<u32, ReadBack>,
    findings: &Findings,
) {
    let Some(answered_ms) = subscription.answered_ms else {
        return;
    };
    for (topic, read) in back {
        if read.damaged || !subscription.topics.contains(topic) {
            continue;
        }
        for seen in &read.messages {
            if subscription.received.contains_key(&(*topic, seen.id.clone())) {
                continue;
            }
            let sent_ms = history.published.get(&seen.id).map_or(0, |message| message.sent_ms);
            if sent_ms > answered_ms {
                let detail = format!("{name} began at {answered_ms} ms; {} came never", seen.id);
                findings.violated("SubscribedMeansFromHere", detail);
            } else if !subscription.latest {
                let detail = format!("{name} never received {}, at {}", seen.id, seen.offset);
                findings.violated("AtLeastOnce", detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(offset: u64) -> Try {
        Try::Acknowledged { partition: 0, offset: Offset(offset), duplicate: false }
    }

    fn history(tries: Vec<Try>) -> History {
        let payload = b"p".to_vec();
        let message = Published { topic: 0, payload, sent_ms: 50, tries, open: 0 };
        let mut history = History::default();
        history.published.insert("a".to_owned(), message);
        history
    }

    fn back(ids: &[&str], damaged: bool) -> BTreeMap<u32, ReadBack> {
        let message = |(offset, id): (u64, &&str)| Seen {
            id: (*id).to_owned(),
            topic: 0,
            partition: 0,
            offset: Offset(offset),
            payload: b"p".to_vec(),
        };
        let messages = (0..).zip(ids).map(message).collect();
        BTreeMap::from([(0, ReadBack { messages, damaged })])
    }

    fn broken(history: &History, back: &BTreeMap<u32, ReadBack>) -> Vec<&'static str> {
        let findings = Findings::default();
        history.published.iter().for_each(|(id, one)| check_published(id, one, &findings));
        check_messages(history, back, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn an_acknowledged_message_is_there_or_its_topic_is_damaged() {
        let acked = history(vec![Try::Unknown, acknowledged(0)]);
        assert_eq!(broken(&acked, &back(&["a"], false)), [""; 0]);
        assert_eq!(broken(&acked, &back(&[], false)), ["NothingAckedIsLost"]);
        assert_eq!(broken(&acked, &back(&["b"], false)), ["NothingAckedIsLost"]);
        assert_eq!(broken(&acked, &back(&[], true)), [""; 0]);
    }

    #[test]
    fn a_refused_message_is_nowhere_and_an_unknown_one_anywhere() {
        let refused = history(vec![Try::Refused]);
        assert_eq!(broken(&refused, &back(&[], false)), [""; 0]);
        assert_eq!(broken(&refused, &back(&["a"], false)), ["RefusedMeansAbsent"]);
        let unknown = history(vec![Try::Refused, Try::Unknown]);
        assert_eq!(broken(&unknown, &back(&["a"], false)), [""; 0]);
    }

    #[test]
    fn one_message_has_one_place() {
        let moved = history(vec![acknowledged(0), acknowledged(1)]);
        assert_eq!(broken(&moved, &back(&["a", "a"], false)), ["NoDuplicateId"]);
    }

    #[test]
    fn a_subscription_receives_what_it_is_to() {
        let with = |answered_ms, latest, received: bool| {
            let mut history = history(vec![acknowledged(0)]);
            let mut subscribed = Subscribed {
                topics: vec![0],
                latest,
                answered_ms: Some(answered_ms),
                ..Default::default()
            };
            if received {
                subscribed.received.insert((0, "a".to_owned()), 1);
            }
            history.subscribed.insert("s".to_owned(), subscribed);
            broken(&history, &back(&["a"], false))
        };
        assert_eq!(with(10, true, true), [""; 0]);
        assert_eq!(with(10, true, false), ["SubscribedMeansFromHere"]);
        assert_eq!(with(90, true, false), [""; 0]);
        assert_eq!(with(90, false, false), ["AtLeastOnce"]);
        assert_eq!(with(90, false, true), [""; 0]);
    }
}
