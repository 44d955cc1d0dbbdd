//! EpochIndexNamesOneEntry, OffsetsDense, NoDuplicateId, and the ground of AckMeansDurable: all
//! from what was written to the disk, never from what a node says.

use std::collections::BTreeMap;

use sprawl_core::broker::replica::{Body, Record};
use sprawl_core::ids::{EntryIndex, Epoch, Offset, PartitionId};

/// What is durable of a partition.
#[derive(Debug, Default)]
struct Durable {
    ids: BTreeMap<String, Offset>,
    /// The id and the payload's digest at each offset.
    messages: Vec<(String, Vec<u8>)>,
}

/// Everything that was ever written, and everything that is durable.
#[derive(Debug, Default)]
pub(crate) struct Log {
    written: BTreeMap<(PartitionId, Epoch, EntryIndex), u32>,
    durable: BTreeMap<PartitionId, Durable>,
    violations: BTreeMap<&'static str, String>,
}

impl Log {
    fn violated(&mut self, invariant: &'static str, detail: String) {
        self.violations.entry(invariant).or_insert(detail);
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
        held.messages.push((id.clone(), draft.payload.to_vec()));
        held.ids.entry(id.clone()).or_insert(offset);
        if offset.0 != next {
            let detail = format!("partition {partition}: offset {offset} after {next} messages");
            self.violated("OffsetsDense", detail);
        }
        if let Some(before) = before {
            let detail = format!("partition {partition}: {id} stands at {before} and at {offset}");
            self.violated("NoDuplicateId", detail);
        }
    }

    /// A success is about to leave the node: the disk must have the message.
    pub(crate) fn acknowledged(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        id: &str,
        payload: &[u8],
    ) {
        let held = self.durable.get(&partition);
        match held.and_then(|held| held.messages.get(offset.0 as usize)) {
            None => {
                let detail = format!("partition {partition}: {id} at {offset} is not on the disk");
                self.violated("AckMeansDurable", detail);
            }
            Some((stored, content)) if stored != id || content != payload => {
                let detail = format!("partition {partition}: {offset} is {stored}, not {id}");
                self.violated("AckBindsContent", detail);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sprawl_core::broker::replica::{Draft, Envelope, Header, Timing};
    use sprawl_core::machine::WallTime;

    const P: PartitionId = PartitionId(1);

    fn record(epoch: u64, index: u64, offset: u64, id: &str) -> Record {
        let envelope = Envelope {
            id: id.parse().expect("an id"),
            key: None,
            sequence: None,
            content_type: None,
            headers: Vec::new(),
        };
        let header = Header {
            epoch: Epoch(epoch),
            index: EntryIndex(index),
            offset: Offset(offset),
            time: WallTime(0),
            is_message: true,
            timing: Timing::default(),
        };
        let payload = id.to_owned().into_bytes().into();
        Record::seal(P, header, &Body::Message(Draft { envelope, payload }))
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
        log.acknowledged(P, Offset(1), "b", b"b");
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
        log.acknowledged(P, Offset(1), "b", b"b");
        assert_eq!(broken(&log), ["AckMeansDurable"]);
        log.acknowledged(P, Offset(0), "b", b"b");
        assert_eq!(broken(&log), ["AckBindsContent", "AckMeansDurable"]);
    }
}
