//! What the clients did and saw: the only ground for judging the messages.

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

use crate::invariants::Buried;
use crate::plan::{Filter, Keeping};

/// What clients count beside what they store and see: a set of seeds that holds none of one kind
/// says nothing of it.
pub(crate) const CONFLICTS: &str = "conflicts of conditions";
pub(crate) const DELAYED: &str = "delayed";
pub(crate) const EXPIRED: &str = "expired";
pub(crate) const FILTERED: &str = "filtered";
pub(crate) const REDELIVERED: &str = "redelivered";
pub(crate) const GIVEN_BACK: &str = "given back";
pub(crate) const REJECTED: &str = "rejected";
pub(crate) const EXTENDED: &str = "extended";
pub(crate) const BURIED: &str = "dead-lettered";
pub(crate) const REDRIVEN: &str = "redriven";
pub(crate) const PURGED: &str = "purged";
pub(crate) const RETIRED: &str = "removed by retention";
pub(crate) const FOUND_BY_TIME: &str = "found by time";
pub(crate) const FOUND_BY_ID: &str = "found by id";
pub(crate) const DELETED: &str = "topics deleted";
pub(crate) const SHED: &str = "refused for load";
pub(crate) const REPEATED: &str = "repeats of a number";
pub(crate) const KINDS: [&str; 17] = [
    CONFLICTS,
    DELAYED,
    EXPIRED,
    FILTERED,
    REDELIVERED,
    GIVEN_BACK,
    REJECTED,
    EXTENDED,
    BURIED,
    REDRIVEN,
    PURGED,
    RETIRED,
    FOUND_BY_TIME,
    FOUND_BY_ID,
    DELETED,
    SHED,
    REPEATED,
];

/// How one try to publish ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Try {
    /// Stored, at this place.
    Acknowledged { partition: u32, offset: Offset, duplicate: bool },
    /// Its number is stored, at this place, perhaps under another id.
    Repeats { partition: u32, offset: Offset },
    /// Not stored, by this try, now or ever.
    Refused,
    /// Nobody knows: no answer, or one that says so.
    Unknown,
}

/// A message's number among those of its producer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) producer: String,
    pub(crate) number: u64,
}

/// What a message bears beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) key: Option<String>,
    /// The header that filters look at.
    pub(crate) kind: Option<String>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) delay_ms: u64,
    pub(crate) priority: Option<u64>,
    /// Whether subscribers cannot take it.
    pub(crate) poison: bool,
    /// The only offset at which it may stand.
    pub(crate) expected: Option<u64>,
    /// Its producer and its number, which another id may bear too.
    pub(crate) number: Option<Number>,
}

/// A message that a client tried to publish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) topic: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) terms: Terms,
    /// When the first try was sent, in simulated milliseconds.
    pub(crate) sent_ms: u64,
    pub(crate) tries: Vec<Try>,
    /// Tries that have not ended.
    pub(crate) open: u32,
    /// When somebody first knew that it stands: it was stored between `sent_ms` and then.
    pub(crate) known_ms: Option<u64>,
}

impl Published {
    /// Where an answer said that it stands.
    pub(crate) fn place(&self) -> Option<(u32, Offset)> {
        self.tries.iter().find_map(|one| match one {
            Try::Acknowledged { partition, offset, .. } => Some((*partition, *offset)),
            Try::Repeats { .. } | Try::Refused | Try::Unknown => None,
        })
    }

    /// Where answers said that its number stands, if it has one.
    pub(crate) fn number_places(&self) -> impl Iterator<Item = (u32, Offset)> {
        let numbered = self.terms.number.is_some();
        self.tries.iter().filter(move |_| numbered).filter_map(|one| match one {
            Try::Acknowledged { partition, offset, .. } | Try::Repeats { partition, offset } => {
                Some((*partition, *offset))
            }
            Try::Refused | Try::Unknown => None,
        })
    }

    /// Somebody saw it, or was told that it is stored.
    pub(crate) fn known(&mut self, now_ms: u64) {
        self.known_ms = Some(self.known_ms.map_or(now_ms, |before| before.min(now_ms)));
    }

    /// The earliest time at which it may expire, if it does.
    pub(crate) fn expires_from(&self) -> Option<u64> {
        self.terms.ttl_ms.map(|ttl| self.sent_ms + ttl)
    }

    /// The latest time at which it expires, if it does and anybody knows that it was stored.
    pub(crate) fn expires_by(&self) -> Option<u64> {
        Some(self.known_ms? + self.terms.ttl_ms?)
    }

    /// Whether each try was refused, so that it must stand nowhere.
    pub(crate) fn is_refused(&self) -> bool {
        self.open == 0 && self.tries.iter().all(|one| *one == Try::Refused)
    }
}

/// A message as a reader or subscriber saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) topic: u32,
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) payload: Vec<u8>,
    /// Which delivery of it this is, as the node counts; 0 without a subscription.
    pub(crate) attempt: u64,
}

/// A request by which a client saw something: what the node did for it, it did in between.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// When it was sent.
    pub(crate) from_ms: u64,
    /// When its answer came.
    pub(crate) to_ms: u64,
    /// How often the node had started when it was sent.
    pub(crate) starts: u64,
    /// How often when its answer came.
    pub(crate) starts_after: u64,
    /// Whether the node had another pull of the subscription under way meanwhile.
    pub(crate) overlapped: bool,
}

/// What a subscriber has received of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) count: u64,
    /// How often the node had started before the first time.
    pub(crate) starts: u64,
    /// Whether its acknowledgement was taken, or may have been.
    pub(crate) acknowledged: bool,
}

/// A subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) topics: Vec<u32>,
    pub(crate) latest: bool,
    pub(crate) filter: Option<Filter>,
    pub(crate) max_deliver: u64,
    /// When its first answer came, in simulated milliseconds.
    pub(crate) answered_ms: Option<u64>,
    /// What came, by topic and id.
    pub(crate) received: BTreeMap<(u32, String), Received>,
    /// The newest first delivery of each key, by topic and partition, and the run of the node
    /// that made it.
    pub(crate) newest: BTreeMap<(u32, u32, String), (Offset, u64)>,
}

impl Subscribed {
    /// Whether a message is one that its filter lets pass.
    pub(crate) fn wants(&self, terms: &Terms) -> bool {
        match &self.filter {
            None => true,
            Some(Filter::Kinds(kinds)) => terms.kind.as_ref().is_some_and(|k| kinds.contains(k)),
            Some(Filter::NoKind) => terms.kind.is_none(),
            Some(Filter::KeyPrefix(prefix)) => {
                terms.key.as_ref().is_some_and(|key| key.starts_with(prefix))
            }
            Some(Filter::Keys(keys)) => terms.key.as_ref().is_some_and(|key| keys.contains(key)),
        }
    }
}

/// A removal that a reader has noticed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removal {
    pub(crate) topic: u32,
    /// The first offset that was left.
    pub(crate) start: Offset,
    /// When that was known.
    pub(crate) at_ms: u64,
}

/// A look for the first message of a time or later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    pub(crate) topic: u32,
    /// The time that was asked for, in simulated milliseconds.
    pub(crate) time_ms: u64,
    /// The first offset that was retained.
    pub(crate) start: Offset,
    /// The first offset that was given, or where to go on.
    pub(crate) found: Offset,
    /// When the answer came.
    pub(crate) at_ms: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) published: BTreeMap<String, Published>,
    pub(crate) subscribed: BTreeMap<String, Subscribed>,
    /// By how much a time may differ.
    pub(crate) tolerance_ms: u64,
    /// The last place in each topic that a publisher was told.
    pub(crate) ends: BTreeMap<u32, Offset>,
    /// How each topic is kept, by its number.
    pub(crate) keeping: Vec<Keeping>,
    /// Up to which offset somebody has asked for a topic's removal.
    pub(crate) purged: BTreeMap<u32, Offset>,
    /// Removals in the order in which they were noticed, each further than those before it.
    pub(crate) removals: Vec<Removal>,
    /// Offsets that a reader was led past without a message, with when that was first.
    pub(crate) skipped: BTreeMap<(u32, Offset), u64>,
    /// What readers found by time.
    pub(crate) sought: Vec<Sought>,
    /// Messages that were asked for by id when they were known to be stored, and not found, with
    /// when that was.
    pub(crate) unfound: Vec<(String, u64)>,
    /// Dead letters that were read.
    pub(crate) buried: Buried,
    /// Messages given to readers and subscribers.
    pub(crate) seen: u64,
    /// Acknowledgements of subscribers that were taken.
    pub(crate) acknowledged: u64,
    /// What else happened, and how often.
    pub(crate) work: BTreeMap<&'static str, u64>,
}

impl History {
    /// How many messages were acknowledged to publishers.
    pub(crate) fn stored(&self) -> usize {
        self.published.values().filter(|message| message.place().is_some()).count()
    }

    /// How often a client did or saw something.
    pub(crate) fn operations(&self) -> u64 {
        self.stored() as u64 + self.seen + self.acknowledged + self.work.values().sum::<u64>()
    }

    /// Notes that something happened so many times more.
    pub(crate) fn count(&mut self, what: &'static str, times: u64) {
        *self.work.entry(what).or_insert(0) += times;
    }

    /// A reader of a topic was told where it begins.
    pub(crate) fn begins(&mut self, topic: u32, start: Offset, at_ms: u64) {
        let before = self.removals.iter().filter(|removal| removal.topic == topic);
        let before = before.map(|removal| removal.start).max().unwrap_or_default();
        if start > before {
            self.removals.push(Removal { topic, start, at_ms });
        }
    }

    /// Where a topic begins, as far as anybody was told.
    pub(crate) fn start_of(&self, topic: u32) -> Offset {
        let of = self.removals.iter().filter(|removal| removal.topic == topic);
        of.map(|removal| removal.start).max().unwrap_or_default()
    }
}
