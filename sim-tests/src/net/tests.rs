//! The simulated network keeps the laws that real sockets keep, and is as bad as it is told to be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{Boot, ClusterId, DiskId};
use sprawl_io::peer::contract::{Bench, check};
use sprawl_io::peer::{
    CallError, Inbound, Lane, Network, NotDelivered, Options, Peers, Sockets, Unknown,
};
use tokio::time::{Instant, sleep, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(30);

fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(test)
}

fn machine(number: u8) -> IpAddr {
    [10, 1, 0, number].into()
}

fn address(number: u8) -> SocketAddr {
    (machine(number), 7946).into()
}

fn net(seed: u64) -> Net {
    Net::new(Knobs::calm((500, 5_000)), Draw::new(seed, 0))
}

fn node(net: &Net, number: u8, boot: u64) -> (Peers<SimSockets>, Inbound) {
    let sockets = net.bind(address(number)).expect("the address is free");
    let entropy = [number + 64 * boot as u8; 32];
    let node = (DiskId(number.into()), Boot(boot));
    let options = Options::new(node, address(number), entropy);
    Peers::start(sockets, Options { cluster: Some(ClusterId(1)), ..options })
}

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

/// Two nodes, of which the second gives back what it is asked.
fn pair(net: &Net) -> (Peers<SimSockets>, Peers<SimSockets>) {
    let ((one, _), (other, mut inbound)) = (node(net, 1, 1), node(net, 2, 1));
    echo(&mut inbound, Lane::Control);
    tokio::spawn(async move {
        // The other lanes stay open.
        let _inbound = inbound;
        std::future::pending::<()>().await;
    });
    (one, other)
}

async fn ask(from: &Peers<SimSockets>, wait: Duration) -> Result<Bytes, CallError> {
    from.call(address(2), Lane::Control, Bytes::from_static(b"x"), wait).await
}

/// How long it takes until a call succeeds.
async fn healed(from: &Peers<SimSockets>) -> Duration {
    let began = Instant::now();
    let calls = async { while ask(from, Duration::from_secs(1)).await.is_err() {} };
    timeout(SOON, calls).await.expect("the link has healed");
    began.elapsed()
}

struct SimBench {
    net: Net,
    last: u8,
}

impl Bench for SimBench {
    type Sockets = SimSockets;

    async fn fresh(&mut self) -> SimSockets {
        self.last += 1;
        self.net.bind(address(self.last)).expect("a new machine")
    }

    async fn again(&mut self, at: SocketAddr) -> SimSockets {
        loop {
            match self.net.bind(at) {
                Ok(sockets) => return sockets,
                // The tasks of the former process let go of it in a moment.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

#[test]
fn the_simulated_network_keeps_the_contract() {
    for seed in 0..3 {
        run(seed, async { check(&mut SimBench { net: net(seed), last: 0 }).await });
    }
}

#[test]
fn a_killed_machine_is_silent() {
    run(1, async {
        let net = net(1);
        let (one, other) = pair(&net);
        assert!(ask(&one, SOON).await.is_ok());
        let began = Instant::now();
        net.lose_power(machine(2));
        other.close();
        assert_eq!(ask(&one, SOON).await, Err(Unknown::Broken.into()));
        let took = began.elapsed();
        let silence = Duration::from_millis(2_900)..Duration::from_millis(4_100);
        assert!(silence.contains(&took), "it was noticed by its silence, after {took:?}");
        assert_eq!(one.counters().silent.get(), 1);
        let began = Instant::now();
        let unreachable = ask(&one, SOON).await;
        let lost =
            matches!(&unreachable, Err(CallError::NotDelivered(NotDelivered::Unreachable(_))));
        assert!(lost, "{unreachable:?}");
        assert!(began.elapsed() >= Duration::from_secs(2), "connecting meets silence too");
        drop(other);
        let (_two, mut inbound) = node(&net, 2, 2);
        echo(&mut inbound, Lane::Control);
        assert!(healed(&one).await < Duration::from_secs(4));
    });
}

#[test]
fn a_process_that_ends_closes_its_connections() {
    run(2, async {
        let net = net(2);
        let (one, other) = pair(&net);
        assert!(ask(&one, SOON).await.is_ok());
        let began = Instant::now();
        other.close();
        drop(other);
        sleep(Duration::from_millis(100)).await;
        let refused = ask(&one, SOON).await;
        assert!(matches!(refused, Err(CallError::NotDelivered(_))), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for the dead");
    });
}

#[test]
fn what_a_process_leaves_behind_does_not_stop_the_others() {
    run(4, async {
        let net = net(4);
        let sockets = net.bind(address(3)).expect("the address is free");
        let dialer = net.bind(address(4)).expect("the address is free");
        let halves = dialer.connect(address(3)).await.expect("somebody listens");
        sleep(SOON).await;
        // Nothing is under way, and nobody has accepted the connection.
        drop(sockets);
        let (one, _other) = pair(&net);
        assert!(healed(&one).await < Duration::from_secs(4));
        drop(halves);
    });
}

#[test]
fn what_gets_there_and_what_comes_back_are_two_links() {
    for (from, to) in [(1, 2), (2, 1)] {
        run(3, async {
            let net = net(3);
            let (one, other) = pair(&net);
            assert!(ask(&one, SOON).await.is_ok());
            net.cut(machine(from), machine(to));
            let began = Instant::now();
            let cut = ask(&one, SOON).await;
            assert_eq!(cut, Err(Unknown::Broken.into()), "{from} to {to}");
            let took = began.elapsed();
            assert!(took > Duration::from_secs(2), "noticed by silence alone, after {took:?}");
            let cut = ask(&one, SOON).await;
            assert!(matches!(cut, Err(CallError::NotDelivered(_))), "{cut:?}");
            // Datagrams still go the other way.
            let before = net.counts().lost;
            for (peers, to) in [(&one, 2), (&other, 1)] {
                peers.datagram(address(to), Bytes::from_static(b"x"));
            }
            sleep(Duration::from_millis(50)).await;
            assert_eq!(net.counts().lost - before, 1, "one way is open");
            net.heal();
            assert!(healed(&one).await < Duration::from_secs(4));
        });
    }
}

#[test]
fn a_short_cut_breaks_nothing() {
    run(4, async {
        let net = net(4);
        let (one, _other) = pair(&net);
        assert!(ask(&one, SOON).await.is_ok());
        net.part(&[machine(1)], &[machine(2)]);
        let healing = async {
            sleep(Duration::from_millis(900)).await;
            net.heal();
        };
        let (answer, ()) = tokio::join!(ask(&one, SOON), healing);
        assert!(answer.is_ok(), "what was under way is sent again: {answer:?}");
        assert_eq!(one.counters().outbound.get(), 1);
        assert_eq!(net.counts().connections, 1);
    });
}

/// What of many datagrams arrives, in the order in which it does.
fn arrivals(seed: u64, change: impl Fn(&mut Knobs)) -> Vec<u32> {
    run(seed, async {
        let net = net(seed);
        let sockets = [1, 2].map(|number| net.bind(address(number)).expect("it is free"));
        net.set(machine(1), machine(2), change);
        let mut arrived = Vec::new();
        for number in 0..2_000_u32 {
            let sent = sockets[0].send_datagram(address(2), &number.to_le_bytes());
            assert!(sent.is_ok());
            sleep(Duration::from_micros(100)).await;
        }
        let mut buffer = [0; 4];
        let all = async {
            loop {
                let (length, from) = sockets[1].receive_datagram(&mut buffer).await.expect("one");
                assert_eq!((length, from), (4, address(1)));
                arrived.push(u32::from_le_bytes(buffer));
            }
        };
        assert!(timeout(Duration::from_secs(3), all).await.is_err(), "there are no more");
        arrived
    })
}

#[test]
fn datagrams_are_lost_doubled_and_reordered_as_told() {
    let steady = |knobs: &mut Knobs| knobs.latency_us = (700, 700);
    assert_eq!(arrivals(5, steady), (0..2_000).collect::<Vec<_>>());
    let lossy = arrivals(5, |knobs| {
        steady(knobs);
        knobs.loss_permille = 100;
    });
    assert!((1_700..1_900).contains(&lossy.len()), "{} of 2000", lossy.len());
    assert!(lossy.is_sorted());
    let doubled = arrivals(5, |knobs| {
        steady(knobs);
        knobs.duplicate_permille = 100;
    });
    assert!((2_100..2_300).contains(&doubled.len()), "{} of 2000", doubled.len());
    let reordered = arrivals(5, |_| {});
    assert_eq!(reordered.len(), 2_000);
    assert!(!reordered.is_sorted(), "each takes its own time");
    let tail = arrivals(5, |knobs| {
        steady(knobs);
        (knobs.tail_permille, knobs.tail_us_max) = (20, 500_000);
    });
    let late = tail.iter().zip(0..).filter(|(found, expected)| *found < expected).count();
    assert!((10..2_000).contains(&late) && !tail.is_sorted(), "{late} come late");
    assert!(arrivals(5, |knobs| knobs.cut = true).is_empty());
}

#[test]
fn the_same_seed_gives_the_same_order() {
    let bad = |knobs: &mut Knobs| {
        (knobs.loss_permille, knobs.duplicate_permille) = (50, 50);
        (knobs.tail_permille, knobs.tail_us_max) = (50, 100_000);
    };
    assert_eq!(arrivals(6, bad), arrivals(6, bad));
    assert_ne!(arrivals(6, bad), arrivals(7, bad));
}

/// Loss costs a connection time, and neither order nor bytes.
#[test]
fn connections_are_whole_over_a_bad_link() {
    run(8, async {
        let net = net(8);
        let (one, _) = node(&net, 1, 1);
        let (_two, mut inbound) = node(&net, 2, 1);
        for (from, to) in [(1, 2), (2, 1)] {
            net.set(machine(from), machine(to), |knobs| {
                (knobs.loss_permille, knobs.tail_permille) = (100, 50);
                knobs.tail_us_max = 300_000;
            });
        }
        let mut lane = inbound.lane(Lane::Data);
        let body = |number: usize| -> Bytes { vec![number as u8; number * 97 % 40_000].into() };
        for number in 0..500 {
            one.tell(address(2), Lane::Data, body(number));
        }
        for number in 0..500 {
            let incoming = timeout(SOON, lane.recv()).await.expect("in time").expect("it lives");
            assert!(incoming.body == body(number), "message {number}");
        }
    });
}
