//! What becomes of calls and messages when the bytes between two nodes fare badly.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use sprawl_io::peer::{CallError, Lane, Network, NotDelivered, Unknown};

use super::{SOON, counted, echo, hello, node, proxy};

#[tokio::test]
async fn a_slow_network_is_waited_for() {
    let (one, _) = node(1, |_| {}).await;
    let (other, mut inbound) = node(2, |_| {}).await;
    echo(&mut inbound, Lane::Raft);
    let (way, faults) = proxy::between(other.local()).await;
    faults.delay_ms.store(50, SeqCst);
    let began = tokio::time::Instant::now();
    assert_eq!(one.call(way, Lane::Raft, hello(), SOON).await, Ok(hello()));
    assert!(began.elapsed() >= Duration::from_millis(100), "there and back");
    let hasty = one.call(way, Lane::Raft, hello(), Duration::from_millis(60)).await;
    assert_eq!(hasty, Err(Unknown::TimedOut.into()));
    let (nowhere, faults) = proxy::between(other.local()).await;
    faults.swallow.store(true, SeqCst);
    let hasty = one.call(nowhere, Lane::Raft, hello(), Duration::from_millis(60)).await;
    assert_eq!(hasty, Err(NotDelivered::Expired.into()), "it was not even connected");
}

#[tokio::test]
async fn a_cut_connection_is_made_anew() {
    let (one, _) = node(1, |_| {}).await;
    let (other, mut inbound) = node(2, |_| {}).await;
    let mut lane = inbound.lane(Lane::Data);
    let (way, faults) = proxy::between(other.local()).await;
    for round in 0..5 {
        let asked = one.call(way, Lane::Data, hello(), SOON);
        let cut = async {
            let taken = lane.recv().await.expect("the network lives");
            faults.cut();
            taken
        };
        let (asked, taken) = tokio::join!(asked, cut);
        assert_eq!(asked, Err(Unknown::Broken.into()), "round {round}");
        assert_eq!(taken.body, hello());
    }
    counted("connections", &other.counters().inbound, |count| count == 0).await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed() {
    let (one, _) = node(1, |_| {}).await;
    let (other, mut inbound) = node(2, |_| {}).await;
    echo(&mut inbound, Lane::Control);
    let (way, faults) = proxy::between(other.local()).await;
    assert_eq!(one.call(way, Lane::Control, hello(), SOON).await, Ok(hello()));
    faults.swallow.store(true, SeqCst);
    let lost = one.call(way, Lane::Control, hello(), SOON).await;
    assert_eq!(lost, Err(Unknown::Broken.into()));
    // Whoever notices it first hangs up, and that much the proxy passes on.
    counted("connections", &other.counters().inbound, |count| count == 0).await;
    counted("connections there", &one.counters().outbound, |count| count == 0).await;
    let noticed = one.counters().silent.get() + other.counters().silent.get();
    assert!(noticed >= 1, "it was silence that ended it");
    let silent = one.call(way, Lane::Control, hello(), SOON).await;
    let unreachable = CallError::NotDelivered(NotDelivered::Unreachable(String::new()));
    let same = std::mem::discriminant(&unreachable);
    let silent = silent.expect_err("nobody answers a handshake");
    assert_eq!(std::mem::discriminant(&silent), same, "{silent}");
    faults.swallow.store(false, SeqCst);
    let healed = async { while one.call(way, Lane::Control, hello(), SOON).await.is_err() {} };
    assert!(tokio::time::timeout(SOON, healed).await.is_ok(), "it is reached again");
}

/// Whichever byte is damaged, in head or body: the connection ends, and no wrong byte is handed on.
#[tokio::test]
async fn a_flipped_bit_ends_the_connection() {
    let (one, _) = node(1, |_| {}).await;
    let (other, mut inbound) = node(2, |_| {}).await;
    let mut lane = inbound.lane(Lane::Data);
    let (way, faults) = proxy::between(other.local()).await;
    let body: Bytes = (0..200_u8).collect::<Vec<_>>().into();
    let mut arrived = 0;
    for byte in (0..224).step_by(5) {
        let asked = async { while one.call(way, Lane::Data, body.clone(), SOON).await.is_err() {} };
        let answered = async {
            let incoming = lane.recv().await.expect("the network lives");
            assert!(incoming.body == body, "what arrives is what was sent");
            arrived += 1;
            incoming.answer.expect("it is a request").answer(Bytes::new());
        };
        tokio::join!(asked, answered);
        faults.flip_after.store(byte, SeqCst);
        let damaged = one.call(way, Lane::Data, body.clone(), SOON).await;
        assert_eq!(damaged, Err(Unknown::Broken.into()), "byte {byte}");
    }
    let nonsense = other.counters().nonsense.get();
    assert_eq!(nonsense, arrived, "each was noticed by what it is");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_made_again() {
    let (one, _) = node(1, |options| {
        options.pace.idle_max = Duration::from_millis(50);
    })
    .await;
    let (other, mut inbound) = node(2, |_| {}).await;
    echo(&mut inbound, Lane::Raft);
    for _ in 0..3 {
        let answer = one.call(other.local(), Lane::Raft, hello(), SOON).await;
        assert_eq!(answer, Ok(hello()));
        counted("connections", &one.counters().outbound, |count| count == 0).await;
        counted("connections there", &other.counters().inbound, |count| count == 0).await;
    }
    assert_eq!(one.counters().broken.get() + other.counters().broken.get(), 0);
}
