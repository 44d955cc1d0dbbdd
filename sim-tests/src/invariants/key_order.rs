//! KeyOrder: first deliveries of a key to a subscription ascend, within one run of the node.
//!
//! What was delivered and did not arrive comes again: as another attempt, or, after a start of the
//! node, as the first one again. So each run is judged for itself.

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
        note(subscribed, name, seen, key, asked.starts, findings);
    }
}

fn note(
    subscribed: &mut Subscribed,
    name: &str,
    seen: &Seen,
    key: String,
    run: u64,
    findings: &Findings,
) {
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
    subscribed.newest.insert(place, (seen.offset, run));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Terms};
    use sprawl_core::ids::Offset;

    fn broken(terms: &Terms, deliveries: &[(u64, u64, u64)]) -> Vec<&'static str> {
        let mut history = History::default();
        history.subscribed.insert("s".to_owned(), Subscribed::default());
        let message = Published { terms: terms.clone(), ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let findings = Findings::default();
        for &(offset, attempt, starts) in deliveries {
            let offset = Offset(offset);
            let seen = Seen { id: "a".to_owned(), offset, attempt, ..Seen::default() };
            let asked = Asked { starts, starts_after: starts, ..Asked::default() };
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
}
