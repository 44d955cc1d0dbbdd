//! NoPhantom and NoCorruptByteServed: what a client reads is what a client published.

use super::Findings;
use crate::history::{History, Seen};

/// Checks one message that a reader or subscriber was given.
pub(crate) fn check_seen(history: &History, seen: &Seen, findings: &Findings) {
    let place = format!("{} at {}/{}/{}", seen.id, seen.topic, seen.partition, seen.offset);
    match history.published.get(&seen.id) {
        None => findings.violated("NoPhantom", format!("{place}: nobody published it")),
        Some(message) if message.topic != seen.topic => {
            let detail = format!("{place}: it was published to topic {}", message.topic);
            findings.violated("NoPhantom", detail);
        }
        Some(message) if message.payload != seen.payload => {
            let detail = format!("{place}: its payload is not the published one");
            findings.violated("NoCorruptByteServed", detail);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Published;
    use sprawl_core::ids::Offset;

    fn seen(id: &str, topic: u32, payload: &[u8]) -> Vec<&'static str> {
        let mut history = History::default();
        let payload_before = b"p".to_vec();
        let message = Published { payload: payload_before, open: 1, ..Published::default() };
        history.published.insert("a".to_owned(), message);
        let findings = Findings::default();
        let (id, payload, offset) = (id.to_owned(), payload.to_vec(), Offset(0));
        let seen = Seen { id, topic, offset, payload, ..Seen::default() };
        check_seen(&history, &seen, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn what_was_published_may_be_read_and_nothing_else() {
        assert_eq!(seen("a", 0, b"p"), [""; 0]);
        assert_eq!(seen("b", 0, b"p"), ["NoPhantom"]);
        assert_eq!(seen("a", 1, b"p"), ["NoPhantom"]);
        assert_eq!(seen("a", 0, b"q"), ["NoCorruptByteServed"]);
    }
}
