//! Which topics a subscription means: plain names, and patterns over the levels of names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BadName, NAME_BYTES_MAX, TopicName};

/// A topic's name in which `*` stands for any one level and a last `>` for one or more levels.
///
/// A pattern that begins with a wildcard does not mean the system's own topics: those are meant
/// by their first level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(Arc<str>);

/// Why a text is no pattern. Nothing was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// What is not a wildcard breaks the rules of names.
    #[error(transparent)]
    Name(#[from] BadName),
    /// `*` is beside other characters, or `>` is not a last level of its own.
    #[error("'*' stands for a whole level and '>' for the last levels, as in 'a.*.c' and 'a.>'")]
    Wildcard,
}

impl TopicPattern {
    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one topic that it means, when it has no wildcard.
    #[must_use]
    pub fn plain(&self) -> Option<TopicName> {
        self.0.parse().ok()
    }

    /// Whether it means this topic.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        if topic.is_system() && self.0.starts_with(['*', '>']) {
            return false;
        }
        let mut levels = topic.as_str().split('.');
        for wanted in self.0.split('.') {
            let Some(level) = levels.next() else { return false };
            match wanted {
                ">" => return true,
                "*" => {}
                name if name == level => {}
                _other => return false,
            }
        }
        levels.next().is_none()
    }
}

impl FromStr for TopicPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if text.len() > NAME_BYTES_MAX {
            return Err(BadName::Length.into());
        }
        let levels = text.split('.').count();
        let mut plain = Vec::with_capacity(levels);
        for (at, level) in text.split('.').enumerate() {
            match level {
                "*" => plain.push("x"),
                ">" if at + 1 == levels => plain.push("x"),
                name if name.contains(['*', '>']) => return Err(BadPattern::Wildcard),
                name => plain.push(name),
            }
        }
        let _: TopicName = plain.join(".").parse()?;
        Ok(Self(text.into()))
    }
}

impl From<TopicName> for TopicPattern {
    fn from(name: TopicName) -> Self {
        Self(name.as_str().into())
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = BadPattern;
    fn try_from(text: String) -> Result<Self, BadPattern> {
        text.parse()
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> String {
        pattern.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(pattern: &str, topic: &str) -> bool {
        let pattern: TopicPattern = pattern.parse().expect("a pattern");
        pattern.matches(&topic.parse().expect("a name"))
    }

    #[test]
    fn a_star_is_one_level_and_an_arrow_the_rest() {
        assert!(means("orders", "orders") && !means("orders", "orders.eu"));
        assert!(means("orders.*", "orders.eu") && !means("orders.*", "orders"));
        assert!(means("*.paid", "orders.paid") && !means("orders.*", "orders.eu.paid"));
        assert!(means("orders.>", "orders.eu.paid") && !means("orders.>", "orders"));
        assert!(means(">", "a") && means("*.b.>", "a.b.c"));
    }

    #[test]
    fn the_systems_topics_are_meant_by_their_first_level() {
        assert!(!means(">", "_dead.orders") && !means("*.orders", "_dead.orders"));
        assert!(means("_dead.>", "_dead.orders"));
    }

    #[test]
    fn a_pattern_is_a_name_with_whole_levels_left_open() {
        for (bad, why) in [
            ("a*", BadPattern::Wildcard),
            (">.a", BadPattern::Wildcard),
            ("a.>b", BadPattern::Wildcard),
            ("", BadName::EmptyLevel.into()),
            ("a..*", BadName::EmptyLevel.into()),
            ("a b.*", BadName::Character.into()),
        ] {
            let found = bad.parse::<TopicPattern>();
            assert!(found == Err(why) || bad.is_empty() && found.is_err(), "{bad:?}: {found:?}");
        }
        let plain: TopicPattern = "a.b".parse().expect("a pattern");
        assert_eq!(plain.plain().map(|name| name.to_string()), Some("a.b".to_owned()));
        assert_eq!("a.*".parse::<TopicPattern>().expect("a pattern").plain(), None);
    }
}
