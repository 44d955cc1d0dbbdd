//! The laws of [`Network`], as a suite that holds over every kind of [`Sockets`].
//!
//! Each law is one function that starts the nodes it needs. A law that does not hold panics and
//! says what was expected.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{Boot, ClusterId, DiskId};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{
    CallError, Class, ClusterKey, Inbound, Incoming, Lane, Network, NotDelivered, Options, Pace,
    Peers, Refusal, Runs, Sockets, Unknown,
};

mod meeting;
mod order;

/// How long anything takes at most here that is to happen.
const SOON: Duration = Duration::from_secs(20);
/// How long the suite waits for what is not to happen.
const A_WHILE: Duration = Duration::from_millis(300);
/// The cluster of the nodes.
const CLUSTER: ClusterId = ClusterId(0xC1);

/// Makes the sockets that the suite runs on.
pub trait Bench {
    /// Their kind.
    type Sockets: Sockets;

    /// The sockets of a new machine.
    fn fresh(&mut self) -> impl Future<Output = Self::Sockets>;

    /// The sockets of another process at an address that a former one has left, as soon as it is
    /// free.
    fn again(&mut self, at: SocketAddr) -> impl Future<Output = Self::Sockets>;
}

/// Checks all laws.
///
/// # Panics
///
/// When one does not hold.
pub async fn check<B: Bench>(bench: &mut B) {
    a_call_is_answered(bench).await;
    datagrams_arrive(bench).await;
    what_nobody_takes_is_not_delivered(bench).await;
    what_was_sent_is_unknown(bench).await;
    whoever_drops_a_request_says_so(bench).await;
    order::messages_keep_their_order(bench).await;
    order::a_queue_is_bounded(bench).await;
    order::a_large_body_holds_up_no_small_one(bench).await;
    order::a_slow_receiver_stops_its_lane_alone(bench).await;
    meeting::a_restarted_peer_is_reached(bench).await;
    meeting::an_older_run_is_refused(bench).await;
    meeting::a_twin_is_refused(bench).await;
    meeting::of_two_runs_one_is_a_member(bench).await;
    meeting::another_cluster_is_refused(bench).await;
    meeting::a_wrong_key_is_refused(bench).await;
    meeting::without_a_common_version_nothing_is_said(bench).await;
    meeting::an_outsider_may_only_join(bench).await;
    meeting::another_node_at_the_address_gets_nothing(bench).await;
}

/// A node of the suite.
struct Node<S> {
    peers: Peers<S>,
    inbound: Inbound,
    address: SocketAddr,
}

/// A pace at which the suite does not wait long.
fn pace() -> Pace {
    Pace {
        connect_max: Duration::from_secs(2),
        alive_every: Duration::from_millis(100),
        silence_max: Duration::from_secs(2),
        idle_max: Duration::from_secs(60),
        retry_delay_min: Duration::from_millis(10),
        retry_delay_max: Duration::from_millis(200),
    }
}

/// What a member of the cluster starts with.
fn member(disk: u128, boot: u64, address: SocketAddr) -> Options {
    let mut entropy = [0; 32];
    entropy[..16].copy_from_slice(&disk.to_le_bytes());
    entropy[16..24].copy_from_slice(&boot.to_le_bytes());
    let options = Options::new((DiskId(disk), Boot(boot)), address, entropy);
    let name = format!("node-{disk}");
    Options { cluster: Some(CLUSTER), run: boot, pace: pace(), name, ..options }
}

fn start<S: Sockets>(sockets: S, options: impl FnOnce(SocketAddr) -> Options) -> Node<S> {
    let address = sockets.local();
    let (peers, inbound) = Peers::start(sockets, options(address));
    Node { peers, inbound, address }
}

/// Two members.
async fn pair<B: Bench>(bench: &mut B) -> (Node<B::Sockets>, Node<B::Sockets>) {
    let one = start(bench.fresh().await, |at| member(1, 1, at));
    let other = start(bench.fresh().await, |at| member(2, 1, at));
    (one, other)
}

/// Ends nodes; what they had under way ends with them.
fn close<S: Sockets, const N: usize>(nodes: [&Node<S>; N]) {
    nodes.iter().for_each(|node| node.peers.close());
}

/// What is to happen soon.
async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    timeout(SOON, happens).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

async fn next(what: &str, lane: &mut mpsc::Receiver<Incoming>) -> Incoming {
    soon(what, lane.recv()).await.unwrap_or_else(|| panic!("{what}: the lane has ended"))
}

/// Answers everything on a lane with its own words, until the network ends.
fn echo(mut lane: mpsc::Receiver<Incoming>) {
    tokio::spawn(async move {
        while let Some(incoming) = lane.recv().await {
            if let Some(answer) = incoming.answer {
                answer.answer(incoming.body);
            }
        }
    });
}

fn text(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

/// Lets others do something.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A call that is to succeed, tried again while it is not delivered, or goes over a connection of
/// which only the other side knows yet that it is over.
async fn patiently<S: Sockets>(from: &Node<S>, to: SocketAddr, lane: Lane) -> Bytes {
    let asking = async {
        loop {
            match from.peers.call(to, lane, text("hello"), SOON).await {
                Ok(answer) => return answer,
                Err(CallError::NotDelivered(_) | CallError::Unknown(Unknown::Broken)) => {
                    a_moment().await;
                }
                Err(unknown) => panic!("a call to {to}: {unknown}"),
            }
        }
    };
    soon("a call that is tried again", asking).await
}

async fn a_call_is_answered<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    for lane in Lane::ALL {
        let mut received = other.inbound.lane(lane);
        let asked = one.peers.call(other.address, lane, text("what?"), SOON);
        let answered = async {
            let incoming = next("a request", &mut received).await;
            assert_eq!((incoming.lane, &incoming.body[..]), (lane, &b"what?"[..]));
            let from = &incoming.from;
            assert_eq!((from.disk, from.boot), (DiskId(1), Boot(1)), "who asks");
            assert_eq!((from.address, from.cluster), (one.address, Some(CLUSTER)));
            assert_eq!(from.name, "node-1");
            incoming.answer.expect("a request can be answered").answer(text("this"));
        };
        let (answer, ()) = tokio::join!(asked, answered);
        assert_eq!(answer, Ok(text("this")), "on {lane:?}");
        let tell = text("a message");
        one.peers.tell(other.address, lane, tell.clone());
        let incoming = next("a message", &mut received).await;
        assert_eq!(incoming.body, tell);
        assert!(incoming.answer.is_none(), "a message has no answer");
    }
    assert_eq!(one.peers.counters().outbound.get(), 5, "a connection for each class");
    assert_eq!(other.peers.counters().inbound.get(), 5);
    close([&one, &other]);
}

async fn datagrams_arrive<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let mut received = other.inbound.datagrams();
    let longest = super::DATAGRAM_BYTES_MAX;
    one.peers.datagram(other.address, vec![1; longest + 1].into());
    assert_eq!(one.peers.counters().datagrams_dropped.get(), 1, "one that is too long");
    for length in [0, 1, longest] {
        one.peers.datagram(other.address, vec![7; length].into());
        let datagram = soon("a datagram", received.recv()).await.expect("the network lives");
        assert_eq!((datagram.from, datagram.body.len()), (one.address, length));
    }
    close([&one, &other]);
}

async fn what_nobody_takes_is_not_delivered<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    drop(other.inbound.lane(Lane::Raft));
    let call = |to, lane, bytes: usize| {
        let peers = one.peers.clone();
        async move { peers.call(to, lane, vec![0; bytes].into(), SOON).await }
    };
    let unheard = soon("a refusal", call(other.address, Lane::Raft, 9)).await;
    assert_eq!(unheard, Err(NotDelivered::NobodyListens.into()));
    let bytes_max = Lane::Control.body_bytes_max();
    let long = call(other.address, Lane::Control, bytes_max + 1).await;
    assert_eq!(long, Err(NotDelivered::TooLong { bytes: bytes_max + 1, bytes_max }.into()));
    close([&other]);
    let empty = bench.fresh().await;
    let nowhere = empty.local();
    drop(empty);
    let refused = soon("a refusal", call(nowhere, Lane::Raft, 9)).await;
    let unreachable = CallError::NotDelivered(NotDelivered::Unreachable(String::new()));
    match refused {
        Err(CallError::NotDelivered(NotDelivered::Unreachable(_))) => {}
        other => panic!("{unreachable:?} was expected, not {other:?}"),
    }
    one.peers.tell(nowhere, Lane::Control, text("lost"));
    let again = soon("a refusal", call(nowhere, Lane::Control, 9)).await;
    assert!(matches!(again, Err(CallError::NotDelivered(_))), "{again:?}");
    assert_eq!(one.peers.counters().dropped_unreachable.get(), 1, "the message is counted");
    close([&one]);
    let closed = call(nowhere, Lane::Control, 9).await;
    assert_eq!(closed, Err(NotDelivered::Closed.into()));
}

async fn what_was_sent_is_unknown<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let mut lane = other.inbound.lane(Lane::Raft);
    let began = Instant::now();
    let late = one.peers.call(other.address, Lane::Raft, text("never"), A_WHILE);
    let (late, held) = tokio::join!(late, next("a request", &mut lane));
    assert_eq!(late, Err(Unknown::TimedOut.into()));
    assert!(began.elapsed() >= A_WHILE, "it was waited for");
    held.answer.expect("it is a request").answer(text("too late"));
    // The late answer disturbs no later one.
    let asked = one.peers.call(other.address, Lane::Raft, text("then"), SOON);
    let broken = async {
        let taken = next("a request", &mut lane).await;
        assert_eq!(taken.body, text("then"));
        other.peers.close();
        taken
    };
    let (asked, _taken) = soon("the end of a call", async { tokio::join!(asked, broken) }).await;
    assert_eq!(asked, Err(Unknown::Broken.into()));
    close([&one]);
}

async fn whoever_drops_a_request_says_so<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let mut lane = other.inbound.lane(Lane::Data);
    let asked = one.peers.call(other.address, Lane::Data, text("x"), SOON);
    let dropped = async { drop(next("a request", &mut lane).await) };
    let (asked, ()) = tokio::join!(asked, dropped);
    assert_eq!(asked, Err(Unknown::Unanswered.into()));
    close([&one, &other]);
}
