//! GET /topics/{topic}/messages: reading without a subscription.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::ids::{MessageId, Offset, TopicName};
use sprawl_core::machine::{self, FetchFrom, Refused, Request};
use utoipa::ToSchema;

use super::query::{Named, Query};
use super::{Face, answer, forms, json};
use crate::duration::{self, BadMoment};
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
    /// The first offset that the partition retains.
    start_offset: u64,
    /// The offset that the next message of the partition will have.
    end_offset: u64,
}

/// Reads messages of a partition from an offset on.
#[utoipa::path(
    get, path = "/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = inline(forms::Name), Path, description = "The topic"),
        ("partition" = Option<u32>, Query, description = "Its number; 0 by default"),
        ("offset" = inline(Option<forms::Position>), Query,
            description = "The first offset wanted; 0 by default"),
        ("at" = Option<String>, Query, format = DateTime,
            description = "Instead of an offset: from the first message of this time or later"),
        ("id" = inline(Option<forms::Id>), Query,
            description = "The one message of this id, while its partition remembers it"),
        ("max" = Option<usize>, Query, minimum = 1, maximum = 1000,
            description = "How many, 1 to 1000; 100 by default"),
        ("wait" = inline(Option<forms::SpanText>), Query,
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
    if let Some(id) = query.take("id") {
        let partition = query.optional("partition")?;
        query.alone("id", "id, partition")?;
        return find(&face, topic, id, partition).await;
    }
    let partition = query.number("partition", 0)?;
    let from = match (query.take("at"), query.position("offset")?) {
        (Some(at), None) => {
            let moment = duration::moment(&at);
            let malformed =
                |error: BadMoment| Problem::new(Kind::Malformed, format!("at: {error}"));
            FetchFrom::Time(moment.map_err(malformed)?)
        }
        (None, offset) => FetchFrom::Offset(offset.unwrap_or(Offset(0))),
        (Some(_), Some(_)) => {
            let detail = "at and offset are both given; give one";
            return Err(Problem::new(Kind::Impossible, detail));
        }
    };
    let (count_max, wait) = (query.max()?, query.wait()?);
    query.end("partition, offset, at, id, max, wait")?;
    let request = |wait| {
        let (topic, from) = (topic.clone(), from.clone());
        Request::Fetch { topic, partition, from, count_max, wait }
    };
    let stopping = face.0.stopping.clone();
    let response = tokio::select! {
        biased;
        response = face.ask(request(wait), wait) => response,
        // A node that stops does not wait for what may not come: it says what there is.
        () = stopping.given() => face.ask(request(Duration::ZERO), Duration::ZERO).await,
    };
    page(&topic, response)
}

/// Looks a message up by its id, in one partition or in all of them.
async fn find(
    face: &Face,
    topic: TopicName,
    id: String,
    partition: Option<u32>,
) -> Result<Response, Problem> {
    let id: MessageId =
        id.parse().map_err(|error| Problem::new(Kind::Impossible, format!("id: {error}")))?;
    let view = face.0.node.view();
    let count = view.topics.get(&topic).map_or(1, |topic| topic.partitions.len() as u32);
    let mut response = machine::Response::Refused(Refused::NoMessage(id.clone()));
    for partition in partition.map_or(0..count, |one| one..one.saturating_add(1)) {
        let (topic, from) = (topic.clone(), FetchFrom::Id(id.clone()));
        let (count_max, wait) = (1, Duration::ZERO);
        let request = Request::Fetch { topic, partition, from, count_max, wait };
        response = face.ask(request, wait).await;
        if !matches!(response, machine::Response::Refused(Refused::NoMessage(_))) {
            break;
        }
    }
    page(&topic, response)
}

fn page(topic: &TopicName, response: machine::Response) -> Result<Response, Problem> {
    let page = answer::fetched(response)?;
    let messages = page.records.iter().map(|record| Message::of(topic, page.partition, record));
    let messages = messages.collect::<Result<_, _>>().map_err(damaged)?;
    let (next_offset, end_offset, start_offset) = (page.next.0, page.end.0, page.start.0);
    let partition = page.partition;
    let shown = Messages { messages, partition, next_offset, start_offset, end_offset };
    Ok(json(StatusCode::OK, &shown))
}

/// What to say about an entry whose checksum holds and which still spells no message.
pub(super) fn damaged(error: sprawl_core::broker::replica::BadEntry) -> Problem {
    Problem::new(Kind::Damaged, format!("stored data is damaged: {error}"))
}
