//! A stored entry: as it lies there, and with the checksum that makes its content believed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sprawl_core::broker::replica::{HEADER_BYTES, Record, peek_offset};
use sprawl_core::ids::PartitionId;

/// The partition that the entries claim to be of.
const PARTITION: PartitionId = PartitionId(7);

fuzz_target!(|data: &[u8]| {
    let _ = peek_offset(data);
    if let Ok(record) = Record::open(PARTITION, Bytes::copy_from_slice(data)) {
        let _ = record.body();
    }
    if data.len() < HEADER_BYTES + 4 {
        return;
    }
    let Ok(record) = Record::open(PARTITION, sealed(data)) else { return };
    let Ok(body) = record.body() else { return };
    let again = Record::seal(PARTITION, *record.header(), &body);
    assert_eq!(again.header(), record.header(), "the header of an entry that was sealed again");
    assert_eq!(again.body(), Ok(body), "the body of an entry that was sealed again");
    let opened = Record::open(PARTITION, again.bytes().clone());
    assert_eq!(opened, Ok(again), "an entry that was sealed does not open");
});

/// The bytes with the checksum that belongs to them.
fn sealed(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    let place = crc32c::crc32c(&PARTITION.0.to_le_bytes());
    let head = crc32c::crc32c_append(place, &bytes[..2]);
    let checksum = crc32c::crc32c_append(head, &bytes[6..]);
    bytes[2..6].copy_from_slice(&checksum.to_le_bytes());
    bytes.into()
}
