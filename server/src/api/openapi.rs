//! GET /openapi.json: the description of the API, generated from the code that serves it.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{self, Content, ContentBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::query::NoQuery;
use super::{
    administration, batch, cluster, configuration, dead_letters, dht, fetch, health, index, json,
    membership, metrics, publish, socket, status, stream, subscribe, subscriptions, topics,
    verdicts,
};
use crate::problem;

/// What the description calls a problem document.
const PROBLEM: &str = "ProblemDocument";

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
        membership::membership,
        status::status,
        cluster::status,
        administration::leave,
        administration::decommission,
        administration::rebalance,
        dht::dht,
        metrics::metrics,
        self::openapi,
    ),
    modifiers(&Failures)
)]
struct Api;

/// What all endpoints share: a request that is refused, and the media type of the refusal.
struct Failures;

impl Modify for Failures {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let items = document.paths.paths.values_mut();
        let operations = items.flat_map(|item| {
            [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete]
        });
        for operation in operations.flatten() {
            for parameter in operation.parameters.iter_mut().flatten() {
                parameter.schema = parameter.schema.take().map(never_null);
            }
            // The only one that may be left out is a redrive's.
            if let Some(body) = &mut operation.request_body {
                let optional = body.content.values().any(|content| refers(content, "Redrive"));
                body.required = Some(if optional { Required::False } else { Required::True });
            }
            let responses = &mut operation.responses.responses;
            responses.entry("4XX".to_owned()).or_insert_with(|| RefOr::T(refused()));
            for response in responses.values_mut() {
                if let RefOr::T(response) = response {
                    say_problem(response);
                }
            }
        }
    }
}

/// A parameter is there or is not; it is never `null`.
fn never_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    let is_null = |schema: &RefOr<Schema>| match schema {
        RefOr::T(Schema::Object(object)) => object.schema_type == SchemaType::Type(Type::Null),
        RefOr::T(_) | RefOr::Ref(_) => false,
    };
    match schema {
        RefOr::T(Schema::OneOf(mut either)) => {
            either.items.retain(|item| !is_null(item));
            match either.items.pop() {
                Some(only) if either.items.is_empty() => only,
                other => {
                    either.items.extend(other);
                    RefOr::T(Schema::OneOf(either))
                }
            }
        }
        RefOr::T(Schema::Object(mut object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|kind| *kind != Type::Null);
            }
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}

/// Whether a body is of the kind of this name.
fn refers(content: &Content, name: &str) -> bool {
    match &content.schema {
        Some(RefOr::Ref(schema)) => schema.ref_location.ends_with(&format!("/{name}")),
        Some(RefOr::T(_)) | None => false,
    }
}

fn refused() -> openapi::Response {
    let document = RefOr::Ref(Ref::from_schema_name(PROBLEM));
    let content = ContentBuilder::new().schema(Some(document)).build();
    let response = ResponseBuilder::new().description("Malformed, or unknown");
    response.content("application/json", content).build()
}

/// Gives problem documents their own media type.
fn say_problem(response: &mut openapi::Response) {
    let is_problem = |content| refers(content, PROBLEM);
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.swap_remove("application/json")
    {
        response.content.insert(problem::MEDIA_TYPE.to_owned(), content);
    }
}

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
pub(super) async fn openapi(_: NoQuery) -> Response {
    json(StatusCode::OK, document())
}
