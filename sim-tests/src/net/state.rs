//! What is under way on the network, and what comes of it when it is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

use bytes::Bytes;
use tokio::time::Instant;

use super::flow::{End, Segment, lost};
use super::knobs::{Counts, Knobs};
use crate::plan::Draw;

/// How many datagrams wait at a socket at most.
const DATAGRAMS_MAX: usize = 4_096;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Listener,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// A connection by its number, and an end of it.
pub(super) type Place = (u64, Side);

/// The two ends: the one that dialed, and the one that was dialed.
pub(super) struct Flow([End; 2]);

impl Flow {
    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.0[side as usize]
    }
}

/// The sockets of a process.
pub(super) struct Host {
    /// Which process.
    pub(super) serial: u64,
    pub(super) datagrams: VecDeque<(SocketAddr, Bytes)>,
    pub(super) connected: VecDeque<u64>,
    pub(super) receiver: Option<Waker>,
    pub(super) acceptor: Option<Waker>,
}

enum Event {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        body: Bytes,
    },
    /// What an end has sent may arrive.
    Arrive(Place),
    /// What an end has sent met silence and is sent again.
    Retry(Place),
    /// An end learns that there is nobody at the other.
    Reset(Place, ErrorKind),
}

pub(super) struct State {
    pub(super) counts: Counts,
    dice: Draw,
    usual: Knobs,
    links: BTreeMap<(IpAddr, IpAddr), Knobs>,
    pub(super) hosts: BTreeMap<SocketAddr, Host>,
    /// Machines without power.
    dark: BTreeSet<IpAddr>,
    flows: BTreeMap<u64, Flow>,
    events: BTreeMap<(Instant, u64), Event>,
    /// Numbers connections, processes and events.
    last: u64,
}

impl State {
    pub(super) fn new(usual: Knobs, dice: Draw) -> Self {
        Self {
            counts: Counts::default(),
            dice,
            usual,
            links: BTreeMap::new(),
            hosts: BTreeMap::new(),
            dark: BTreeSet::new(),
            flows: BTreeMap::new(),
            events: BTreeMap::new(),
            last: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn knobs_mut(&mut self, link: (IpAddr, IpAddr)) -> &mut Knobs {
        self.links.entry(link).or_insert(self.usual)
    }

    fn knobs(&self, from: SocketAddr, to: SocketAddr) -> Knobs {
        self.links.get(&(from.ip(), to.ip())).copied().unwrap_or(self.usual)
    }

    pub(super) fn heal(&mut self) {
        self.links.clear();
    }

    pub(super) fn power(&mut self, machine: IpAddr) {
        self.dark.remove(&machine);
    }

    pub(super) fn lose_power(&mut self, machine: IpAddr) {
        self.dark.insert(machine);
        self.hosts.retain(|at, _| at.ip() != machine);
        for flow in self.flows.values_mut() {
            for end in flow.0.iter_mut().filter(|end| end.at.ip() == machine) {
                // What has left the machine arrives; what it would have sent again does not.
                if end.stall.take().is_some() {
                    end.under_way.clear();
                }
                (end.gone, end.finished) = (true, true);
            }
        }
        self.flows.retain(|_, flow| flow.0.iter().any(|end| !end.gone));
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((due, _), _)| *due)
    }

    fn schedule(&mut self, due: Instant, event: Event) {
        let number = self.number();
        self.events.insert((due, number), event);
    }

    /// Lets happen what is due.
    pub(super) fn pass(&mut self, now: Instant) {
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Event::Datagram { from, to, body } => self.datagram_arrives(from, to, body),
                Event::Arrive(place) => self.arrive(place, now, false),
                Event::Retry(place) => self.arrive(place, now, true),
                Event::Reset(place, kind) => {
                    if let Some(end) = self.end(place) {
                        end.fail(kind);
                    }
                }
            }
        }
    }

    pub(super) fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, body: &[u8]) {
        self.counts.datagrams += 1;
        let knobs = self.knobs(from, to);
        if knobs.cut || knobs.loses(&mut self.dice) {
            self.counts.lost += 1;
            return;
        }
        let twice = knobs.doubles(&mut self.dice);
        self.counts.doubled += u64::from(twice);
        for _ in 0..=u8::from(twice) {
            let due = Instant::now() + knobs.delay(&mut self.dice);
            let body = Bytes::copy_from_slice(body);
            self.schedule(due, Event::Datagram { from, to, body });
        }
    }

    fn datagram_arrives(&mut self, from: SocketAddr, to: SocketAddr, body: Bytes) {
        let cut = self.knobs(from, to).cut;
        let host = self.hosts.get_mut(&to).filter(|_| !cut);
        match host.filter(|host| host.datagrams.len() < DATAGRAMS_MAX) {
            None => self.counts.lost += 1,
            Some(host) => {
                host.datagrams.push_back((from, body));
                host.receiver.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    pub(super) fn end(&mut self, (flow, side): Place) -> Option<&mut End> {
        self.flows.get_mut(&flow).map(|flow| flow.end(side))
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, from: SocketAddr, to: SocketAddr) -> u64 {
        self.counts.connections += 1;
        let number = self.number();
        self.flows.insert(number, Flow([End::new(from), End::new(to)]));
        self.send((number, Side::Dialer), Segment::Open);
        number
    }

    /// Puts a segment on its way, behind all that its end has sent before.
    pub(super) fn send(&mut self, place: Place, segment: Segment) {
        let Some(flow) = self.flows.get_mut(&place.0) else { return };
        let (from, to) = (flow.end(place.1).at, flow.end(place.1.other()).at);
        let knobs = self.knobs(from, to);
        let mut due = Instant::now() + knobs.delay(&mut self.dice);
        if knobs.loses(&mut self.dice) {
            due += lost();
        }
        let Some(end) = self.end(place) else { return };
        if end.broken.is_some() {
            return;
        }
        let due = end.under_way.back().map_or(due, |(before, _)| due.max(*before));
        end.under_way.push_back((due, segment));
        if end.stall.is_none() {
            self.schedule(due, Event::Arrive(place));
        }
    }

    /// What an end has sent arrives, as far as it is due, unless there is silence.
    fn arrive(&mut self, place: Place, now: Instant, retry: bool) {
        let (number, side) = place;
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let (from, to) = (flow.end(side).at, flow.end(side.other()).at);
        let end = flow.end(side);
        if end.under_way.is_empty() || end.stall.is_some() != retry {
            return;
        }
        if self.dark.contains(&to.ip()) || self.knobs(from, to).cut {
            return self.stall(place, now);
        }
        let Some(end) = self.end(place) else { return };
        end.stall = None;
        loop {
            let Some(end) = self.end(place) else { return };
            match end.under_way.front().map(|(due, _)| *due) {
                Some(due) if due <= now => {
                    let first = end.under_way.pop_front();
                    first.into_iter().for_each(|(_, segment)| self.take(place, segment));
                }
                Some(due) if retry => return self.schedule(due, Event::Arrive(place)),
                Some(_) | None => return,
            }
        }
    }

    fn stall(&mut self, place: Place, now: Instant) {
        let Some(end) = self.end(place) else { return };
        match end.stall(now) {
            Some(again) => self.schedule(again, Event::Retry(place)),
            None => {
                end.fail(ErrorKind::TimedOut);
                self.counts.given_up += 1;
                self.forget(place.0);
            }
        }
    }

    /// The other end takes what this one has sent.
    fn take(&mut self, sender: Place, segment: Segment) {
        let place = (sender.0, sender.1.other());
        let Some(at) = self.end(place).map(|end| end.at) else { return };
        let listens = self.hosts.contains_key(&at);
        let Some(end) = self.end(place) else { return };
        match segment {
            Segment::Open if listens => self.send(place, Segment::Opened),
            Segment::Open => self.reset(sender, ErrorKind::ConnectionRefused),
            // A read that nobody waits for, and the end of what nobody reads, need no answer.
            Segment::Read(_) | Segment::Finish if end.gone => {}
            Segment::Opened | Segment::Established | Segment::Data(_) if end.gone => {
                self.reset(sender, ErrorKind::ConnectionReset);
            }
            Segment::Opened => {
                end.open = true;
                end.wake();
                self.send(place, Segment::Established);
            }
            Segment::Established => {
                end.open = true;
                match self.hosts.get_mut(&at) {
                    Some(host) => {
                        host.connected.push_back(place.0);
                        host.acceptor.take().into_iter().for_each(Waker::wake);
                    }
                    None => self.reset(sender, ErrorKind::ConnectionReset),
                }
            }
            Segment::Data(bytes) => {
                let count = bytes.len() as u64;
                end.received.push_back(bytes);
                end.wake();
                self.counts.bytes += count;
            }
            Segment::Read(count) => {
                end.unread -= count;
                end.wake();
            }
            Segment::Finish => {
                end.ended = true;
                end.wake();
            }
        }
    }

    /// Tells an end that there is nobody at the other, unless that is lost on the way.
    fn reset(&mut self, to: Place, kind: ErrorKind) {
        let Some(flow) = self.flows.get_mut(&to.0) else { return };
        let (from, at) = (flow.end(to.1.other()).at, flow.end(to.1).at);
        let knobs = self.knobs(from, at);
        if !knobs.cut {
            let due = Instant::now() + knobs.delay(&mut self.dice);
            self.schedule(due, Event::Reset(to, kind));
        }
    }

    /// The process of an end lets go of it.
    pub(super) fn let_go(&mut self, place: Place) {
        let Some(end) = self.end(place) else { return };
        let finished = std::mem::replace(&mut end.finished, true);
        end.gone = true;
        if !finished {
            self.send(place, Segment::Finish);
        }
        self.forget(place.0);
    }

    /// Forgets a connection of which no process has an end.
    fn forget(&mut self, number: u64) {
        if self.flows.get(&number).is_some_and(|flow| flow.0.iter().all(|end| end.gone)) {
            self.flows.remove(&number);
        }
    }
}
