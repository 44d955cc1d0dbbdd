//! KeyOrder: first deliveries of a key to a subscription ascend, within one run of the node and
//! among pulls that do not overlap.
//!
//! What was delivered and did not arrive comes again: as another attempt, or, after a start of the
//! node, as the first one again. So each run is judged for itself.
//!
//! A pull that its client breaks off is a second reader of the subscription, for as long as the
//! node works on it. What it holds and cannot deliver comes after what the others were given
//! meanwhile. So nothing is judged against what came by a pull that overlapped another; what came
//! by it is judged against what came before.

use std::collections::BTreeMap;
use std::time::Duration;

use sprawl_core::ids::{RequestId, ShardId};

use super::Findings;
use crate::history::{Asked, History, Seen, Subscribed};

/// Checks a message that a subscription was given. One with a delay or a priority of its own may
/// come out of order.
pub(crate) fn check_order(
    history: &mut History,
    name: &str,
    seen: &Seen,
    asked: Asked,
    findings: &Findings,
) {
    let Some(terms) = history.published.get(&seen.id).map(|message| &message.terms) else {
        return;
    };
    let Some(key) = terms.key.clone() else { return };
    let plain = terms.delay_ms == 0 && terms.priority.is_none();
    if !plain || seen.attempt != 1 || asked.starts != asked.starts_after {
        return;
    }
    if let Some(subscribed) = history.subscribed.get_mut(name) {
        note(subscribed, name, seen, key, asked, findings);
    }
}

fn note(
    subscribed: &mut Subscribed,
    name: &str,
    seen: &Seen,
    key: String,
    asked: Asked,
    findings: &Findings,
) {
    let run = asked.starts;
    let place = (seen.topic, seen.partition, key);
    if let Some((offset, of)) = subscribed.newest.get(&place)
        && *of == run
        && *offset >= seen.offset
    {
        let detail = format!(
            "{name} received {} of key {} at {}/{} after {offset}",
            seen.id, place.2, seen.topic, seen.offset
        );
        findings.violated("KeyOrder", detail);
    }
    if !asked.overlapped {
        subscribed.newest.insert(place, (seen.offset, run));
    }
}

/// The pulls that the node works on, whether anybody still waits for them or not.
#[derive(Debug, Default)]
pub(crate) struct PullsUnderWay {
    /// By the shard at whose door they came, with their subscription and when that was.
    pulls: BTreeMap<(ShardId, RequestId), (String, Duration)>,
    /// How often a pull of a subscription began while another was under way.
    overlaps: BTreeMap<String, u64>,
}

impl PullsUnderWay {
    pub(crate) fn began(&mut self, pull: (ShardId, RequestId), subscription: &str, now: Duration) {
        if self.pulls.values().any(|(other, _)| other == subscription) {
            *self.overlaps.entry(subscription.to_owned()).or_insert(0) += 1;
        }
        self.pulls.insert(pull, (subscription.to_owned(), now));
    }

    pub(crate) fn ended(&mut self, pull: (ShardId, RequestId)) {
        self.pulls.remove(&pull);
    }

    /// A new process has none.
    pub(crate) fn restarted(&mut self) {
        self.pulls.clear();
    }

    /// How often pulls of a subscription have overlapped so far.
    pub(crate) fn overlaps(&self, subscription: &str) -> u64 {
        self.overlaps.get(subscription).copied().unwrap_or(0)
    }

    /// A pull that began before this time and has not ended: with such a one, nothing of its
    /// subscription would be judged any more.
    pub(crate) fn stuck(&self, since: Duration) -> Option<String> {
        let mut stuck = self.pulls.values().filter(|(_, began)| *began < since);
        let (subscription, began) = stuck.next()?;
        Some(format!("a pull of {subscription} began at {began:?} and has no answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Terms};
    use sprawl_core::ids::Offset;

    fn broken(terms: &Terms, deliveries: &[(u64, u64, u64)]) -> Vec<&'static str> {
        let alone = |&(offset, attempt, starts): &_| (offset, attempt, starts, false);
        overlapping(terms, &deliveries.iter().map(alone).collect::<Vec<_>>())
    }

    fn overlapping(terms: &Terms, deliveries: &[(u64, u64, u64, bool)]) -> Vec<&'static str> {
        let mut history = History::default();
        history.subscribed.insert("s".to_owned(), Subscribed::default());
        let message = Published { terms: terms.clone(), ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let findings = Findings::default();
        for &(offset, attempt, starts, overlapped) in deliveries {
            let offset = Offset(offset);
            let seen = Seen { id: "a".to_owned(), offset, attempt, ..Seen::default() };
            let asked = Asked { starts, starts_after: starts, overlapped, ..Asked::default() };
            check_order(&mut history, "s", &seen, asked, &findings);
        }
        findings.violations().into_keys().collect()
    }

    #[test]
    fn first_deliveries_of_a_key_ascend_within_a_run() {
        let keyed = Terms { key: Some("k".to_owned()), ..Terms::default() };
        assert_eq!(broken(&keyed, &[(1, 1, 1), (2, 1, 1), (5, 1, 1)]), [""; 0]);
        assert_eq!(broken(&keyed, &[(2, 1, 1), (1, 1, 1)]), ["KeyOrder"]);
        assert_eq!(broken(&keyed, &[(2, 1, 1), (1, 2, 1)]), [""; 0], "a repeat");
        assert_eq!(broken(&keyed, &[(2, 1, 1), (1, 1, 2)]), [""; 0], "another run");
        let delayed = Terms { delay_ms: 1, ..keyed };
        assert_eq!(broken(&delayed, &[(2, 1, 1), (1, 1, 1)]), [""; 0]);
        assert_eq!(broken(&Terms::default(), &[(2, 1, 1), (1, 1, 1)]), [""; 0]);
    }

    #[test]
    fn what_overlaps_a_pull_that_was_broken_off_may_come_before_what_that_gives_back() {
        let keyed = Terms { key: Some("k".to_owned()), ..Terms::default() };
        let broken = |deliveries: &[_]| overlapping(&keyed, deliveries);
        assert_eq!(broken(&[(1, 1, 1, false), (4, 1, 1, true), (2, 1, 1, false)]), [""; 0]);
        let after = [(4, 1, 1, true), (2, 1, 1, false), (3, 1, 1, false), (5, 1, 1, false)];
        assert_eq!(broken(&after), [""; 0]);
        let back = [(3, 1, 1, false), (5, 1, 1, true), (2, 1, 1, true)];
        assert_eq!(broken(&back), ["KeyOrder"], "it goes back behind what came before both");
        let later = [(4, 1, 1, true), (5, 1, 1, false), (9, 1, 1, false), (7, 1, 1, false)];
        assert_eq!(broken(&later), ["KeyOrder"], "the overlap was over long before");
    }

    #[test]
    fn pulls_overlap_while_the_node_works_on_them() {
        let (mut pulls, now) = (PullsUnderWay::default(), Duration::from_secs);
        let pull = |shard, id| (ShardId(shard), RequestId(id));
        pulls.began(pull(0, 1), "s", now(1));
        pulls.began(pull(1, 1), "t", now(1));
        assert_eq!(pulls.overlaps("s"), 0, "another subscription is another matter");
        pulls.began(pull(1, 2), "s", now(2));
        assert_eq!((pulls.overlaps("s"), pulls.overlaps("t")), (1, 0));
        pulls.ended(pull(0, 1));
        pulls.ended(pull(1, 2));
        pulls.began(pull(0, 3), "s", now(3));
        assert_eq!(pulls.overlaps("s"), 1);
        assert!(pulls.stuck(now(1)).is_none() && pulls.stuck(now(2)).is_some());
        pulls.restarted();
        pulls.began(pull(0, 1), "s", now(4));
        assert_eq!(pulls.overlaps("s"), 1, "a new process works on nothing of the old one's");
    }
}
