//! AtLeastOnce and SubscribedMeansFromHere: what stands in a topic has come to each subscription
//! that is to have it, and was acknowledged, or stands among the dead letters.

use std::collections::BTreeMap;

use super::Findings;
use super::messages::ReadBack;
use crate::history::{History, Seen, Subscribed};

/// Checks all subscriptions against what was read back, as of now.
pub(crate) fn check_subscriptions(
    history: &History,
    back: &BTreeMap<u32, ReadBack>,
    now_ms: u64,
    findings: &Findings,
) {
    for (name, subscription) in &history.subscribed {
        for (topic, read) in back {
            if read.damaged || !subscription.topics.contains(topic) {
                continue;
            }
            for seen in &read.messages {
                check_message(history, (name, subscription), seen, now_ms, findings);
            }
        }
    }
}

fn check_message(
    history: &History,
    (name, subscription): (&str, &Subscribed),
    seen: &Seen,
    now_ms: u64,
    findings: &Findings,
) {
    let (Some(answered_ms), Some(message)) =
        (subscription.answered_ms, history.published.get(&seen.id))
    else {
        return;
    };
    let until = now_ms + history.tolerance_ms;
    let expired = message.expires_from().is_some_and(|from| from <= until);
    let removed = seen.offset < history.start_of(seen.topic);
    if expired || removed || !subscription.wants(&message.terms) {
        return;
    }
    let received = subscription.received.get(&(seen.topic, seen.id.clone()));
    let done = received.is_some_and(|received| received.acknowledged);
    if done || history.buried.has(name, seen.topic, &seen.id) {
        return;
    }
    let (id, offset, count) = (&seen.id, seen.offset, received.map_or(0, |held| held.count));
    if received.is_none() && message.sent_ms > answered_ms {
        let detail = format!("{name} began at {answered_ms} ms; {id} came never");
        findings.violated("SubscribedMeansFromHere", detail);
    } else if received.is_some() || !subscription.latest {
        let detail =
            format!("{name} received {id} at {offset} {count} times, and it is not done with");
        findings.violated("AtLeastOnce", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Received, Terms};
    use crate::invariants::Buried;
    use crate::plan::Filter;

    const NEVER: Received = Received { count: 0, starts: 0, acknowledged: false };
    const ONCE: Received = Received { count: 1, starts: 0, acknowledged: false };
    const DONE: Received = Received { count: 1, starts: 0, acknowledged: true };

    fn world(answered_ms: u64, latest: bool, received: Received) -> History {
        let mut history = History { tolerance_ms: 50, ..History::default() };
        let message = Published { sent_ms: 50, ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let answered_ms = Some(answered_ms);
        let mut subscribed =
            Subscribed { topics: vec![0], latest, answered_ms, ..Subscribed::default() };
        if received != NEVER {
            subscribed.received.insert((0, "a".to_owned()), received);
        }
        history.subscribed.insert("s".to_owned(), subscribed);
        history
    }

    fn broken(history: &History) -> Vec<&'static str> {
        let seen = Seen { id: "a".to_owned(), ..Seen::default() };
        let back = ReadBack { messages: vec![seen], ..ReadBack::default() };
        let findings = Findings::default();
        check_subscriptions(history, &BTreeMap::from([(0, back)]), 1_000, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_subscription_receives_and_acknowledges_what_it_is_to() {
        let with = |answered_ms, latest, received| broken(&world(answered_ms, latest, received));
        assert_eq!(with(10, true, DONE), [""; 0]);
        assert_eq!(with(10, true, NEVER), ["SubscribedMeansFromHere"]);
        assert_eq!(with(10, true, ONCE), ["AtLeastOnce"]);
        assert_eq!(with(90, true, NEVER), [""; 0]);
        assert_eq!(with(90, false, NEVER), ["AtLeastOnce"]);
        assert_eq!(with(90, false, ONCE), ["AtLeastOnce"]);
        assert_eq!(with(90, false, DONE), [""; 0]);
    }

    #[test]
    fn a_dead_letter_is_as_good_for_its_own_subscription() {
        let with = |buried| broken(&History { buried, ..world(90, false, ONCE) });
        assert_eq!(with(Buried::of("s", 0, "a")), [""; 0]);
        assert_eq!(with(Buried::of("other", 0, "a")), ["AtLeastOnce"]);
        assert_eq!(with(Buried::of("s", 0, "b")), ["AtLeastOnce"]);
    }

    #[test]
    fn what_expired_was_removed_or_is_not_wanted_need_not_come() {
        let with = |change: &dyn Fn(&mut History)| {
            let mut history = world(90, false, NEVER);
            change(&mut history);
            broken(&history)
        };
        let terms = |history: &mut History, terms| {
            history.published.get_mut("a").expect("a message").terms = terms;
        };
        let ttl = |ttl| Terms { ttl_ms: Some(ttl), ..Terms::default() };
        assert_eq!(with(&|history| terms(history, ttl(900))), [""; 0]);
        assert_eq!(with(&|history| terms(history, ttl(1_001))), ["AtLeastOnce"]);
        assert_eq!(with(&|history| history.begins(0, sprawl_core::ids::Offset(1), 1)), [""; 0]);
        let filter = |history: &mut History| {
            let subscribed = history.subscribed.get_mut("s").expect("a subscription");
            subscribed.filter = Some(Filter::Kinds(Vec::new()));
        };
        assert_eq!(with(&filter), [""; 0]);
    }
}
