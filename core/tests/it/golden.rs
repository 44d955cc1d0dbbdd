//! The stored forms, byte for byte: a change here is a new format version, never an accident.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::broker::replica::{BadEntry, Body, Draft, Envelope, Header, Note, Record};
use sprawl_core::cluster::metadata::{Change, StartFrom, TopicConfig};
use sprawl_core::ids::{Boot, ClusterId, DiskId, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::WallTime;
use sprawl_core::wire::{self, BadFrame};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/stored_forms.txt");

fn config() -> Config {
    let persistence = FileFailurePersistence::Direct(REGRESSIONS);
    Config { failure_persistence: Some(Box::new(persistence)), ..Config::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_change(change: Change, golden: &str) {
    let frame = wire::encode(&change);
    assert_eq!(hex(&frame), golden, "{change:?}");
    assert_eq!(wire::decode(&frame), Ok(change));
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

#[test]
fn each_change_has_its_bytes() {
    check_change(Change::Found { cluster: ClusterId(7) }, "010007");
    let (disk, boot) = (DiskId(1 << 64), Boot(3));
    let register = Change::Register { disk, boot, name: "a".to_owned() };
    check_change(register, "0101fe00000000000000000100000000000000030161");
    let config = TopicConfig::default();
    check_change(Change::CreateTopic { name: name("t"), config }, "010201740103");
    for (from, golden) in [
        (StartFrom::Latest, "01030173010174001efc80b2e60e"),
        (StartFrom::Earliest, "01030173010174011efc80b2e60e"),
        (StartFrom::Offset(Offset(300)), "0103017301017402fb2c011efc80b2e60e"),
    ] {
        let ack_wait = Duration::from_millis(30_250);
        let topics = vec![name("t")];
        check_change(Change::Subscribe { id: name("s"), topics, from, ack_wait }, golden);
    }
}

fn header(is_message: bool) -> Header {
    Header {
        epoch: Epoch(2),
        index: EntryIndex(3),
        offset: Offset(4),
        time: WallTime(5),
        is_message,
    }
}

fn check_entry(body: Body, golden: &str) {
    let is_message = matches!(body, Body::Message(_));
    let record = Record::seal(PartitionId(1), header(is_message), &body);
    assert_eq!(hex(record.bytes()), golden, "{body:?}");
    let opened = Record::open(PartitionId(1), record.bytes().clone());
    assert_eq!(opened.as_ref().map(Record::header), Ok(&header(is_message)));
    assert_eq!(opened.expect("it was sealed").body(), Ok(body));
}

fn draft(payload: &'static [u8]) -> Draft {
    let envelope = Envelope {
        id: "id".parse().expect("an id"),
        key: Some("k".to_owned()),
        content_type: None,
        headers: vec![("h".to_owned(), "v".to_owned())],
    };
    Draft { envelope, payload: Bytes::from_static(payload) }
}

#[test]
fn each_entry_has_its_bytes() {
    check_entry(
        Body::Message(draft(b"payload")),
        concat!(
            "010116f7c0720200000000000000030000000000000004000000000000000500000000000000",
            "0d0000000102696401016b0001016801767061796c6f6164",
        ),
    );
    check_entry(
        Body::Note(Note::Start { leader: DiskId(9), boot: Boot(1) }),
        concat!(
            "010286dba2550200000000000000030000000000000004000000000000000500000000000000",
            "0400000001000901",
        ),
    );
    let (subscription, at) = (name("s"), Offset(5));
    check_entry(
        Body::Note(Note::CursorFixed { subscription, at }),
        concat!(
            "01025a9fb84a0200000000000000030000000000000004000000000000000500000000000000",
            "050000000101017305",
        ),
    );
    let (floor, above) = (Offset(1), vec![(Offset(3), Offset(5))]);
    check_entry(
        Body::Note(Note::Progress { subscription: name("s"), floor, above }),
        concat!(
            "0102f9208aa60200000000000000030000000000000004000000000000000500000000000000",
            "080000000102017301010305",
        ),
    );
    let attempts = vec![(Offset(2), 2)];
    check_entry(
        Body::Note(Note::Attempts { subscription: name("s"), attempts }),
        concat!(
            "010239e47aef0200000000000000030000000000000004000000000000000500000000000000",
            "0700000001030173010202",
        ),
    );
}

#[test]
fn an_entry_is_good_in_one_place_only() {
    let record = Record::seal(PartitionId(1), header(true), &Body::Message(draft(b"payload")));
    let elsewhere = Record::open(PartitionId(2), record.bytes().clone());
    assert_eq!(elsewhere, Err(BadEntry::Checksum));
    for at in 0..record.len() {
        let mut bytes = record.bytes().to_vec();
        bytes[at] ^= 0x10;
        assert!(Record::open(PartitionId(1), bytes.into()).is_err(), "a flip at {at}");
    }
}

#[test]
fn a_frame_of_another_format_or_with_more_behind_it_is_refused() {
    let mut frame = wire::encode(&7u64);
    assert_eq!(wire::decode::<u64>(&[]), Err(BadFrame::Empty));
    frame.push(0);
    assert!(matches!(wire::decode::<u64>(&frame), Err(BadFrame::Malformed(_))));
    frame[0] = 2;
    assert_eq!(wire::decode::<u64>(&frame), Err(BadFrame::Format(2)));
    // A length of 2^40 is refused before anything is allocated for it.
    let huge = [1, 253, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(wire::decode::<String>(&huge), Err(BadFrame::TooLong));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::decode::<Change>(&bytes);
        let _ = wire::decode::<Note>(&bytes);
        if let Ok(record) = Record::open(PartitionId(1), bytes.into()) {
            let _ = record.body();
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was(
        id in "[a-zA-Z0-9é ]{1,60}",
        key in proptest::option::of(".{0,40}"),
        content_type in proptest::option::of("[a-z/]{1,20}"),
        headers in prop::collection::vec((".{0,9}", ".{0,9}"), 0..5),
        payload in prop::collection::vec(any::<u8>(), 0..2_000),
        (epoch, index, offset, time) in any::<(u64, u64, u64, u64)>(),
    ) {
        let envelope = Envelope { id: name(&id), key, content_type, headers };
        let body = Body::Message(Draft { envelope, payload: payload.into() });
        let header = Header {
            epoch: Epoch(epoch),
            index: EntryIndex(index),
            offset: Offset(offset),
            time: WallTime(time),
            is_message: true,
        };
        let sealed = Record::seal(PartitionId(index), header, &body);
        let opened = Record::open(PartitionId(index), sealed.bytes().clone());
        prop_assert_eq!(opened.as_ref(), Ok(&sealed));
        prop_assert_eq!(opened.map(|record| record.body()), Ok(Ok(body)));
    }
}
