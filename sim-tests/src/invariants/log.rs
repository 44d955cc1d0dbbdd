//! EpochIndexNamesOneEntry, OffsetsDense, NoDuplicateId, NumberStandsOnce, and the ground of
//! AckMeansDurable: all from what was written to the disk, never from what a node says.

use std::collections::BTreeMap;

use sprawl_core::broker::replica::{Body, Draft, Record};
use sprawl_core::ids::{EntryIndex, Epoch, Offset, PartitionId};

use crate::history::Number;
use crate::story::Story;

/// What is durable of a partition.
#[derive(Debug, Default)]
struct Durable {
    ids: BTreeMap<String, Offset>,
    /// Where each number of each producer stands.
    numbers: BTreeMap<Number, Offset>,
    messages: Vec<Draft>,
}

/// Everything that was ever written, and everything that is durable.
#[derive(Debug, Default)]
pub(crate) struct Log {
    written: BTreeMap<(PartitionId, Epoch, EntryIndex), u32>,
    durable: BTreeMap<PartitionId, Durable>,
    violations: BTreeMap<&'static str, String>,
    story: Story,
}

impl Log {
    /// One whose violations are told.
    pub(crate) fn telling(story: Story) -> Self {
        Self { story, ..Self::default() }
    }

    fn violated(&mut self, invariant: &'static str, detail: String) {
        super::note(&mut self.violations, &self.story, invariant, detail);
    }

    pub(crate) fn violations(&self) -> &BTreeMap<&'static str, String> {
        &self.violations
    }

    /// An entry went to the disk, synced or not.
    pub(crate) fn written(&mut self, partition: PartitionId, record: &Record) {
        let header = record.header();
        let place = (partition, header.epoch, header.index);
        let before = self.written.insert(place, record.checksum());
        if before.is_some_and(|before| before != record.checksum()) {
            let (epoch, index) = (header.epoch, header.index);
            let detail =
                format!("partition {partition}: epoch {epoch}, index {index} is two things");
            self.violated("EpochIndexNamesOneEntry", detail);
        }
    }

    /// An entry is durable.
    pub(crate) fn durable(&mut self, partition: PartitionId, record: &Record) {
        let Ok(Body::Message(draft)) = record.body() else {
            return;
        };
        let (id, offset) = (draft.envelope.id.to_string(), record.header().offset);
        let held = self.durable.entry(partition).or_default();
        let (next, before) = (held.messages.len() as u64, held.ids.get(&id).copied());
        held.ids.entry(id.clone()).or_insert(offset);
        let number = draft.envelope.sequence.as_ref().and_then(|sequence| {
            let (producer, number) = (sequence.producer.to_string(), sequence.number);
            let number = Number { producer, number };
            let before = *held.numbers.entry(number.clone()).or_insert(offset);
            (before != offset).then_some((number, before))
        });
        held.messages.push(draft);
        if offset.0 != next {
            let detail = format!("partition {partition}: offset {offset} after {next} messages");
            self.violated("OffsetsDense", detail);
        }
        if let Some(before) = before {
            let detail = format!("partition {partition}: {id} stands at {before} and at {offset}");
            self.violated("NoDuplicateId", detail);
        }
        if let Some((number, before)) = number {
            let detail =
                format!("partition {partition}: {number:?} stands at {before} and at {offset}");
            self.violated("NumberStandsOnce", detail);
        }
    }

    /// A success is about to leave the node: the disk must have the message, or another of the
    /// same number.
    pub(crate) fn acknowledged(&mut self, partition: PartitionId, offset: Offset, message: &Draft) {
        let held = self.durable.get(&partition);
        let id = &message.envelope.id;
        match held.and_then(|held| held.messages.get(offset.0 as usize)) {
            None => {
                let detail = format!("partition {partition}: {id} at {offset} is not on the disk");
                self.violated("AckMeansDurable", detail);
            }
            Some(stored) if !is_same(stored, message) => {
                let stored = &stored.envelope.id;
                let detail = format!("partition {partition}: {offset} is {stored}, not {id}");
                self.violated("AckBindsContent", detail);
            }
            Some(_) => {}
        }
    }
}

/// Whether two tries are of one message, by its id or its number.
fn is_same(one: &Draft, other: &Draft) -> bool {
    let numbered = one.envelope.sequence.is_some();
    let same_number = numbered && one.envelope.sequence == other.envelope.sequence;
    one.payload == other.payload && (one.envelope.id == other.envelope.id || same_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sprawl_core::broker::replica::{Envelope, Header, Timing};
    use sprawl_core::ids::Sequence;
    use sprawl_core::machine::WallTime;

    const P: PartitionId = PartitionId(1);

    fn draft(id: &str, number: Option<u64>, payload: &str) -> Draft {
        let producer = "p".parse().expect("a name");
        let envelope = Envelope {
            id: id.parse().expect("an id"),
            key: None,
            sequence: number.map(|number| Sequence { producer, number }),
            content_type: None,
            headers: Vec::new(),
        };
        Draft { envelope, payload: payload.to_owned().into_bytes().into() }
    }

    fn record(epoch: u64, index: u64, offset: u64, id: &str) -> Record {
        sealed(epoch, index, offset, draft(id, None, id))
    }

    fn sealed(epoch: u64, index: u64, offset: u64, draft: Draft) -> Record {
        let header = Header {
            epoch: Epoch(epoch),
            index: EntryIndex(index),
            offset: Offset(offset),
            time: WallTime(0),
            is_message: true,
            timing: Timing::default(),
        };
        Record::seal(P, header, &Body::Message(draft))
    }

    fn broken(log: &Log) -> Vec<&'static str> {
        log.violations.keys().copied().collect()
    }

    #[test]
    fn a_good_log_is_good() {
        let mut log = Log::default();
        for (index, id) in (0..).zip(["a", "b", "c"]) {
            log.written(P, &record(1, index + 1, index, id));
            log.durable(P, &record(1, index + 1, index, id));
        }
        log.written(P, &record(2, 3, 2, "d"));
        log.acknowledged(P, Offset(1), &draft("b", None, "b"));
        assert_eq!(broken(&log), [""; 0]);
    }

    #[test]
    fn each_bad_log_breaks_its_invariant() {
        let mut log = Log::default();
        log.written(P, &record(1, 1, 0, "a"));
        log.written(P, &record(1, 1, 0, "b"));
        assert_eq!(broken(&log), ["EpochIndexNamesOneEntry"]);

        let mut log = Log::default();
        log.durable(P, &record(1, 1, 0, "a"));
        log.durable(P, &record(1, 2, 2, "b"));
        assert_eq!(broken(&log), ["OffsetsDense"]);

        let mut log = Log::default();
        log.durable(P, &record(1, 1, 0, "a"));
        log.durable(P, &record(1, 2, 1, "a"));
        assert_eq!(broken(&log), ["NoDuplicateId"]);

        let mut log = Log::default();
        log.durable(P, &record(1, 1, 0, "a"));
        log.acknowledged(P, Offset(1), &draft("b", None, "b"));
        assert_eq!(broken(&log), ["AckMeansDurable"]);
        log.acknowledged(P, Offset(0), &draft("b", None, "b"));
        assert_eq!(broken(&log), ["AckBindsContent", "AckMeansDurable"]);
    }

    #[test]
    fn a_number_stands_once_whatever_the_ids() {
        let log = |second: Draft, answered: Draft| {
            let mut log = Log::default();
            log.durable(P, &sealed(1, 1, 0, draft("a", Some(7), "x")));
            log.durable(P, &sealed(1, 2, 1, second));
            log.acknowledged(P, Offset(0), &answered);
            broken(&log)
        };
        let next = || draft("b", Some(8), "y");
        assert_eq!(log(next(), draft("c", Some(7), "x")), [""; 0]);
        assert_eq!(log(draft("b", Some(7), "x"), next()), ["AckBindsContent", "NumberStandsOnce"]);
        assert_eq!(log(next(), draft("c", Some(7), "z")), ["AckBindsContent"]);
        assert_eq!(log(next(), draft("c", Some(8), "x")), ["AckBindsContent"]);
    }
}
