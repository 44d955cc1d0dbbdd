//! Filters as clients write them: `{"key": …, "headers": {"name": …}}`, where `…` is a text, a list
//! of texts, `{"prefix": "…"}` or `{"exists": true}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sprawl_core::cluster::subscription::{self, FILTER_TEXTS_MAX};
use utoipa::ToSchema;

/// The longest text that a filter compares with, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Which messages a subscription wants: those that pass every test.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// What the key must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Test>,
    /// What headers must be, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Test>,
}

/// What a text must be.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, a list of texts, {\"prefix\": \"…\"} or {\"exists\": true}")]
enum Test {
    /// This.
    Is(String),
    /// One of these.
    OneOf(Vec<String>),
    /// Something that begins so.
    Prefix {
        /// How it begins.
        prefix: String,
    },
    /// There, or not there.
    Exists {
        /// Whether it must be there.
        exists: bool,
    },
}

impl Filter {
    /// The filter, if its bounds hold.
    ///
    /// # Errors
    ///
    /// Why they do not.
    pub(super) fn checked(self) -> Result<subscription::Filter, String> {
        let headers = self.headers.into_iter().map(|(name, test)| (name, test.into()));
        let filter =
            subscription::Filter { key: self.key.map(Into::into), headers: headers.collect() };
        if filter.texts() > FILTER_TEXTS_MAX {
            return Err(format!("it compares with more than {FILTER_TEXTS_MAX} texts"));
        }
        let tests = filter.headers.iter().map(|(_, test)| test).chain(&filter.key);
        let long = |test: &subscription::Test| match test {
            subscription::Test::OneOf(texts) => {
                texts.iter().any(|text| text.len() > TEXT_BYTES_MAX)
            }
            subscription::Test::Prefix(text) => text.len() > TEXT_BYTES_MAX,
            subscription::Test::Exists(_) => false,
        };
        let names = filter.headers.iter().any(|(name, _)| name.len() > TEXT_BYTES_MAX);
        if names || tests.into_iter().any(long) {
            return Err(format!("it has a text of more than {TEXT_BYTES_MAX} bytes"));
        }
        Ok(filter)
    }

    /// The filter as clients write it; none where everything passes.
    pub(super) fn of(filter: &subscription::Filter) -> Option<Self> {
        let headers = filter.headers.iter().map(|(name, test)| (name.clone(), test.into()));
        let shown = Self { key: filter.key.as_ref().map(Into::into), headers: headers.collect() };
        (!filter.is_open()).then_some(shown)
    }
}

impl From<Test> for subscription::Test {
    fn from(test: Test) -> Self {
        match test {
            Test::Is(text) => Self::OneOf(vec![text]),
            Test::OneOf(texts) => Self::OneOf(texts),
            Test::Prefix { prefix } => Self::Prefix(prefix),
            Test::Exists { exists } => Self::Exists(exists),
        }
    }
}

impl From<&subscription::Test> for Test {
    fn from(test: &subscription::Test) -> Self {
        match test {
            subscription::Test::OneOf(texts) => match &texts[..] {
                [one] => Self::Is(one.clone()),
                _ => Self::OneOf(texts.clone()),
            },
            subscription::Test::Prefix(prefix) => Self::Prefix { prefix: prefix.clone() },
            subscription::Test::Exists(exists) => Self::Exists { exists: *exists },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_back_as_it_was_written() {
        let text =
            r#"{"key":{"prefix":"eu-"},"headers":{"a":"1","b":["2","3"],"c":{"exists":true}}}"#;
        let filter: Filter = serde_json::from_str(text).expect("a filter");
        let filter = filter.checked().expect("it is small");
        let shown = Filter::of(&filter).expect("it is not open");
        assert_eq!(serde_json::to_string(&shown).expect("JSON"), text);
        assert!(Filter::of(&subscription::Filter::default()).is_none());
    }

    #[test]
    fn a_filter_has_its_bounds() {
        let many = Filter { key: Some(Test::OneOf(vec![String::new(); 101])), ..Filter::default() };
        assert!(many.checked().is_err());
        let long = Filter { key: Some(Test::Is("x".repeat(4_097))), ..Filter::default() };
        assert!(long.checked().is_err());
        assert!(serde_json::from_str::<Filter>(r#"{"key":{"suffix":"x"}}"#).is_err());
    }
}
