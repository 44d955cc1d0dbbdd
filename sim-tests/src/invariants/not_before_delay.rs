//! NotBeforeDelay: no subscription receives a message before its delay is over.

use super::Findings;
use crate::history::{Asked, History, Seen};

/// Checks a message that a subscription was given. It was stored after it was first sent, and was
/// given before the answer came: between these two times lies its delay.
pub(crate) fn check_due(history: &History, seen: &Seen, asked: Asked, findings: &Findings) {
    let Some(message) = history.published.get(&seen.id) else {
        return;
    };
    let due = message.sent_ms + message.terms.delay_ms;
    if message.terms.delay_ms > 0 && asked.to_ms + history.tolerance_ms < due {
        let (id, offset, at) = (&seen.id, seen.offset, asked.to_ms);
        let detail = format!("{id} at {offset} is due at {due} ms and came at {at} ms");
        findings.violated("NotBeforeDelay", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Terms};

    fn broken(delay_ms: u64, to_ms: u64) -> Vec<&'static str> {
        let terms = Terms { delay_ms, ..Terms::default() };
        let message = Published { sent_ms: 1_000, terms, ..Published::default() };
        let mut history = History { tolerance_ms: 50, ..History::default() };
        history.published.insert("a".to_owned(), message);
        let (findings, seen) = (Findings::default(), Seen { id: "a".into(), ..Seen::default() });
        check_due(&history, &seen, Asked { to_ms, ..Asked::default() }, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_message_comes_when_it_is_due_or_later() {
        assert_eq!(broken(2_000, 3_000), [""; 0]);
        assert_eq!(broken(2_000, 2_960), [""; 0]);
        assert_eq!(broken(2_000, 2_900), ["NotBeforeDelay"]);
        assert_eq!(broken(0, 990), [""; 0]);
    }
}
