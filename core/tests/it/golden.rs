//! The stored forms, byte for byte: a change here is a new format version, never an accident.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::broker::replica::message::{Image, Matched, Place, ReplicaMessage};
use sprawl_core::broker::replica::{
    Attempt, BadEntry, Body, Draft, Envelope, Header, Note, Record, Timing,
};
use sprawl_core::cluster::metadata::{
    Addition, Adjustment, Change, Leaving, Registration, Ruling, Standing,
};
use sprawl_core::cluster::subscription::{Delivery, Filter, StartFrom, Test};
use sprawl_core::cluster::topic::{ConfigPatch, Durability, TopicConfig};
use sprawl_core::ids::{
    Boot, ChangeIndex, ClusterId, DiskId, EntryIndex, Epoch, NUMBER_MAX, Offset, PartitionId,
    Priority,
};
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

/// The stored forms of one kind: a name and the bytes a line.
#[derive(Default)]
struct Forms(String);

impl Forms {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.push_str(&format!("{name} {}\n", hex(bytes)));
    }

    fn change(&mut self, name: &str, change: Change) {
        let frame = wire::encode(&change);
        self.add(name, &frame);
        assert_eq!(wire::decode(&frame), Ok(change));
    }

    fn nodes(&mut self) {
        let (disk, boot) = (DiskId(1 << 64), Boot(3));
        let said = Registration {
            disk,
            boot,
            run: 300,
            name: "a".to_owned(),
            address: "192.0.2.1:7946".parse().expect("an address"),
            http: "[2001:db8::1]:9070".parse().expect("an address"),
            zone: "z".to_owned(),
            capacity: 200,
            level: 1,
            clean: true,
        };
        self.change("register", Change::Register(said.clone()));
        self.change("replace", Change::Replace { disk: DiskId(2), boot, by: said });
        self.change("retire", Change::Retire { disk, boot });
        self.change("decommission", Change::Decommission { disk, how: Leaving::Empty });
        self.change("decommission-at-once", Change::Decommission { disk, how: Leaving::AtOnce });
        let nodes = vec![(disk, boot), (DiskId(2), Boot(1))];
        let (at, rulings) = (WallTime(9), vec![ruling()]);
        let fail = Change::Fail { nodes: nodes.clone(), at, rulings: rulings.clone() };
        self.change("fail", fail);
        self.change("rule", Change::Rule { rulings });
        let added = [Standing::Whole, Standing::Tail, Standing::Lost];
        let added = added.map(|standing| Addition { disk, boot, standing }).to_vec();
        let (partition, epoch, version) = (PartitionId(300), Epoch(4), 5);
        let removed = vec![DiskId(9)];
        let adjustments = vec![Adjustment { partition, epoch, version, added, removed }];
        self.change("adjust", Change::Adjust { by: (disk, boot), adjustments });
        self.change("revive", Change::Revive { nodes });
        self.change("raise", Change::Raise { level: 2 });
    }

    fn entry(&mut self, name: &str, body: Body) {
        let is_message = matches!(body, Body::Message(_));
        let record = Record::seal(PartitionId(1), header(is_message), &body);
        self.add(name, record.bytes());
        let opened = Record::open(PartitionId(1), record.bytes().clone());
        assert_eq!(opened.as_ref().map(Record::header), Ok(&header(is_message)));
        assert_eq!(opened.expect("it was sealed").body(), Ok(body));
    }
}

fn ruling() -> Ruling {
    Ruling {
        partition: PartitionId(300),
        epoch: Epoch(4),
        version: 5,
        leader: Some(DiskId(6)),
        filled: vec![DiskId(11)],
        removed: vec![DiskId(7)],
        lost: vec![DiskId(8)],
        placed: vec![DiskId(9)],
        dropped: vec![DiskId(10)],
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

#[test]
fn each_change_has_its_bytes() {
    let mut forms = Forms::default();
    forms.change("found", Change::Found { cluster: ClusterId(7) });
    forms.nodes();
    let config = TopicConfig::default();
    forms.change("create-topic", Change::CreateTopic { name: name("t"), config });
    for (golden, from) in [
        ("subscribe-latest", StartFrom::Latest),
        ("subscribe-earliest", StartFrom::Earliest),
        ("subscribe-offset", StartFrom::Offset(Offset(300))),
        ("subscribe-time", StartFrom::Time(WallTime(300))),
    ] {
        let (id, topics, at) = (name("s"), vec![name("t.*"), name("u.>")], WallTime(9));
        let filter = Filter {
            key: Some(Test::Prefix("k".to_owned())),
            headers: vec![
                ("h".to_owned(), Test::OneOf(vec!["v".to_owned()])),
                ("i".to_owned(), Test::Exists(true)),
            ],
        };
        let backoff = vec![Duration::from_millis(30_250)];
        let delivery = Delivery { filter, backoff, ..Delivery::default() };
        forms.change(golden, Change::Subscribe { id, topics, from, delivery, at });
    }
    let patch = ConfigPatch {
        durability: Some(Durability::Replicated),
        retention: Some(None),
        ttl: Some(Some(Duration::from_secs(1))),
        dead_letter_topic: Some(Some(name("d"))),
        ..ConfigPatch::default()
    };
    forms.change("configure", Change::ConfigureTopic { name: name("t"), patch, reset: true });
    forms.change("delete-topic", Change::DeleteTopic { name: name("t") });
    let unused_since = Some(WallTime(5));
    forms.change("unsubscribe", Change::Unsubscribe { id: name("s"), unused_since });
    let (subscriptions, at) = (vec![name("s")], WallTime(5));
    forms.change("used", Change::Used { subscriptions, at });
    insta::assert_snapshot!(forms.0);
}

fn header(is_message: bool) -> Header {
    Header {
        epoch: Epoch(2),
        index: EntryIndex(3),
        offset: Offset(4),
        time: WallTime(5),
        is_message,
        timing: if is_message { timing() } else { Timing::default() },
    }
}

fn timing() -> Timing {
    let priority = Priority::new(7).expect("a priority");
    Timing { due: WallTime(6), expires: Some(WallTime(7)), priority }
}

fn draft(payload: &'static [u8]) -> Draft {
    let envelope = Envelope {
        id: "id".parse().expect("an id"),
        key: Some("k".to_owned()),
        sequence: None,
        content_type: None,
        headers: vec![("h".to_owned(), "v".to_owned())],
    };
    Draft { envelope, payload: Bytes::from_static(payload) }
}

#[test]
fn each_entry_has_its_bytes() {
    let mut forms = Forms::default();
    forms.entry("message", Body::Message(draft(b"payload")));
    let notes = [
        ("start", Note::Start { leader: DiskId(9), boot: Boot(1) }),
        (
            "cursor-fixed",
            Note::CursorFixed { subscription: name("s"), created: ChangeIndex(3), at: Offset(5) },
        ),
        ("cursor-dropped", Note::CursorDropped { subscription: name("s") }),
        (
            "progress",
            Note::Progress { subscription: name("s"), acked: vec![(Offset(3), Offset(5))] },
        ),
        (
            "attempts",
            Note::Attempts {
                subscription: name("s"),
                attempts: vec![Attempt { offset: Offset(2), number: 2, due: WallTime(8) }],
            },
        ),
        ("trim", Note::Trim { below: Offset(3) }),
    ];
    for (name, note) in notes {
        forms.entry(name, Body::Note(note));
    }
    insta::assert_snapshot!(forms.0);
}

#[test]
fn each_message_between_replicas_has_its_bytes() {
    let mut forms = Forms::default();
    let (epoch, commit) = (Epoch(300), EntryIndex(5));
    let previous = Place { epoch: Epoch(299), index: EntryIndex(6) };
    let records = vec![Bytes::from_static(b"record")];
    let given = records.clone();
    let starts = vec![(Epoch(1), EntryIndex(1)), (epoch, EntryIndex(7))];
    let (durable, last, gap, round) = (EntryIndex(8), EntryIndex(9), true, 400);
    let lacks = None;
    let held = ReplicaMessage::AppendAnswer { epoch, round, durable, last, commit, gap, lacks };
    let answer = |matched| ReplicaMessage::MatchAnswer { epoch, round, matched, lacks };
    let (image, piece) = (Image { applied: EntryIndex(6), bytes: 9 }, Bytes::from_static(b"piece"));
    for (name, message) in [
        ("match", ReplicaMessage::Match { epoch, version: 7, round, starts }),
        ("match-at", answer(Matched::At(durable))),
        ("match-forgotten", answer(Matched::Forgotten)),
        ("match-damaged", answer(Matched::Damaged { commit })),
        ("append", ReplicaMessage::Append { epoch, round, previous, records: given, commit }),
        ("append-answer", held),
        ("install", ReplicaMessage::Install { epoch, round, image, at: 4, piece }),
        ("install-answer", ReplicaMessage::InstallAnswer { epoch, round, have: 9 }),
        ("lacks", ReplicaMessage::Lacks { from: last, bytes_max: 500 }),
        ("older", ReplicaMessage::Older { from: last, records }),
        ("unmatched", ReplicaMessage::Unmatched { epoch, round }),
        ("stale", ReplicaMessage::Stale { epoch, accepted: Epoch(301) }),
    ] {
        let frame = wire::encode(&message);
        forms.add(name, &frame);
        assert_eq!(wire::decode(&frame), Ok(message));
    }
    insta::assert_snapshot!(forms.0);
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
        let _ = wire::decode::<ReplicaMessage>(&bytes);
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
        [epoch, index, offset, time] in prop::array::uniform4(0..=NUMBER_MAX),
    ) {
        let envelope = Envelope { id: name(&id), key, sequence: None, content_type, headers };
        let body = Body::Message(Draft { envelope, payload: payload.into() });
        let header = Header {
            epoch: Epoch(epoch),
            index: EntryIndex(index),
            offset: Offset(offset),
            time: WallTime(time),
            is_message: true,
            timing: timing(),
        };
        let sealed = Record::seal(PartitionId(index), header, &body);
        let opened = Record::open(PartitionId(index), sealed.bytes().clone());
        prop_assert_eq!(opened.as_ref(), Ok(&sealed));
        prop_assert_eq!(opened.map(|record| record.body()), Ok(Ok(body)));
    }
}
