//! What the clients did and saw: the only ground for judging the messages.

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

/// How one try to publish ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Try {
    /// Stored, at this place.
    Acknowledged { partition: u32, offset: Offset, duplicate: bool },
    /// Not stored, by this try, now or ever.
    Refused,
    /// Nobody knows: no answer, or one that says so.
    Unknown,
}

/// A message that a client tried to publish.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) topic: u32,
    pub(crate) payload: Vec<u8>,
    /// When the first try was sent, in simulated milliseconds.
    pub(crate) sent_ms: u64,
    pub(crate) tries: Vec<Try>,
    /// Tries that have not ended.
    pub(crate) open: u32,
}

impl Published {
    /// Where an answer said that it stands.
    pub(crate) fn place(&self) -> Option<(u32, Offset)> {
        self.tries.iter().find_map(|one| match one {
            Try::Acknowledged { partition, offset, .. } => Some((*partition, *offset)),
            Try::Refused | Try::Unknown => None,
        })
    }

    /// Whether each try was refused, so that it must stand nowhere.
    pub(crate) fn is_refused(&self) -> bool {
        self.open == 0 && self.tries.iter().all(|one| *one == Try::Refused)
    }
}

/// A message as a reader or subscriber saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) topic: u32,
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) payload: Vec<u8>,
}

/// A subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) topics: Vec<u32>,
    pub(crate) latest: bool,
    /// When its first answer came, in simulated milliseconds.
    pub(crate) answered_ms: Option<u64>,
    /// How often each message came, by topic and id.
    pub(crate) received: BTreeMap<(u32, String), u32>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) published: BTreeMap<String, Published>,
    pub(crate) subscribed: BTreeMap<String, Subscribed>,
    /// Messages given to readers and subscribers.
    pub(crate) seen: u64,
    /// Acknowledgements of subscribers that were taken.
    pub(crate) acknowledged: u64,
}

impl History {
    /// How many messages were acknowledged to publishers.
    pub(crate) fn stored(&self) -> usize {
        self.published.values().filter(|message| message.place().is_some()).count()
    }
}
