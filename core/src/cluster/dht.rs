//! The one-hop lookup: from the hash of a topic and a partition to its owners at an epoch.
//!
//! Every node has the assignment itself, in its view; the cache in front of it also knows what
//! owners elsewhere have said since. Of two answers the one of the higher epoch is right: a stale
//! one costs one redirect, never a wrong answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::metadata::{Partition, View};
use super::topic::Topic;
use crate::ids::{DiskId, Epoch, PartitionId, TopicName};

/// How many routes the cache holds at most.
pub const ROUTES_MAX: usize = 16_384;

/// A key of the table: a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Its first 64 bits, by which nodes are ranked for it.
    #[must_use]
    pub fn slot(self) -> u64 {
        let (first, _) = self.0.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
        u64::from_be_bytes(*first)
    }
}

/// In 64 hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of a topic: the SHA-256 of its name.
#[must_use]
pub fn topic_key(topic: &TopicName) -> Key {
    Key(Sha256::digest(topic.as_str().as_bytes()).into())
}

/// The key of a partition: the SHA-256 of its topic's name, a zero byte, which no name has, and
/// its number in four bytes, big-endian.
#[must_use]
pub fn key(topic: &TopicName, number: u32) -> Key {
    let hash = Sha256::new().chain_update(topic.as_str().as_bytes()).chain_update([0]);
    Key(hash.chain_update(number.to_be_bytes()).finalize().into())
}

/// Who owns a partition, as of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The partition.
    pub partition: PartitionId,
    /// The reign of the first of the owners.
    pub epoch: Epoch,
    /// The leader, and after it whoever else holds a copy.
    pub owners: Vec<DiskId>,
}

impl Route {
    fn of(partition: &Partition) -> Self {
        let others = partition.replicas.iter().filter(|disk| **disk != partition.leader);
        let owners = [&partition.leader].into_iter().chain(others).copied().collect();
        Self { partition: partition.id, epoch: partition.epoch, owners }
    }

    /// The age of what it says: of two routes the greater one is right. A partition of a later
    /// name belongs to a topic that was deleted and made again.
    fn age(&self) -> (PartitionId, Epoch) {
        (self.partition, self.epoch)
    }
}

/// What the lookups of a node came to since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lookups {
    /// Answered by the cache.
    pub hits: u64,
    /// Answered by the view, because the cache had nothing or something older.
    pub misses: u64,
    /// Answers of an owner that named another one, of a later epoch.
    pub redirects: u64,
}

/// Where this node finds the owners of partitions.
///
/// Invariants, checked by `check`: (1) no more than [`ROUTES_MAX`] routes; (2) each stands once in
/// the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Dht {
    routes: BTreeMap<(TopicName, u32), Route>,
    order: VecDeque<(TopicName, u32)>,
    lookups: Lookups,
}

impl Dht {
    /// The owners of a partition, by the newest that this node knows; `None` for what there is not.
    pub fn find(&mut self, view: &View, topic: &TopicName, number: u32) -> Option<Route> {
        let agreed = view.partition_number(topic, number)?;
        let place = (topic.clone(), number);
        let cached = self.routes.get(&place);
        match cached.filter(|route| route.age() >= (agreed.id, agreed.epoch)) {
            Some(route) => {
                self.lookups.hits += 1;
                Some(route.clone())
            }
            None => {
                self.lookups.misses += 1;
                let route = Route::of(agreed);
                self.keep(place, route.clone());
                Some(route)
            }
        }
    }

    /// Another node was asked, and says who the owner is. What is no later than what is known
    /// changes nothing; whether it was later.
    pub fn redirected(&mut self, topic: &TopicName, number: u32, route: Route) -> bool {
        let place = (topic.clone(), number);
        let known = self.routes.get(&place);
        let is_later = known.is_none_or(|known| known.age() < route.age());
        if is_later && !route.owners.is_empty() {
            self.lookups.redirects += 1;
            self.keep(place, route);
        }
        is_later
    }

    /// What the lookups came to.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        self.lookups
    }

    /// How many routes the cache holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether the cache holds no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Checks the invariants that [`Dht`] lists.
    ///
    /// # Errors
    ///
    /// Says what is out of bounds.
    pub fn check(&self) -> Result<(), String> {
        if self.routes.len() > ROUTES_MAX || self.order.len() != self.routes.len() {
            let (routes, order) = (self.routes.len(), self.order.len());
            return Err(format!("{routes} routes in an order of {order}; {ROUTES_MAX} is most"));
        }
        Ok(())
    }

    fn keep(&mut self, place: (TopicName, u32), route: Route) {
        if self.routes.insert(place.clone(), route).is_some() {
            return;
        }
        self.order.push_back(place);
        if self.routes.len() > ROUTES_MAX {
            let oldest = self.order.pop_front().expect("there are routes");
            self.routes.remove(&oldest);
        }
    }
}

/// What an owner answers whoever asks it under `epoch`: nothing when it is the leader of that
/// epoch, or the route that is right as far as it knows.
#[must_use]
pub fn redirect(view: &View, me: DiskId, partition: PartitionId, epoch: Epoch) -> Option<Route> {
    let agreed = view.partitions.get(&partition)?;
    let is_mine = agreed.leader == me && agreed.epoch == epoch;
    (!is_mine).then(|| Route::of(agreed))
}

/// The table for people: each topic under its key, with the routes of its partitions by number.
pub fn topic_map(view: &View) -> impl Iterator<Item = (Key, &Topic, Vec<Route>)> {
    view.topics.values().map(|topic| {
        let parts =
            topic.partitions.iter().filter_map(|range| view.partitions.get(&range.partition));
        (topic_key(&topic.name), &**topic, parts.map(|partition| Route::of(partition)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::metadata::Change;
    use crate::cluster::topic::TopicConfig;
    use crate::ids::ChangeIndex;

    fn name(text: &str) -> TopicName {
        text.parse().expect("a name")
    }

    /// A node with one topic of two partitions.
    fn view() -> View {
        let mut view = crate::cluster::metadata::founded();
        let config = TopicConfig { partitions: 2, ..TopicConfig::default() };
        let change = Change::CreateTopic { name: name("t"), config };
        view.apply(ChangeIndex(view.version.0 + 5), &change);
        view
    }

    #[test]
    fn a_key_is_the_sha_256() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(topic_key(&name("abc")).to_string(), abc);
        assert_eq!(topic_key(&name("abc")).slot(), 0xba78_16bf_8f01_cfea);
        assert_ne!(key(&name("a"), 1), key(&name("a"), 2));
    }

    #[test]
    fn the_later_epoch_is_right() {
        let (view, mut dht, topic) = (view(), Dht::default(), name("t"));
        let first = dht.find(&view, &topic, 1).expect("a route");
        assert_eq!(dht.find(&view, &topic, 1), Some(first.clone()));
        assert_eq!((dht.lookups().misses, dht.lookups().hits), (1, 1));

        let later = Route { epoch: first.epoch.next(), owners: vec![DiskId(9)], ..first.clone() };
        assert!(dht.redirected(&topic, 1, later.clone()));
        assert!(!dht.redirected(&topic, 1, first.clone()), "an older answer comes late");
        assert_eq!(dht.find(&view, &topic, 1), Some(later));
        assert_eq!(dht.lookups(), Lookups { hits: 2, misses: 1, redirects: 1 });

        // The view goes past what the redirect said.
        let mut past = view.clone();
        for boot in 2..5 {
            let index = past.version.next();
            past.apply(index, &crate::cluster::metadata::restarted(boot));
        }
        let found = dht.find(&past, &topic, 1).expect("a route");
        assert_eq!(found.epoch.0, first.epoch.0 + 3);
        assert_eq!(dht.lookups().misses, 2);
        assert_eq!(dht.find(&past, &name("u"), 0), None);
        assert_eq!(redirect(&past, DiskId(1), found.partition, found.epoch), None);
        assert_eq!(redirect(&past, DiskId(1), found.partition, first.epoch), Some(found.clone()));
        assert_eq!(redirect(&past, DiskId(2), found.partition, found.epoch), Some(found));
        assert_eq!(topic_map(&past).map(|(_, _, routes)| routes.len()).sum::<usize>(), 2);
    }

    #[test]
    fn the_oldest_routes_make_room() {
        let (mut dht, topic) = (Dht::default(), name("t"));
        for number in 0..=ROUTES_MAX as u32 {
            let partition = PartitionId(u64::from(number));
            dht.redirected(
                &topic,
                number,
                Route { partition, epoch: Epoch(1), owners: vec![DiskId(1)] },
            );
            assert_eq!(dht.check(), Ok(()));
        }
        assert_eq!(dht.len(), ROUTES_MAX);
        assert!(!dht.is_empty() && !dht.routes.contains_key(&(topic, 0)));
    }
}
