//! Reading paths and query strings, with bounds, so that what is wrong is said by name.

use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use sprawl_core::ids::Offset;

use crate::duration;
use crate::problem::{Kind, Problem};

/// The most messages that one read gives.
pub const MESSAGES_MAX: usize = 1_000;
/// The longest that a read waits for its first message.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// How many messages a read gives when it does not say.
pub(super) const MESSAGES_DEFAULT: usize = 100;

/// The one parameter that a path has, decoded.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| {
            Problem::new(Kind::Malformed, "the path is not UTF-8 when it is decoded")
        })?;
        let named = params.iter().next().map(|(_, value)| value.to_owned());
        named.map(Self).ok_or_else(|| Problem::new(Kind::NoEndpoint, "the path names nothing"))
    }
}

impl Named {
    /// The name as an id of the kind that is wanted.
    ///
    /// # Errors
    ///
    /// 422, which says which rule for names it breaks.
    pub(super) fn parse<T>(&self) -> Result<T, Problem>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let Self(name) = self;
        name.parse().map_err(|error| Problem::new(Kind::Impossible, format!("'{name}': {error}")))
    }
}

/// The parameters of a query string, taken one by one; what is left over at the end is unknown.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state);
        let pairs = pairs.await.map_err(|error| {
            Problem::new(Kind::Malformed, format!("the query string: {}", error.body_text()))
        })?;
        Ok(Self(pairs.0))
    }
}

/// No parameters at all: the first that a query string has is refused by its name.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state).await?.end("")?;
        Ok(Self)
    }
}

impl Query {
    /// The value of a parameter; of two under one name the last counts.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let mut found = None;
        self.0.retain(|(key, value)| {
            let named = key == name;
            if named {
                found = Some(value.clone());
            }
            !named
        });
        found
    }

    /// A number, if there is one.
    ///
    /// # Errors
    ///
    /// 400 for what is no number.
    pub(super) fn optional<T: std::str::FromStr>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.parse().map_err(|_| {
            let detail = format!("{name}: '{value}' is not a whole number that fits");
            Problem::new(Kind::Malformed, detail)
        })?;
        Ok(Some(number))
    }

    /// A position in a partition, if there is one.
    ///
    /// # Errors
    ///
    /// 400 for what is no number, 422 for one that no node reaches.
    pub(super) fn position(&mut self, name: &str) -> Result<Option<Offset>, Problem> {
        let offset = self.optional::<u64>(name)?.map(Offset::try_from).transpose();
        offset.map_err(|error| Problem::new(Kind::Impossible, format!("{name}: {error}")))
    }

    /// A number; `default` when there is none.
    ///
    /// # Errors
    ///
    /// 400 for what is no number.
    pub(super) fn number<T: std::str::FromStr>(
        &mut self,
        name: &str,
        default: T,
    ) -> Result<T, Problem> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// `max`: how many messages, from 1 to [`MESSAGES_MAX`].
    pub(super) fn max(&mut self) -> Result<usize, Problem> {
        let max = self.number("max", MESSAGES_DEFAULT)?;
        if (1..=MESSAGES_MAX).contains(&max) {
            return Ok(max);
        }
        let detail = format!("max: {max} is not from 1 to {MESSAGES_MAX}");
        Err(Problem::new(Kind::Impossible, detail))
    }

    /// `wait`: how long to wait for the first message, up to [`WAIT_MAX`]; not at all by default.
    pub(super) fn wait(&mut self) -> Result<Duration, Problem> {
        let Some(value) = self.take("wait") else { return Ok(Duration::ZERO) };
        let wait = duration::parse(&value)
            .map_err(|error| Problem::new(Kind::Malformed, format!("wait: {error}")))?;
        if wait <= WAIT_MAX {
            return Ok(wait);
        }
        let detail = format!("wait: '{value}' is longer than {} s", WAIT_MAX.as_secs());
        Err(Problem::new(Kind::Impossible, detail))
    }

    /// Refuses what does not go together with the parameter `with`.
    ///
    /// # Errors
    ///
    /// 422, which names the first of them.
    pub(super) fn alone(self, with: &str, known: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let detail = format!("{name}: together with '{with}' there is no such; there is: {known}");
        Err(Problem::new(Kind::Impossible, detail))
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    ///
    /// 400, which names the first parameter that this version does not have.
    pub(super) fn end(self, known: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let known = if known.is_empty() { "none" } else { known };
        let detail = format!("this version does not have the parameter '{name}'; it has: {known}");
        Err(Problem::new(Kind::Malformed, detail))
    }
}
