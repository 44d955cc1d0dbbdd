//! The metadata as one run of bytes: what a node stores beside its log, and what a node receives
//! that is too far behind for the log.
//!
//! A snapshot is a sequence of pieces, each a length and a frame of the codec, so that none is
//! larger than a frame may be however much the cluster has agreed on. What can be found again from
//! the rest (who means which topic) is not written. The last piece is the digest of the view, which
//! whoever reads it has to arrive at.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::{Member, Node, Partition, Retired, View};
use crate::cluster::pattern::TopicPattern;
use crate::cluster::subscription::{Delivery, StartFrom, Subscription};
use crate::cluster::topic::Topic;
use crate::ids::{ChangeIndex, ClusterId, DiskId, Epoch, PartitionId, SubscriptionId, TopicName};
use crate::machine::WallTime;
use crate::wire::{self, BadFrame};

/// How many nodes, topics or partitions one piece holds at most.
const PIECE_ITEMS_MAX: usize = 1_024;
/// How many subscriptions; each may name a thousand topics.
const PIECE_SUBSCRIPTIONS_MAX: usize = 64;
/// How many bytes say how long a piece is.
const LENGTH_BYTES: usize = 4;

/// One piece.
#[derive(Serialize, Deserialize)]
enum Piece {
    Head {
        version: ChangeIndex,
        cluster: Option<ClusterId>,
        level: u32,
        last_partition: PartitionId,
    },
    Nodes(Vec<(DiskId, Node)>),
    Retired(Vec<(DiskId, Retired)>),
    Topics(Vec<Topic>),
    Partitions(Vec<Stored>),
    Subscriptions(Vec<Held>),
    End {
        digest: u64,
    },
}

/// A partition without what its topic says.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: PartitionId,
    created: ChangeIndex,
    epoch: Epoch,
    version: u64,
    leader: DiskId,
    replicas: Vec<DiskId>,
    in_sync: Vec<Member>,
    min_in_sync: u32,
    frozen: bool,
    early: bool,
    trusted: u64,
}

/// A subscription without the topics that it happens to match.
#[derive(Serialize, Deserialize)]
struct Held {
    id: SubscriptionId,
    created: ChangeIndex,
    topics: Vec<TopicPattern>,
    from: StartFrom,
    delivery: Delivery,
    used: WallTime,
}

/// Why bytes are no snapshot. Nothing of them was used, and they are never taken for an empty one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// It ends in the middle.
    #[error("the snapshot is cut off")]
    CutOff,
    /// A piece does not read.
    #[error("a piece of the snapshot does not read: {0}")]
    Piece(#[from] BadFrame),
    /// The pieces do not fit together.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(String),
}

impl View {
    /// The view as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let View { version, cluster, level, last_partition, .. } = *self;
        push(&mut bytes, &Piece::Head { version, cluster, level, last_partition });
        let nodes = self.nodes.iter().map(|(disk, node)| (*disk, Node::clone(node)));
        push_all(&mut bytes, nodes, PIECE_ITEMS_MAX, Piece::Nodes);
        let retired = self.retired.iter().map(|(disk, retired)| (*disk, Retired::clone(retired)));
        push_all(&mut bytes, retired, PIECE_ITEMS_MAX, Piece::Retired);
        let topics = self.topics.values().map(|topic| Topic::clone(topic));
        push_all(&mut bytes, topics, PIECE_ITEMS_MAX, Piece::Topics);
        let partitions = self.partitions.values().map(|partition| Stored::of(partition));
        push_all(&mut bytes, partitions, PIECE_ITEMS_MAX, Piece::Partitions);
        let held = self.subscriptions.values().map(|subscription| Held::of(subscription));
        push_all(&mut bytes, held, PIECE_SUBSCRIPTIONS_MAX, Piece::Subscriptions);
        push(&mut bytes, &Piece::End { digest: self.fingerprint() });
        bytes
    }

    /// The view that a snapshot was made of.
    ///
    /// # Errors
    ///
    /// [`BadSnapshot`]; it never panics, whatever the bytes.
    pub fn restore(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let mut restoring = Restoring::default();
        let mut left = bytes;
        loop {
            let (length, rest) =
                left.split_first_chunk::<LENGTH_BYTES>().ok_or(BadSnapshot::CutOff)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (frame, rest) = rest.split_at_checked(length).ok_or(BadSnapshot::CutOff)?;
            left = rest;
            if let Piece::End { digest } = restoring.take(wire::decode(frame)?) {
                return restoring.finish(digest, left);
            }
        }
    }
}

fn push(bytes: &mut Vec<u8>, piece: &Piece) {
    let frame = wire::encode(piece);
    let length = u32::try_from(frame.len()).expect("a frame has a bound far below");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&frame);
}

fn push_all<T>(
    bytes: &mut Vec<u8>,
    mut items: impl Iterator<Item = T>,
    count_max: usize,
    piece: impl Fn(Vec<T>) -> Piece,
) {
    loop {
        let part: Vec<T> = items.by_ref().take(count_max).collect();
        if part.is_empty() {
            return;
        }
        push(bytes, &piece(part));
    }
}

impl Stored {
    fn of(partition: &Partition) -> Self {
        Self {
            id: partition.id,
            created: partition.created,
            epoch: partition.epoch,
            version: partition.version,
            leader: partition.leader,
            replicas: partition.replicas.clone(),
            in_sync: partition.in_sync.clone(),
            min_in_sync: partition.min_in_sync,
            frozen: partition.frozen,
            early: partition.early,
            trusted: partition.trusted,
        }
    }
}

impl Held {
    fn of(subscription: &Subscription) -> Self {
        Self {
            id: subscription.id.clone(),
            created: subscription.created,
            topics: subscription.topics.clone(),
            from: subscription.from,
            delivery: subscription.delivery.clone(),
            used: subscription.used,
        }
    }
}

/// A view that is being read.
#[derive(Default)]
struct Restoring {
    view: View,
    partitions: BTreeMap<PartitionId, Stored>,
    held: Vec<Held>,
}

impl Restoring {
    /// Takes a piece; gives it back when it is the last.
    fn take(&mut self, piece: Piece) -> Piece {
        match piece {
            Piece::Head { version, cluster, level, last_partition } => {
                self.view = View { version, cluster, level, last_partition, ..View::default() };
            }
            Piece::Nodes(nodes) => {
                for (disk, node) in nodes {
                    self.view.by_id.insert(node.id, disk);
                    self.view.nodes.insert(disk, Arc::new(node));
                }
            }
            Piece::Retired(retired) => {
                for (disk, retired) in retired {
                    self.view.by_id.insert(retired.id, disk);
                    self.view.retired.insert(disk, Arc::new(retired));
                }
            }
            Piece::Topics(topics) => {
                let named = topics.into_iter().map(|topic| (topic.name.clone(), Arc::new(topic)));
                self.view.topics.extend(named);
            }
            Piece::Partitions(stored) => {
                self.partitions.extend(stored.into_iter().map(|stored| (stored.id, stored)));
            }
            Piece::Subscriptions(mut held) => self.held.append(&mut held),
            end @ Piece::End { .. } => return end,
        }
        Piece::Partitions(Vec::new())
    }

    fn finish(mut self, digest: u64, left: &[u8]) -> Result<View, BadSnapshot> {
        let contradiction = |what: String| Err(BadSnapshot::Contradiction(what));
        self.place_partitions()?;
        for held in std::mem::take(&mut self.held) {
            self.subscribe(held);
        }
        if !left.is_empty() {
            return contradiction(format!("{} bytes follow its end", left.len()));
        }
        if let Err(broken) = self.view.check() {
            return contradiction(broken);
        }
        if self.view.fingerprint() != digest {
            return contradiction("it does not lead to the view that it was made of".to_owned());
        }
        Ok(self.view)
    }

    fn place_partitions(&mut self) -> Result<(), BadSnapshot> {
        for topic in self.view.topics.clone().values() {
            let config = Arc::new(topic.config.clone());
            for (number, range) in (0..).zip(&topic.partitions) {
                let id = range.partition;
                let Some(stored) = self.partitions.remove(&id) else {
                    let what = format!("topic '{}' has no partition {id}", topic.name);
                    return Err(BadSnapshot::Contradiction(what));
                };
                let partition = Partition {
                    id,
                    topic: topic.name.clone(),
                    config: config.clone(),
                    number,
                    created: stored.created,
                    epoch: stored.epoch,
                    version: stored.version,
                    leader: stored.leader,
                    replicas: stored.replicas,
                    in_sync: stored.in_sync,
                    min_in_sync: stored.min_in_sync,
                    frozen: stored.frozen,
                    early: stored.early,
                    trusted: stored.trusted,
                };
                for &disk in &partition.replicas {
                    self.view.held.entry(disk).or_default().insert(id);
                }
                self.view.partitions.insert(id, Arc::new(partition));
            }
        }
        match self.partitions.keys().next() {
            Some(id) => {
                let what = format!("partition {id} is part of no topic");
                Err(BadSnapshot::Contradiction(what))
            }
            None => Ok(()),
        }
    }

    fn subscribe(&mut self, held: Held) {
        let Held { id, created, topics, from, delivery, used } = held;
        let view = &mut self.view;
        for name in topics.iter().filter_map(TopicPattern::plain) {
            view.plain.insert((name, id.clone()));
        }
        if topics.iter().any(|pattern| pattern.plain().is_none()) {
            view.patterned.insert(id.clone());
        }
        let matched: OrdSet<TopicName> = view.topics_meant(&id, &topics);
        for name in &matched {
            view.add_subscriber(name, &id);
        }
        let subscription =
            Subscription { id: id.clone(), created, topics, matched, from, delivery, used };
        view.subscriptions.insert(id, Arc::new(subscription));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::metadata::Change;
    use crate::cluster::metadata::{CAPACITY_NORMAL, FEATURE_LEVEL, Leaving, Registration};
    use crate::cluster::topic::TopicConfig;
    use crate::ids::Boot;

    fn registered(disk: u128, name: &str) -> Change {
        let address = core::net::SocketAddr::from(([127, 0, 0, 1], 7946));
        Change::Register(Registration {
            disk: DiskId(disk),
            boot: Boot(2),
            run: 5,
            name: name.to_owned(),
            address,
            http: address,
            zone: "a".to_owned(),
            capacity: CAPACITY_NORMAL,
            level: FEATURE_LEVEL,
            clean: true,
        })
    }

    /// A view with some of everything.
    fn view() -> View {
        let name = |text: &str| text.parse::<TopicName>().expect("a name");
        let pattern = |text: &str| text.parse::<TopicPattern>().expect("a pattern");
        let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
        let subscribe = |id: &str, topics: &[&str]| Change::Subscribe {
            id: id.parse().expect("a name"),
            topics: topics.iter().map(|text| pattern(text)).collect(),
            from: StartFrom::Latest,
            delivery: Delivery::default(),
            at: WallTime(5),
        };
        let changes = [
            Change::Found { cluster: ClusterId(9) },
            registered(7, "n"),
            registered(8, "m"),
            Change::CreateTopic { name: name("orders.eu"), config },
            subscribe("all", &["orders.>", "later"]),
            subscribe("one", &["plain"]),
            Change::CreateTopic { name: name("orders.us"), config: TopicConfig::default() },
            Change::DeleteTopic { name: name("plain") },
            Change::Decommission { disk: DiskId(8), how: Leaving::AtOnce },
            Change::Retire { disk: DiskId(8), boot: Boot(2) },
        ];
        let mut view = View::default();
        for (index, change) in (1..).zip(&changes) {
            view.apply(ChangeIndex(index * 3), change);
        }
        view
    }

    #[test]
    fn a_view_comes_back_whole_and_goes_on_alike() {
        let mut first = view();
        let mut second = View::restore(&first.snapshot()).expect("it was a snapshot");
        assert_eq!(second.fingerprint(), first.fingerprint());
        let again = Change::CreateTopic {
            name: "orders.late".parse().expect("a name"),
            config: TopicConfig::default(),
        };
        for view in [&mut first, &mut second] {
            view.apply(ChangeIndex(100), &again);
        }
        assert_eq!(second.fingerprint(), first.fingerprint());
        assert_eq!(second.subscribers, first.subscribers);
        assert_eq!(second.plain, first.plain);
        assert_eq!(second.patterned, first.patterned);
        assert_eq!(second.by_id, first.by_id);
        assert_eq!(second.held, first.held);
    }

    #[test]
    fn what_is_cut_or_altered_is_never_a_view() {
        let good = view().snapshot();
        for end in 0..good.len() {
            assert!(View::restore(&good[..end]).is_err(), "cut at {end}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(View::restore(&longer).is_err());
        let original = view();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            if let Ok(read) = View::restore(&bytes) {
                assert_eq!(read.fingerprint(), original.fingerprint(), "a flip at {at}");
            }
        }
    }
}
