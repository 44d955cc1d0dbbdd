//! NoExpiredDelivery: nobody receives a message whose time to live is over.

use super::Findings;
use crate::history::{Asked, History, Seen};

/// Checks a message that a reader or a subscription was given. It was stored before anybody knew
/// of it, and was given after it was asked for.
pub(crate) fn check_alive(history: &History, seen: &Seen, asked: Asked, findings: &Findings) {
    let message = history.published.get(&seen.id);
    if let Some(over) = message.and_then(|message| message.expires_by())
        && asked.from_ms > over + history.tolerance_ms
    {
        let (id, offset, at) = (&seen.id, seen.offset, asked.from_ms);
        let detail = format!("{id} at {offset} expired by {over} ms; asked at {at} ms, it came");
        findings.violated("NoExpiredDelivery", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Terms};

    fn broken(ttl_ms: Option<u64>, known_ms: Option<u64>, from_ms: u64) -> Vec<&'static str> {
        let terms = Terms { ttl_ms, ..Terms::default() };
        let message = Published { known_ms, terms, ..Published::default() };
        let mut history = History { tolerance_ms: 50, ..History::default() };
        history.published.insert("a".to_owned(), message);
        let (findings, seen) = (Findings::default(), Seen { id: "a".into(), ..Seen::default() });
        check_alive(&history, &seen, Asked { from_ms, ..Asked::default() }, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn what_is_over_comes_to_nobody() {
        assert_eq!(broken(Some(500), Some(1_000), 1_550), [""; 0]);
        assert_eq!(broken(Some(500), Some(1_000), 1_551), ["NoExpiredDelivery"]);
        assert_eq!(broken(None, Some(1_000), 9_000), [""; 0]);
        assert_eq!(broken(Some(500), None, 9_000), [""; 0], "it may have been stored just now");
    }
}
