//! OnlyWanted: a subscription receives only what its topics and its filter mean.

use super::Findings;
use crate::history::{History, Seen};

/// Checks a message that a subscription was given.
pub(crate) fn check_wanted(history: &History, name: &str, seen: &Seen, findings: &Findings) {
    let (Some(subscribed), Some(message)) =
        (history.subscribed.get(name), history.published.get(&seen.id))
    else {
        return;
    };
    if !subscribed.topics.contains(&seen.topic) || !subscribed.wants(&message.terms) {
        let detail = format!("{name} received {} of topic {}", seen.id, seen.topic);
        findings.violated("OnlyWanted", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Published, Subscribed, Terms};
    use crate::plan::Filter;

    fn broken(topic: u32, kind: Option<&str>, filter: Option<Filter>) -> Vec<&'static str> {
        let mut history = History::default();
        let subscribed = Subscribed { topics: vec![1], filter, ..Subscribed::default() };
        history.subscribed.insert("s".to_owned(), subscribed);
        let key = Some("k1".to_owned());
        let terms = Terms { kind: kind.map(str::to_owned), key, ..Terms::default() };
        history.published.insert("a".to_owned(), Published { terms, ..Published::default() });
        let findings = Findings::default();
        let seen = Seen { id: "a".to_owned(), topic, ..Seen::default() };
        check_wanted(&history, "s", &seen, &findings);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn what_nobody_asked_for_does_not_come() {
        let kinds = || Some(Filter::Kinds(vec!["x".to_owned()]));
        assert_eq!(broken(1, None, None), [""; 0]);
        assert_eq!(broken(2, None, None), ["OnlyWanted"]);
        assert_eq!(broken(1, Some("x"), kinds()), [""; 0]);
        assert_eq!(broken(1, Some("y"), kinds()), ["OnlyWanted"]);
        assert_eq!(broken(1, None, kinds()), ["OnlyWanted"]);
        assert_eq!(broken(1, None, Some(Filter::NoKind)), [""; 0]);
        assert_eq!(broken(1, Some("x"), Some(Filter::NoKind)), ["OnlyWanted"]);
        assert_eq!(broken(1, None, Some(Filter::KeyPrefix("k".to_owned()))), [""; 0]);
        assert_eq!(broken(1, None, Some(Filter::KeyPrefix("l".to_owned()))), ["OnlyWanted"]);
        assert_eq!(broken(1, None, Some(Filter::Keys(vec!["k1".to_owned()]))), [""; 0]);
        assert_eq!(broken(1, None, Some(Filter::Keys(Vec::new()))), ["OnlyWanted"]);
    }
}
