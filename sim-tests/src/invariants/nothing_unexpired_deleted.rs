//! NothingUnexpiredDeleted: retention removes nothing that is younger than its topic retains.

use super::Findings;
use crate::history::{History, Published};

/// Whether a message that stands below a topic's start may be gone: because somebody asked for it,
/// because the topic is bounded in bytes, or because it is old enough at this time.
pub(super) fn may_be_gone(history: &History, message: &Published, offset: u64, at_ms: u64) -> bool {
    let purged = history.purged.get(&message.topic).is_some_and(|below| offset < below.0);
    let keeping = history.keeping.get(message.topic as usize).cloned().unwrap_or_default();
    let old = keeping.retention_ms.is_some_and(|retention| {
        // It was stored after it was sent, so it is not older than this.
        message.sent_ms + retention <= at_ms + history.tolerance_ms
    });
    purged || old || keeping.retention_bytes.is_some()
}

/// Checks all removals that readers have noticed against the messages whose places are known.
pub(crate) fn check_removals(history: &History, findings: &Findings) {
    for (id, message) in &history.published {
        let Some((_, offset)) = message.place() else { continue };
        let removals = history.removals.iter().filter(|removal| removal.topic == message.topic);
        let Some(first) = removals.into_iter().find(|removal| offset < removal.start) else {
            continue;
        };
        if !may_be_gone(history, message, offset.0, first.at_ms) {
            let (topic, sent, at) = (message.topic, message.sent_ms, first.at_ms);
            let detail = format!(
                "{id} at {topic}/{offset}, sent at {sent} ms, was removed by {at} ms, when the \
                 topic began at {}",
                first.start
            );
            findings.violated("NothingUnexpiredDeleted", detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Try;
    use crate::plan::Keeping;
    use sprawl_core::ids::Offset;

    fn broken(keeping: Keeping, start: u64, at_ms: u64, purged: u64) -> Vec<&'static str> {
        let tries = vec![Try::Acknowledged { partition: 0, offset: Offset(5), duplicate: false }];
        let message = Published { sent_ms: 1_000, tries, ..Published::default() };
        let mut history =
            History { tolerance_ms: 50, keeping: vec![keeping], ..History::default() };
        history.published.insert("a".to_owned(), message);
        history.purged.insert(0, Offset(purged));
        history.begins(0, Offset(start), at_ms);
        let findings = Findings::default();
        check_removals(&history, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn only_what_is_old_enough_goes() {
        let of = |retention_ms| Keeping { retention_ms: Some(retention_ms), retention_bytes: None };
        assert_eq!(broken(of(2_000), 6, 3_000, 0), [""; 0]);
        assert_eq!(broken(of(2_000), 6, 2_900, 0), ["NothingUnexpiredDeleted"]);
        assert_eq!(broken(of(2_000), 5, 1_001, 0), [""; 0], "it is still there");
        assert_eq!(broken(of(2_000), 6, 1_001, 6), [""; 0], "somebody asked for it");
        assert_eq!(broken(Keeping::default(), 6, 99_000, 5), ["NothingUnexpiredDeleted"]);
        let bytes = Keeping { retention_bytes: Some(1), ..Keeping::default() };
        assert_eq!(broken(bytes, 6, 1_001, 0), [""; 0]);
    }
}
