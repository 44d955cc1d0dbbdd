//! Gossip: any bytes as a datagram and as either side of an exchange, behind the wrap that they
//! need to be looked at. A machine takes them, keeps its bounds, and says nothing too long.
#![no_main]

use std::net::SocketAddr;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sprawl_core::cluster::Gossip;
use sprawl_core::cluster::gossip::{
    DATAGRAM_BYTES_MAX, Description, GOSSIP_VERSION, GossipSeed, Thresholds, read_contacts,
};
use sprawl_core::ids::{Boot, DiskId, ExchangeId, RequestId};
use sprawl_core::machine::{GossipEffect, GossipInput, Machine, Now, Time};
use sprawl_core::wire::FORMAT;

fn machine() -> Gossip {
    let address = SocketAddr::from(([127, 0, 0, 1], 7_946));
    let about = Description {
        name: "fuzzed".to_owned(),
        address,
        http: address,
        zone: String::new(),
        capacity: 1,
        version: 1,
    };
    let seed = GossipSeed {
        disk: DiskId(1),
        boot: Boot(1),
        about,
        cluster: None,
        key: None,
        thresholds: Thresholds::default(),
        contacts: vec![SocketAddr::from(([127, 0, 0, 1], 7_947))],
        dice: 1,
    };
    Gossip::new(seed, Now::default())
}

fuzz_target!(|data: &[u8]| {
    let _ = read_contacts(data);
    let wrapped: Bytes = [&[GOSSIP_VERSION, 0, FORMAT], data].concat().into();
    let from = SocketAddr::from(([127, 0, 0, 1], 7_947));
    let (id, exchange) = (RequestId(0), ExchangeId(0));
    let mut machine = machine();
    let mut effects = Vec::new();
    let inputs = [
        GossipInput::Woke,
        GossipInput::Received { from, datagram: wrapped.clone() },
        GossipInput::Asked { id, request: wrapped.clone() },
        GossipInput::Answered { exchange, answer: Some(wrapped) },
        GossipInput::Woke,
    ];
    for (step, input) in inputs.into_iter().enumerate() {
        let now = Now { since_start: Time(step as u64 * 250_000), ..Now::default() };
        machine.handle(now, input, &mut effects);
        assert_eq!(machine.check(), Ok(()));
    }
    for effect in effects {
        if let GossipEffect::Send { datagram, .. } = effect {
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
        }
    }
});
