//! POST /publish/batch: many messages in, what became of each out.

use std::io::BufRead as _;

use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::value::RawValue;
use sprawl_core::broker::replica::Submission;
use sprawl_core::broker::routing::BATCH_ITEMS_MAX;
use sprawl_core::ids::{MessageId, TopicName};

use super::body::Held;
use super::publish::{Published, outcome};
use super::query::Query;
use super::submission::{self, Publish};
use super::{Face, body};
use crate::problem::{Kind, Problem, ProblemDocument, Stored};

/// About how long one answer is.
const ANSWER_BYTES: usize = 192;

/// What became of one message.
type Outcome = Result<Published, Problem>;

/// Stores many messages durably, each as if it had come alone.
#[utoipa::path(
    post, path = "/publish/batch", tag = "messages",
    request_body(content = Vec<Publish>, description =
        "At most 10 000 messages, in a JSON array or one a line (NDJSON); which, the body shows"),
    responses(
        (status = 200, description = "All are on the disk; one answer each, in order",
            body = Vec<Published>),
        (status = 207, description = "One answer or problem document each, in order",
            body = Vec<serde_json::Value>),
        (status = "4XX", description = "Nothing was stored", body = ProblemDocument),
        (status = 503, description = "Nothing was stored; try again", body = ProblemDocument),
    )
)]
pub(super) async fn publish_batch(
    State(face): State<Face>,
    query: Result<Query, Problem>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let whole = |problem: Problem| problem.of_publish(None, Stored::No);
    query.and_then(|query| query.end("")).map_err(whole)?;
    let held = face.read_body(request).await.map_err(whole)?;
    let _pass = face.pass(&held).await.map_err(whole)?;
    let parts = parts(&held.bytes).map_err(whole)?;
    if parts.len() > BATCH_ITEMS_MAX {
        let detail = format!("a batch has at most {BATCH_ITEMS_MAX} messages; send less at once");
        return Err(whole(Problem::new(Kind::TooLarge, detail)));
    }
    let outcomes = store(&face, &held, &parts).await;
    Ok(answer(&outcomes))
}

/// The texts of the messages.
fn parts(body: &Bytes) -> Result<Vec<&[u8]>, Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        let all: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| body::not_understood(body, &error))?;
        return Ok(all.into_iter().map(|one| one.get().as_bytes()).collect());
    }
    let (mut lines, mut rest): (Vec<&[u8]>, &[u8]) = (Vec::new(), body);
    while !rest.is_empty() {
        let line = rest;
        // Many bytes at a time, where a split would look at each.
        let len = rest.skip_until(b'\n').expect("memory can be read");
        lines.extend(Some(line[..len].trim_ascii()).filter(|line| !line.is_empty()));
    }
    if lines.is_empty() {
        let detail = "the body is empty; it must be a JSON array, or JSON objects on lines";
        return Err(Problem::new(Kind::Malformed, detail));
    }
    Ok(lines)
}

/// Stores what can be read; what cannot, has its problem at once.
async fn store(face: &Face, held: &Held, parts: &[&[u8]]) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(parts.len());
    let mut asked: Vec<(usize, MessageId, TopicName)> = Vec::with_capacity(parts.len());
    let mut items: Vec<Submission> = Vec::with_capacity(parts.len());
    for (at, json) in parts.iter().enumerate() {
        match submission::read(held.source(), &held.bytes, json, face) {
            Ok(item) => {
                asked.push((at, item.draft.envelope.id.clone(), item.topic.clone()));
                items.push(item);
                outcomes.push(None);
            }
            Err(problem) => {
                let id = submission::id_of(json, face);
                outcomes.push(Some(Err(problem.of_publish(id, Stored::No))));
            }
        }
    }
    let responses = face.publish_batch(items).await;
    for ((at, id, topic), response) in asked.into_iter().zip(responses) {
        outcomes[at] = Some(outcome(id, topic, response));
    }
    outcomes.into_iter().map(|one| one.expect("each message was read or refused")).collect()
}

/// All answers in one document, written without a tree between.
fn answer(outcomes: &[Outcome]) -> Response {
    let mut written = Vec::with_capacity(outcomes.len() * ANSWER_BYTES);
    let mut all_stored = true;
    written.push(b'[');
    for (at, one) in outcomes.iter().enumerate() {
        if at > 0 {
            written.push(b',');
        }
        let result = match one {
            Ok(published) => serde_json::to_writer(&mut written, published),
            Err(problem) => {
                all_stored = false;
                serde_json::to_writer(&mut written, &problem.document())
            }
        };
        result.expect("text and numbers have a JSON form, and memory takes it");
    }
    written.push(b']');
    let status = if all_stored { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let mut response = (status, written).into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_or_lines() {
        let read = |text: &'static str| {
            let body = Bytes::from_static(text.as_bytes());
            let parts = parts(&body)?;
            let texts = parts.iter().map(|part| String::from_utf8_lossy(part).into_owned());
            Ok(texts.collect::<Vec<_>>())
        };
        assert_eq!(
            read(" [{\"a\":1}, 7]").map_err(|e: Problem| e.kind()),
            Ok(vec!["{\"a\":1}".to_owned(), "7".to_owned()])
        );
        let lines = read("{\"a\":1}\r\n\n {} \n").map_err(|e: Problem| e.kind());
        assert_eq!(lines, Ok(vec!["{\"a\":1}".to_owned(), "{}".to_owned()]));
        for bad in ["", " \n", "[1", "[1] 2"] {
            assert_eq!(read(bad).map_err(|e: Problem| e.kind()), Err(Kind::Malformed), "{bad:?}");
        }
    }
}
