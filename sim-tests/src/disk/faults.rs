//! What happens to a disk that no program asked for, and what is noted about every write.

use bytes::Bytes;
use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_io::storage::{Batch, Cell, MetadataWrite};

use super::{Moment, Platters, SimDisk, State};

impl State {
    /// A batch goes to the disk, synced or not: what it names is named for ever.
    pub(super) fn written(&mut self, batch: &Batch) {
        for store in &batch.stores {
            for record in &store.records {
                self.findings.lock().log.written(store.partition, record);
            }
        }
        for step in &batch.metadata {
            self.witness.iter().for_each(|tell| tell(Moment::Written, step));
        }
    }

    /// A batch is durable.
    pub(super) fn settle(&mut self, batch: &Batch) {
        for store in &batch.stores {
            if let Some(epoch) = store.accepted {
                self.platters.accepted.insert(store.partition, epoch);
            }
            if let Some(last) = store.cut_after {
                let gone = (store.partition, last.next())..=(store.partition, EntryIndex(u64::MAX));
                self.platters.log.extract_if(gone, |_, _| true).for_each(drop);
            }
            for record in &store.records {
                let place = (store.partition, record.header().index);
                self.platters.log.insert(place, record.bytes().clone());
                if !self.is_one_of_many {
                    self.findings.lock().log.durable(store.partition, record);
                }
            }
            if let Some(checkpoint) = &store.checkpoint {
                self.platters.states.insert(store.partition, checkpoint.bytes.clone());
            }
            let gives_way = store.cut_after == Some(EntryIndex(0));
            self.platters.installed += u64::from(gives_way && store.checkpoint.is_some());
            if let Some(cut) = store.cut {
                let kept = self.platters.log.split_off(&(store.partition, cut));
                self.platters.log.retain(|&(partition, _), _| partition != store.partition);
                self.platters.log.extend(kept);
                self.platters.cut.insert(store.partition);
            }
        }
        for erased in &batch.erased {
            self.platters.log.retain(|(partition, _), _| partition != erased);
            self.platters.states.remove(erased);
            self.platters.accepted.remove(erased);
            self.platters.cut.remove(erased);
        }
        for step in &batch.metadata {
            self.witness.iter().for_each(|tell| tell(Moment::Synced, step));
            match step.clone() {
                MetadataWrite::Entry(index, bytes) => {
                    self.platters.changes.insert(index, bytes);
                }
                MetadataWrite::Truncate(from) => drop(self.platters.changes.split_off(&from)),
                MetadataWrite::Purge(below) => {
                    self.platters.changes = self.platters.changes.split_off(&below);
                }
                MetadataWrite::Cell(cell, bytes) => {
                    self.platters.cells.insert(cell, bytes);
                }
            }
        }
    }
}

impl SimDisk {
    /// The process that had the disk open is dead. Of the batches that it had written and not
    /// synced, some first ones are there, each whole: mostly all when only the process died,
    /// because the operating system goes on writing, and seldom any when the power went.
    pub(crate) fn abandon(&self, power: bool) {
        let mut state = self.lock();
        state.opened += 1;
        state.fail_next_sync = false;
        let mut kept = true;
        for batch in std::mem::take(&mut state.platters.unsynced) {
            kept &= state.dice.percent(if power { 30 } else { 80 });
            if kept {
                state.settle(&batch);
            }
        }
    }

    /// It fails no more, and is as fast as ever.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        (state.full, state.fail_next_sync, state.stalled_until) = (false, false, None);
    }

    /// Turns a bit of a stored entry or state over, if that may happen to its partition; says what
    /// partition it is of.
    pub(crate) fn flip(
        &self,
        pick: u64,
        may: impl FnOnce(PartitionId) -> bool,
    ) -> Option<PartitionId> {
        let mut state = self.lock();
        let (entries, states) = (state.platters.log.len(), state.platters.states.len());
        let at = (pick as usize).checked_rem(entries + states)?;
        let of = match at.checked_sub(entries) {
            None => state.platters.log.keys().nth(at).map(|(partition, _)| *partition),
            Some(at) => state.platters.states.keys().nth(at).copied(),
        };
        let of = of.filter(|of| may(*of))?;
        let bit = pick.rotate_left(17);
        if at < entries {
            let (&(partition, index), bytes) =
                state.platters.log.iter().nth(at).expect("it was counted");
            let flipped = turn(bytes, bit);
            state.atlas.damage(partition);
            state.platters.log.insert((partition, index), flipped);
        } else {
            let (&partition, bytes) =
                state.platters.states.iter().nth(at - entries).expect("it was counted");
            let flipped = turn(bytes, bit);
            // A state is made from the log: while that is whole, nothing is lost with it.
            if state.platters.cut.contains(&partition) {
                state.atlas.damage(partition);
            }
            state.platters.states.insert(partition, flipped);
        }
        Some(of)
    }

    /// Puts an entry where another one stands, as if its write had gone there: at the same index
    /// of another partition, mostly, or elsewhere in its own. Says whose entry is gone.
    pub(crate) fn misdirect(&self, pick: u64) -> Option<PartitionId> {
        let mut state = self.lock();
        let log = &state.platters.log;
        let at = (pick as usize).checked_rem(log.len())?;
        let (&(from, index), bytes) = log.iter().nth(at).expect("it was counted");
        let others = log.keys().filter(|(partition, at)| *partition != from && *at == index);
        let own = log.keys().filter(|(partition, at)| *partition == from && *at != index);
        let others: Vec<_> = others.copied().collect();
        let places = if others.is_empty() { own.copied().collect() } else { others };
        let at = (pick.rotate_left(17) as usize).checked_rem(places.len())?;
        let (place, bytes) = (places[at], bytes.clone());
        state.atlas.damage(place.0);
        state.platters.log.insert(place, bytes);
        Some(place.0)
    }
}

impl SimDisk {
    /// Turns a bit of the metadata over: of a cell, mostly the snapshot where there is one, or of
    /// an entry of their log. Gives what it was, if there was anything.
    pub(crate) fn spoil(&self, pick: u64) -> Option<String> {
        let mut state = self.lock();
        let Platters { cells, changes, .. } = &mut state.platters;
        let bit = pick.rotate_left(17);
        if let Some(snapshot) = cells.get_mut(&Cell::Snapshot).filter(|_| pick & 3 < 2) {
            *snapshot = turn(snapshot, bit);
            return Some(format!("{:?}", Cell::Snapshot));
        }
        let at = (pick >> 2) as usize % (cells.len() + changes.len()).max(1);
        if let Some((cell, bytes)) = cells.iter_mut().nth(at) {
            *bytes = turn(bytes, bit);
            return Some(format!("{cell:?}"));
        }
        let (index, bytes) = changes.iter_mut().nth(at - cells.len())?;
        *bytes = turn(bytes, bit);
        Some(format!("entry {index}"))
    }
}

/// One bit of the bytes turned over: mostly towards the end, where an entry has its payload.
fn turn(bytes: &Bytes, pick: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let len = bytes.len();
    let from_end = if pick & 7 == 0 { len } else { len.div_ceil(4) };
    let at = len - 1 - (pick >> 8) as usize % from_end;
    bytes[at] ^= 1 << ((pick >> 3) & 7);
    bytes.into()
}
