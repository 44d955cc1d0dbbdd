//! How nodes reach one another over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{Boot, ClusterId, DiskId};
use sprawl_io::peer::contract::{self, Bench};
use sprawl_io::peer::tcp::TcpSockets;
use sprawl_io::peer::{Counter, Inbound, Lane, Options, Pace, Peers};

mod faults;
mod frames;
mod proxy;
mod strangers;

/// How long anything takes at most here that is to happen.
const SOON: Duration = Duration::from_secs(20);

/// A node that waits for nothing long.
async fn node(disk: u8, change: impl FnOnce(&mut Options)) -> (Peers<TcpSockets>, Inbound) {
    let sockets = TcpSockets::bind(anywhere()).await.expect("a port is free");
    let address = sprawl_io::peer::Sockets::local(&sockets);
    let id = (DiskId(disk.into()), Boot(1));
    let mut options = Options::new(id, address, [disk; 32]);
    options.cluster = Some(ClusterId(1));
    options.pace = Pace {
        connect_max: Duration::from_millis(500),
        alive_every: Duration::from_millis(100),
        silence_max: Duration::from_millis(500),
        retry_delay_min: Duration::from_millis(10),
        retry_delay_max: Duration::from_millis(100),
        ..Pace::default()
    };
    change(&mut options);
    Peers::start(sockets, options)
}

/// Gives back everything on a lane.
fn echo(inbound: &mut Inbound, lane: Lane) {
    let mut lane = inbound.lane(lane);
    tokio::spawn(async move {
        while let Some(incoming) = lane.recv().await {
            if let Some(answer) = incoming.answer {
                answer.answer(incoming.body);
            }
        }
    });
}

fn hello() -> Bytes {
    Bytes::from_static(b"hello")
}

/// Returns when a counter is as wanted.
async fn counted(what: &str, counter: &Counter, wanted: impl Fn(u64) -> bool) {
    let counting = async {
        while !wanted(counter.get()) {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(SOON, counting).await;
    assert!(counted.is_ok(), "{what}: {}", counter.get());
}

struct Loopback;

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

impl Bench for Loopback {
    type Sockets = TcpSockets;

    async fn fresh(&mut self) -> TcpSockets {
        TcpSockets::bind(anywhere()).await.expect("a port is free")
    }

    async fn again(&mut self, at: SocketAddr) -> TcpSockets {
        loop {
            match TcpSockets::bind(at).await {
                Ok(sockets) => return sockets,
                // The tasks of the former process let go of it in a moment.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

#[tokio::test]
async fn real_sockets_keep_the_laws_of_a_network() {
    contract::check(&mut Loopback).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_do_so_on_several_threads() {
    contract::check(&mut Loopback).await;
}

#[tokio::test]
async fn one_port_serves_both() {
    let sockets = TcpSockets::bind(anywhere()).await.expect("a port is free");
    let again = TcpSockets::bind(sprawl_io::peer::Sockets::local(&sockets)).await;
    let error = again.expect_err("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
