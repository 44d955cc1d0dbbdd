//! Where publishes wait for their turn, bounded in bytes, fairly shared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source;
use super::turns::Turns;
use crate::broker::desk::ReplyTo;
use crate::broker::replica::{Envelope, Submission};
use crate::ids::{PartitionId, Priority, Source};
use crate::machine::Time;
use crate::zoo::{Bug, planted};

/// What a message takes beside its payload, about, in bytes: so that tiny ones are bounded too.
const OVERHEAD_BYTES: usize = 256;
/// How many times what is free a topic's partition may hold over all clients, before those are
/// refused that have something waiting.
const TOPIC_SHARE: usize = 2;

/// Publishes of one request to one partition.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) partition: PartitionId,
    pub(crate) messages: Vec<(ReplyTo, Submission)>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        let of = |(_, submission): &(ReplyTo, Submission)| {
            let Envelope { headers, .. } = &submission.draft.envelope;
            let headers = headers.iter().map(|(name, value)| name.len() + value.len());
            submission.draft.payload.len() + headers.sum::<usize>() + OVERHEAD_BYTES
        };
        self.messages.iter().map(of).sum()
    }

    fn priority(&self) -> Priority {
        let all = self.messages.iter().map(|(_, submission)| submission.terms.priority);
        all.max().unwrap_or_default()
    }
}

/// What holds too many bytes already, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The client itself.
    Client(usize),
    /// All clients of the topic's partition.
    Topic(usize),
    /// All clients.
    Node(usize),
}

/// A place in a queue.
#[derive(Debug)]
struct Place {
    number: u64,
    bytes: usize,
    /// When to give it up.
    deadline: Time,
    waiting: Waiting,
}

/// One client's publishes.
#[derive(Debug, Default)]
struct Client {
    bytes: usize,
    turns: Turns<PartitionId>,
    queues: BTreeMap<PartitionId, VecDeque<Place>>,
}

/// Everyone's.
#[derive(Debug)]
pub(super) struct Lobby {
    room: usize,
    bytes: usize,
    clients: BTreeMap<Source, Client>,
    turns: Turns<Source>,
    /// How much waits for each partition.
    partitions: BTreeMap<PartitionId, usize>,
    /// When to give up the first of each queue: those behind it came later.
    deadlines: BTreeSet<(Time, u64, Source, PartitionId)>,
    next: u64,
}

impl Lobby {
    /// Room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        let (clients, turns) = (BTreeMap::new(), Turns::default());
        let (partitions, deadlines) = (BTreeMap::new(), BTreeSet::new());
        Self { room, bytes: 0, clients, turns, partitions, deadlines, next: 0 }
    }

    /// Takes publishes in, or gives them back with what holds too much. An empty lobby takes
    /// whatever comes.
    pub(super) fn enter(
        &mut self,
        waiting: Waiting,
        deadline: Time,
    ) -> Result<(), (Waiting, Full)> {
        let bytes = waiting.bytes();
        if let Some(full) = self.full(&waiting, bytes)
            && !planted(Bug::LobbyWithoutBound)
        {
            return Err((waiting, full));
        }
        let (from, partition) = (source(&waiting.messages), waiting.partition);
        let client = self.clients.entry(from).or_default();
        client.bytes += bytes;
        client.turns.join(partition);
        let queue = client.queues.entry(partition).or_default();
        if queue.is_empty() {
            self.deadlines.insert((deadline, self.next, from, partition));
        }
        queue.push_back(Place { number: self.next, bytes, deadline, waiting });
        self.turns.join(from);
        *self.partitions.entry(partition).or_default() += bytes;
        self.bytes += bytes;
        self.next += 1;
        Ok(())
    }

    /// What is in the way of so many bytes more. The urgent may hold twice what is free, the
    /// unimportant half.
    fn full(&self, waiting: &Waiting, bytes: usize) -> Option<Full> {
        if self.bytes == 0 {
            return None;
        }
        let free = self.room.saturating_sub(self.bytes);
        let share = match waiting.priority().cmp(&Priority::NORMAL) {
            std::cmp::Ordering::Less => free / 2,
            std::cmp::Ordering::Equal => free,
            std::cmp::Ordering::Greater => free * 2,
        };
        if planted(Bug::LobbyWithoutShares) {
            return (bytes > free).then_some(Full::Node(self.bytes));
        }
        let client = self.held_by(source(&waiting.messages));
        let topic = self.partitions.get(&waiting.partition).copied().unwrap_or_default();
        if client > 0 && client + bytes > share {
            Some(Full::Client(client))
        } else if client > 0 && topic + bytes > TOPIC_SHARE * free {
            Some(Full::Topic(topic))
        } else if bytes > free {
            Some(Full::Node(self.bytes))
        } else {
            None
        }
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        let from = self.turns.next()?;
        let client = self.clients.get(&from).expect("who has a turn waits");
        let partition = client.turns.next().expect("a client waits for something");
        Some(self.take(from, partition, true))
    }

    /// One that has waited too long. It had no turn, and pays for none.
    pub(super) fn give_up(&mut self, now: Time) -> Option<Waiting> {
        let &(_, _, from, partition) = self.deadlines.first().filter(|first| first.0 <= now)?;
        Some(self.take(from, partition, false))
    }

    /// Takes the first of a client for a partition out.
    fn take(&mut self, from: Source, partition: PartitionId, has_turn: bool) -> Waiting {
        let client = self.clients.get_mut(&from).expect("it waits");
        let queue = client.queues.get_mut(&partition).expect("it waits for that");
        let place = queue.pop_front().expect("a queue is not empty");
        let Place { number, bytes, deadline, waiting } = place;
        self.deadlines.remove(&(deadline, number, from, partition));
        if let Some(Place { number, deadline, .. }) = queue.front() {
            self.deadlines.insert((*deadline, *number, from, partition));
        }
        client.bytes -= bytes;
        if has_turn {
            client.turns.charge(partition, bytes as u64);
            self.turns.charge(from, bytes as u64);
        }
        if queue.is_empty() {
            client.queues.remove(&partition);
            client.turns.leave(partition);
        }
        if client.queues.is_empty() {
            self.clients.remove(&from);
            self.turns.leave(from);
        }
        self.bytes -= bytes;
        let held = self.partitions.get_mut(&partition).expect("it is counted");
        *held -= bytes;
        if *held == 0 {
            self.partitions.remove(&partition);
        }
        waiting
    }

    /// How many bytes of one client wait.
    pub(super) fn held_by(&self, from: Source) -> usize {
        self.clients.get(&from).map_or(0, |client| client.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// How many clients wait.
    pub(super) fn clients(&self) -> usize {
        self.turns.waiting()
    }

    /// When to give somebody up.
    pub(super) fn wakeup(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let held: usize = self.clients.values().map(|client| client.bytes).sum();
        if held != self.bytes || self.partitions.values().sum::<usize>() != self.bytes {
            return Err(format!("{held} bytes wait, counted {}", self.bytes));
        }
        let mut queues = self.clients.values().flat_map(|client| client.queues.values());
        if queues.clone().count() != self.deadlines.len() {
            return Err(format!("{} deadlines of as many queues", self.deadlines.len()));
        }
        let alone = queues.next().is_some_and(|queue| queue.len() == 1) && queues.next().is_none();
        if self.bytes > self.room && !alone {
            return Err(format!("{} bytes wait, the bound is {}", self.bytes, self.room));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::replica::{Draft, Terms};
    use crate::ids::RequestId;

    const ROOM: usize = 1 << 20;
    const LATER: Time = Time(1_000);

    fn waiting(from: u64, partition: u64, number: u64, priority: Priority) -> Waiting {
        let id = format!("{from}-{number}").parse().expect("an id");
        let envelope =
            Envelope { id, key: None, sequence: None, content_type: None, headers: Vec::new() };
        let payload = Bytes::from(vec![0; 1_024 - OVERHEAD_BYTES]);
        let draft = Draft { envelope, payload };
        let terms = Terms { priority, ..Terms::default() };
        let topic = "topic".parse().expect("a name");
        let submission = Submission { source: Source(from), topic, draft, terms };
        let messages = vec![(ReplyTo::Client(RequestId(number)), submission)];
        Waiting { partition: PartitionId(partition), messages }
    }

    /// Enters as many as are taken; gives how many, and what was in the way.
    fn fill(lobby: &mut Lobby, from: u64, partition: u64, priority: Priority) -> (u64, Full) {
        for number in 0.. {
            let one = waiting(from, partition, number, priority);
            if let Err((_, full)) = lobby.enter(one, LATER) {
                assert_eq!(lobby.check(), Ok(()));
                return (number, full);
            }
        }
        unreachable!("a lobby has an end")
    }

    #[test]
    fn a_greedy_client_leaves_half_of_it_to_others() {
        let mut lobby = Lobby::new(ROOM);
        assert_eq!(fill(&mut lobby, 1, 1, Priority::NORMAL), (512, Full::Client(ROOM / 2)));
        let (taken, full) = fill(&mut lobby, 2, 2, Priority::NORMAL);
        assert!((250..=258).contains(&taken), "{taken}");
        assert!(matches!(full, Full::Client(_)), "{full:?}");
        assert_eq!(lobby.enter(waiting(3, 3, 0, Priority::NORMAL), LATER).err().map(|e| e.1), None);
    }

    #[test]
    fn many_clients_of_one_topic_leave_room_for_other_topics() {
        let mut lobby = Lobby::new(ROOM);
        for client in 1..100 {
            fill(&mut lobby, client, 1, Priority::NORMAL);
        }
        let taken = ROOM / 1_024 - (lobby.room() - lobby.bytes()) / 1_024;
        assert!((600..=800).contains(&taken), "two thirds, and the first of each: {taken}");
        let (other, _) = fill(&mut lobby, 200, 2, Priority::NORMAL);
        assert!(other > 100, "{other}");
    }

    #[test]
    fn a_client_with_nothing_waiting_is_taken_where_greedy_ones_fill_its_topic() {
        let mut lobby = Lobby::new(ROOM);
        let high = Priority::new(9).expect("a priority");
        for client in 1..5 {
            fill(&mut lobby, client, 1, high);
        }
        for client in 100..150 {
            let full = lobby.enter(waiting(client, 1, 0, Priority::NORMAL), LATER).err();
            assert_eq!(full.map(|(_, full)| full), None, "client {client}");
        }
    }

    #[test]
    fn the_unimportant_is_sent_away_first() {
        let mut lobby = Lobby::new(ROOM);
        let low = Priority::new(1).expect("a priority");
        let high = Priority::new(9).expect("a priority");
        let (few, _) = fill(&mut lobby, 1, 1, low);
        let (more, _) = fill(&mut lobby, 1, 1, Priority::NORMAL);
        let (most, _) = fill(&mut lobby, 1, 1, high);
        assert!(few > 0 && more > 0 && most > 0, "{few} {more} {most}");
        assert!(few < 400, "{few}");
    }

    #[test]
    fn turns_go_round_clients_and_each_partition_keeps_its_order() {
        let mut lobby = Lobby::new(ROOM);
        for number in 0..8 {
            lobby.enter(waiting(1, 1, number, Priority::NORMAL), LATER).expect("room");
        }
        for number in 0..4 {
            let partition = 1 + number % 2;
            lobby.enter(waiting(2, partition, number, Priority::NORMAL), LATER).expect("room");
        }
        let order: Vec<String> = std::iter::from_fn(|| lobby.next())
            .map(|one| one.messages[0].1.draft.envelope.id.to_string())
            .collect();
        let first: Vec<&str> = order.iter().take(8).map(|id| &id[..1]).collect();
        assert_eq!(first.iter().filter(|from| **from == "1").count(), 4, "{order:?}");
        let of = |from: &str| -> Vec<String> {
            order.iter().filter(|id| id.starts_with(from)).cloned().collect()
        };
        assert!(of("1").is_sorted(), "{order:?}");
        assert!(lobby.is_empty());
        assert_eq!(lobby.check(), Ok(()));
    }

    #[test]
    fn who_has_waited_too_long_is_given_up() {
        let mut lobby = Lobby::new(ROOM);
        lobby.enter(waiting(1, 1, 0, Priority::NORMAL), Time(10)).expect("room");
        lobby.enter(waiting(1, 1, 1, Priority::NORMAL), Time(20)).expect("room");
        assert!(lobby.next().is_some());
        assert!(lobby.give_up(Time(10)).is_none(), "it has gone in");
        assert!(lobby.give_up(Time(20)).is_some());
        assert!(lobby.is_empty() && lobby.wakeup().is_none());
    }

    #[test]
    fn who_is_given_up_has_paid_for_no_turn() {
        let mut lobby = Lobby::new(ROOM);
        for number in 0..20 {
            let deadline = if number < 10 { Time(10) } else { LATER };
            lobby.enter(waiting(1, 1, number, Priority::NORMAL), deadline).expect("room");
            lobby.enter(waiting(2, 2, number, Priority::NORMAL), LATER).expect("room");
        }
        assert_eq!(std::iter::from_fn(|| lobby.give_up(Time(10))).count(), 10);
        assert_eq!(lobby.check(), Ok(()));
        let taken = std::iter::from_fn(|| lobby.next()).take(10);
        let of_first = taken.filter(|one| one.partition == PartitionId(1)).count();
        assert_eq!(of_first, 5, "it lost what it waited for, and not its share too");
    }

    #[test]
    fn nothing_is_remembered_of_those_who_had_their_turn() {
        let mut lobby = Lobby::new(ROOM);
        for number in 0..1_000 {
            lobby.enter(waiting(1, 1, number, Priority::NORMAL), LATER).expect("room");
            if number > 0 {
                assert!(lobby.next().is_some());
            }
        }
        assert_eq!(lobby.deadlines.len(), 1);
    }
}
