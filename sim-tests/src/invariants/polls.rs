//! MonotonicPoll and NoSkip: what a reader without a subscription is given ascends, and leads it
//! past nothing that it was to have. Jepsen calls the contrary nonmonotonic-poll and poll-skip.

use std::collections::BTreeMap;

use sprawl_core::ids::Offset;

use super::Findings;
use super::nothing_unexpired_deleted::may_be_gone;
use crate::history::{Asked, History, Published, Seen, Sought};

/// What a reader was given by one request.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) topic: u32,
    /// The offset that it asked for.
    pub(crate) from: u64,
    pub(crate) messages: Vec<Seen>,
    /// Where it is to go on.
    pub(crate) next: u64,
    /// The first offset that is retained.
    pub(crate) start: u64,
    /// The offset of the next message.
    pub(crate) end: u64,
}

/// Checks a page, and notes what it skips, to be judged when all places are known.
pub(crate) fn check_page(history: &mut History, page: &Page, asked: Asked, findings: &Findings) {
    let at = |what: &str| {
        let Page { topic, from, next, start, end, .. } = page;
        format!("topic {topic} from {from}: {what}; next {next}, of {start}..{end}")
    };
    history.begins(page.topic, Offset(page.start), asked.to_ms);
    let mut least = page.from;
    for seen in &page.messages {
        if seen.offset.0 < least || seen.offset.0 >= page.next {
            let detail = at(&format!("{} comes at {} after {least}", seen.id, seen.offset));
            findings.violated("MonotonicPoll", detail);
        }
        least = seen.offset.0 + 1;
    }
    if page.next < page.from.min(page.end) || page.next > page.end {
        findings.violated("MonotonicPoll", at("it leads back, or beyond the end"));
    }
    let given: Vec<u64> = page.messages.iter().map(|seen| seen.offset.0).collect();
    for offset in page.from.max(page.start)..page.next {
        if given.binary_search(&offset).is_err() {
            history.skipped.entry((page.topic, Offset(offset))).or_insert(asked.to_ms);
        }
    }
}

/// Judges what readers were led past: it had expired.
pub(crate) fn check_skipped(history: &History, findings: &Findings) {
    let mut at: BTreeMap<(u32, Offset), &str> = BTreeMap::new();
    for (id, message) in &history.published {
        if let Some((_, offset)) = message.place() {
            at.insert((message.topic, offset), id);
        }
    }
    for ((topic, offset), &when) in &history.skipped {
        let Some(&id) = at.get(&(*topic, *offset)) else { continue };
        let from = history.published.get(id).and_then(|message| message.expires_from());
        if from.is_none_or(|from| from > when + history.tolerance_ms) {
            let detail = format!("{id} at {topic}/{offset} was passed over by {when} ms");
            findings.violated("NoSkip", detail);
        }
    }
}

/// Judges what was looked for by time or by id: a message stored later than the time stands at or
/// behind what was found, and one whose place is known is found, unless it expired or was removed.
/// Of a damaged topic nobody may have been told where it begins: there what may be gone may be.
pub(crate) fn check_sought(
    history: &History,
    is_damaged: impl Fn(u32) -> bool,
    findings: &Findings,
) {
    let tolerance = history.tolerance_ms;
    let expired = |message: &Published, when: u64| {
        message.expires_from().is_some_and(|from| from <= when + tolerance)
    };
    for Sought { topic, time_ms, start, found, at_ms } in &history.sought {
        for (id, message) in history.published.iter().filter(|(_, one)| one.topic == *topic) {
            let Some((_, offset)) = message.place() else { continue };
            let passed = (*start..*found).contains(&offset);
            if passed && message.sent_ms > time_ms + tolerance && !expired(message, *at_ms) {
                let detail = format!(
                    "{id} at {topic}/{offset}, sent at {} ms, stands before {found}, which was \
                     found for {time_ms} ms",
                    message.sent_ms
                );
                findings.violated("NoSkip", detail);
            }
        }
    }
    for (id, when) in &history.unfound {
        let Some(message) = history.published.get(id) else { continue };
        let removed = message.place().is_none_or(|(_, at)| {
            at < history.start_of(message.topic)
                || is_damaged(message.topic) && may_be_gone(history, message, at.0, *when)
        });
        if !removed && !expired(message, *when) {
            let detail = format!("{id} at {:?} was not found by {when} ms", message.place());
            findings.violated("NoSkip", detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Terms, Try};
    use crate::plan::Keeping;

    fn page(from: u64, offsets: &[u64], next: u64) -> Page {
        let seen = |&offset: &u64| Seen { offset: Offset(offset), ..Seen::default() };
        let messages = offsets.iter().map(seen).collect();
        Page { topic: 0, from, messages, next, start: 2, end: 9 }
    }

    fn broken(page: &Page, ttl_ms: Option<u64>) -> Vec<&'static str> {
        let (mut history, findings) = (history(ttl_ms), Findings::default());
        let asked = Asked { to_ms: 3_000, ..Asked::default() };
        check_page(&mut history, page, asked, &findings);
        check_skipped(&history, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn pages_ascend() {
        assert_eq!(broken(&page(0, &[2, 3, 4, 5], 6), None), [""; 0]);
        assert_eq!(broken(&page(20, &[], 9), None), [""; 0]);
        assert_eq!(broken(&page(3, &[4, 3, 5], 6), None), ["MonotonicPoll"]);
        assert_eq!(broken(&page(4, &[3], 5), None), ["MonotonicPoll"]);
        assert_eq!(broken(&page(6, &[], 5), None), ["MonotonicPoll"]);
        assert_eq!(broken(&page(6, &[], 10), None), ["MonotonicPoll"]);
    }

    #[test]
    fn only_what_has_expired_is_passed_over() {
        assert_eq!(broken(&page(2, &[2, 3, 4, 6], 7), None), ["NoSkip"]);
        assert_eq!(broken(&page(2, &[2, 3, 4, 6], 7), Some(2_000)), [""; 0]);
        assert_eq!(broken(&page(2, &[2, 3, 4, 6], 7), Some(2_100)), ["NoSkip"]);
        assert_eq!(broken(&page(2, &[2, 3, 4], 5), None), [""; 0]);
    }

    fn history(ttl_ms: Option<u64>) -> History {
        let offset = Offset(5);
        let tries = vec![Try::Acknowledged { partition: 0, offset, duplicate: false }];
        let terms = Terms { ttl_ms, ..Terms::default() };
        let message = Published { sent_ms: 1_000, tries, terms, ..Published::default() };
        let mut history = History { tolerance_ms: 50, ..History::default() };
        history.published.insert("a".to_owned(), message);
        history
    }

    #[test]
    fn a_look_by_time_passes_nothing_that_is_younger() {
        let broken = |time_ms, start, found, ttl_ms| {
            let (mut history, findings) = (history(ttl_ms), Findings::default());
            let (start, found) = (Offset(start), Offset(found));
            history.sought.push(Sought { topic: 0, time_ms, start, found, at_ms: 3_000 });
            check_sought(&history, |_| false, &findings);
            findings.violations().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(broken(900, 0, 6, None), ["NoSkip"]);
        assert_eq!(broken(900, 0, 5, None), [""; 0]);
        assert_eq!(broken(1_000, 0, 6, None), [""; 0], "it may have been stored then");
        assert_eq!(broken(900, 6, 7, None), [""; 0], "it was removed");
        assert_eq!(broken(900, 0, 6, Some(2_000)), [""; 0], "it had expired");
    }

    #[test]
    fn what_stands_somewhere_is_found_by_its_id() {
        let look = |start, ttl_ms, retention_ms, damaged| {
            let (mut history, findings) = (history(ttl_ms), Findings::default());
            history.keeping = vec![Keeping { retention_ms, retention_bytes: None }];
            history.begins(0, Offset(start), 9_000);
            history.unfound.push(("a".to_owned(), 3_000));
            check_sought(&history, |_| damaged, &findings);
            findings.violations().into_keys().collect::<Vec<_>>()
        };
        let broken = |start, ttl_ms| look(start, ttl_ms, None, false);
        assert_eq!(look(0, None, Some(1_000), false), ["NoSkip"], "somebody would know");
        assert_eq!(look(0, None, Some(1_000), true), [""; 0], "nobody could be told");
        assert_eq!(look(0, None, Some(9_000), true), ["NoSkip"], "it was too young to go");
        assert_eq!(look(0, None, None, true), ["NoSkip"], "nothing may go");
        assert_eq!(broken(0, None), ["NoSkip"]);
        assert_eq!(broken(6, None), [""; 0], "it was removed");
        assert_eq!(broken(0, Some(2_000)), [""; 0], "it had expired");
    }
}
