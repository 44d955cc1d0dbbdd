//! From a seed to a plan. Each class of faults is off in half of the seeds, and then draws nothing.

use super::{
    Class, DiskPace, Draw, Fault, Keeping, Knobs, Mix, Plan, Publisher, Subscriber, VERSION,
};
use super::{What, features, schedule};

/// How long faults and work last.
const CHAOS_MS: u64 = 60_000;
/// The first fault comes after the clients have had a moment.
const FIRST_FAULT_MS: u64 = 1_500;

/// The purposes of the dice.
#[repr(u64)]
enum Purpose {
    Knobs = 1,
    Work = 2,
    Disk = 3,
    /// The classes follow, one stream each.
    Faults = 16,
}

const CLASSES: [Class<What>; 11] = [
    Class { most: 8, draw: |dice| What::Crash { down_ms: dice.log_range(10, 4_000) } },
    Class { most: 8, draw: |dice| What::PowerFailure { down_ms: dice.log_range(50, 6_000) } },
    Class { most: 5, draw: |dice| What::Pause { for_ms: dice.log_range(20, 8_000) } },
    Class { most: 6, draw: jump },
    Class { most: 3, draw: |_| What::SyncError },
    Class { most: 4, draw: |dice| What::NoSpace { for_ms: dice.log_range(50, 8_000) } },
    Class { most: 12, draw: |dice| What::Stall { for_ms: dice.log_range(20, 5_000) } },
    Class { most: 4, draw: |dice| What::BitFlip { pick: dice.range(0, u64::MAX) } },
    Class { most: 5, draw: |dice| What::Cut { for_ms: dice.log_range(20, 5_000) } },
    Class { most: 3, draw: |dice| What::Misdirect { pick: dice.range(0, u64::MAX) } },
    Class {
        most: 8,
        draw: |dice| {
            let (repeat, down_ms) = (dice.percent(50), dice.log_range(50, 2_000));
            What::PowerAnswered { repeat, down_ms }
        },
    },
];

/// The names of all classes.
pub(crate) fn classes() -> Vec<&'static str> {
    let drawn = |(at, class): (u64, Class<What>)| (class.draw)(&mut Draw::new(1, at)).class();
    (0..).zip(CLASSES).map(drawn).collect()
}

fn jump(dice: &mut Draw) -> What {
    let far = dice.log_range(10, 3_600_000) as i64;
    What::ClockJump { by_ms: if dice.percent(50) { far } else { -far } }
}

pub(super) fn plan(seed: u64, calm: bool) -> Plan {
    let mut work = Draw::new(seed, Purpose::Work as u64);
    let topics = work.range(1, 3) as u32;
    let publishers = (0..work.range(2, 4)).map(|_| publisher(&mut work, topics)).collect();
    let subscribers = (0..work.range(1, 3)).map(|_| subscriber(&mut work, topics)).collect();
    let mut plan = Plan {
        version: VERSION,
        seed,
        knobs: knobs(&mut Draw::new(seed, Purpose::Knobs as u64)),
        topics,
        keeping: vec![Keeping::default(); topics as usize],
        publishers,
        greedy: None,
        subscribers,
        readers: work.range(1, 2) as u32,
        administrator: None,
        disk: pace(&mut Draw::new(seed, Purpose::Disk as u64)),
        chaos_ms: CHAOS_MS,
        faults: if calm { Vec::new() } else { faults(seed) },
    };
    features::draw(&mut plan);
    plan
}

/// Each knob at its least, its default, its most, or anywhere.
fn knobs(dice: &mut Draw) -> Knobs {
    let mut knob = |least: u64, default: u64, most: u64| match dice.range(0, 3) {
        0 => least,
        1 => default,
        2 => most,
        _ => dice.log_range(least, most),
    };
    Knobs {
        shards: knob(1, 2, 4) as u16,
        cache_bytes: knob(1, 64 << 20, 64 << 20) as usize,
        in_flight_bytes: knob(4 << 10, 64 << 20, 64 << 20) as usize,
        checkpoint_entries: knob(1, 4_096, 4_096),
        waiting_bytes: 128 << 20,
    }
}

fn publisher(dice: &mut Draw, topics: u32) -> Publisher {
    Publisher {
        topic: dice.range(0, u64::from(topics) - 1) as u32,
        at_ms: 0,
        pause_ms: dice.log_range(20, 300),
        payload_bytes_min: 16,
        payload_bytes_max: dice.log_range(16, 4_096) as usize,
        keyed_percent: dice.pick(&[0, 50, 100]),
        twice_percent: dice.pick(&[0, 5, 50]),
        patience_ms: dice.log_range(200, 12_000),
        breaks_percent: 0,
        batch_max: 1,
        lines_percent: 0,
        light: false,
        numbered: false,
        renames_percent: 0,
        again_percent: 0,
        mix: Mix::default(),
    }
}

fn subscriber(dice: &mut Draw, topics: u32) -> Subscriber {
    let mut of = Vec::new();
    for topic in 0..topics {
        if dice.percent(60) {
            of.push(topic);
        }
    }
    if of.is_empty() {
        of.push(dice.range(0, u64::from(topics) - 1) as u32);
    }
    Subscriber {
        topics: of,
        latest: dice.percent(50),
        at_ms: dice.pick(&[0, 0, 1_000, 20_000]),
        ack_wait_ms: dice.log_range(300, 10_000),
        forgets_percent: dice.pick(&[0, 10, 40]),
        work_ms: dice.log_range(1, 1_500),
        max: dice.log_range(1, 200),
        idle_ms: 0,
        pattern: None,
        filter: None,
        max_deliver: None,
        backoff_ms: Vec::new(),
        nacks_percent: 0,
        nack_delay_ms: 0,
        rejects_percent: 0,
        extends_percent: 0,
        breaks_percent: 0,
    }
}

fn pace(dice: &mut Draw) -> DiskPace {
    let sync_us_min = dice.log_range(50, 5_000);
    let sync_us_max = dice.log_range(sync_us_min, 60_000);
    DiskPace { sync_us_min, sync_us_max, read_us_max: dice.log_range(50, 20_000) }
}

fn faults(seed: u64) -> Vec<Fault> {
    let times = (FIRST_FAULT_MS, CHAOS_MS);
    let faults = schedule(seed, Purpose::Faults as u64, &CLASSES, times);
    faults.into_iter().map(|(at_ms, what)| Fault { at_ms, what }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_a_plan_survives_its_text() {
        for seed in 0..200 {
            let plan = plan(seed, false);
            assert_eq!(plan, super::plan(seed, false));
            let text = serde_json::to_string(&plan).expect("a plan is data");
            assert_eq!(serde_json::from_str::<Plan>(&text).expect("it was a plan"), plan);
        }
    }

    #[test]
    fn every_class_is_on_in_some_seeds_and_off_in_others() {
        for class in classes() {
            let has = |seed| plan(seed, false).faults.iter().any(|f| f.what.class() == class);
            let on = (0..100).filter(|&seed| has(seed)).count();
            assert!((25..75).contains(&on), "{class} is on in {on} of 100");
        }
    }
}
