//! The registry of subscriptions, pulling from one, and acknowledging.

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sprawl_core::broker::delivery::AckToken;
use sprawl_core::cluster::subscription::{self, StartFrom};
use sprawl_core::ids::SubscriptionId;
use sprawl_core::machine::{Refused, Request, Verdict};
use std::time::Duration;
use utoipa::ToSchema;

use super::query::{Named, Query};
use super::{Face, answer, body, fetch, json};
use crate::duration;
use crate::message::Message;
use crate::problem::{Kind, Problem, ProblemDocument};

/// The most tokens that one request acknowledges.
const TOKENS_MAX: usize = 10_000;

/// A durable subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscription {
    /// Its id.
    id: String,
    /// What it receives.
    topics: Vec<String>,
    /// Where it began: `latest`, `earliest`, or an offset.
    from: String,
    /// How many seconds a delivered message may stay unacknowledged.
    ack_wait: f64,
}

impl Subscription {
    fn of(subscription: &subscription::Subscription) -> Self {
        Self {
            id: subscription.id.to_string(),
            topics: subscription.topics.iter().map(ToString::to_string).collect(),
            from: match subscription.from {
                StartFrom::Latest => "latest".to_owned(),
                StartFrom::Earliest => "earliest".to_owned(),
                StartFrom::Offset(offset) => offset.to_string(),
                StartFrom::Time(time) => duration::rfc3339(time),
            },
            ack_wait: subscription.delivery.ack_wait.as_secs_f64(),
        }
    }
}

/// All durable subscriptions.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscriptions {
    /// How many there are.
    count: usize,
    /// Each, ascending by id.
    subscriptions: Vec<Subscription>,
}

/// Lists the durable subscriptions.
#[utoipa::path(
    get, path = "/subscriptions", tag = "subscriptions",
    responses((status = 200, description = "All of them", body = Subscriptions))
)]
pub(super) async fn list(State(face): State<Face>, query: Query) -> Result<Response, Problem> {
    query.end("")?;
    let view = face.0.node.view();
    let subscriptions: Vec<_> =
        view.subscriptions.values().map(|subscription| Subscription::of(subscription)).collect();
    let count = subscriptions.len();
    Ok(json(StatusCode::OK, &Subscriptions { count, subscriptions }))
}

/// Shows one durable subscription.
#[utoipa::path(
    get, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = String, Path, description = "The subscription")),
    responses(
        (status = 200, description = "The subscription", body = Subscription),
        (status = 404, description = "There is none of this id", body = ProblemDocument),
    )
)]
pub(super) async fn one(State(face): State<Face>, id: Named) -> Result<Response, Problem> {
    let id: SubscriptionId = id.parse()?;
    let view = face.0.node.view();
    match view.subscriptions.get(&id) {
        Some(subscription) => Ok(json(StatusCode::OK, &Subscription::of(subscription))),
        None => Err(Refused::NoSubscription(id).into()),
    }
}

/// Messages of a subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct Pulled {
    /// The messages, each with `attempt` and `ack_token`; none when the wait ended without any.
    messages: Vec<Message>,
}

/// Takes messages of a subscription; each comes again unless it is acknowledged in time.
#[utoipa::path(
    get, path = "/subscriptions/{id}/messages", tag = "subscriptions",
    params(
        ("id" = String, Path, description = "The subscription"),
        ("max" = Option<usize>, Query, description = "How many, 1 to 1000; 100 by default"),
        ("wait" = Option<String>, Query,
            description = "How long to wait for the first one, up to 30s; not at all by default"),
    ),
    responses(
        (status = 200, description = "What there is", body = Pulled),
        (status = "4XX", description = "Malformed, or no such subscription",
            body = ProblemDocument),
        (status = 500, description = "Stored data is damaged", body = ProblemDocument),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn pull(
    State(face): State<Face>,
    id: Named,
    mut query: Query,
) -> Result<Response, Problem> {
    let subscription = id.parse()?;
    let (count_max, wait) = (query.max()?, query.wait()?);
    query.end("max, wait")?;
    let request = |wait| Request::Pull { subscription, count_max, wait };
    // A node that stops leases nothing that it might not deliver any more.
    let wait = if face.0.stopping.is_given() { Duration::ZERO } else { wait };
    let stopping = face.0.stopping.clone();
    let messages = tokio::select! {
        biased;
        response = face.ask(request(wait), wait) => answer::pulled(response)?,
        () = stopping.given(), if !wait.is_zero() => Vec::new(),
    };
    let messages = messages.iter().map(Message::delivered);
    let messages = messages.collect::<Result<_, _>>().map_err(fetch::damaged)?;
    Ok(json(StatusCode::OK, &Pulled { messages }))
}

/// What to acknowledge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledge {
    /// The `ack_token`s that came with the messages, at most 10 000.
    tokens: Vec<String>,
}

/// What was acknowledged.
#[derive(Serialize, ToSchema)]
pub(super) struct Acknowledged {
    /// How many messages are acknowledged now.
    acked: u32,
    /// Tokens that name no message of this subscription.
    expired: Vec<String>,
}

/// Acknowledges messages: they do not come again.
#[utoipa::path(
    post, path = "/subscriptions/{id}/ack", tag = "subscriptions",
    params(("id" = String, Path, description = "The subscription")),
    request_body = Acknowledge,
    responses(
        (status = 200, description = "Taken", body = Acknowledged),
        (status = "4XX", description = "Nothing was acknowledged", body = ProblemDocument),
        (status = 503, description = "Nothing was acknowledged; try again",
            body = ProblemDocument),
        (status = 504, description = "Not known; acknowledge again", body = ProblemDocument),
    )
)]
pub(super) async fn acknowledge(
    State(face): State<Face>,
    id: Named,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let subscription: SubscriptionId = id.parse()?;
    let held = face.read_body(request).await?;
    let acknowledge = body::parse(&held.bytes)?;
    Ok(json(StatusCode::OK, &acknowledged(&face, &subscription, acknowledge).await?))
}

/// Acknowledges messages as a client asked for it, by whichever way.
pub(super) async fn acknowledged(
    face: &Face,
    subscription: &SubscriptionId,
    acknowledge: Acknowledge,
) -> Result<Acknowledged, Problem> {
    let Acknowledge { tokens } = acknowledge;
    if tokens.len() > TOKENS_MAX {
        let detail = format!("tokens: more than {TOKENS_MAX}; acknowledge in parts");
        return Err(Problem::new(Kind::Impossible, detail));
    }
    let token = |text: &String| {
        text.parse::<AckToken>()
            .map_err(|error| Problem::new(Kind::Impossible, format!("tokens: '{text}': {error}")))
    };
    let tokens = tokens.iter().map(token).collect::<Result<_, _>>()?;
    let (acked, expired) = settle(face, subscription, tokens).await?;
    let expired = expired.iter().map(ToString::to_string).collect();
    Ok(Acknowledged { acked, expired })
}

/// Acknowledges messages, and tells the sessions of event streams.
pub(super) async fn settle(
    face: &Face,
    subscription: &SubscriptionId,
    tokens: Vec<AckToken>,
) -> Result<(u32, Vec<AckToken>), Problem> {
    let request = Request::Settle {
        subscription: subscription.clone(),
        tokens: tokens.clone(),
        verdict: Verdict::Ack,
    };
    let response = face.ask(request, Duration::ZERO).await;
    let (acked, expired) = answer::settled(response)?;
    // A partition knows its cursors, not the registry: to it, an unknown subscription has no lease.
    if acked == 0 && !face.0.node.view().subscriptions.contains_key(subscription) {
        return Err(Refused::NoSubscription(subscription.clone()).into());
    }
    face.0.sessions.acknowledged(subscription, &tokens);
    Ok((acked, expired))
}
