//! POST /subscribe: a durable subscription, whose beginning is fixed before the answer.

use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sprawl_core::cluster::subscription::{DeliveryAsked, SUBSCRIPTION_TOPICS_MAX, StartFrom};
use sprawl_core::ids::{Offset, SubscriptionId, TopicName};
use sprawl_core::machine::{ControlRequest, ControlResponse};
use utoipa::ToSchema;

use super::{ANSWER_WAIT_MAX, Face, body, json};
use crate::duration::Span;
use crate::problem::{Kind, Problem, ProblemDocument};

/// How long a delivered message may stay unacknowledged when the subscription does not say.
const ACK_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The least that it may be.
const ACK_WAIT_MIN: Duration = Duration::from_millis(100);
/// The most that it may be.
const ACK_WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A subscription to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    /// Plain names of topics; those that do not exist are made.
    topics: Vec<String>,
    /// Names the subscription; the same id again is the same one. The node makes one if none.
    #[serde(default)]
    id: Option<String>,
    /// `latest` (by default), `earliest`, or an offset.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    from: Option<Value>,
    /// How long a delivered message may stay unacknowledged before it comes again; 30s by default.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ack_wait: Option<Span>,
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
    request: HttpRequest,
) -> Result<Response, Problem> {
    let held = face.read_body(request).await?;
    let asked: Subscribe = body::parse(&held.bytes)?;
    let id: SubscriptionId = asked
        .id
        .unwrap_or_else(|| face.0.mint.id())
        .parse()
        .map_err(|error| impossible("id", &error))?;
    let topics = topics(&asked.topics)?;
    let from = asked.from.as_ref().map_or(Ok(StartFrom::Latest), start)?;
    let ack_wait = asked.ack_wait.map_or(ACK_WAIT_DEFAULT, |span| span.0);
    if !(ACK_WAIT_MIN..=ACK_WAIT_MAX).contains(&ack_wait) {
        return Err(impossible("ack_wait", &"it is from 100ms to 24h"));
    }
    let delivery = DeliveryAsked { ack_wait: Some(ack_wait), ..DeliveryAsked::default() };
    let topics = topics.into_iter().map(Into::into).collect();
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
        ControlResponse::Done => panic!("a subscription was answered in another kind"),
        ControlResponse::Refused(refused) => Err(refused.into()),
        ControlResponse::Unknown => Err(Problem::outcome_unknown()),
    }
}

fn impossible(field: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Impossible, format!("{field}: {why}"))
}

fn topics(names: &[String]) -> Result<Vec<TopicName>, Problem> {
    if !(1..=SUBSCRIPTION_TOPICS_MAX).contains(&names.len()) {
        let why = format!("a subscription names 1 to {SUBSCRIPTION_TOPICS_MAX} of them");
        return Err(impossible("topics", &why));
    }
    let topic = |name: &String| {
        if name.contains(['*', '>']) {
            let why = format!("'{name}': this version takes plain names, no wildcards");
            return Err(impossible("topics", &why));
        }
        name.parse().map_err(|error| impossible("topics", &format!("'{name}': {error}")))
    };
    let mut topics: Vec<TopicName> = names.iter().map(topic).collect::<Result<_, _>>()?;
    topics.sort();
    topics.dedup();
    Ok(topics)
}

fn start(from: &Value) -> Result<StartFrom, Problem> {
    let offset = match from {
        Value::String(word) if word == "latest" => return Ok(StartFrom::Latest),
        Value::String(word) if word == "earliest" => return Ok(StartFrom::Earliest),
        Value::String(number) => number.parse().ok(),
        Value::Number(number) => number.as_u64(),
        Value::Null => return Ok(StartFrom::Latest),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    offset.map(|offset| StartFrom::Offset(Offset(offset))).ok_or_else(|| {
        impossible("from", &"in this version it is \"latest\", \"earliest\" or an offset")
    })
}
