//! Answers in fewer bytes, for clients that say that they take them so.
//!
//! Only an answer that is whole is compressed: what is streamed says itself when its bytes leave.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, VARY};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use std::io::Write as _;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

/// What is shorter is sent as it is: it fits into a packet anyway.
const BYTES_MIN: u64 = 1 << 10;
/// How many bytes are compressed before others get a turn on the thread.
const TURN_BYTES_MAX: usize = 64 << 10;
/// Zstandard's level: the one at which it is about as fast as memory is copied.
const ZSTD_LEVEL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
}

/// Compresses the answer to a request whose `Accept-Encoding` asks for it.
pub(crate) async fn compress(request: Request, next: Next) -> Response {
    let accepted = request.headers().get_all(ACCEPT_ENCODING).iter();
    let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let coding = choose(&accepted.join(","));
    let mut response = next.run(request).await;
    let headers = response.headers();
    let encoded = headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE);
    let long = response.body().size_hint().exact().is_some_and(|bytes| bytes >= BYTES_MIN);
    if encoded || !long {
        return response;
    }
    // Caches learn that another client may get other bytes.
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    match coding {
        Some(coding) => smaller(response, coding).await,
        None => response,
    }
}

async fn smaller(response: Response, coding: Coding) -> Response {
    let (mut head, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        // The body breaks off for the client as it did here.
        Err(error) => {
            let broken = futures_util::stream::once(async { Err::<Bytes, _>(error) });
            return Response::from_parts(head, Body::from_stream(broken));
        }
    };
    let (name, compressed) = match coding {
        Coding::Zstd => ("zstd", zstd(&bytes).await),
        Coding::Gzip => ("gzip", gzip(&bytes).await),
    };
    let Some(compressed) = compressed else {
        return Response::from_parts(head, Body::from(bytes));
    };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    Response::from_parts(head, Body::from(compressed))
}

/// The coding that the client likes best; of two that it likes alike, the faster one.
fn choose(accepted: &str) -> Option<Coding> {
    let weight = |name: &str| {
        let mut any = None;
        for one in accepted.split(',') {
            let mut parts = one.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let q = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            let q = q.unwrap_or(1.0);
            if coding.eq_ignore_ascii_case(name) {
                return q;
            }
            if coding == "*" {
                any = Some(q);
            }
        }
        any.unwrap_or(0.0)
    };
    let (zstd, gzip) = (weight("zstd"), weight("gzip"));
    match (zstd > 0.0, gzip > 0.0) {
        (true, _) if zstd >= gzip => Some(Coding::Zstd),
        (_, true) => Some(Coding::Gzip),
        (_, false) => None,
    }
}

/// `None` when the library has no memory.
async fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
    let mut compressed = Vec::with_capacity(bytes.len() / 4);
    let mut piece = vec![0; CCtx::out_size()];
    let mut rest = bytes;
    loop {
        let (turn, later) = rest.split_at(rest.len().min(TURN_BYTES_MAX));
        rest = later;
        let last = rest.is_empty();
        let end =
            if last { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_continue };
        let mut input = InBuffer::around(turn);
        loop {
            let mut output = OutBuffer::around(&mut piece[..]);
            let left = context.compress_stream2(&mut output, &mut input, end).ok()?;
            compressed.extend_from_slice(output.as_slice());
            let taken = input.pos() == turn.len();
            if taken && (!last || left == 0) {
                break;
            }
        }
        if last {
            return Some(compressed);
        }
        tokio::task::yield_now().await;
    }
}

async fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    for turn in bytes.chunks(TURN_BYTES_MAX) {
        encoder.write_all(turn).ok()?;
        tokio::task::yield_now().await;
    }
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses() {
        for (accepted, chosen) in [
            ("", None),
            ("br", None),
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("ZSTD;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("zstd;q=0, gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *", Some(Coding::Gzip)),
            ("*;q=0", None),
            (";;,q=,;q=x", None),
        ] {
            assert_eq!(choose(accepted), chosen, "{accepted}");
        }
    }
}
