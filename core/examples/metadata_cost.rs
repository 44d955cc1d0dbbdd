//! What 100 000 partitions cost in the metadata: memory, and the time of a change that names 1 000.
//!
//! `cargo run --release -p sprawl-core --example metadata_cost`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement has a clock and reads its own memory"
)]

use std::net::SocketAddr;
use std::time::Instant;

use sprawl_core::cluster::metadata::{
    CAPACITY_NORMAL, Change, FEATURE_LEVEL, Leaving, Registration, View,
};
use sprawl_core::cluster::topic::TopicConfig;
use sprawl_core::ids::{Boot, ChangeIndex, ClusterId, DiskId};
use sprawl_core::machine::WallTime;

const NODES: u128 = 100;
const TOPICS: u32 = 1_000;
const PARTITIONS: u32 = 100;
const ROUNDS: u64 = 50;

fn registration(disk: u128, boot: u64) -> Change {
    let address = SocketAddr::from(([10, 0, 0, 1], disk as u16));
    Change::Register(Registration {
        disk: DiskId(disk << 64),
        boot: Boot(boot),
        run: boot,
        name: format!("node-{disk}"),
        address,
        http: address,
        zone: format!("zone-{}", disk % 3),
        capacity: CAPACITY_NORMAL,
        level: FEATURE_LEVEL,
        clean: true,
    })
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn apply(view: &mut View, change: &Change) {
    view.apply(ChangeIndex(view.version.0 + 2), change);
}

fn main() {
    let (mut view, before, start) = (View::default(), resident(), Instant::now());
    apply(&mut view, &Change::Found { cluster: ClusterId(1) });
    (1..=NODES).for_each(|disk| apply(&mut view, &registration(disk, 1)));
    for topic in 0..TOPICS {
        let name = format!("topic-{topic}").parse().expect("a name");
        let config = TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() };
        apply(&mut view, &Change::CreateTopic { name, config });
    }
    let (partitions, kib) = (view.partitions.len(), resident() - before);
    println!("{partitions} partitions on {NODES} nodes: {kib} KiB, made in {:?}", start.elapsed());
    let loads: Vec<usize> =
        (1..=NODES).map(|disk| view.partitions_held(DiskId(disk << 64))).collect();
    println!("held per node: {:?} to {:?}", loads.iter().min(), loads.iter().max());

    let mut longest = std::time::Duration::ZERO;
    let start = Instant::now();
    for round in 0..ROUNDS {
        let shown = view.clone();
        let one = Instant::now();
        apply(&mut view, &registration(1 + u128::from(round) % NODES, 2 + round));
        longest = longest.max(one.elapsed());
        drop(shown);
    }
    let mean = start.elapsed() / ROUNDS as u32;
    let what = "a registration that raises the epochs of about 1 000 partitions";
    println!("{what}: mean {mean:?}, longest {longest:?}");

    let third: Vec<(DiskId, Boot)> =
        (60..=92_u128).map(|disk| (DiskId(disk << 64), Boot(1))).collect();
    let start = Instant::now();
    apply(&mut view, &Change::Fail { nodes: third, at: WallTime(1), rulings: vec![] });
    println!("a failure of 33 nodes: {:?}", start.elapsed());
    let start = Instant::now();
    apply(&mut view, &Change::Decommission { disk: DiskId(1 << 64), how: Leaving::Empty });
    println!("a decommission: {:?}", start.elapsed());
    let start = Instant::now();
    let snapshot = view.snapshot();
    let (bytes, made) = (snapshot.len(), start.elapsed());
    let start = Instant::now();
    let restored = View::restore(&snapshot).expect("it was just made");
    println!("a snapshot: {bytes} bytes, made in {made:?}, read in {:?}", start.elapsed());
    assert_eq!(restored.version, view.version);
    let start = Instant::now();
    assert_ne!(view.fingerprint(), 0);
    println!("the digest of all: {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(view.check(), Ok(()));
    println!("the check of all: {:?}", start.elapsed());
}
