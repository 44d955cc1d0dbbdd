//! Frames: what was written is what is read, and no bytes do harm.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sprawl_io::peer::Lane;
use sprawl_io::peer::frame::{BadFrame, Frame, HEADER_BYTES, Kind, take, wanted_bytes};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/frames.txt");

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::Direct(REGRESSIONS);
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..Default::default() }
}

fn frame() -> impl Strategy<Value = Frame> {
    let kinds = [Kind::Tell, Kind::Ask, Kind::Answer, Kind::Unanswered, Kind::Alive];
    let kind = prop::sample::select(kinds.to_vec());
    let lane = prop::sample::select(Lane::ALL.to_vec());
    let body = prop::collection::vec(any::<u8>(), 0..6_000).prop_map(Bytes::from);
    (kind, lane, any::<u64>(), body).prop_map(|(kind, lane, id, body)| Frame {
        kind,
        lane,
        id,
        body,
    })
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.put_header(&mut bytes);
        bytes.extend_from_slice(&frame.body);
    }
    bytes.to_vec()
}

/// Reads bytes that come in pieces.
fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>, BadFrame> {
    let (mut read, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        read.extend_from_slice(piece);
        while let Some(frame) = take(&mut read)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn frames_are_read_as_they_were_written(
        frames in prop::collection::vec(frame(), 1..5),
        piece in 1..2_000_usize,
    ) {
        let bytes = written(&frames);
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        prop_assert_eq!(read(&pieces), Ok(frames));
    }

    #[test]
    fn a_flipped_bit_is_noticed(
        frame in frame(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = written(std::slice::from_ref(&frame));
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let found = read(&[&bytes]);
        prop_assert!(found.is_err(), "byte {} of {}: {:?}", at, bytes.len(), found);
        let early = read(&[&bytes[..HEADER_BYTES]]);
        prop_assert_eq!(early.is_err(), at < HEADER_BYTES, "a bad header is known by itself");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let _ = wanted_bytes(&bytes);
        let found = read(&[&bytes]);
        prop_assert!(bytes.len() < HEADER_BYTES || found.is_err(), "{found:?}");
    }

    /// Behind a right checksum everything else may still be wrong.
    #[test]
    fn no_sealed_bytes_panic(
        mut head in prop::array::uniform20(any::<u8>()),
        small in any::<bool>(),
    ) {
        if small {
            head[1..4].fill(0);
            head[4] %= 8;
            head[5] %= 7;
        }
        let mut bytes = head.to_vec();
        bytes.extend(crc32c::crc32c(&head).to_le_bytes());
        let body = vec![0; 300];
        if let Ok(frames) = read(&[&bytes, &body]) {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            prop_assert!(length as usize <= Lane::Data.body_bytes_max());
            let right = crc32c::crc32c(&body[..(length as usize).min(300)]).to_le_bytes();
            prop_assert!(frames.is_empty() || right == head[16..20], "{frames:?}");
        }
    }
}
