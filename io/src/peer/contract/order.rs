//! Order, bounds, and what does not stand in the way of what.

use super::*;

/// How many messages one after the other.
const MANY: u32 = 2_000;

pub(super) async fn messages_keep_their_order<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let mut lanes = [Lane::Control, Lane::Data].map(|lane| (lane, other.inbound.lane(lane)));
    for number in 0..MANY {
        for (lane, _) in &lanes {
            let mut body = number.to_le_bytes().to_vec();
            body.resize(4 + (number as usize * 7) % 300, 0);
            one.peers.tell(other.address, *lane, body.into());
        }
    }
    for (lane, received) in &mut lanes {
        for number in 0..MANY {
            let incoming = next("a message", received).await;
            let found = incoming.body.first_chunk().copied().map(u32::from_le_bytes);
            assert_eq!(found, Some(number), "on {lane:?}");
        }
    }
    close([&one, &other]);
}

/// What does not fit is refused at once, and what was taken is delivered.
pub(super) async fn a_queue_is_bounded<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    let piece = Lane::Control.body_bytes_max();
    let fit = Class::Urgent.queue_bytes_max() / (piece + super::super::frame::HEADER_BYTES);
    let mut lane = other.inbound.lane(Lane::Control);
    // Nothing is written before this function waits.
    for _ in 0..fit + 3 {
        one.peers.tell(other.address, Lane::Control, vec![3; piece].into());
    }
    let full = one.peers.call(other.address, Lane::Control, vec![3; piece].into(), SOON).await;
    if one.peers.counters().writes.get() == 0 {
        assert_eq!(full, Err(NotDelivered::Full.into()));
        assert_eq!(one.peers.counters().dropped_full.get(), 3, "what was dropped is counted");
    }
    for _ in 0..fit {
        assert_eq!(next("a message that fit", &mut lane).await.body.len(), piece);
    }
    close([&one, &other]);
}

pub(super) async fn a_large_body_holds_up_no_small_one<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    echo(other.inbound.lane(Lane::Control));
    let mut bulk = other.inbound.lane(Lane::Data);
    assert_eq!(patiently(&one, other.address, Lane::Control).await, text("hello"));
    let length = Lane::Data.body_bytes_max();
    let large: Bytes = (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    one.peers.tell(other.address, Lane::Data, large.clone());
    let heartbeats = async {
        // Each is answered while the large one is on its way, or after it.
        for _ in 0..20 {
            let beat = one.peers.call(other.address, Lane::Control, text("beat"), SOON).await;
            assert_eq!(beat, Ok(text("beat")));
        }
        Instant::now()
    };
    let arrival = async {
        let arrived = next("a large body", &mut bulk).await;
        assert!(arrived.body == large, "a large body comes as it was sent");
        Instant::now()
    };
    tokio::join!(heartbeats, arrival);
    close([&one, &other]);
}

/// A receiver that takes nothing fills its inbox and then its senders' queues; other lanes go on,
/// and when it takes again nothing of what was accepted is missing.
pub(super) async fn a_slow_receiver_stops_its_lane_alone<B: Bench>(bench: &mut B) {
    let (one, mut other) = pair(bench).await;
    echo(other.inbound.lane(Lane::Control));
    let mut slow = other.inbound.lane(Lane::Gossip);
    let piece = Lane::Gossip.body_bytes_max();
    let mut sent = 0;
    let stuck = async {
        // What it holds and what the queue holds is more than is sent here without a stop.
        let fit = (Lane::Gossip.inbox_bytes_max() + 2 * Class::Bulk.queue_bytes_max()) / piece;
        for _ in 0..fit {
            one.peers.tell(other.address, Lane::Gossip, vec![1; piece].into());
            let beat = one.peers.call(other.address, Lane::Control, text("beat"), SOON).await;
            assert_eq!(beat, Ok(text("beat")), "beside a lane that is stuck");
            sent += 1;
        }
    };
    soon("talk beside a stuck lane", stuck).await;
    let dropped = one.peers.counters().dropped_full.get();
    assert!(dropped > 0, "{sent} messages of {piece} bytes were taken for a receiver that sleeps");
    for _ in 0..sent - dropped {
        assert_eq!(next("what was accepted", &mut slow).await.body.len(), piece);
    }
    close([&one, &other]);
}
