//! DeadLettersOnce: a message that could not be delivered to a subscription stands among the dead
//! letters once, as it was published.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::history::History;

/// A dead letter as it was read back.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetter {
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
    letters: BTreeMap<(String, u32, String), u64>,
    /// Topics whose dead letters a fault destroyed.
    damaged: BTreeSet<u32>,
}

impl Buried {
    /// Notes a dead letter, and checks it.
    pub(crate) fn take(&mut self, letter: DeadLetter, history: &History, findings: &Findings) {
        let DeadLetter { topic, offset, id, subscription, payload } = letter;
        let from = format!("{id} of {topic}/{offset} for {subscription}");
        match history.published.get(&id) {
            None => findings.violated("NoPhantom", format!("{from}: nobody published it")),
            Some(message) if message.topic != topic || message.payload != payload => {
                let detail = format!("{from} is not what was published");
                findings.violated("NoCorruptByteServed", detail);
            }
            Some(_) => {}
        }
        if let Some(before) = self.letters.insert((subscription, topic, id), offset) {
            let detail = format!("{from} stands twice among the dead letters, once of {before}");
            findings.violated("DeadLettersOnce", detail);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Published;

    fn broken(letters: &[(&str, &str, &[u8])]) -> Vec<&'static str> {
        let mut history = History::default();
        let message = Published { payload: b"p".to_vec(), ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let (mut buried, findings) = (Buried::default(), Findings::default());
        for &(subscription, id, payload) in letters {
            let (id, payload) = (id.to_owned(), payload.to_vec());
            let subscription = subscription.to_owned();
            let letter = DeadLetter { id, subscription, payload, ..DeadLetter::default() };
            buried.take(letter, &history, &findings);
        }
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_dead_letter_stands_there_once_for_each_subscription() {
        assert_eq!(broken(&[("s", "a", b"p"), ("t", "a", b"p")]), [""; 0]);
        assert_eq!(broken(&[("s", "a", b"p"), ("s", "a", b"p")]), ["DeadLettersOnce"]);
        assert_eq!(broken(&[("s", "b", b"p")]), ["NoPhantom"]);
        assert_eq!(broken(&[("s", "a", b"q")]), ["NoCorruptByteServed"]);
    }
}
