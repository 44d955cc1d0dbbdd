//! GET /openapi.json: the description of the API, generated from the code that serves it.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::OpenApi;

use super::{
    batch, configuration, dead_letters, fetch, health, index, json, metrics, publish, socket,
    status, stream, subscribe, subscriptions, topics, verdicts,
};

/// The endpoints that the description covers: those of the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sprawl",
        description = "A self-hosted publish/subscribe broker: publish, read, subscribe and \
                       acknowledge over plain HTTP. Every failure is a problem document \
                       (RFC 9457).",
    ),
    paths(
        index::index,
        publish::publish,
        publish::publish_raw,
        batch::publish_batch,
        subscribe::subscribe,
        subscriptions::list,
        subscriptions::one,
        subscriptions::delete,
        subscriptions::pull,
        stream::stream,
        socket::socket,
        verdicts::acknowledge,
        verdicts::give_back,
        verdicts::extend,
        topics::list,
        topics::one,
        configuration::put,
        configuration::patch,
        configuration::delete,
        configuration::purge,
        dead_letters::redrive,
        fetch::fetch,
        health::health,
        health::healthz,
        health::live,
        health::ready,
        status::status,
        metrics::metrics,
        self::openapi,
    )
)]
struct Api;

/// The description.
pub(super) fn document() -> &'static utoipa::openapi::OpenApi {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Api::openapi);
    &DOCUMENT
}

/// Describes the API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "status",
    responses((status = 200, description = "This document"))
)]
pub(super) async fn openapi() -> Response {
    json(StatusCode::OK, document())
}
