//! Spans and moments as people write them: `250ms`, `10s`, `2h`, seconds as a number; RFC 3339.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sprawl_core::machine::WallTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest span that is read: a hundred years, so that sums of spans stay in range.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A text that is no span. Nothing was done with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration: write seconds as a number, or 250ms, 10s, 5m, 2h or 7d")]
pub struct BadSpan(String);

/// Reads a span: a number of seconds, or a number with one of the units ms, s, m, h, d.
///
/// # Errors
///
/// [`BadSpan`] for anything else, negative numbers and spans above [`SPAN_MAX`].
pub fn parse(text: &str) -> Result<Duration, BadSpan> {
    let bad = || BadSpan(text.chars().take(32).collect());
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(bad()),
    };
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    if span > SPAN_MAX { Err(bad()) } else { Ok(span) }
}

/// A span within JSON: a number of seconds, or text; written as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of seconds, or text such as 250ms, 10s or 2h")]
        enum Written {
            Seconds(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => seconds.to_string(),
            Written::Text(text) => text,
        };
        parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A text that is no moment. Nothing was done with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no time as RFC 3339, such as 2026-11-21T07:00:00Z")]
pub struct BadMoment(String);

/// Reads a moment as RFC 3339, to the millisecond; what was before 1970 is the beginning of 1970.
///
/// # Errors
///
/// [`BadMoment`] for anything else.
pub fn moment(text: &str) -> Result<WallTime, BadMoment> {
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| BadMoment(text.chars().take(40).collect()))?;
    let millis = moment.unix_timestamp_nanos() / 1_000_000;
    Ok(WallTime(u64::try_from(millis).unwrap_or(0)))
}

/// A moment as RFC 3339 with milliseconds, in UTC.
#[must_use]
pub fn rfc3339(moment: WallTime) -> String {
    let nanos = i128::from(moment.0) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    // Beyond the year 9999 there is no RFC 3339; a clock that says so is not believed either.
    moment.ok().and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}

/// What the wall clock shows.
#[must_use]
pub fn wall_now() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallTime(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("10", 10_000),
            ("1.5", 1_500),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1e3", "ten", "1w", "1 s", "99999999999999h", "1.2.3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_in_json_is_a_number_or_text() {
        let read = |text| serde_json::from_str::<Span>(text).map(|span| span.0.as_millis()).ok();
        assert_eq!(read("2"), Some(2_000));
        assert_eq!(read("0.25"), Some(250));
        assert_eq!(read("\"1500ms\""), Some(1_500));
        assert_eq!(read("-1"), None);
        assert_eq!(read("[]"), None);
        let written = serde_json::to_string(&Span(Duration::from_millis(1_500)));
        assert_eq!(written.ok().as_deref(), Some("1.5"));
    }

    #[test]
    fn moments_are_rfc_3339() {
        assert_eq!(rfc3339(WallTime(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(WallTime(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(WallTime(u64::MAX)), "");
    }
}
