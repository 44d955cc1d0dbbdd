//! What happened in a run, told for people: who did what when, and what went between nodes. Unless
//! a run is to be explained nobody listens, and nothing is put into words.

mod machines;
mod page;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use sprawl_core::ids::{PartitionId, RequestId};
use sprawl_core::machine::Digest;

pub(crate) use machines::{shard_does, shard_takes, view_changes};
pub(crate) use page::{Heading, page};

/// What is longer than this many characters is cut off.
const TEXT_MAX: usize = 240;

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// What befalls all: faults, healing, and what was found wrong.
    World,
    /// Those who use the nodes.
    Clients,
    /// A machine, by its number.
    Machine(usize),
}

impl Lane {
    fn number(self) -> usize {
        match self {
            Self::World => 0,
            Self::Clients => 1,
            Self::Machine(number) => number + 2,
        }
    }

    fn name(number: usize) -> String {
        match number {
            0 => "world".to_owned(),
            1 => "clients".to_owned(),
            machine => format!("machine {}", machine - 2),
        }
    }
}

/// What kind of thing it is; the page shows and hides them by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// An invariant was found violated.
    Violation,
    /// A fault, or its end.
    Fault,
    /// A process starts or ends.
    Process,
    /// The group that agrees on the metadata.
    Raft,
    /// Who leads a partition, and whose copies count.
    Partition,
    /// What one replica says to another.
    Replica,
    /// What a node asks another one for its clients, and is answered.
    Call,
    /// What control machines say to one another.
    Control,
    /// What clients ask and are told.
    Client,
    /// What is durable.
    Disk,
}

/// Something that happened in one place.
#[derive(Clone, Debug, Serialize)]
struct Moment {
    at_us: u64,
    lane: usize,
    kind: Kind,
    partition: Option<u64>,
    text: String,
}

/// A message from one place to another.
#[derive(Clone, Debug, Serialize)]
struct Flight {
    from: usize,
    sent_us: u64,
    to: usize,
    /// Nothing where it has not arrived.
    came_us: Option<u64>,
    kind: Kind,
    partition: Option<u64>,
    text: String,
}

/// All that happened.
#[derive(Debug, Default, Serialize)]
struct Told {
    lanes: Vec<String>,
    moments: Vec<Moment>,
    flights: Vec<Flight>,
    /// Which messages are on their way to a place, by what they are; those that are the same arrive
    /// in the order in which they were sent.
    #[serde(skip)]
    under_way: BTreeMap<(usize, u64), VecDeque<usize>>,
    /// From where a place was asked what it has not answered.
    #[serde(skip)]
    asked: BTreeMap<(usize, RequestId), Lane>,
}

/// Who tells it. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    told: Option<Arc<Mutex<Told>>>,
}

impl Story {
    /// One that somebody listens to.
    pub(crate) fn heard() -> Self {
        Self { told: Some(Arc::default()) }
    }

    /// Whether somebody listens.
    fn is_heard(&self) -> bool {
        self.told.is_some()
    }

    /// Does something with what was told, where somebody listens.
    fn tell<T>(&self, tell: impl FnOnce(&mut Told, u64) -> T) -> Option<T> {
        let told = self.told.as_ref()?;
        let now = madsim::time::TimeHandle::current().elapsed().as_micros() as u64;
        Some(tell(&mut told.lock().unwrap_or_else(PoisonError::into_inner), now))
    }

    /// Something happens.
    pub(crate) fn happens(
        &self,
        lane: Lane,
        kind: Kind,
        partition: Option<PartitionId>,
        text: impl FnOnce() -> String,
    ) {
        self.tell(|told, at_us| {
            let lane = told.lane(lane);
            let (partition, text) = (partition.map(|id| id.0), cut(text()));
            told.moments.push(Moment { at_us, lane, kind, partition, text });
        });
    }

    /// A message leaves for a place.
    pub(crate) fn leaves(
        &self,
        way: (Lane, Lane),
        kind: Kind,
        partition: Option<PartitionId>,
        message: &(impl Hash + std::fmt::Debug),
    ) {
        self.leaves_as(way, (kind, partition), message, || format!("{message:?}"));
    }

    /// The same, in other words.
    fn leaves_as(
        &self,
        (from, to): (Lane, Lane),
        (kind, partition): (Kind, Option<PartitionId>),
        message: &impl Hash,
        text: impl FnOnce() -> String,
    ) {
        self.tell(|told, sent_us| {
            let (from, to) = (told.lane(from), told.lane(to));
            let (partition, text) = (partition.map(|id| id.0), cut(text()));
            let number = told.flights.len();
            let flight = Flight { from, sent_us, to, came_us: None, kind, partition, text };
            told.flights.push(flight);
            told.under_way.entry((to, key(message))).or_default().push_back(number);
        });
    }

    /// It arrives; gives where it came from, if it was seen to leave.
    pub(crate) fn arrives(&self, to: Lane, message: &impl Hash) -> Option<Lane> {
        let from = self.tell(|told, came_us| {
            let waiting = told.under_way.get_mut(&(to.number(), key(message)))?;
            let flight = &mut told.flights[waiting.pop_front()?];
            flight.came_us = Some(came_us);
            Some(flight.from)
        })??;
        Some(match from {
            0 => Lane::World,
            1 => Lane::Clients,
            machine => Lane::Machine(machine - 2),
        })
    }
}

impl Story {
    /// A place is asked something by another one.
    fn asked(&self, at: Lane, id: RequestId, ask: &impl Hash) {
        if let Some(from) = self.arrives(at, ask) {
            self.tell(|told, _| told.asked.insert((at.number(), id), from));
        }
    }

    /// It answers.
    fn answers(&self, at: Lane, id: RequestId, answer: &(impl Hash + std::fmt::Debug)) {
        let asker = self.tell(|told, _| told.asked.remove(&(at.number(), id)));
        if let Some(asker) = asker.flatten() {
            self.leaves((at, asker), Kind::Call, None, answer);
        }
    }
}

impl Told {
    /// The number of a place, which has a name from now on.
    fn lane(&mut self, lane: Lane) -> usize {
        let number = lane.number();
        while self.lanes.len() <= number {
            self.lanes.push(Lane::name(self.lanes.len()));
        }
        number
    }
}

fn key(message: &impl Hash) -> u64 {
    let mut digest = Digest::default();
    message.hash(&mut digest);
    digest.finish()
}

/// The beginning of a text.
fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Which machine of a cluster is reached at an address.
pub(crate) fn machine_at(address: SocketAddr) -> Option<Lane> {
    let std::net::IpAddr::V4(ip) = address.ip() else { return None };
    let [10, 1, high, low] = ip.octets() else { return None };
    Some(Lane::Machine(usize::from(high) * 200 + usize::from(low.checked_sub(1)?)))
}
