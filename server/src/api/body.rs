//! Reading a request's body: bounded in bytes, in time, and over all requests together.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::error::Category;
use sprawl_core::ids::Source;

use super::Face;
use crate::connection::Place;
use crate::guests::{Guest, Share};
use crate::problem::{Kind, Problem};

/// How many bytes of a body that is too large are read and dropped, so that the client, which
/// still writes, gets to read the answer.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// A body, and its share of the budget for as long as it is held.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    share: Share,
}

impl Held {
    /// Who sent it.
    pub(super) fn source(&self) -> Source {
        self.share.source()
    }
}

impl Face {
    /// Reads a whole body.
    ///
    /// # Errors
    ///
    /// 413 above the limit, 408 when it takes too long, 429 when the client has its share of
    /// all bodies, 400 when it breaks off.
    pub(super) async fn read_body(&self, request: Request) -> Result<Held, Problem> {
        let wait = self.0.limits.body_wait_max;
        let seconds = wait.as_secs();
        tokio::time::timeout(wait, self.gather(request)).await.unwrap_or_else(|_| {
            let detail = format!("the body did not arrive within {seconds} s");
            Err(Problem::new(Kind::TooSlow, detail))
        })
    }

    async fn gather(&self, request: Request) -> Result<Held, Problem> {
        let limit = self.0.limits.body_bytes_max;
        let place = request.extensions().get::<Place>();
        let guest = place.expect("each request bears the place of its connection").guest.clone();
        let waits_for_leave = request.headers().contains_key(EXPECT);
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let mut body = request.into_body();
        if announced.is_some_and(|length| length > limit) {
            if !waits_for_leave {
                discard(&mut body).await;
            }
            return Err(too_large(limit));
        }
        let mut share = hold(&guest, 0)?;
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|_| Problem::new(Kind::Malformed, "the body broke off before its end"))?;
            let Ok(part) = frame.into_data() else { continue };
            if first.len() + all.len() + part.len() > limit {
                discard(&mut body).await;
                return Err(too_large(limit));
            }
            if !share.grow(part.len()) {
                discard(&mut body).await;
                return Err(over_share());
            }
            // A body of one part, as small ones are, is not copied.
            if first.is_empty() && all.is_empty() {
                first = part;
                continue;
            }
            if all.is_empty() {
                all.reserve(announced.unwrap_or(2 * (first.len() + part.len())));
                all.extend_from_slice(&first);
                first = Bytes::new();
            }
            all.extend_from_slice(&part);
        }
        let bytes = if all.is_empty() { first } else { all.freeze() };
        Ok(Held { bytes, share })
    }
}

/// Holds a body that is there already.
///
/// # Errors
///
/// 429 when the client has its share of all bodies.
pub(super) fn hold_body(guest: &Arc<Guest>, bytes: Bytes) -> Result<Held, Problem> {
    let share = hold(guest, bytes.len())?;
    Ok(Held { bytes, share })
}

fn hold(guest: &Arc<Guest>, bytes: usize) -> Result<Share, Problem> {
    guest.hold(bytes).ok_or_else(over_share)
}

fn over_share() -> Problem {
    let detail = "the node is overloaded, and this client has its share of requests waiting";
    Problem::new(Kind::OverShare, detail)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("a body has at most {limit} bytes; send less at once"))
}

async fn discard(body: &mut Body) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARDED_BYTES_MAX {
            return;
        }
    }
}

/// Reads a body as JSON of a known form.
///
/// # Errors
///
/// 400, which names the field that is unknown, missing or of the wrong type.
pub(super) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    // An array would be read as the fields in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let detail = "the body is a JSON array; it must be a JSON object";
        return Err(Problem::new(Kind::Malformed, detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        let mut again = serde_json::Deserializer::from_slice(body);
        let again: Result<T, _> = serde_path_to_error::deserialize(&mut again);
        let field = again.err().map(|error| error.path().to_string());
        let problem = not_understood(body, &error);
        match field.filter(|field| field != "." && error.is_data()) {
            Some(field) if !problem.names(&field) => problem.about(&field),
            Some(_) | None => problem,
        }
    })
}

/// What to say about a body that is not what it should be.
pub(super) fn not_understood(body: &[u8], error: &serde_json::Error) -> Problem {
    let said = error.to_string();
    let detail = match error.classify() {
        _ if body.iter().all(u8::is_ascii_whitespace) => {
            "the body is empty; it must be a JSON object".to_owned()
        }
        Category::Io | Category::Syntax | Category::Eof => {
            format!("the body is not JSON: {said}")
        }
        Category::Data => match said.strip_prefix("unknown field `") {
            Some(rest) => {
                let (field, rest) = rest.split_once('`').unwrap_or((rest, ""));
                let known = rest.trim_start_matches([',', ' ']);
                let known = known.split(" at line").next().unwrap_or(known).replace('`', "'");
                format!("this version does not have the field '{field}'; {known}")
            }
            None => format!("the body is not of the expected form: {said}"),
        },
    };
    Problem::new(Kind::Malformed, detail)
}
