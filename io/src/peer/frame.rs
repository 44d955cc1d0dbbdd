//! What goes over a connection once both sides have met: frames, each checked as a whole.
//!
//! | bytes | what (numbers little-endian) |
//! |---|---|
//! | 0–3 | length of the body |
//! | 4 | kind |
//! | 5 | lane |
//! | 6–7 | 0 |
//! | 8–15 | id of the request |
//! | 16–19 | CRC32C of the body |
//! | 20–23 | CRC32C of the 20 bytes before |
//!
//! The header's own checksum covers the body's, and so all. It is looked at before the length is
//! believed: a flipped bit there does not make the reader wait for bytes that never come.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Lane;

/// How long a frame's header is, in bytes.
pub const HEADER_BYTES: usize = 24;
/// Up to which length a body is copied out of the block that it was read into.
const SMALL_BYTES_MAX: usize = 4 << 10;
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message without answer.
    Tell,
    /// A request.
    Ask,
    /// The answer to the request of this id.
    Answer,
    /// There will be no answer to the request of this id, which may have had its effect.
    Unanswered,
    /// The request of this id was not taken: nobody listens on its lane.
    Unheard,
    /// The request of this id was not taken: the lane is for members of one cluster.
    Outsider,
    /// Nothing to say; the sender lives.
    Alive,
}

const KINDS: [Kind; 7] = [
    Kind::Tell,
    Kind::Ask,
    Kind::Answer,
    Kind::Unanswered,
    Kind::Unheard,
    Kind::Outsider,
    Kind::Alive,
];

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// On which lane.
    pub lane: Lane,
    /// Which request it belongs to; 0 where there is none.
    pub id: u64,
    /// What it carries.
    pub body: Bytes,
}

/// Why bytes are not a frame. The connection that brought them is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The header is not what was sent.
    #[error("a frame's header does not match its checksum")]
    Header,
    /// A kind or lane that this build does not know.
    #[error("a frame of kind {kind} on lane {lane}")]
    Unheard {
        /// The number of the kind.
        kind: u8,
        /// The number of the lane.
        lane: u8,
    },
    /// It is longer than the lane's frames may be.
    #[error("a frame of {bytes} bytes")]
    TooLong {
        /// How long its body is.
        bytes: usize,
    },
    /// The body is not what was sent.
    #[error("a frame's body does not match its checksum")]
    Body,
}

impl Frame {
    /// A frame that says that the sender lives.
    #[must_use]
    pub fn alive() -> Self {
        Self { kind: Kind::Alive, lane: Lane::Control, id: 0, body: Bytes::new() }
    }

    /// How many bytes it takes on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Writes its header; the body follows as it is.
    ///
    /// # Panics
    ///
    /// When the body is longer than the lane's frames may be: whoever made the frame has looked.
    pub fn put_header(&self, to: &mut BytesMut) {
        let length = self.body.len();
        assert!(length <= self.lane.body_bytes_max(), "a body of {length} bytes");
        let start = to.len();
        to.put_u32_le(length as u32);
        to.put_u8(self.kind as u8);
        to.put_u8(self.lane.number());
        to.put_u16_le(0);
        to.put_u64_le(self.id);
        to.put_u32_le(crc32c::crc32c(&self.body));
        let checksum = crc32c::crc32c(&to[start..]);
        to.put_u32_le(checksum);
    }
}

/// How many bytes the first frame takes, once its header is there and right.
#[must_use]
pub fn wanted_bytes(read: &[u8]) -> Option<usize> {
    let header = read.first_chunk::<HEADER_BYTES>()?;
    let (checked, mut checksum) = header.split_at(CHECKED_BYTES);
    let right = crc32c::crc32c(checked) == checksum.get_u32_le();
    right.then(|| HEADER_BYTES + (&checked[..]).get_u32_le() as usize)
}

/// Takes the first frame out of what was read; `None` while it is not whole.
///
/// # Errors
///
/// [`BadFrame`], as soon as its header is there or, for the body, when all of it is. No bytes
/// panic.
pub fn take(read: &mut BytesMut) -> Result<Option<Frame>, BadFrame> {
    let Some(header) = read.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let (checked, mut checksum) = header.split_at(CHECKED_BYTES);
    if crc32c::crc32c(checked) != checksum.get_u32_le() {
        return Err(BadFrame::Header);
    }
    let mut fields = checked;
    let bytes = fields.get_u32_le() as usize;
    let (kind, lane) = (fields.get_u8(), fields.get_u8());
    fields.advance(2);
    let (id, body_checksum) = (fields.get_u64_le(), fields.get_u32_le());
    let named = KINDS.get(usize::from(kind)).copied().zip(Lane::of(lane));
    let Some((kind, lane)) = named else { return Err(BadFrame::Unheard { kind, lane }) };
    if bytes > lane.body_bytes_max() {
        return Err(BadFrame::TooLong { bytes });
    }
    if read.len() < HEADER_BYTES + bytes {
        return Ok(None);
    }
    read.advance(HEADER_BYTES);
    let body = read.split_to(bytes);
    // A small body is copied, so that it does not keep alive the block that it was read into.
    let small = bytes <= SMALL_BYTES_MAX;
    let body = if small { Bytes::copy_from_slice(&body) } else { body.freeze() };
    if crc32c::crc32c(&body) != body_checksum {
        return Err(BadFrame::Body);
    }
    Ok(Some(Frame { kind, lane, id, body }))
}
