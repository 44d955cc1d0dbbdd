//! GET /topics/{topic}/messages: reading without a subscription.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::ids::{Offset, TopicName};
use sprawl_core::machine::{FetchFrom, Request};
use utoipa::ToSchema;

use super::query::{Named, Query};
use super::{Face, answer, json};
use crate::message::Message;
use crate::problem::{Kind, Problem, ProblemDocument};

/// Messages of one partition, ascending.
#[derive(Serialize, ToSchema)]
pub(super) struct Messages {
    /// The messages; none when there are none from `offset` on.
    messages: Vec<Message>,
    /// The number of the partition within the topic.
    partition: u32,
    /// The offset to go on with.
    next_offset: u64,
    /// The offset that the next message of the partition will have.
    end_offset: u64,
}

/// Reads messages of a partition from an offset on.
#[utoipa::path(
    get, path = "/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = String, Path, description = "The topic"),
        ("partition" = Option<u32>, Query, description = "Its number; 0 by default"),
        ("offset" = Option<u64>, Query, description = "The first offset wanted; 0 by default"),
        ("max" = Option<usize>, Query, description = "How many, 1 to 1000; 100 by default"),
        ("wait" = Option<String>, Query,
            description = "How long to wait for the first one, up to 30s; not at all by default"),
    ),
    responses(
        (status = 200, description = "What there is", body = Messages),
        (status = "4XX", description = "Malformed, or no such topic", body = ProblemDocument),
        (status = 500, description = "Stored data is damaged", body = ProblemDocument),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn fetch(
    State(face): State<Face>,
    topic: Named,
    mut query: Query,
) -> Result<Response, Problem> {
    let topic: TopicName = topic.parse()?;
    let partition = query.number("partition", 0)?;
    let from = Offset(query.number("offset", 0)?);
    let (count_max, wait) = (query.max()?, query.wait()?);
    query.end("partition, offset, max, wait")?;
    let request = |wait| {
        let topic = topic.clone();
        let from = FetchFrom::Offset(from);
        Request::Fetch { topic, partition, from, count_max, wait }
    };
    let stopping = face.0.stopping.clone();
    let response = tokio::select! {
        biased;
        response = face.ask(request(wait), wait) => response,
        // A node that stops does not wait for what may not come: it says what there is.
        () = stopping.given() => face.ask(request(Duration::ZERO), Duration::ZERO).await,
    };
    let page = answer::fetched(response)?;
    let messages = page.records.iter().map(|record| Message::of(&topic, page.partition, record));
    let messages = messages.collect::<Result<_, _>>().map_err(damaged)?;
    let (next_offset, end_offset) = (page.next.0, page.end.0);
    let partition = page.partition;
    Ok(json(StatusCode::OK, &Messages { messages, partition, next_offset, end_offset }))
}

/// What to say about an entry whose checksum holds and which still spells no message.
pub(super) fn damaged(error: sprawl_core::broker::replica::BadEntry) -> Problem {
    Problem::new(Kind::Damaged, format!("stored data is damaged: {error}"))
}
