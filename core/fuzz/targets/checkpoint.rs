//! Recovery of a partition: a stored state and the entries behind it, each with the checksum that
//! makes it believed or without. Damage is said; nothing panics.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sprawl_core::broker::replica::{HEADER_BYTES, Recovery};
use sprawl_core::ids::PartitionId;

/// The partition that everything claims to be of.
const PARTITION: PartitionId = PartitionId(7);
/// The most entries of one log.
const ENTRIES_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut parts = Parts(data);
    let Some((believed, state)) = parts.next() else { return };
    let state = if believed { sealed_state(state) } else { state.to_vec() };
    let mut recovery = Recovery::begin(PARTITION, Some(&state));
    for (believed, entry) in parts.take(ENTRIES_MAX) {
        let index = recovery.from();
        let entry = if believed { sealed_entry(entry, index.0) } else { entry.to_vec() };
        if !recovery.feed(index, Bytes::from(entry)) {
            break;
        }
    }
    let replica = recovery.finish();
    let _ = (replica.id(), replica.last(), replica.damaged());
});

/// The parts of an input: a length of two bytes, whose top bit says that a checksum is to be put
/// in, and so many bytes.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (bool, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        let head = u16::from_le_bytes(*head);
        let (part, rest) = rest.split_at(usize::from(head & 0x7fff).min(rest.len()));
        self.0 = rest;
        Some((head & 0x8000 != 0, part))
    }
}

fn place() -> u32 {
    crc32c::crc32c(&PARTITION.0.to_le_bytes())
}

fn sealed_state(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let checksum = crc32c::crc32c_append(place(), &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// An entry that claims its place in the log, and has the checksum for it.
fn sealed_entry(data: &[u8], index: u64) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < HEADER_BYTES + 4 {
        return bytes;
    }
    bytes[14..22].copy_from_slice(&index.to_le_bytes());
    let head = crc32c::crc32c_append(place(), &bytes[..2]);
    let checksum = crc32c::crc32c_append(head, &bytes[6..]);
    bytes[2..6].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
