//! The laws of [`Storage`], as a suite that every implementation passes.
//!
//! Each law is one function that begins with an empty disk. A law that does not hold panics and
//! says what was expected.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sprawl_core::broker::replica::{Checkpoint, Record};
use sprawl_core::ids::{ChangeIndex, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::{Store, WallTime};

use self::log::Log;
use self::metadata::{
    a_cell_holds_its_newest_value, changes_come_in_order, entry,
    the_metadata_log_is_cut_at_both_ends,
};
use super::{Batch, Disk, ReadError, ReadRange, Storage};

mod log;
mod metadata;

/// How many pages a scan takes at most before the suite says that it does not end.
const PAGES_MAX: usize = 10_000;
/// The payload of the law of large messages, in bytes.
const LARGE_BYTES: usize = 20 << 20;

/// Makes the disks that the suite runs on.
///
/// The suite drops every storage that it opened from a disk before it hands the disk back.
pub trait Bench {
    /// The kind of disk.
    type Disk: Disk;

    /// An empty disk.
    fn fresh(&mut self) -> impl Future<Output = Self::Disk>;

    /// The disk as another process finds it, after this one has ended without a farewell.
    fn restart(&mut self, disk: Self::Disk) -> impl Future<Output = Self::Disk>;

    /// The disk after power was lost; `None` where that cannot be brought about.
    fn lose_power(&mut self, disk: Self::Disk) -> impl Future<Output = Option<Self::Disk>>;

    /// The disk after one bit of a stored entry has flipped.
    fn damage(
        &mut self,
        disk: Self::Disk,
        partition: PartitionId,
        index: EntryIndex,
    ) -> impl Future<Output = Self::Disk>;
}

/// Checks all laws.
///
/// # Panics
///
/// When one does not hold.
pub async fn check<B: Bench>(bench: &mut B) {
    an_empty_disk_is_empty(bench).await;
    a_batch_is_there_as_a_whole(bench).await;
    an_abandoned_batch_is_whole_or_absent(bench).await;
    power_takes_nothing_that_was_committed(bench).await;
    reads_go_by_offset_and_step_over_notes(bench).await;
    reads_keep_to_their_bounds(bench).await;
    a_log_may_begin_late(bench).await;
    a_large_message_comes_back(bench).await;
    the_newest_state_counts(bench).await;
    changes_come_in_order(bench).await;
    the_metadata_log_is_cut_at_both_ends(bench).await;
    a_cell_holds_its_newest_value(bench).await;
    scans_page_through_one_partition(bench).await;
    partitions_do_not_mix(bench).await;
    a_damaged_message_is_never_served(bench).await;
    a_damaged_note_hides_no_other_message(bench).await;
    handles_share_one_disk(bench).await;
    a_closed_disk_opens_again(bench).await;
    what_is_cut_is_gone_and_nothing_else(bench).await;
    a_suffix_is_replaced_in_one_batch(bench).await;
    a_log_gives_way_to_a_state_and_one_that_begins_later(bench).await;
    the_newest_accepted_epoch_counts(bench).await;
    an_erased_partition_leaves_nothing(bench).await;
    times_are_found(bench).await;
}

/// Unwraps what must succeed here.
fn ok<R, E: Display>(what: &str, result: Result<R, E>) -> R {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Compares without printing megabytes.
fn same<R: PartialEq + Debug>(what: &str, found: &[R], expected: &[R]) {
    let at = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    assert!(
        found == expected,
        "{what}: {} found, {} expected, the first difference is at {at}",
        found.len(),
        expected.len(),
    );
}

async fn open<D: Disk>(disk: &D) -> D::Storage {
    ok("the disk opens", disk.open().await)
}

async fn commit(storage: &impl Storage, batch: &Batch) {
    ok("a batch is committed", storage.commit(batch).await);
}

async fn read(storage: &impl Storage, range: ReadRange) -> Vec<Record> {
    ok("a read succeeds", storage.read(range).await)
}

/// The whole log by pages of about `bytes_max`.
async fn scan(
    storage: &impl Storage,
    partition: PartitionId,
    mut from: EntryIndex,
    bytes_max: usize,
) -> Vec<(EntryIndex, Bytes)> {
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = ok("a scan succeeds", storage.scan(partition, from, bytes_max).await);
        let Some((last, _)) = page.last() else {
            return all;
        };
        from = last.next();
        all.extend(page);
    }
    panic!("a scan of partition {partition} does not end");
}

/// Everything of a log is there, by reads and by scans.
async fn holds(storage: &impl Storage, log: &Log) {
    let range = log.from(0);
    same("messages", &read(storage, range).await, &log.expected(&range));
    let raw = log.raw(EntryIndex(0));
    let found = scan(storage, log.partition, EntryIndex(0), usize::MAX).await;
    same("entries", &found, &raw);
}

fn state(partition: PartitionId, applied: u64, bytes: &str) -> Store {
    let bytes = Bytes::from(bytes.to_owned());
    let (applied, from) = (EntryIndex(applied), EntryIndex(applied + 1));
    let checkpoint = Some(Checkpoint { applied, from, bytes });
    Store { checkpoint, ..Store::of(partition) }
}

async fn an_empty_disk_is_empty<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let log = Log::new(7);
    commit(&storage, &Batch::default()).await;
    assert!(read(&storage, log.from(0)).await.is_empty(), "a message on an empty disk");
    assert!(scan(&storage, log.partition, EntryIndex(0), 1).await.is_empty(), "an entry");
    let partitions = ok("partitions", storage.partitions().await);
    assert!(partitions.is_empty(), "partitions on an empty disk: {partitions:?}");
    let state = ok("a state", storage.checkpoint(log.partition).await);
    assert!(state.is_none(), "a state on an empty disk");
    let changes = ok("changes", storage.changes(ChangeIndex(1), 1).await);
    assert!(changes.is_empty(), "changes on an empty disk");
    let usage = ok("usage", storage.usage().await);
    assert!(usage.used <= usage.capacity && usage.capacity > 0, "{usage:?}");
}

async fn a_batch_is_there_as_a_whole<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let logs: Vec<_> = (1..=3).map(|partition| Log::mixed(partition, 10, 4)).collect();
    let change = (ChangeIndex(1), Bytes::from_static(b"change"));
    let mut batch = Batch { metadata: vec![entry(&change)], ..Batch::default() };
    for log in &logs {
        batch.stores.extend([log.part(0, 5), state(log.partition, 5, "five"), log.part(5, 10)]);
    }
    let storage = open(&disk).await;
    commit(&storage, &batch).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    for log in &logs {
        holds(&storage, log).await;
        let state = ok("a state", storage.checkpoint(log.partition).await);
        assert_eq!(state.as_deref(), Some(&b"five"[..]), "partition {}", log.partition);
    }
    same("changes", &ok("changes", storage.changes(ChangeIndex(1), 1).await), &[change]);
}

/// Whoever commits may end in the middle of it. What came before stays.
async fn an_abandoned_batch_is_whole_or_absent<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let (log, other) = (Log::mixed(1, 40, 7), Log::mixed(2, 40, 7));
    let first = Batch { stores: vec![log.part(0, 20)], ..Batch::default() };
    let second = Batch { stores: vec![log.part(20, 40), other.store()], ..Batch::default() };
    let storage = open(&disk).await;
    commit(&storage, &first).await;
    {
        let mut abandoned = pin!(storage.commit(&second));
        if let Poll::Ready(result) =
            abandoned.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            ok("a batch is committed", result);
        }
    }
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    let found = scan(&storage, log.partition, EntryIndex(1), usize::MAX).await;
    let of_other = scan(&storage, other.partition, EntryIndex(1), usize::MAX).await;
    if of_other.is_empty() {
        same("the first batch alone", &found, &log.raw(EntryIndex(1))[..20]);
    } else {
        same("the second batch in one log", &found, &log.raw(EntryIndex(1)));
        same("the second batch in the other", &of_other, &other.raw(EntryIndex(1)));
    }
}

async fn power_takes_nothing_that_was_committed<B: Bench>(bench: &mut B) {
    let mut disk = bench.fresh().await;
    let log = Log::mixed(3, 60, 9);
    for part in 0..3 {
        let storage = open(&disk).await;
        for place in part * 20..(part + 1) * 20 {
            let append = log.part(place, place + 1);
            commit(&storage, &Batch { stores: vec![append], ..Batch::default() }).await;
        }
        drop(storage);
        let Some(powered) = bench.lose_power(disk).await else {
            return;
        };
        disk = powered;
        let storage = open(&disk).await;
        let found = scan(&storage, log.partition, EntryIndex(1), usize::MAX).await;
        same("entries after a power failure", &found, &log.raw(EntryIndex(1))[..(part + 1) * 20]);
    }
}

async fn reads_go_by_offset_and_step_over_notes<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    for (partition, notes) in [(1, 1_000), (2, 5), (3, 2), (4, 1)] {
        let log = Log::mixed(partition, 60, notes);
        commit(&storage, &log.batch()).await;
        for from in 0..=60 {
            for below in [EntryIndex(1), EntryIndex(2), EntryIndex(31), log.end()] {
                let range = ReadRange { below, ..log.from(from) };
                let what = format!("partition {partition} from {from} below {below}");
                same(&what, &read(&storage, range).await, &log.expected(&range));
            }
        }
    }
}

async fn reads_keep_to_their_bounds<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let mut log = Log::new(1);
    for size in [100, 1, 0, 3_000, 50, 50, 0, 200] {
        log.message(vec![7; size]);
        log.note();
    }
    commit(&storage, &log.batch()).await;
    for from in 0..8 {
        for count_max in [1, 2, 3, usize::MAX] {
            for bytes_max in [0, 1, 100, 250, 500, 4_000, usize::MAX] {
                let range = ReadRange { count_max, bytes_max, ..log.from(from) };
                let what = format!("from {from}, {count_max} messages, {bytes_max} bytes");
                same(&what, &read(&storage, range).await, &log.expected(&range));
            }
        }
    }
}

/// What retention or a snapshot cut off is not missed, and indexes of all lengths sort right.
async fn a_log_may_begin_late<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    for (partition, index, offset) in [(1, 250, 200), (2, 65_530, 65_000), (3, u64::MAX >> 8, 9)] {
        let mut log = Log::starting(partition, EntryIndex(index), Offset(offset));
        for entry in 0..12 {
            log.message(format!("message {entry}"));
            if entry % 3 == 1 {
                log.note();
            }
        }
        commit(&storage, &log.batch()).await;
        holds(&storage, &log).await;
        for from in [0, offset, offset + 5, offset + 11, offset + 12] {
            let range = log.from(from);
            same("a late log", &read(&storage, range).await, &log.expected(&range));
        }
    }
}

async fn a_large_message_comes_back<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let mut log = Log::new(1);
    log.message("before");
    let payload: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
    log.message(payload);
    log.message("after");
    commit(&storage, &log.batch()).await;
    holds(&storage, &log).await;
    for from in 0..3 {
        let range = ReadRange { bytes_max: 1_000, ..log.from(from) };
        same("beside a large one", &read(&storage, range).await, &log.expected(&range));
    }
    drop(storage);
    let disk = bench.restart(disk).await;
    holds(&open(&disk).await, &log).await;
}

async fn the_newest_state_counts<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let partition = PartitionId(5);
    let newest = async |storage: &<B::Disk as Disk>::Storage| {
        ok("a state", storage.checkpoint(partition).await)
    };
    let batch = |stores| Batch { stores, ..Batch::default() };
    commit(&storage, &batch(vec![state(partition, 1, "one")])).await;
    assert_eq!(newest(&storage).await.as_deref(), Some(&b"one"[..]));
    let both = vec![state(partition, 2, "two, which is longer"), state(partition, 3, "3")];
    commit(&storage, &batch(both)).await;
    assert_eq!(newest(&storage).await.as_deref(), Some(&b"3"[..]), "the last of one batch");
    let log = Log::mixed(6, 3, 9);
    commit(&storage, &log.batch()).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    assert_eq!(newest(&storage).await.as_deref(), Some(&b"3"[..]), "after a restart");
    let none = ok("a state", storage.checkpoint(log.partition).await);
    assert!(none.is_none(), "a state of a partition that has entries only");
    let partitions = ok("partitions", storage.partitions().await);
    assert_eq!(partitions, [partition, log.partition], "one has a state, one has entries");
}

async fn scans_page_through_one_partition<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let logs: Vec<_> = (1..=3).map(|partition| Log::mixed(partition, 300, 11)).collect();
    for log in &logs {
        commit(&storage, &log.batch()).await;
    }
    let log = &logs[1];
    for bytes_max in [0, 1, 1_000, usize::MAX] {
        for from in [0, 1, 150, 300, 301] {
            let from = EntryIndex(from);
            let found = scan(&storage, log.partition, from, bytes_max).await;
            same("a scan", &found, &log.raw(from));
        }
    }
    let page = ok("a scan", storage.scan(log.partition, EntryIndex(1), 1_000).await);
    assert!((1..100).contains(&page.len()), "about 1000 bytes are {} entries", page.len());
}

async fn partitions_do_not_mix<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let ids = (1..=300).chain([511, 512, 65_536, 1 << 40, u64::MAX >> 1]);
    let logs: Vec<_> = ids.map(|partition| Log::mixed(partition, partition % 5 + 1, 3)).collect();
    // Entries of all partitions alternate, as shards hand them in.
    for place in 0..5 {
        let stores = logs.iter().filter(|log| log.records.len() > place);
        let stores = stores.rev().map(|log| log.part(place, place + 1)).collect();
        commit(&storage, &Batch { stores, ..Batch::default() }).await;
    }
    let partitions: Vec<_> = logs.iter().map(|log| log.partition).collect();
    same("partitions", &ok("partitions", storage.partitions().await), &partitions);
    for log in &logs {
        holds(&storage, log).await;
    }
}

/// The read that begins at a damaged message is refused with its name; one that begins before
/// ends before; one that begins after is as if nothing had happened.
async fn a_damaged_message_is_never_served<B: Bench>(bench: &mut B) {
    for damaged in [1, 2, 30, 59, 60] {
        let disk = bench.fresh().await;
        let storage = open(&disk).await;
        let (log, other) = (Log::mixed(1, 60, 1_000), Log::mixed(2, 60, 1_000));
        commit(&storage, &log.batch()).await;
        commit(&storage, &other.batch()).await;
        ok("usage", storage.usage().await);
        drop(storage);
        let index = EntryIndex(damaged);
        let disk = bench.damage(disk, log.partition, index).await;
        let storage = open(&disk).await;
        for from in 0..60 {
            // Without notes, offset and index differ by one.
            let (range, at) = (log.from(from), damaged - 1);
            let result = storage.read(range).await;
            if from == at {
                refused_at(&log, index, result);
            } else {
                let below = if from < at { index } else { log.end() };
                let expected = log.expected(&ReadRange { below, ..range });
                same("beside damage", &ok("a read beside damage", result), &expected);
            }
        }
        holds(&storage, &other).await;
        let raw = scan(&storage, log.partition, EntryIndex(1), usize::MAX).await;
        assert_eq!(raw.len(), log.records.len(), "a scan shows what there is, unchecked");
        let bad = raw.into_iter().find(|(at, _)| *at == index).map(|(_, bytes)| bytes);
        let opened = bad.map(|bytes| Record::open(log.partition, bytes));
        assert!(matches!(opened, Some(Err(_))), "recovery sees the damage: {opened:?}");
    }
}

fn refused_at(log: &Log, index: EntryIndex, result: Result<Vec<Record>, ReadError>) {
    match result {
        Err(ReadError::Unreadable(unreadable)) => {
            assert_eq!((unreadable.partition, unreadable.index), (log.partition, index));
            assert!(!unreadable.to_string().contains('\n'), "it is said in one line");
        }
        other => panic!("entry {index} is damaged, yet the read gave {other:?}"),
    }
}

async fn a_damaged_note_hides_no_other_message<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let log = Log::mixed(1, 64, 4);
    commit(&storage, &log.batch()).await;
    drop(storage);
    let damaged = EntryIndex(32);
    let disk = bench.damage(disk, log.partition, damaged).await;
    let storage = open(&disk).await;
    let offset = |index: u64| log.records[index as usize - 1].header().offset.0;
    let before = log.from(offset(29));
    let expected = log.expected(&ReadRange { below: damaged, ..before });
    same("up to the note", &read(&storage, before).await, &expected);
    // The message after the note: nothing that was asked for can have stood in its place.
    let after = log.from(offset(33));
    same("behind the note", &read(&storage, after).await, &log.expected(&after));
}

async fn handles_share_one_disk<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let other = storage.clone();
    let log = Log::mixed(1, 20, 6);
    commit(&storage, &log.batch()).await;
    holds(&other, &log).await;
}

async fn a_closed_disk_opens_again<B: Bench>(bench: &mut B) {
    let mut disk = bench.fresh().await;
    let log = Log::mixed(1, 60, 6);
    for part in 0..3 {
        let storage = open(&disk).await;
        let append = log.part(part * 20, (part + 1) * 20);
        commit(&storage, &Batch { stores: vec![append], ..Batch::default() }).await;
        storage.close().await;
        drop(storage);
        disk = bench.restart(disk).await;
    }
    holds(&open(&disk).await, &log).await;
}

async fn what_is_cut_is_gone_and_nothing_else<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let (log, beside) = (Log::mixed(7, 40, 3), Log::mixed(6, 5, 9));
    commit(&storage, &log.batch()).await;
    commit(&storage, &beside.batch()).await;
    let cut = EntryIndex(20);
    let append = Store { cut: Some(cut), ..state(log.partition, 40, "all") };
    commit(&storage, &Batch { stores: vec![append], ..Batch::default() }).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    let found = scan(&storage, log.partition, EntryIndex(0), usize::MAX).await;
    same("entries from the cut on", &found, &log.raw(cut));
    let offset = log.records[19].header().offset;
    let range = ReadRange { first: cut, ..log.from(offset.0) };
    same("messages from the cut on", &read(&storage, range).await, &log.expected(&range));
    holds(&storage, &beside).await;
}

async fn a_suffix_is_replaced_in_one_batch<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let (mut log, beside) = (Log::mixed(7, 40, 3), Log::mixed(8, 5, 9));
    commit(&storage, &beside.batch()).await;
    commit(&storage, &log.batch()).await;
    log.cut_after(EntryIndex(20));
    let kept = log.records.len();
    for _ in 0..5 {
        log.message("another reign");
    }
    let cut = Store { cut_after: Some(EntryIndex(20)), ..log.part(kept, kept + 2) };
    let stores = vec![cut, log.part(kept + 2, kept + 5)];
    commit(&storage, &Batch { stores, ..Batch::default() }).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    holds(&storage, &log).await;
    holds(&storage, &beside).await;
}

async fn a_log_gives_way_to_a_state_and_one_that_begins_later<B: Bench>(bench: &mut B) {
    let mut disk = bench.fresh().await;
    let (old, beside) = (Log::mixed(7, 40, 3), Log::mixed(8, 5, 9));
    let mut new = Log::starting(7, EntryIndex(50), Offset(30));
    (0..6).for_each(|_| new.message("what is retained"));
    let stores = vec![old.store(), beside.store()];
    commit(&open(&disk).await, &Batch { stores, ..Batch::default() }).await;
    let given = state(old.partition, 52, "given");
    let (cut_after, cut) = (Some(EntryIndex(0)), Some(EntryIndex(50)));
    let given = Store { accepted: Some(Epoch(4)), cut_after, cut, ..given };
    // The state comes alone, and what follows it in other batches.
    for (stores, holds_entries) in [(vec![given], 0), (vec![new.part(0, 2)], 2), (vec![], 2)] {
        let storage = open(&disk).await;
        commit(&storage, &Batch { stores, ..Batch::default() }).await;
        drop(storage);
        disk = bench.restart(disk).await;
        let storage = open(&disk).await;
        let found = scan(&storage, old.partition, EntryIndex(0), usize::MAX).await;
        same("entries of the new log", &found, &new.raw(EntryIndex(0))[..holds_entries]);
        let stored = ok("a state", storage.checkpoint(old.partition).await);
        assert_eq!(stored.as_deref(), Some(&b"given"[..]));
        assert_eq!(ok("an epoch", storage.accepted(old.partition).await), Some(Epoch(4)));
        holds(&storage, &beside).await;
    }
}

async fn the_newest_accepted_epoch_counts<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let partition = PartitionId(7);
    assert_eq!(ok("no epoch", storage.accepted(partition).await), None);
    for epoch in [Some(Epoch(3)), Some(Epoch(5)), None] {
        let store = Store { accepted: epoch, ..Store::of(partition) };
        commit(&storage, &Batch { stores: vec![store], ..Batch::default() }).await;
    }
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    assert_eq!(ok("an epoch", storage.accepted(partition).await), Some(Epoch(5)));
    same("partitions", &ok("partitions", storage.partitions().await), &[partition]);
}

async fn an_erased_partition_leaves_nothing<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let (log, beside) = (Log::mixed(7, 40, 3), Log::mixed(8, 5, 9));
    commit(&storage, &beside.batch()).await;
    let state = Store { accepted: Some(Epoch(2)), ..state(log.partition, 40, "all") };
    let stores = vec![log.store(), state];
    let erased = vec![log.partition];
    commit(&storage, &Batch { stores, erased, ..Batch::default() }).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    same("partitions", &ok("partitions", storage.partitions().await), &[beside.partition]);
    assert!(scan(&storage, log.partition, EntryIndex(0), usize::MAX).await.is_empty(), "entries");
    let state = ok("a state is read", storage.checkpoint(log.partition).await);
    assert_eq!(state, None, "the state of an erased partition");
    let accepted = ok("an epoch is read", storage.accepted(log.partition).await);
    assert_eq!(accepted, None, "the epoch of an erased partition");
    holds(&storage, &beside).await;
}

async fn times_are_found<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let log = Log::mixed(7, 41, 3);
    commit(&storage, &log.batch()).await;
    for (first, below) in [(1, 42), (5, 42), (1, 20)] {
        let bounds = (EntryIndex(first), EntryIndex(below));
        for time in 0..25 {
            let at = WallTime(time);
            let found = storage.seek(log.partition, at, bounds.0, bounds.1).await;
            let mut wanted = log.records.iter().map(Record::header).filter(|header| {
                header.index >= bounds.0 && header.index < bounds.1 && header.time >= at
            });
            let wanted = wanted.next().map(|header| header.offset);
            assert_eq!(ok("a search ends", found), wanted, "time {time} in {bounds:?}");
        }
    }
}
