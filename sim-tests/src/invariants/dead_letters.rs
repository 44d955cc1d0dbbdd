//! DeadLettersOnce: a message that could not be delivered to a subscription stands among the dead
//! letters once, as it was published.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::history::History;

/// A dead letter as it was read back.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetter {
    /// Where it stands among the dead letters of its topic.
    pub(crate) place: u64,
    /// Where it comes from.
    pub(crate) topic: u32,
    pub(crate) offset: u64,
    pub(crate) id: String,
    pub(crate) subscription: String,
    pub(crate) payload: Vec<u8>,
}

/// The dead letters of all topics.
#[derive(Debug, Default)]
pub(crate) struct Buried {
    /// Where each stands, by subscription, topic and id.
    letters: BTreeMap<(String, u32, String), u64>,
    /// Topics whose dead letters a fault destroyed.
    damaged: BTreeSet<u32>,
}

impl Buried {
    /// Notes a dead letter; says where else it stands, if it does.
    fn note(&mut self, letter: DeadLetter) -> Option<u64> {
        let DeadLetter { place, topic, id, subscription, .. } = letter;
        let before = self.letters.insert((subscription, topic, id), place);
        before.filter(|before| *before != place)
    }

    /// Something of a topic's dead letters is destroyed: nobody knows what stood there.
    pub(crate) fn damage(&mut self, topic: u32) {
        self.damaged.insert(topic);
    }

    /// Whether a subscription's message stands there, or may have.
    pub(crate) fn has(&self, subscription: &str, topic: u32, id: &str) -> bool {
        let place = (subscription.to_owned(), topic, id.to_owned());
        self.damaged.contains(&topic) || self.letters.contains_key(&place)
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    #[cfg(test)]
    pub(crate) fn of(subscription: &str, topic: u32, id: &str) -> Self {
        let place = (subscription.to_owned(), topic, id.to_owned());
        Self { letters: BTreeMap::from([(place, 0)]), ..Self::default() }
    }
}

/// Notes a dead letter that was read, and checks it.
pub(crate) fn check_letter(history: &mut History, letter: DeadLetter, findings: &Findings) {
    let DeadLetter { place, topic, offset, id, subscription, payload } = &letter;
    let from = format!("{id} of {topic}/{offset} for {subscription}, at {place},");
    match history.published.get(id) {
        None => findings.violated("NoPhantom", format!("{from} was published by nobody")),
        Some(message) if message.topic != *topic || message.payload != *payload => {
            let detail = format!("{from} is not what was published");
            findings.violated("NoCorruptByteServed", detail);
        }
        Some(_) => {}
    }
    if let Some(before) = history.buried.note(letter) {
        let detail = format!("{from} stands among the dead letters at {before} too");
        findings.violated("DeadLettersOnce", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Published;

    fn broken(letters: &[(u64, &str, &str, &[u8])]) -> Vec<&'static str> {
        let mut history = History::default();
        let message = Published { payload: b"p".to_vec(), ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let findings = Findings::default();
        for &(place, subscription, id, payload) in letters {
            let (id, payload) = (id.to_owned(), payload.to_vec());
            let subscription = subscription.to_owned();
            let letter = DeadLetter { place, id, subscription, payload, ..DeadLetter::default() };
            check_letter(&mut history, letter, &findings);
        }
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_dead_letter_stands_there_once_for_each_subscription() {
        assert_eq!(broken(&[(0, "s", "a", b"p"), (1, "t", "a", b"p")]), [""; 0]);
        assert_eq!(broken(&[(0, "s", "a", b"p"), (0, "s", "a", b"p")]), [""; 0], "read twice");
        assert_eq!(broken(&[(0, "s", "a", b"p"), (1, "s", "a", b"p")]), ["DeadLettersOnce"]);
        assert_eq!(broken(&[(0, "s", "b", b"p")]), ["NoPhantom"]);
        assert_eq!(broken(&[(0, "s", "a", b"q")]), ["NoCorruptByteServed"]);
    }
}
