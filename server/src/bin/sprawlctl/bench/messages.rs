//! What is published: messages whose ids say which turn of the schedule they belong to.

use std::ops::Range;

use serde_json::json;

use crate::random;

/// How many different beginnings payloads have, so that they do not compress as repeats.
const VARIETY: usize = 64 << 10;
/// The digits of base64: text that JSON writes as it is.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

/// The messages of one run.
#[derive(Debug)]
pub(super) struct Messages {
    run: String,
    /// The topics, all of this run alone.
    pub(super) topics: Vec<String>,
    text: String,
    size: usize,
}

impl Messages {
    pub(super) fn new(topics: u64, size: usize) -> anyhow::Result<Self> {
        let run = random::run()?;
        let topics = (0..topics).map(|number| format!("sprawlctl-bench.{run}.{number}")).collect();
        let noise = random::bytes(VARIETY + size)?;
        let text = noise.iter().map(|byte| char::from(DIGITS[usize::from(byte % 64)])).collect();
        Ok(Self { run, topics, text, size })
    }

    /// One message as JSON.
    pub(super) fn body(&self, number: u64) -> String {
        let topics = u64::try_from(self.topics.len()).unwrap_or(u64::MAX);
        let topic = usize::try_from(number % topics).unwrap_or(0);
        // An odd step reaches every beginning before one comes again.
        let at = usize::try_from(number.wrapping_mul(40_503) % VARIETY as u64).unwrap_or(0);
        let (topic, payload) = (&self.topics[topic], &self.text[at..at + self.size]);
        format!(r#"{{"topic":"{topic}","id":"{}-{number}","payload":"{payload}"}}"#, self.run)
    }

    /// Several messages, one JSON object a line.
    pub(super) fn lines(&self, numbers: &[u64]) -> String {
        numbers.iter().map(|number| self.body(*number) + "\n").collect()
    }

    /// A message that makes a topic exist, before anything is measured.
    pub(super) fn first(&self, topic: &str) -> serde_json::Value {
        json!({ "topic": topic, "id": format!("{}-first-{topic}", self.run), "payload": "" })
    }

    /// The number of a message of this run, by its id.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(self.run.as_str())?.strip_prefix('-')?.parse().ok()
    }

    /// The name of the subscription that follows a part of the topics.
    pub(super) fn subscription(&self, part: usize) -> String {
        format!("sprawlctl-bench.{}.{part}", self.run)
    }
}

/// A set of messages by their numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    words: Vec<u64>,
    range: Range<u64>,
}

impl Numbers {
    /// The empty set, of numbers below `end`.
    pub(super) fn below(end: u64) -> Self {
        let words = usize::try_from(end.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], range: 0..end }
    }

    /// Adds a number; gives whether it is new. One beyond the end is not.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if !self.range.contains(&number) {
            return false;
        }
        let word = usize::try_from(number / 64).ok().and_then(|at| self.words.get_mut(at));
        let Some(word) = word else { return false };
        let (before, bit) = (*word, 1 << (number % 64));
        *word |= bit;
        before & bit == 0
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many of these the other set lacks.
    pub(super) fn lacking_in(&self, other: &Self) -> u64 {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(mine, its)| u64::from((mine & !its).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_number_and_has_its_size() {
        let messages = Messages::new(3, 100).expect("messages");
        for number in [0, 1, 2, 65_535, u64::MAX] {
            let body: serde_json::Value =
                serde_json::from_str(&messages.body(number)).expect("JSON");
            assert_eq!(messages.number(body["id"].as_str().expect("an id")), Some(number));
            assert_eq!(body["payload"].as_str().map(str::len), Some(100));
            let topic = &messages.topics[usize::try_from(number % 3).expect("small")];
            assert_eq!(body["topic"], topic.as_str());
        }
        let first = messages.first(&messages.topics[0]);
        assert_eq!(messages.number(first["id"].as_str().expect("an id")), None);
        assert_eq!(messages.lines(&[4, 5]).lines().count(), 2);
    }

    #[test]
    fn a_set_of_numbers_counts_each_once() {
        let (mut some, mut others) = (Numbers::below(130), Numbers::below(130));
        for (number, new) in [(0, true), (129, true), (0, false), (130, false), (64, true)] {
            assert_eq!(some.insert(number), new, "{number}");
        }
        assert_eq!(some.count(), 3);
        assert_eq!(some.lacking_in(&others), 3);
        others.insert(129);
        others.insert(1);
        assert_eq!((some.lacking_in(&others), others.lacking_in(&some)), (2, 1));
    }
}
