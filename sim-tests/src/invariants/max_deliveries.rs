//! MaxDeliveries: a message comes to a subscription at most as often as that allows, and once more
//! for each start of the node meanwhile, which knows only of the deliveries whose repeats it has
//! announced.

use super::Findings;
use crate::history::{Asked, Received, Seen, Subscribed};

/// Notes that a subscription was given a message, and checks how often that was.
pub(crate) fn check_count(
    subscribed: &mut Subscribed,
    seen: &Seen,
    asked: Asked,
    findings: &Findings,
) {
    let first = Received { starts: asked.starts, ..Received::default() };
    let place = (seen.topic, seen.id.clone());
    let received = subscribed.received.entry(place).or_insert(first);
    received.count += 1;
    let starts = asked.starts_after - received.starts;
    let (count, most) = (received.count, subscribed.max_deliver + starts);
    if count > most {
        let (id, offset, max) = (&seen.id, seen.offset, subscribed.max_deliver);
        let detail = format!("{id} at {offset} came {count} times; {max}, and {starts} starts");
        findings.violated("MaxDeliveries", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(max_deliver: u64, starts: &[u64]) -> Vec<&'static str> {
        let mut subscribed = Subscribed { max_deliver, ..Subscribed::default() };
        let (findings, seen) = (Findings::default(), Seen { id: "a".into(), ..Seen::default() });
        for &starts in starts {
            let asked = Asked { starts, starts_after: starts, ..Asked::default() };
            check_count(&mut subscribed, &seen, asked, &findings);
        }
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_message_comes_so_often_and_once_more_for_each_start() {
        assert_eq!(broken(2, &[1, 1]), [""; 0]);
        assert_eq!(broken(2, &[1, 1, 1]), ["MaxDeliveries"]);
        assert_eq!(broken(2, &[1, 1, 2]), [""; 0]);
        assert_eq!(broken(2, &[1, 1, 2, 2]), ["MaxDeliveries"]);
    }
}
