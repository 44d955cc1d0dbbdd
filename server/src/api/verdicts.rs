//! What is to become of delivered messages: done, given back, or worked on for longer.

use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sprawl_core::broker::delivery::AckToken;
use sprawl_core::ids::SubscriptionId;
use sprawl_core::machine::{Refused, Request, Verdict};
use utoipa::ToSchema;

use super::query::{Named, NoQuery};
use super::{Face, answer, body, forms, json};
use crate::duration::Span;
use crate::problem::{Kind, Problem, ProblemDocument};

/// The most tokens that one request names.
const TOKENS_MAX: usize = 10_000;
/// The longest pause, or extension, that a client asks for.
const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What to acknowledge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledge {
    /// The `ack_token`s that came with the messages, at most 10 000.
    #[schema(value_type = Vec<forms::Token>, inline, max_items = 10_000)]
    tokens: Vec<String>,
}

/// What to give back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GiveBack {
    /// The `ack_token`s that came with the messages, at most 10 000.
    #[schema(value_type = Vec<forms::Token>, inline, max_items = 10_000)]
    tokens: Vec<String>,
    /// For how long they do not come again; without it, the subscription's `backoff`.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    delay: Option<Span>,
    /// They do not come again but become dead letters.
    #[serde(default)]
    dead_letter: bool,
}

/// What to work on for longer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Extend {
    /// The `ack_token`s that came with the messages, at most 10 000.
    #[schema(value_type = Vec<forms::Token>, inline, max_items = 10_000)]
    tokens: Vec<String>,
    /// From now to the new deadline; without it, the subscription's `ack_wait`.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    by: Option<Span>,
}

/// What was taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Settled {
    /// How many of the tokens were taken.
    acked: u32,
    /// Tokens that name no message of this subscription, or, unless to acknowledge, a delivery
    /// whose deadline is over.
    expired: Vec<String>,
}

/// Tokens, and what is to become of their messages.
pub(super) struct Judged {
    tokens: Vec<AckToken>,
    verdict: Verdict,
}

impl TryFrom<Acknowledge> for Judged {
    type Error = Problem;
    fn try_from(asked: Acknowledge) -> Result<Self, Problem> {
        Ok(Self { tokens: tokens(&asked.tokens)?, verdict: Verdict::Ack })
    }
}

impl TryFrom<GiveBack> for Judged {
    type Error = Problem;
    fn try_from(asked: GiveBack) -> Result<Self, Problem> {
        let GiveBack { tokens: names, delay, dead_letter } = asked;
        let verdict = Verdict::Nack { delay: span("delay", delay)?, dead_letter };
        Ok(Self { tokens: tokens(&names)?, verdict })
    }
}

impl TryFrom<Extend> for Judged {
    type Error = Problem;
    fn try_from(asked: Extend) -> Result<Self, Problem> {
        let verdict = Verdict::Extend { by: span("by", asked.by)? };
        Ok(Self { tokens: tokens(&asked.tokens)?, verdict })
    }
}

fn tokens(names: &[String]) -> Result<Vec<AckToken>, Problem> {
    if names.len() > TOKENS_MAX {
        let detail = format!("tokens: more than {TOKENS_MAX}; send them in parts");
        return Err(Problem::new(Kind::Impossible, detail));
    }
    let token = |text: &String| {
        text.parse::<AckToken>()
            .map_err(|error| Problem::new(Kind::Impossible, format!("tokens: '{text}': {error}")))
    };
    names.iter().map(token).collect()
}

fn span(field: &str, given: Option<Span>) -> Result<Option<Duration>, Problem> {
    match given {
        Some(Span(span)) if span > SPAN_MAX => {
            let detail = format!("{field}: longer than {} s", SPAN_MAX.as_secs());
            Err(Problem::new(Kind::Impossible, detail))
        }
        given => Ok(given.map(|span| span.0)),
    }
}

/// Acknowledges messages: they do not come again.
#[utoipa::path(
    post, path = "/subscriptions/{id}/ack", tag = "subscriptions",
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    request_body = Acknowledge,
    responses(
        (status = 200, description = "Taken", body = Settled),
        (status = "4XX", description = "Nothing was taken", body = ProblemDocument),
        (status = 503, description = "Nothing was taken; try again", body = ProblemDocument),
        (status = 504, description = "Not known; send it again", body = ProblemDocument),
    )
)]
pub(super) async fn acknowledge(
    State(face): State<Face>,
    id: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    judge::<Acknowledge>(face, id, request).await
}

/// Gives messages back: they come again after a pause, or become dead letters.
#[utoipa::path(
    post, path = "/subscriptions/{id}/nack", tag = "subscriptions",
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    request_body = GiveBack,
    responses(
        (status = 200, description = "Taken", body = Settled),
        (status = "4XX", description = "Nothing was taken", body = ProblemDocument),
        (status = 503, description = "Nothing was taken; try again", body = ProblemDocument),
        (status = 504, description = "Not known; the deadlines end the deliveries anyway",
            body = ProblemDocument),
    )
)]
pub(super) async fn give_back(
    State(face): State<Face>,
    id: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    judge::<GiveBack>(face, id, request).await
}

/// Moves the deadlines of messages that are being worked on.
#[utoipa::path(
    post, path = "/subscriptions/{id}/extend", tag = "subscriptions",
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    request_body = Extend,
    responses(
        (status = 200, description = "Taken", body = Settled),
        (status = "4XX", description = "Nothing was taken", body = ProblemDocument),
        (status = 503, description = "Nothing was taken; try again", body = ProblemDocument),
        (status = 504, description = "Not known; send it again", body = ProblemDocument),
    )
)]
pub(super) async fn extend(
    State(face): State<Face>,
    id: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    judge::<Extend>(face, id, request).await
}

async fn judge<T>(face: Face, id: Named, request: HttpRequest) -> Result<Response, Problem>
where
    T: serde::de::DeserializeOwned,
    Judged: TryFrom<T, Error = Problem>,
{
    let subscription: SubscriptionId = id.parse()?;
    let held = face.read_body(request).await?;
    let judged = body::parse::<T>(&held.bytes)?.try_into()?;
    Ok(json(StatusCode::OK, &settled(&face, &subscription, judged).await?))
}

/// Settles messages as a client asked for it, by whichever way.
pub(super) async fn settled(
    face: &Face,
    subscription: &SubscriptionId,
    Judged { tokens, verdict }: Judged,
) -> Result<Settled, Problem> {
    let (acked, expired) = settle(face, subscription, tokens, verdict).await?;
    Ok(Settled { acked, expired: expired.iter().map(ToString::to_string).collect() })
}

/// Settles messages, and tells the sessions of event streams.
pub(super) async fn settle(
    face: &Face,
    subscription: &SubscriptionId,
    tokens: Vec<AckToken>,
    verdict: Verdict,
) -> Result<(u32, Vec<AckToken>), Problem> {
    let (id, asked) = (subscription.clone(), tokens.clone());
    let request = Request::Settle { subscription: id, tokens: asked, verdict };
    let (count, expired) = answer::settled(face.ask(request, Duration::ZERO).await)?;
    // A partition knows its cursors, not the registry: to it, an unknown subscription has no lease.
    if count == 0 && !face.0.node.view().subscriptions.contains_key(subscription) {
        return Err(Refused::NoSubscription(subscription.clone()).into());
    }
    match verdict {
        // Both ways a stream's client has seen to them.
        Verdict::Ack | Verdict::Nack { .. } => {
            face.0.sessions.acknowledged(subscription, &tokens);
        }
        Verdict::Extend { .. } => {}
    }
    Ok((count, expired))
}
