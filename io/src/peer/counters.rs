//! What the network counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $field:ident),* $(,)?) => {
        /// Counters of one network, from its start; those of connections rise and fall.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $field: Counter,)*
        }

        impl Counters {
            /// Each counter: its name, what it counts, and how far it is.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($doc),*), self.$field.get())),*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that this node has made and holds.
    outbound,
    /// Connections that others have made and this node holds.
    inbound,
    /// Attempts to connect that failed.
    connect_failures,
    /// Connections that broke after they had come about.
    broken,
    /// Connections that were cut because nothing came over them.
    silent,
    /// Handshakes in which one side refused the other.
    refused,
    /// Connections closed for what came over them: no handshake, no frame, a wrong checksum.
    nonsense,
    /// Connections turned away because there were too many.
    turned_away,
    /// Connections whose place a newer one of the same node took.
    replaced,
    /// Bytes of frames written.
    bytes_sent,
    /// Bytes read.
    bytes_received,
    /// Frames written.
    frames_sent,
    /// Frames read.
    frames_received,
    /// Writes that these frames took.
    writes,
    /// Messages dropped because the peer's queue was full.
    dropped_full,
    /// Messages dropped because the peer was not reached, or another node was found there.
    dropped_unreachable,
    /// Messages and requests not taken: their lane is for members, or nobody listens on it.
    declined,
    /// Answers dropped: the connection had gone, or its queue was full.
    answers_dropped,
    /// Clients' requests from other nodes, and answers to them, that nobody understood.
    not_understood,
    /// Datagrams sent.
    datagrams_sent,
    /// Datagrams received.
    datagrams_received,
    /// Datagrams that were too long, or that the system or the receiver did not take.
    datagrams_dropped,
}

/// A number that several tasks change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// How far it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn more(&self) {
        self.add(1);
    }

    /// Counts one until what it gives is dropped.
    pub(super) fn held(&self) -> Held<'_> {
        self.more();
        Held(self)
    }
}

/// One of what a counter counts, for as long as this lives.
pub(super) struct Held<'a>(&'a Counter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
