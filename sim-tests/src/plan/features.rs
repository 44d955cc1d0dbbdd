//! What the clients of a run use of what a broker can do. Each feature is off in half of the seeds,
//! and then draws nothing.

use super::{Administrator, Draw, Filter, Greedy, Mix, Plan};

/// The first of the purposes of these dice; they follow one another.
const PURPOSE: u64 = 64;

/// Draws a feature into a plan.
type Feature = fn(&mut Plan, &mut Draw);

const FEATURES: [Feature; 20] = [
    |plan, dice| plan.publishers.iter_mut().for_each(|one| one.mix.ttl = share(dice)),
    |plan, dice| plan.publishers.iter_mut().for_each(|one| one.mix.delay = share(dice)),
    |plan, dice| plan.publishers.iter_mut().for_each(|one| one.mix.priority = share(dice)),
    |plan, dice| {
        plan.publishers.iter_mut().for_each(|one| one.mix.expected = dice.pick(&[0, 5, 30]))
    },
    |plan, dice| plan.publishers.iter_mut().for_each(|one| one.mix.raw = share(dice)),
    batches,
    poison,
    filter,
    pattern,
    |plan, dice| {
        plan.subscribers.iter_mut().for_each(|one| one.max_deliver = Some(dice.log_range(1, 8)));
    },
    backoff,
    give_back,
    extend,
    keeping,
    administrator,
    breaks,
    late,
    bulk,
    greedy,
    numbers,
];

/// Draws every feature that is on.
pub(super) fn draw(plan: &mut Plan) {
    for (purpose, feature) in (PURPOSE..).zip(FEATURES) {
        let mut dice = Draw::new(plan.seed, purpose);
        if dice.percent(50) {
            feature(plan, &mut dice);
        }
    }
}

/// How many of a client's messages have something, in percent.
fn share(dice: &mut Draw) -> u64 {
    dice.pick(&[0, 5, 30, 100])
}

fn batches(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.publishers {
        one.batch_max = dice.log_range(1, 50);
        one.lines_percent = dice.pick(&[0, 50, 100]);
    }
}

/// Clients that go away in the middle and come back.
fn breaks(plan: &mut Plan, dice: &mut Draw) {
    plan.publishers.iter_mut().for_each(|one| one.breaks_percent = dice.pick(&[0, 5, 30]));
    plan.subscribers.iter_mut().for_each(|one| one.breaks_percent = dice.pick(&[0, 5, 30]));
}

/// Topics that are born when others are at work.
fn late(plan: &mut Plan, dice: &mut Draw) {
    let topic = dice.range(0, u64::from(plan.topics) - 1) as u32;
    let at_ms = dice.log_range(1_000, 30_000);
    for one in plan.publishers.iter_mut().filter(|one| one.topic == topic) {
        one.at_ms = at_ms;
    }
}

/// Long messages, and a subscriber that comes late and holds all that it is given.
fn bulk(plan: &mut Plan, dice: &mut Draw) {
    if !dice.percent(20) {
        return;
    }
    let (publisher, subscriber) = (&mut plan.publishers[0], &mut plan.subscribers[0]);
    publisher.payload_bytes_min = 512 << 10;
    publisher.payload_bytes_max = 1 << 20;
    publisher.pause_ms = dice.range(800, 1_500);
    (publisher.batch_max, publisher.twice_percent) = (1, 0);
    publisher.patience_ms = dice.range(2_000, 12_000);
    subscriber.topics = vec![publisher.topic];
    subscriber.latest = false;
    subscriber.at_ms = dice.range(35_000, 45_000);
    subscriber.ack_wait_ms = dice.range(10_000, 20_000);
    subscriber.forgets_percent = 100;
    subscriber.work_ms = 1;
    subscriber.max = 200;
    (subscriber.filter, subscriber.pattern) = (None, None);
}

/// One client sends more than a slow disk takes, and more than may wait. The others ask for so
/// little that the half of the room that it leaves is enough for all of them at once.
fn greedy(plan: &mut Plan, dice: &mut Draw) {
    if !dice.percent(60) {
        return;
    }
    let room = dice.log_range(48 << 10, 128 << 10) as usize;
    plan.knobs.waiting_bytes = room;
    plan.knobs.in_flight_bytes = dice.log_range(4 << 10, room as u64 / 4) as usize;
    plan.disk.sync_us_min = dice.log_range(5_000, 40_000);
    plan.disk.sync_us_max = dice.log_range(plan.disk.sync_us_min, 60_000);
    let mut publisher = plan.publishers[0].clone();
    (publisher.at_ms, publisher.mix) = (0, Mix::default());
    (publisher.batch_max, publisher.twice_percent, publisher.breaks_percent) = (1, 0, 0);
    (publisher.payload_bytes_min, publisher.payload_bytes_max) = (room / 16, room / 10);
    plan.greedy = Some(Greedy {
        publisher,
        connections: dice.range(32, 64),
        every_ms: dice.range(8_000, 20_000),
        messages: dice.range(1, 3),
    });
    for one in &mut plan.publishers {
        one.light = true;
        (one.batch_max, one.twice_percent, one.breaks_percent) = (1, 0, 0);
        (one.payload_bytes_min, one.payload_bytes_max) = (16, 256);
        one.patience_ms = 16_000;
    }
}

/// Producers that number their messages, and rely on the numbers alone.
fn numbers(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.publishers {
        one.numbered = dice.percent(70);
        if one.numbered {
            one.renames_percent = dice.pick(&[0, 30, 100]);
            one.again_percent = dice.pick(&[0, 2, 10]);
        }
    }
}

fn poison(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.publishers {
        one.mix.poison = dice.pick(&[0, 1, 5]);
    }
}

fn filter(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.publishers {
        one.mix.kind = dice.pick(&[50, 90]);
    }
    for one in &mut plan.subscribers {
        let digit = dice.range(0, 9);
        one.filter = match dice.range(0, 4) {
            0 => None,
            1 => Some(Filter::Kinds(vec!["a".to_owned(), "b".to_owned()])),
            2 => Some(Filter::NoKind),
            3 => Some(Filter::KeyPrefix(format!("k{digit}"))),
            _ => Some(Filter::Keys((0..=digit).map(|digit| format!("k{digit}")).collect())),
        };
    }
}

fn pattern(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.subscribers {
        if dice.percent(60) {
            let pattern = dice.pick(&["topic.*", "topic.>"]);
            one.pattern = Some(pattern.to_owned());
            one.topics = (0..plan.topics).collect();
        }
    }
}

fn backoff(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.subscribers {
        one.backoff_ms = (0..dice.range(0, 3)).map(|_| dice.log_range(1, 2_000)).collect();
    }
}

fn give_back(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.subscribers {
        one.nacks_percent = dice.pick(&[0, 2, 20]);
        one.nack_delay_ms = dice.pick(&[0, 100, 3_000]);
        one.rejects_percent = dice.pick(&[0, 1, 10]);
    }
}

fn extend(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.subscribers {
        one.extends_percent = dice.pick(&[10, 60]);
        one.idle_ms = dice.pick(&[0, 500, 3_000]);
    }
}

fn keeping(plan: &mut Plan, dice: &mut Draw) {
    for one in &mut plan.keeping {
        one.retention_ms = dice.percent(60).then(|| dice.log_range(1_000, 40_000));
        one.retention_bytes = dice.percent(30).then_some(1 << 20);
    }
}

fn administrator(plan: &mut Plan, dice: &mut Draw) {
    plan.administrator = Some(Administrator {
        pause_ms: dice.log_range(100, 5_000),
        purges: dice.percent(60),
        redrives: dice.percent(60),
        deletes: dice.percent(80),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a plan uses a feature.
    type Use = fn(&Plan) -> bool;

    #[test]
    fn every_feature_is_on_in_some_seeds_and_off_in_others() {
        let plan = |seed| Plan::of_seed(seed, true);
        let uses: [(&str, Use); 8] = [
            ("a ttl", |plan| plan.publishers.iter().any(|one| one.mix.ttl > 0)),
            ("a delay", |plan| plan.publishers.iter().any(|one| one.mix.delay > 0)),
            ("batches", |plan| plan.publishers.iter().any(|one| one.batch_max > 1)),
            ("a filter", |plan| plan.subscribers.iter().any(|one| one.filter.is_some())),
            ("retention", |plan| plan.keeping.iter().any(|one| one.retention_ms.is_some())),
            ("numbers", |plan| plan.publishers.iter().any(|one| one.numbered)),
            ("a greedy client", |plan| plan.greedy.is_some()),
            ("an administrator", |plan| plan.administrator.is_some()),
        ];
        for (what, used) in uses {
            let on = (0..100).filter(|&seed| used(&plan(seed))).count();
            assert!((20..75).contains(&on), "{what} is on in {on} of 100");
        }
    }
}
