//! Callers that are no nodes.

use std::sync::atomic::Ordering::SeqCst;

use sprawl_io::peer::{ClusterKey, Lane, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{SOON, counted, echo, hello, node, proxy};

/// How many callers may be silent at a time before others are turned away.
const GREETINGS_MAX: usize = 256;

#[tokio::test]
async fn whoever_speaks_nonsense_or_nothing_is_sent_away() {
    let (one, _) = node(1, |_| {}).await;
    let first: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", b"", b"\x10\0\0\0", &[0; 64], b"\x04\0\0\0\0\0\0\0sprl"];
    for bytes in first {
        let before = one.counters().nonsense.get();
        let mut caller = TcpStream::connect(one.local()).await.expect("it listens");
        caller.write_all(bytes).await.expect("it is taken");
        let mut answer = Vec::new();
        let closed = timeout(SOON, caller.read_to_end(&mut answer)).await;
        // An end, or a reset because not everything was read.
        assert!(closed.is_ok(), "the connection is closed");
        assert!(answer.is_empty(), "no word for {bytes:?}");
        counted("nonsense", &one.counters().nonsense, |count| count == before + 1).await;
    }
}

#[tokio::test]
async fn silent_callers_do_not_keep_a_node_away_for_long() {
    let (one, _) = node(1, |_| {}).await;
    let (other, mut inbound) = node(2, |_| {}).await;
    echo(&mut inbound, Lane::Raft);
    let mut callers = Vec::new();
    for _ in 0..GREETINGS_MAX + 8 {
        callers.push(TcpStream::connect(other.local()).await.expect("it listens"));
    }
    counted("callers turned away", &other.counters().turned_away, |count| count >= 8).await;
    let calls =
        async { while one.call(other.local(), Lane::Raft, hello(), SOON).await.is_err() {} };
    assert!(timeout(SOON, calls).await.is_ok(), "the node gets through");
}

/// Who has heard all that a node said, key proof included, cannot say it again.
#[tokio::test]
async fn a_recorded_conversation_is_worth_nothing() {
    let keyed = |options: &mut sprawl_io::peer::Options| {
        options.key = ClusterKey::new(b"the key");
    };
    let (one, _) = node(1, keyed).await;
    let (other, mut inbound) = node(2, keyed).await;
    let mut lane = inbound.lane(Lane::Raft);
    let (way, faults) = proxy::between(other.local()).await;
    one.tell(way, Lane::Raft, hello());
    let genuine = timeout(SOON, lane.recv()).await.expect("in time").expect("the network lives");
    assert_eq!(genuine.body, hello());
    faults.swallow.store(true, SeqCst);
    let recorded = faults.heard.lock().expect("nobody panics").clone();
    let mut caller = TcpStream::connect(other.local()).await.expect("it listens");
    caller.write_all(&recorded).await.expect("it is taken");
    counted("refusals", &other.counters().refused, |count| count == 1).await;
    assert!(lane.try_recv().is_err(), "nothing was handed on");
}
