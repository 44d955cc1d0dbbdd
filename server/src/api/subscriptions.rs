//! The registry of subscriptions, and pulling from one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::subscription::{self, StartFrom};
use sprawl_core::ids::SubscriptionId;
use sprawl_core::machine::{ControlRequest, Refused, Request};
use std::time::Duration;
use utoipa::ToSchema;

use super::filter::Filter;
use super::query::{Named, NoQuery, Query};
use super::{Face, answer, fetch, forms, json};
use crate::duration;
use crate::message::Message;
use crate::problem::{Problem, ProblemDocument};

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
    /// How often a message is delivered at most before it becomes a dead letter.
    max_deliver: u32,
    /// The pauses before repeats, in seconds.
    backoff: Vec<f64>,
    /// Which messages it receives; all where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Filter>,
    /// For how many seconds nobody may use it before it is removed.
    expires: f64,
    /// The topics that there are of what it names.
    matched: Vec<String>,
}

impl Subscription {
    fn of(subscription: &subscription::Subscription) -> Self {
        let delivery = &subscription.delivery;
        Self {
            id: subscription.id.to_string(),
            topics: subscription.topics.iter().map(ToString::to_string).collect(),
            from: match subscription.from {
                StartFrom::Latest => "latest".to_owned(),
                StartFrom::Earliest => "earliest".to_owned(),
                StartFrom::Offset(offset) => offset.to_string(),
                StartFrom::Time(time) => duration::rfc3339(time),
            },
            ack_wait: delivery.ack_wait.as_secs_f64(),
            max_deliver: delivery.max_deliver,
            backoff: delivery.backoff.iter().map(Duration::as_secs_f64).collect(),
            filter: Filter::of(&delivery.filter),
            expires: delivery.expires.as_secs_f64(),
            matched: subscription.matched.iter().map(ToString::to_string).collect(),
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
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    responses(
        (status = 200, description = "The subscription", body = Subscription),
        (status = 404, description = "There is none of this id", body = ProblemDocument),
    )
)]
pub(super) async fn one(
    State(face): State<Face>,
    id: Named,
    _: NoQuery,
) -> Result<Response, Problem> {
    let id: SubscriptionId = id.parse()?;
    let view = face.0.node.view();
    match view.subscriptions.get(&id) {
        Some(subscription) => Ok(json(StatusCode::OK, &Subscription::of(subscription))),
        None => Err(Refused::NoSubscription(id).into()),
    }
}

/// Something is gone.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Always `deleted`.
    status: &'static str,
    /// What was deleted.
    id: String,
}

impl Deleted {
    pub(super) fn named(id: impl ToString) -> Self {
        Self { status: "deleted", id: id.to_string() }
    }
}

/// Removes a durable subscription: where it was is forgotten.
#[utoipa::path(
    delete, path = "/subscriptions/{id}", tag = "subscriptions",
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = 404, description = "There is none of this id", body = ProblemDocument),
        (status = 503, description = "It is still there; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn delete(
    State(face): State<Face>,
    id: Named,
    _: NoQuery,
) -> Result<Response, Problem> {
    let id: SubscriptionId = id.parse()?;
    face.change(ControlRequest::Unsubscribe { id: id.clone() }).await?;
    Ok(json(StatusCode::OK, &Deleted::named(id)))
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
        ("id" = inline(forms::Name), Path, description = "The subscription"),
        ("max" = Option<usize>, Query, minimum = 1, maximum = 1000,
            description = "How many, 1 to 1000; 100 by default"),
        ("wait" = inline(Option<forms::SpanText>), Query,
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
