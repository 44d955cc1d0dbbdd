//! The one codec: everything that leaves the process, to a disk or to a peer, is written here.
//!
//! A frame is a format version, one byte, and the value in bincode's variable-length encoding.
//! A length is checked against the limit before anything is allocated for it, and bytes that are
//! left over are an error: a frame holds one value. Messages' payloads do not pass through
//! bincode; an entry carries them behind its frame (`broker::replica::entry`).

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::{DecodeError, EncodeError};
use bytes::BufMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format version that this build writes.
pub const FORMAT: u8 = 1;
/// The largest frame that is read or written, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<FRAME_BYTES_MAX>> =
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

/// Why bytes are not a frame. Nothing of them was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// No byte at all.
    #[error("the frame is empty")]
    Empty,
    /// A newer version of the program wrote it.
    #[error("the frame has format {0}; this build reads up to format {FORMAT}")]
    Format(u8),
    /// It is longer than [`FRAME_BYTES_MAX`], or claims to hold more than that.
    #[error("the frame exceeds {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// The bytes do not spell the value, or more bytes follow it.
    #[error("the frame is malformed: {0}")]
    Malformed(String),
}

/// Encodes one value as a frame.
///
/// # Panics
///
/// When the value exceeds [`FRAME_BYTES_MAX`]: whatever is stored or sent has bounds below it.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_behind(value, &mut frame);
    frame
}

/// Encodes one value as a frame behind what `bytes` holds already.
///
/// # Panics
///
/// As [`encode`].
pub fn encode_behind<T: Serialize>(value: &T, bytes: &mut impl BufMut) {
    let mut behind = bytes.writer();
    behind.get_mut().put_u8(FORMAT);
    let length = match bincode::serde::encode_into_std_write(value, &mut behind, CONFIG) {
        Ok(length) => 1 + length,
        Err(error @ EncodeError::Io { .. }) => unreachable!("memory takes every byte: {error}"),
        Err(error) => panic!("a value without a wire form: {error}"),
    };
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
}

/// Decodes the one value of a frame.
///
/// # Errors
///
/// [`BadFrame`] says what is wrong; it never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, BadFrame> {
    let (&format, body) = frame.split_first().ok_or(BadFrame::Empty)?;
    if format != FORMAT {
        return Err(BadFrame::Format(format));
    }
    if frame.len() > FRAME_BYTES_MAX {
        return Err(BadFrame::TooLong);
    }
    match bincode::serde::decode_from_slice::<T, _>(body, CONFIG) {
        Ok((value, read)) if read == body.len() => Ok(value),
        Ok((_, read)) => Err(BadFrame::Malformed(format!("{} bytes too many", body.len() - read))),
        Err(DecodeError::LimitExceeded) => Err(BadFrame::TooLong),
        Err(error) => Err(BadFrame::Malformed(error.to_string())),
    }
}
