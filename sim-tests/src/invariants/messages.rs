//! NothingAckedIsLost, RefusedMeansAbsent, NoDuplicateId and StandsAsExpected: the clients' history
//! against what is read back at the end.

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

use super::Findings;
use crate::history::{History, Published, Seen, Try};

/// What was read back of one topic at the end, from its beginning.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    pub(crate) messages: Vec<Seen>,
    /// The first offset that was retained.
    pub(crate) start: Offset,
    /// When the last of it was read.
    pub(crate) at_ms: u64,
    /// A fault destroyed something of it: reading ended with a clear error.
    pub(crate) damaged: bool,
}

impl ReadBack {
    /// The message at a place.
    pub(super) fn at(&self, (partition, offset): (u32, Offset)) -> Option<&Seen> {
        self.messages.iter().find(|seen| (seen.partition, seen.offset) == (partition, offset))
    }
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
    if message.terms.expected.is_some_and(|expected| expected != first.1.0) {
        let detail = format!("{id} was acknowledged at {first:?}: {:?}", message.terms);
        findings.violated("StandsAsExpected", detail);
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
        if let Some((partition, offset)) = message.place()
            && !damaged
            && !is_over(history, message, offset, back)
        {
            let found = at.get(&(message.topic, partition, offset));
            if found != Some(&id.as_str()) {
                let place = format!("{}/{partition}/{offset}", message.topic);
                let detail = format!("{id} was acknowledged at {place}, where {found:?} stands");
                findings.violated("NothingAckedIsLost", detail);
            }
        }
        if message.is_refused() && at.values().any(|found| found == id) {
            findings.violated("RefusedMeansAbsent", format!("{id} was refused, and is there"));
        }
    }
}

/// Whether a message may have expired when it was read back, or was removed. Whether it may have
/// been removed is for NothingUnexpiredDeleted to say.
pub(super) fn is_over(
    history: &History,
    message: &Published,
    offset: Offset,
    back: &BTreeMap<u32, ReadBack>,
) -> bool {
    let Some(read) = back.get(&message.topic) else {
        return false;
    };
    let until = read.at_ms + history.tolerance_ms;
    offset < read.start || message.expires_from().is_some_and(|from| from <= until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(offset: u64) -> Try {
        Try::Acknowledged { partition: 0, offset: Offset(offset), duplicate: false }
    }

    fn history(tries: Vec<Try>) -> History {
        let payload = b"p".to_vec();
        let message = Published { payload, sent_ms: 50, tries, ..Published::default() };
        let mut history = History::default();
        history.published.insert("a".to_owned(), message);
        history
    }

    fn back(ids: &[&str], damaged: bool) -> BTreeMap<u32, ReadBack> {
        let message = |(offset, id): (u64, &&str)| Seen {
            id: (*id).to_owned(),
            offset: Offset(offset),
            payload: b"p".to_vec(),
            ..Seen::default()
        };
        let messages = (0..).zip(ids).map(message).collect();
        BTreeMap::from([(0, ReadBack { messages, damaged, ..ReadBack::default() })])
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
    fn a_conditional_message_stands_where_its_condition_says() {
        let mut acked = history(vec![acknowledged(0)]);
        acked.published.get_mut("a").expect("a message").terms.expected = Some(0);
        assert_eq!(broken(&acked, &back(&["a"], false)), [""; 0]);
        acked.published.get_mut("a").expect("a message").terms.expected = Some(1);
        assert_eq!(broken(&acked, &back(&["a"], false)), ["StandsAsExpected"]);
    }

    #[test]
    fn what_expired_or_was_removed_is_not_lost() {
        let mut acked = history(vec![acknowledged(0)]);
        let mut back = back(&[], false);
        let read = back.get_mut(&0).expect("it was read");
        read.start = Offset(1);
        assert_eq!(broken(&acked, &back), [""; 0]);
        back.insert(0, ReadBack { at_ms: 1_000, ..ReadBack::default() });
        acked.published.get_mut("a").expect("a message").terms.ttl_ms = Some(950);
        assert_eq!(broken(&acked, &back), [""; 0]);
        acked.published.get_mut("a").expect("a message").terms.ttl_ms = Some(951);
        assert_eq!(broken(&acked, &back), ["NothingAckedIsLost"]);
    }
}
