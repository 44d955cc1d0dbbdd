//! The laws of the metadata log and of the cells beside it.

use bytes::Bytes;
use sprawl_core::ids::ChangeIndex;

use super::{Bench, PAGES_MAX, commit, ok, open, same};
use crate::storage::{Batch, Cell, MetadataWrite, Storage};

pub(super) fn entry((index, bytes): &(ChangeIndex, Bytes)) -> MetadataWrite {
    MetadataWrite::Entry(*index, bytes.clone())
}

pub(super) async fn changes_come_in_order<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let change = |at: u64| (ChangeIndex(at), Bytes::from(format!("change {at}")));
    let all: Vec<_> = (1..=600).map(change).collect();
    for changes in all.chunks(7) {
        let metadata = changes.iter().map(entry).collect();
        commit(&storage, &Batch { metadata, ..Batch::default() }).await;
    }
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    for bytes_max in [1, 100, usize::MAX] {
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let next = ChangeIndex(found.len() as u64 + 1);
            let page = ok("changes", storage.changes(next, bytes_max).await);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        same("the metadata log", &found, &all);
    }
    let tail = ok("changes", storage.changes(ChangeIndex(590), usize::MAX).await);
    same("its end", &tail, &all[589..]);
}

pub(super) async fn the_metadata_log_is_cut_at_both_ends<B: Bench>(bench: &mut B) {
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    let change = |at: u64, text: &str| (ChangeIndex(at), Bytes::from(format!("{text} {at}")));
    let first: Vec<_> = (1..=20).map(|at| change(at, "first")).collect();
    commit(&storage, &Batch { metadata: first.iter().map(entry).collect(), ..Batch::default() })
        .await;
    // What is cut and what is written anew in one batch are taken in their order.
    let again: Vec<_> = (11..=13).map(|at| change(at, "again")).collect();
    let mut metadata = vec![MetadataWrite::Truncate(ChangeIndex(11))];
    metadata.extend(again.iter().map(entry));
    metadata.push(MetadataWrite::Purge(ChangeIndex(5)));
    commit(&storage, &Batch { metadata, ..Batch::default() }).await;
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    let expected: Vec<_> = first[4..10].iter().cloned().chain(again).collect();
    let found = ok("changes", storage.changes(ChangeIndex(0), usize::MAX).await);
    same("what is left of the metadata log", &found, &expected);
}

pub(super) async fn a_cell_holds_its_newest_value<B: Bench>(bench: &mut B) {
    const CELLS: [Cell; 5] =
        [Cell::Membership, Cell::Vote, Cell::Committed, Cell::Purged, Cell::Snapshot];
    let disk = bench.fresh().await;
    let storage = open(&disk).await;
    for cell in CELLS {
        let empty = ok("a cell", storage.cell(cell).await);
        assert!(empty.is_none(), "{cell:?} on an empty disk");
    }
    for (round, text) in ["old", "new"].into_iter().enumerate() {
        let cells = CELLS.iter().take(5 - round);
        let put = |cell: &Cell| MetadataWrite::Cell(*cell, format!("{text} {cell:?}").into());
        commit(&storage, &Batch { metadata: cells.map(put).collect(), ..Batch::default() }).await;
    }
    drop(storage);
    let disk = bench.restart(disk).await;
    let storage = open(&disk).await;
    for cell in CELLS {
        let text = if cell == Cell::Snapshot { "old" } else { "new" };
        let found = ok("a cell", storage.cell(cell).await);
        assert_eq!(found.as_deref(), Some(format!("{text} {cell:?}").as_bytes()));
    }
    let log = ok("changes", storage.changes(ChangeIndex(0), usize::MAX).await);
    assert!(log.is_empty(), "cells are no part of the log");
}
