//! POST /subscribe: a durable subscription, whose beginning is fixed before the answer.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sprawl_core::cluster::pattern::TopicPattern;
use sprawl_core::cluster::subscription::{
    BACKOFF_STEPS_MAX, DeliveryAsked, SUBSCRIPTION_TOPICS_MAX, StartFrom,
};
use sprawl_core::cluster::topic::DEAD_LETTERS;
use sprawl_core::ids::{Offset, SubscriptionId};
use sprawl_core::machine::{ControlRequest, ControlResponse};
use utoipa::ToSchema;

use super::filter::Filter;
use super::query::NoQuery;
use super::{ANSWER_WAIT_MAX, Face, body, forms, json, whole};
use crate::duration::{self, Span};
use crate::problem::{Kind, Problem, ProblemDocument};

/// How long a delivered message may stay unacknowledged.
const ACK_WAIT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
/// How often a message is delivered at most.
const MAX_DELIVER: RangeInclusive<u64> = 1..=10_000;
/// The longest pause before a repeat.
const BACKOFF: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3_600);
/// How long a subscription that nobody uses may live.
const EXPIRES: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(10 * 365 * 24 * 3_600);

/// A subscription to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    /// Names and patterns of topics: `*` stands for one level, a last `>` for the rest. Plainly
    /// named topics that do not exist are made; those that a pattern means are received when they
    /// come.
    #[schema(value_type = Vec<forms::Pattern>, inline, min_items = 1, max_items = 1000)]
    topics: Vec<String>,
    /// Names the subscription; the same id again is the same one. The node makes one if none.
    #[serde(default)]
    #[schema(value_type = Option<forms::Name>, inline)]
    id: Option<String>,
    /// `latest` (by default), `earliest`, an offset, or a time as RFC 3339.
    #[serde(default)]
    #[schema(value_type = forms::Beginning, inline, required = false)]
    from: Option<Value>,
    /// How long a delivered message may stay unacknowledged before it comes again; 30s by default.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    ack_wait: Option<Span>,
    /// How often a message is delivered at most before it becomes a dead letter; 5 by default.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(minimum = 1, maximum = 10_000)]
    max_deliver: Option<u64>,
    /// The pauses before the second delivery, the third, and so on; the last one stays. None by
    /// default.
    #[serde(default)]
    #[schema(value_type = Option<Vec<forms::Span>>, inline)]
    backoff: Option<Vec<Span>>,
    /// Which messages it receives; all by default.
    #[serde(default)]
    filter: Option<Filter>,
    /// For how long nobody may use it before it is removed; 7d by default.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    expires: Option<Span>,
}

/// The subscription exists.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscribed {
    /// Always `subscribed`.
    status: &'static str,
    /// The subscription's id.
    id: String,
    /// The node that answered.
    node_id: String,
    /// What it receives.
    topics: Vec<String>,
}

/// Makes a durable subscription, or finds it again.
#[utoipa::path(
    post, path = "/subscribe", tag = "subscriptions", request_body = Subscribe,
    responses(
        (status = 200, description = "It exists, and its beginning is fixed", body = Subscribed),
        (status = 409, description = "It exists with other topics", body = ProblemDocument),
        (status = "4XX", description = "Nothing was made", body = ProblemDocument),
        (status = 503, description = "Nothing was made; try again", body = ProblemDocument),
        (status = 504, description = "Not known; subscribe again under the same id",
            body = ProblemDocument),
    )
)]
pub(super) async fn subscribe(
    State(face): State<Face>,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let held = face.read_body(request).await?;
    let asked: Subscribe = body::parse(&held.bytes)?;
    let id: SubscriptionId = asked
        .id
        .unwrap_or_else(|| face.0.mint.id())
        .parse()
        .map_err(|error| impossible("id", &error))?;
    let topics = topics(&face, &asked.topics)?;
    let from = asked.from.as_ref().map_or(Ok(StartFrom::Latest), start)?;
    let delivery = DeliveryAsked {
        ack_wait: span("ack_wait", asked.ack_wait, &ACK_WAIT)?,
        max_deliver: asked.max_deliver.map(max_deliver).transpose()?,
        backoff: asked.backoff.map(backoff).transpose()?,
        filter: asked
            .filter
            .map(Filter::checked)
            .transpose()
            .map_err(|why| impossible("filter", &why))?,
        expires: span("expires", asked.expires, &EXPIRES)?,
    };
    let request = ControlRequest::Subscribe { id: id.clone(), topics, from, delivery };
    let answered = tokio::time::timeout(ANSWER_WAIT_MAX, face.0.node.control(request)).await;
    match answered.unwrap_or(ControlResponse::Unknown) {
        ControlResponse::Subscribed { topics } => {
            let subscribed = Subscribed {
                status: "subscribed",
                id: id.into(),
                node_id: face.node_id().to_owned(),
                topics: topics.into_iter().map(String::from).collect(),
            };
            Ok(json(StatusCode::OK, &subscribed))
        }
        ControlResponse::Done | ControlResponse::Status(_) => {
            panic!("a subscription was answered in another kind")
        }
        ControlResponse::Refused(refused) => Err(refused.into()),
        ControlResponse::Unknown => Err(Problem::outcome_unknown()),
    }
}

fn impossible(field: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Impossible, format!("{field}: {why}"))
}

fn span(
    field: &str,
    given: Option<Span>,
    range: &RangeInclusive<Duration>,
) -> Result<Option<Duration>, Problem> {
    match given {
        Some(Span(span)) if !range.contains(&span) => {
            let (least, most) = (range.start().as_secs_f64(), range.end().as_secs_f64());
            Err(impossible(field, &format!("it is from {least} s to {most} s")))
        }
        given => Ok(given.map(|span| span.0)),
    }
}

fn max_deliver(number: u64) -> Result<u32, Problem> {
    let fits = u32::try_from(number).ok().filter(|_| MAX_DELIVER.contains(&number));
    let (least, most) = (MAX_DELIVER.start(), MAX_DELIVER.end());
    fits.ok_or_else(|| impossible("max_deliver", &format!("it is from {least} to {most}")))
}

fn backoff(pauses: Vec<Span>) -> Result<Vec<Duration>, Problem> {
    if pauses.len() > BACKOFF_STEPS_MAX {
        return Err(impossible("backoff", &format!("more than {BACKOFF_STEPS_MAX} pauses")));
    }
    let pauses = pauses.into_iter().map(|pause| span("backoff", Some(pause), &BACKOFF));
    pauses.filter_map(Result::transpose).collect()
}

fn topics(face: &Face, names: &[String]) -> Result<Vec<TopicPattern>, Problem> {
    if !(1..=SUBSCRIPTION_TOPICS_MAX).contains(&names.len()) {
        let why = format!("a subscription names 1 to {SUBSCRIPTION_TOPICS_MAX} of them");
        return Err(impossible("topics", &why));
    }
    let view = face.0.node.view();
    let pattern = |name: &String| {
        let pattern: TopicPattern =
            name.parse().map_err(|error| impossible("topics", &format!("'{name}': {error}")))?;
        // Nobody but the system makes its topics; those for dead letters may be awaited.
        let others = pattern.plain().is_some_and(|topic| {
            let awaited = topic.as_str().split('.').next() == Some(DEAD_LETTERS);
            topic.is_system() && !awaited && !view.topics.contains_key(&topic)
        });
        if others {
            let why = format!("'{name}': names that begin with '_' are the system's own");
            return Err(impossible("topics", &why));
        }
        Ok(pattern)
    };
    names.iter().map(pattern).collect()
}

fn start(from: &Value) -> Result<StartFrom, Problem> {
    let text = match from {
        Value::Null => return Ok(StartFrom::Latest),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    match text.as_str() {
        "latest" => return Ok(StartFrom::Latest),
        "earliest" => return Ok(StartFrom::Earliest),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u64>() {
        let offset = Offset::try_from(offset).map_err(|error| impossible("from", &error))?;
        return Ok(StartFrom::Offset(offset));
    }
    duration::moment(&text).map(StartFrom::Time).map_err(|_| {
        impossible("from", &"it is \"latest\", \"earliest\", an offset, or a time as RFC 3339")
    })
}
