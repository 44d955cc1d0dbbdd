//! What the group's member keeps on its disk, and how it reads it back: whole, or not at all.
//!
//! Every value is a frame of the codec behind a CRC32C over what it is, where it stands and its
//! bytes, so that a value that is damaged or lies in the wrong place is never taken for another
//! one, nor for none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{ChangeIndex, ClusterId};
use sprawl_core::wire;
use sprawl_core::zoo::{Bug, planted};

use openraft::EntryPayload;

use super::kinds::{Agreed, Entry, LogId, Members, SnapshotMeta, Vote};
use crate::storage::{Cell, MetadataWrite, ReadError, Storage};

/// About how many bytes of the log are read at once.
const READ_BYTES: usize = 4 << 20;
/// How many bytes the checksum takes.
const CHECKSUM_BYTES: usize = 4;

/// Why the metadata do not read. Nothing of them was used.
#[derive(Debug, thiserror::Error)]
pub enum BadMetadata {
    /// The disk could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something is not what was written, or is missing.
    #[error(
        "the metadata are damaged: {what}: {why}. Nothing was changed; a node of a cluster is \
         replaced by one with an empty directory, a lone node is restored from a copy"
    )]
    Damaged {
        /// What.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Which member of which group a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct Membership {
    pub(crate) node: u64,
    pub(crate) cluster: ClusterId,
}

/// A snapshot as it is stored: what it covers, and the bytes of the view.
#[derive(Clone, Debug)]
pub(super) struct StoredSnapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) view: Bytes,
}

impl StoredSnapshot {
    /// Whether it covers more of the log than another one.
    pub(super) fn is_past(&self, other: &Self) -> bool {
        self.meta.last_log_id > other.meta.last_log_id
    }
}

/// All that a member keeps.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) membership: Option<Membership>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) log: BTreeMap<u64, Entry>,
    pub(super) snapshot: Option<StoredSnapshot>,
}

/// What the stored entries have led to.
#[derive(Clone, Default)]
pub(crate) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) members: Members,
    pub(crate) view: View,
}

impl Stored {
    /// Reads everything back.
    pub(crate) async fn load<S: Storage>(storage: &S) -> Result<Self, BadMetadata> {
        let stored = Self {
            membership: read(storage, Cell::Membership, "the membership").await?,
            vote: read(storage, Cell::Vote, "the vote").await?,
            committed: read(storage, Cell::Committed, "the committed place").await?,
            purged: read(storage, Cell::Purged, "the purged place").await?,
            log: log(storage).await?,
            snapshot: snapshot(storage).await?,
        };
        stored.check()?;
        Ok(stored)
    }

    /// The parts fit together: no hole between the snapshot and the log, nor within the log.
    fn check(&self) -> Result<(), BadMetadata> {
        let covered = self.snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
        if self.purged > covered {
            return Err(damaged("the log", "its beginning was purged, and no snapshot covers it"));
        }
        let mut next = self.purged.map_or(0, |purged| purged.index + 1);
        for &index in self.log.keys() {
            if index != next {
                return Err(damaged("the log", &format!("entry {next} is missing")));
            }
            next += 1;
        }
        let end = covered.map_or(0, |covered| covered.index + 1).max(next);
        if self.committed.is_some_and(|committed| committed.index >= end) {
            return Err(damaged("the log", &format!("it ends at {end}, and more was committed")));
        }
        if self.membership.is_none() && (end > 0 || self.vote.is_some()) {
            return Err(damaged("the membership", "it is missing, and there is a log or a vote"));
        }
        Ok(())
    }

    /// The cluster that the node belongs to.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.membership.map(|membership| membership.cluster)
    }

    /// Applies what is known to be committed.
    pub(crate) fn applied(&self) -> Result<Applied, BadMetadata> {
        let committed = self.committed.map_or(0, |committed| committed.index + 1);
        self.applied_below(committed)
    }

    /// Applies the whole log, also what may not be committed: all that this node can ever have
    /// seen agreed is in it.
    pub(crate) fn all(&self) -> Result<Applied, BadMetadata> {
        self.applied_below(u64::MAX)
    }

    fn applied_below(&self, below: u64) -> Result<Applied, BadMetadata> {
        let mut applied = Applied::default();
        if let Some(StoredSnapshot { meta, view }) = &self.snapshot {
            let view = View::restore(view);
            let view = view.map_err(|error| damaged("the snapshot", &error.to_string()))?;
            applied =
                Applied { last: meta.last_log_id, members: meta.last_membership.clone(), view };
        }
        let next = applied.last.map_or(0, |last| last.index + 1);
        if next < below {
            self.log.range(next..below).for_each(|(_, entry)| {
                applied.apply(entry);
            });
        }
        Ok(applied)
    }
}

impl Applied {
    /// Who votes.
    pub(super) fn voters(&self) -> impl Iterator<Item = u64> {
        self.members.membership().voter_ids()
    }

    /// The sets of voters of which each must agree by majority.
    pub(super) fn voter_sets(&self) -> &[BTreeSet<u64>] {
        self.members.membership().get_joint_config()
    }

    /// Applies the next entry; gives the change, if it is one.
    pub(super) fn apply<'a>(&mut self, entry: &'a Entry) -> Option<&'a Agreed> {
        self.last = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(agreed) => {
                self.view.apply(ChangeIndex(entry.log_id.index), &agreed.0);
                Some(agreed)
            }
            EntryPayload::Membership(members) => {
                self.members = Members::new(Some(entry.log_id), members.clone());
                None
            }
        }
    }
}

fn damaged(what: &str, why: &str) -> BadMetadata {
    BadMetadata::Damaged { what: what.to_owned(), why: why.to_owned() }
}

/// What a value is and where it stands, as it goes into its checksum.
fn place(kind: u8, index: u64) -> u32 {
    let mut place = [kind; 9];
    place[1..].copy_from_slice(&index.to_le_bytes());
    crc32c::crc32c(&place)
}

const ENTRY: u8 = b'e';

fn kind(cell: Cell) -> u8 {
    match cell {
        Cell::Membership => b'm',
        Cell::Vote => b'v',
        Cell::Committed => b'c',
        Cell::Purged => b'p',
        Cell::Snapshot => b's',
    }
}

fn seal(place: u32, frame: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(CHECKSUM_BYTES + frame.len());
    bytes.put_u32_le(crc32c::crc32c_append(place, frame));
    bytes.put_slice(frame);
    bytes.freeze()
}

/// The frame of a sealed value.
fn open(place: u32, bytes: &[u8]) -> Result<&[u8], String> {
    let (checksum, frame) =
        bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or("it is too short".to_owned())?;
    if u32::from_le_bytes(*checksum) == crc32c::crc32c_append(place, frame) {
        Ok(frame)
    } else {
        Err("its checksum does not match".to_owned())
    }
}

/// An entry, as it is written.
pub(super) fn write_entry(entry: &Entry) -> MetadataWrite {
    let index = entry.log_id.index;
    let bytes = seal(place(ENTRY, index), &wire::encode(entry));
    MetadataWrite::Entry(ChangeIndex(index), bytes)
}

/// A cell's new value, as it is written.
pub(super) fn write_cell<T: Serialize>(cell: Cell, value: &T) -> MetadataWrite {
    MetadataWrite::Cell(cell, seal(place(kind(cell), 0), &wire::encode(value)))
}

/// A snapshot, as it is written: its head and its body in one value.
pub(super) fn write_snapshot(StoredSnapshot { meta, view }: &StoredSnapshot) -> MetadataWrite {
    let head = wire::encode(meta);
    let mut bytes = BytesMut::with_capacity(CHECKSUM_BYTES + head.len() + view.len());
    bytes.put_u32_le(u32::try_from(head.len()).expect("a frame has a bound far below"));
    bytes.put_slice(&head);
    bytes.put_slice(view);
    MetadataWrite::Cell(Cell::Snapshot, seal(place(kind(Cell::Snapshot), 0), &bytes))
}

/// An entry, as it was written at its place.
pub(super) fn read_entry(ChangeIndex(index): ChangeIndex, bytes: &[u8]) -> Result<Entry, String> {
    let frame = open(place(ENTRY, index), bytes)?;
    let entry: Entry = wire::decode(frame).map_err(|error| error.to_string())?;
    match entry.log_id.index {
        own if own == index => Ok(entry),
        other => Err(format!("it is entry {other}")),
    }
}

/// A cell's value, as it was written.
pub(super) fn read_cell<T: DeserializeOwned>(cell: Cell, bytes: &[u8]) -> Result<T, String> {
    let frame = open(place(kind(cell), 0), bytes)?;
    wire::decode(frame).map_err(|error| error.to_string())
}

async fn read<S: Storage, T: DeserializeOwned>(
    storage: &S,
    cell: Cell,
    what: &str,
) -> Result<Option<T>, BadMetadata> {
    let Some(bytes) = storage.cell(cell).await? else {
        return Ok(None);
    };
    match read_cell(cell, &bytes) {
        Err(_) if planted(Bug::DamageTakenForNone) => Ok(None),
        read => read.map(Some).map_err(|why| damaged(what, &why)),
    }
}

async fn snapshot<S: Storage>(storage: &S) -> Result<Option<StoredSnapshot>, BadMetadata> {
    let damaged = |why: &str| damaged("the snapshot", why);
    let Some(bytes) = storage.cell(Cell::Snapshot).await? else {
        return Ok(None);
    };
    let body = open(place(kind(Cell::Snapshot), 0), &bytes).map_err(|why| damaged(&why))?;
    let (length, rest) = body.split_first_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (head, view) = rest.split_at_checked(length).ok_or_else(|| damaged("it is cut off"))?;
    let meta = wire::decode(head).map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(StoredSnapshot { meta, view: bytes.slice_ref(view) }))
}

async fn log<S: Storage>(storage: &S) -> Result<BTreeMap<u64, Entry>, BadMetadata> {
    let mut log: BTreeMap<u64, Entry> = BTreeMap::new();
    loop {
        let next = log.last_key_value().map_or(0, |(last, _)| last + 1);
        let part = storage.changes(ChangeIndex(next), READ_BYTES).await?;
        if part.is_empty() {
            return Ok(log);
        }
        for (index, bytes) in part {
            let entry = read_entry(index, &bytes);
            let entry = entry.map_err(|why| damaged(&format!("entry {index}"), &why))?;
            log.insert(index.0, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry as _;

    use super::super::kinds::Kinds;

    use super::*;

    fn place_of(index: u64) -> LogId {
        LogId::new(openraft::alias::CommittedLeaderIdOf::<Kinds>::new(1), index)
    }

    fn stored(log: std::ops::Range<u64>) -> Stored {
        let entry = |index| (index, Entry::new_blank(place_of(index)));
        let membership = Some(Membership { node: 0, cluster: ClusterId(1) });
        Stored { membership, log: log.map(entry).collect(), ..Stored::default() }
    }

    #[test]
    fn parts_that_fit_are_taken() {
        assert!(Stored::default().check().is_ok());
        assert!(stored(0..5).check().is_ok());
        let meta = SnapshotMeta { last_log_id: Some(place_of(7)), ..Default::default() };
        let snapshot = Some(StoredSnapshot { meta, view: Bytes::new() });
        let purged = Some(place_of(4));
        assert!(Stored { snapshot, purged, ..stored(5..9) }.check().is_ok());
    }

    #[test]
    fn what_is_missing_is_damage_and_never_nothing() {
        let mut hole = stored(0..5);
        hole.log.remove(&2);
        let no_beginning = stored(2..5);
        let no_snapshot = Stored { purged: Some(place_of(4)), ..stored(5..9) };
        let no_end = Stored { committed: Some(place_of(5)), ..stored(0..5) };
        let no_member = Stored { membership: None, ..stored(0..1) };
        for (what, damaged) in [
            ("a hole", hole),
            ("no beginning", no_beginning),
            ("no snapshot", no_snapshot),
            ("no end", no_end),
            ("no membership", no_member),
        ] {
            assert!(matches!(damaged.check(), Err(BadMetadata::Damaged { .. })), "{what}");
        }
    }

    #[test]
    fn a_value_is_good_in_its_place_only() {
        let sealed = seal(place(ENTRY, 7), b"entry");
        assert_eq!(open(place(ENTRY, 7), &sealed), Ok(&b"entry"[..]));
        assert!(open(place(ENTRY, 8), &sealed).is_err(), "another index");
        assert!(open(place(kind(Cell::Vote), 7), &sealed).is_err(), "another kind");
        for at in 0..sealed.len() {
            let mut bytes = sealed.to_vec();
            bytes[at] ^= 1;
            assert!(open(place(ENTRY, 7), &bytes).is_err(), "a flip at {at}");
            assert!(open(place(ENTRY, 7), &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
