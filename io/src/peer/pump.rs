//! Reading frames from a connection and writing them to it, with a sign of life when there is
//! nothing to say.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::Pace;
use super::counters::Counters;
use super::frame::{self, Frame, HEADER_BYTES, Kind};
use super::outbox::{Item, Outbox};
use crate::alarm::Alarm;

/// About how many bytes of small frames are gathered into one write.
const WRITE_BYTES_MAX: usize = 128 << 10;
/// From which length on a body is written by itself instead of being copied.
const LARGE_BYTES: usize = 16 << 10;
/// How much room is made for reading, and from how little on.
const READ_BYTES: usize = 64 << 10;
const ROOM_BYTES_MIN: usize = 4 << 10;
/// How much room is made at once for a frame that is on its way.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other side closed it.
    Closed,
    /// It broke.
    Broken(String),
    /// Nothing came over it for too long.
    Silent,
    /// What came over it makes no sense.
    Nonsense(String),
    /// A newer one of the same node took its place.
    Replaced,
    /// Nothing was sent over it for long.
    Idle,
    /// This node says anew who it is.
    Renewed,
    /// The other side belongs to another cluster.
    OtherCluster,
}

impl Ended {
    /// Counts the end of a connection.
    pub(super) fn count(&self, counters: &Counters) {
        match self {
            Self::Closed | Self::Idle | Self::Renewed => {}
            Self::Broken(_) => counters.broken.more(),
            Self::Silent => counters.silent.more(),
            Self::Nonsense(_) => counters.nonsense.more(),
            Self::Replaced => counters.replaced.more(),
            Self::OtherCluster => counters.refused.more(),
        }
    }
}

/// Reads frames.
pub(super) struct FrameReader<'a, R> {
    reader: R,
    read: BytesMut,
    silence_max: Duration,
    /// When nothing will have come for too long.
    silent: Alarm,
    counters: &'a Counters,
}

impl<'a, R: AsyncRead + Unpin> FrameReader<'a, R> {
    pub(super) fn new(reader: R, pace: &Pace, counters: &'a Counters) -> Self {
        let (read, silent) = (BytesMut::new(), Alarm::default());
        Self { reader, read, silence_max: pace.silence_max, silent, counters }
    }

    /// The next frame that says more than that the sender lives.
    pub(super) async fn next(&mut self) -> Result<Frame, Ended> {
        loop {
            let taken = frame::take(&mut self.read);
            match taken.map_err(|bad| Ended::Nonsense(bad.to_string()))? {
                Some(Frame { kind: Kind::Alive, .. }) => self.counters.frames_received.more(),
                Some(frame) => {
                    self.counters.frames_received.more();
                    return Ok(frame);
                }
                None => self.fill().await?,
            }
        }
    }

    /// Reads what there is. Only the time that is spent waiting here counts as silence: a reader
    /// that was held up by a full inbox has not listened.
    async fn fill(&mut self) -> Result<(), Ended> {
        let wanted = frame::wanted_bytes(&self.read).unwrap_or(HEADER_BYTES);
        let missing = wanted.saturating_sub(self.read.len()).min(GROWTH_BYTES_MAX);
        let spare = self.read.capacity() - self.read.len();
        if spare < missing.max(ROOM_BYTES_MIN) {
            self.read.reserve(missing.max(READ_BYTES));
        }
        self.silent.set(Some(Instant::now() + self.silence_max));
        let read = tokio::select! {
            biased;
            read = self.reader.read_buf(&mut self.read) => read,
            () = &mut self.silent => return Err(Ended::Silent),
        };
        match read {
            Ok(0) => Err(Ended::Closed),
            Ok(count) => {
                self.counters.bytes_received.add(count);
                Ok(())
            }
            Err(error) => Err(Ended::Broken(error.to_string())),
        }
    }
}

/// Writes what the outbox holds, many small frames at once, those that `wanted` still wants;
/// returns when the connection has broken.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    outbox: &Outbox,
    writer: &mut W,
    pace: &Pace,
    counters: &Counters,
    mut wanted: impl FnMut(&Item) -> bool,
) -> Ended {
    let mut gathered = BytesMut::with_capacity(WRITE_BYTES_MAX);
    let mut batch = Vec::new();
    let mut alive = Alarm::default();
    loop {
        alive.set(Some(Instant::now() + pace.alive_every));
        outbox.take(WRITE_BYTES_MAX, &mut batch);
        if batch.is_empty() {
            tokio::select! {
                biased;
                () = outbox.filled() => continue,
                () = &mut alive => {
                    batch.push(Item { frame: Frame::alive(), only: None });
                }
            }
        }
        batch.retain(&mut wanted);
        if let Err(error) = write_batch(&mut batch, &mut gathered, writer, counters).await {
            return Ended::Broken(error.to_string());
        }
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(
    batch: &mut Vec<Item>,
    gathered: &mut BytesMut,
    writer: &mut W,
    counters: &Counters,
) -> std::io::Result<()> {
    let bytes: usize = batch.iter().map(|item| item.frame.wire_bytes()).sum();
    counters.frames_sent.add(batch.len());
    counters.bytes_sent.add(bytes);
    for Item { frame, .. } in batch.drain(..) {
        frame.put_header(gathered);
        if frame.body.len() < LARGE_BYTES {
            gathered.extend_from_slice(&frame.body);
        } else {
            counters.writes.add(2);
            writer.write_all(gathered).await?;
            gathered.clear();
            writer.write_all(&frame.body).await?;
        }
    }
    if !gathered.is_empty() {
        counters.writes.more();
        writer.write_all(gathered).await?;
        gathered.clear();
    }
    writer.flush().await
}
