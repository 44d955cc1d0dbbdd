//! GET /: what there is.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, PathItem};

use super::query::NoQuery;
use super::{json, openapi};
use crate::VERSION;

/// What there is.
#[derive(Serialize, ToSchema)]
pub(super) struct Index {
    /// The program.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// Where the whole description is.
    openapi: &'static str,
    /// The endpoints, ascending by path.
    endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Serialize, ToSchema)]
struct Endpoint {
    /// The method.
    method: &'static str,
    /// The path.
    path: String,
    /// What it does.
    summary: String,
}

/// Lists the endpoints.
#[utoipa::path(
    get, path = "/", tag = "status",
    responses((status = 200, description = "All of them", body = Index))
)]
pub(super) async fn index(_: NoQuery) -> Response {
    let document = openapi::document();
    let endpoints = document.paths.paths.iter().flat_map(|(path, item)| {
        operations(item).map(|(method, operation)| Endpoint {
            method,
            path: path.clone(),
            summary: operation.summary.clone().unwrap_or_default(),
        })
    });
    let index = Index {
        name: "sprawl",
        version: VERSION,
        openapi: "/openapi.json",
        endpoints: endpoints.collect(),
    };
    json(StatusCode::OK, &index)
}

fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let all = [
        ("GET", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}
