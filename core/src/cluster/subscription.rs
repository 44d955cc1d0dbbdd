//! A durable subscription: what it means, where it begins, how its messages are delivered.

use std::time::Duration;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::pattern::TopicPattern;
use crate::ids::{ChangeIndex, Offset, SubscriptionId, TopicName};
use crate::machine::WallTime;

/// The most topics and patterns that one subscription names.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 1_000;
/// The most pauses that a subscription lists for its repeats.
pub const BACKOFF_STEPS_MAX: usize = 32;
/// The most texts that a filter compares with, over all its parts.
pub const FILTER_TEXTS_MAX: usize = 100;

/// Where a subscription begins in a partition that exists when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartFrom {
    /// With the next message.
    Latest,
    /// With the first message that is retained.
    Earliest,
    /// With this offset, in each partition.
    Offset(Offset),
    /// With the first message stored at this time or later.
    Time(WallTime),
}

/// How a subscription's messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delivery {
    /// How long a delivered message may stay unacknowledged.
    pub ack_wait: Duration,
    /// How often a message is delivered at most, before it becomes a dead letter.
    pub max_deliver: u32,
    /// The pause before the second delivery, the third, and so on; the last one stays.
    pub backoff: Vec<Duration>,
    /// Which messages are delivered; the others count as acknowledged.
    pub filter: Filter,
    /// For how long nobody may use it before it is removed.
    pub expires: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            ack_wait: Duration::from_secs(30),
            max_deliver: 5,
            backoff: Vec::new(),
            filter: Filter::default(),
            expires: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

impl Delivery {
    /// The pause before the delivery with this number, which is 2 or more.
    #[must_use]
    pub fn pause(&self, attempt: u32) -> Duration {
        let at = (attempt as usize).saturating_sub(2).min(self.backoff.len().saturating_sub(1));
        self.backoff.get(at).copied().unwrap_or_default()
    }
}

/// What a client says of a delivery; what it does not say is the default, or as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeliveryAsked {
    /// See [`Delivery::ack_wait`].
    pub ack_wait: Option<Duration>,
    /// See [`Delivery::max_deliver`].
    pub max_deliver: Option<u32>,
    /// See [`Delivery::backoff`].
    pub backoff: Option<Vec<Duration>>,
    /// See [`Delivery::filter`].
    pub filter: Option<Filter>,
    /// See [`Delivery::expires`].
    pub expires: Option<Duration>,
}

impl DeliveryAsked {
    /// What is asked, over what is there.
    #[must_use]
    pub fn over(&self, base: &Delivery) -> Delivery {
        Delivery {
            ack_wait: self.ack_wait.unwrap_or(base.ack_wait),
            max_deliver: self.max_deliver.unwrap_or(base.max_deliver),
            backoff: self.backoff.clone().unwrap_or_else(|| base.backoff.clone()),
            filter: self.filter.clone().unwrap_or_else(|| base.filter.clone()),
            expires: self.expires.unwrap_or(base.expires),
        }
    }
}

/// Which messages a subscription wants: those that match every part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// What the key must be.
    pub key: Option<Test>,
    /// What headers must be, by name; of two headers of one name the first counts.
    pub headers: Vec<(String, Test)>,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Test {
    /// One of these.
    OneOf(Vec<String>),
    /// Something that begins so.
    Prefix(String),
    /// There, or not there.
    Exists(bool),
}

impl Test {
    /// Whether a text that may be absent passes.
    #[must_use]
    pub fn passes(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::OneOf(texts), Some(text)) => texts.iter().any(|one| one == text),
            (Self::Prefix(prefix), Some(text)) => text.starts_with(prefix),
            (Self::Exists(wanted), text) => *wanted == text.is_some(),
            (Self::OneOf(_) | Self::Prefix(_), None) => false,
        }
    }

    fn texts(&self) -> usize {
        match self {
            Self::OneOf(texts) => texts.len(),
            Self::Prefix(_) | Self::Exists(_) => 1,
        }
    }
}

impl Filter {
    /// Whether everything passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.key.is_none() && self.headers.is_empty()
    }

    /// How many texts it compares with.
    #[must_use]
    pub fn texts(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, test)| test.texts()).sum();
        headers + self.key.as_ref().map_or(0, Test::texts)
    }

    /// Whether a message with this key and these headers passes.
    #[must_use]
    pub fn passes(&self, key: Option<&str>, headers: &[(String, String)]) -> bool {
        let header = |name: &str| {
            headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
        };
        self.key.as_ref().is_none_or(|test| test.passes(key))
            && self.headers.iter().all(|(name, test)| test.passes(header(name)))
    }
}

/// A durable subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The change that made it: one of the same id after it is another subscription.
    pub created: ChangeIndex,
    /// What it means, ascending.
    pub topics: Vec<TopicPattern>,
    /// The topics that there are of these.
    pub matched: OrdSet<TopicName>,
    /// Where it began in partitions that were there before it.
    pub from: StartFrom,
    /// How its messages are delivered.
    pub delivery: Delivery,
    /// When somebody used it, as far as the metadata know.
    pub used: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_passes_what_matches_each_part() {
        let headers = vec![("kind".to_owned(), "paid".to_owned())];
        let filter = |key, kind| Filter { key, headers: vec![("kind".to_owned(), kind)] };
        let one_of = |text: &str| Test::OneOf(vec![text.to_owned()]);
        assert!(filter(None, one_of("paid")).passes(None, &headers));
        assert!(!filter(None, one_of("open")).passes(None, &headers));
        assert!(
            !filter(Some(Test::Prefix("eu-".to_owned())), one_of("paid")).passes(None, &headers)
        );
        let prefix = Some(Test::Prefix("eu-".to_owned()));
        assert!(filter(prefix, Test::Exists(true)).passes(Some("eu-1"), &headers));
        assert!(!filter(None, Test::Exists(false)).passes(None, &headers));
        assert!(Filter::default().is_open() && Filter::default().passes(None, &[]));
    }

    #[test]
    fn the_last_pause_stays() {
        let pauses = [1, 5].map(Duration::from_secs).to_vec();
        let delivery = Delivery { backoff: pauses, ..Delivery::default() };
        let seconds = |attempt| delivery.pause(attempt).as_secs();
        assert_eq!([seconds(2), seconds(3), seconds(4), seconds(99)], [1, 5, 5, 5]);
        assert_eq!(Delivery::default().pause(2), Duration::ZERO);
    }
}
